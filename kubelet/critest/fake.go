// Package critest is a container runtime in memory for tests of the kubelet: its containers do what a script says. It runs
// no process, and pods never see it.
package critest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/kubelet/cri"
)

// Fake implements cri.Runtime. Set the script fields before use; it is safe for concurrent use.
type Fake struct {
	// OnStart decides the fate of a container that starts: exits tells that it ends at once with code.
	OnStart func(c *runtimeapi.ContainerConfig) (code int32, exits bool)
	// OnExec answers ExecSync and ExecStream.
	OnExec func(containerID string, cmd []string) (stdout string, code int32)
	// OnPull may refuse a pull.
	OnPull func(image string, auth *runtimeapi.AuthConfig) error
	// OnStop delays the end of a stopped container; the grace period is in seconds.
	OnStop func(ctx context.Context, containerID string, grace int64) error
	// IP is the address of every sandbox.
	IP string

	mu         sync.Mutex
	next       int
	sandboxes  map[string]*runtimeapi.PodSandboxStatus
	containers map[string]*entry
	images     map[string]*runtimeapi.Image
	subs       map[chan *runtimeapi.ContainerEventResponse]bool
	calls      []string
}

type entry struct {
	status  *runtimeapi.ContainerStatus
	sandbox string
	config  *runtimeapi.ContainerConfig
	logDir  string
}

// New returns an empty runtime whose sandboxes get the address 10.1.0.5.
func New() *Fake {
	return &Fake{IP: "10.1.0.5", sandboxes: map[string]*runtimeapi.PodSandboxStatus{}, containers: map[string]*entry{},
		images: map[string]*runtimeapi.Image{}, subs: map[chan *runtimeapi.ContainerEventResponse]bool{}}
}

var _ cri.Runtime = (*Fake)(nil)

func (f *Fake) id(prefix string) string { f.next++; return fmt.Sprintf("%s-%d", prefix, f.next) }

func (f *Fake) note(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

// Calls returns what was asked of the runtime, in order.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Count returns how many calls are equal to call.
func (f *Fake) Count(call string) int {
	n := 0
	for _, c := range f.Calls() {
		if c == call {
			n++
		}
	}
	return n
}

// Config returns the configuration of the newest container of that name.
func (f *Fake) Config(name string) *runtimeapi.ContainerConfig {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.newest(name); e != nil {
		return e.config
	}
	return nil
}

func (f *Fake) newest(name string) *entry {
	var best *entry
	for _, e := range f.containers {
		if e.config.GetMetadata().GetName() == name && (best == nil || e.status.CreatedAt > best.status.CreatedAt) {
			best = e
		}
	}
	return best
}

// Running returns the ids of the running containers of that name.
func (f *Fake) Running(name string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for id, e := range f.containers {
		if e.config.GetMetadata().GetName() == name && e.status.State == runtimeapi.ContainerState_CONTAINER_RUNNING {
			out = append(out, id)
		}
	}
	return out
}

// Left returns how many sandboxes and containers exist.
func (f *Fake) Left() (sandboxes, containers int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sandboxes), len(f.containers)
}

// AddImage makes an image present.
func (f *Fake) AddImage(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[name] = &runtimeapi.Image{Id: "sha256:" + name, RepoTags: []string{name}, RepoDigests: []string{name + "@sha256:1"}, Size: 1000}
}

// Exit ends a running container.
func (f *Fake) Exit(id string, code int32, reason string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exit(id, code, reason)
}

func (f *Fake) exit(id string, code int32, reason string) {
	e := f.containers[id]
	if e == nil || e.status.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		return
	}
	e.status.State, e.status.ExitCode, e.status.Reason = runtimeapi.ContainerState_CONTAINER_EXITED, code, reason
	e.status.FinishedAt = time.Now().UnixNano()
	f.emit(id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

func (f *Fake) emit(id string, kind runtimeapi.ContainerEventType) {
	ev := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: time.Now().UnixNano()}
	sb := id
	if e := f.containers[id]; e != nil {
		sb = e.sandbox
	}
	ev.PodSandboxStatus = f.sandboxes[sb]
	for ch := range f.subs {
		select {
		case ch <- ev:
		default:
		}
	}
}

// Events implements cri.Node.
func (f *Fake) Events(ctx context.Context) <-chan *runtimeapi.ContainerEventResponse {
	ch := make(chan *runtimeapi.ContainerEventResponse, 1000)
	f.mu.Lock()
	f.subs[ch] = true
	f.mu.Unlock()
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		delete(f.subs, ch)
		f.mu.Unlock()
		close(ch)
	})
	return ch
}

// Version implements cri.Node.
func (f *Fake) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "fake", RuntimeVersion: "1.0", RuntimeApiVersion: "v1"}, nil
}

// Status implements cri.Node.
func (f *Fake) Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true}}}}, nil
}

// UpdateRuntimeConfig implements cri.Node.
func (f *Fake) UpdateRuntimeConfig(context.Context, *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}

// RunPodSandbox implements cri.Sandboxes.
func (f *Fake) RunPodSandbox(_ context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, c := f.id("sandbox"), r.Config
	f.note("run-sandbox %s", c.Metadata.Name)
	f.sandboxes[id] = &runtimeapi.PodSandboxStatus{Id: id, Metadata: c.Metadata, State: runtimeapi.PodSandboxState_SANDBOX_READY,
		CreatedAt: time.Now().UnixNano(), Labels: c.Labels, Annotations: c.Annotations, Network: &runtimeapi.PodSandboxNetworkStatus{Ip: f.IP}}
	f.emit(id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox implements cri.Sandboxes.
func (f *Fake) StopPodSandbox(_ context.Context, r *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.sandboxes[r.PodSandboxId]; s != nil {
		f.note("stop-sandbox %s", s.Metadata.Name)
		for id, e := range f.containers {
			if e.sandbox == r.PodSandboxId {
				f.exit(id, 137, "")
			}
		}
		s.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox implements cri.Sandboxes.
func (f *Fake) RemovePodSandbox(_ context.Context, r *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, e := range f.containers {
		if e.sandbox == r.PodSandboxId {
			delete(f.containers, id)
		}
	}
	delete(f.sandboxes, r.PodSandboxId)
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// PodSandboxStatus implements cri.Sandboxes.
func (f *Fake) PodSandboxStatus(_ context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sandboxes[r.PodSandboxId]
	if s == nil {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{Id: s.Id, Metadata: s.Metadata, State: s.State,
		CreatedAt: s.CreatedAt, Labels: s.Labels, Annotations: s.Annotations, Network: s.Network}}, nil
}

func matches(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// ListPodSandbox implements cri.Sandboxes.
func (f *Fake) ListPodSandbox(_ context.Context, r *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &runtimeapi.ListPodSandboxResponse{}
	for _, s := range f.sandboxes {
		if matches(s.Labels, r.GetFilter().GetLabelSelector()) {
			out.Items = append(out.Items, &runtimeapi.PodSandbox{Id: s.Id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels})
		}
	}
	return out, nil
}

// CreateContainer implements cri.Containers.
func (f *Fake) CreateContainer(_ context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sandboxes[r.PodSandboxId] == nil {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	id, c := f.id("container"), r.Config
	f.note("create %s", c.Metadata.Name)
	f.containers[id] = &entry{sandbox: r.PodSandboxId, config: c, logDir: r.SandboxConfig.LogDirectory, status: &runtimeapi.ContainerStatus{
		Id: id, Metadata: c.Metadata, State: runtimeapi.ContainerState_CONTAINER_CREATED, CreatedAt: time.Now().UnixNano(),
		Image: c.Image, ImageRef: c.Image.Image, Labels: c.Labels, Annotations: c.Annotations, LogPath: filepath.Join(r.SandboxConfig.LogDirectory, c.LogPath)}}
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer implements cri.Containers.
func (f *Fake) StartContainer(_ context.Context, r *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.containers[r.ContainerId]
	if e == nil {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	f.note("start %s", e.config.Metadata.Name)
	e.status.State, e.status.StartedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	if e.status.LogPath != "" {
		os.MkdirAll(filepath.Dir(e.status.LogPath), 0o755)
		os.WriteFile(e.status.LogPath, []byte(time.Now().UTC().Format(time.RFC3339Nano)+" stdout F hello from "+e.config.Metadata.Name+"\n"), 0o600)
	}
	f.emit(r.ContainerId, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	if f.OnStart != nil {
		if code, exits := f.OnStart(e.config); exits {
			f.exit(r.ContainerId, code, "")
		}
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// StopContainer implements cri.Containers.
func (f *Fake) StopContainer(ctx context.Context, r *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	f.mu.Lock()
	if e := f.containers[r.ContainerId]; e != nil {
		f.note("stop %s %d", e.config.Metadata.Name, r.Timeout)
	}
	f.mu.Unlock()
	if f.OnStop != nil {
		if err := f.OnStop(ctx, r.ContainerId, r.Timeout); err != nil {
			return nil, err
		}
	}
	f.Exit(r.ContainerId, 143, "")
	return &runtimeapi.StopContainerResponse{}, nil
}

// RemoveContainer implements cri.Containers.
func (f *Fake) RemoveContainer(_ context.Context, r *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, r.ContainerId)
	return &runtimeapi.RemoveContainerResponse{}, nil
}

// UpdateContainerResources implements cri.Containers.
func (f *Fake) UpdateContainerResources(context.Context, *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

// ListContainers implements cri.Inspector.
func (f *Fake) ListContainers(_ context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &runtimeapi.ListContainersResponse{}
	for id, e := range f.containers {
		if matches(e.status.Labels, r.GetFilter().GetLabelSelector()) {
			out.Containers = append(out.Containers, &runtimeapi.Container{Id: id, PodSandboxId: e.sandbox, Metadata: e.status.Metadata,
				Image: e.status.Image, ImageRef: e.status.ImageRef, State: e.status.State, CreatedAt: e.status.CreatedAt, Labels: e.status.Labels, Annotations: e.status.Annotations})
		}
	}
	return out, nil
}

// ContainerStatus implements cri.Inspector.
func (f *Fake) ContainerStatus(_ context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.containers[r.ContainerId]
	if e == nil {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	s := e.status
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{Id: s.Id, Metadata: s.Metadata, State: s.State,
		CreatedAt: s.CreatedAt, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt, ExitCode: s.ExitCode, Image: s.Image, ImageRef: s.ImageRef,
		Reason: s.Reason, Message: s.Message, Labels: s.Labels, Annotations: s.Annotations, LogPath: s.LogPath}}, nil
}

// ListContainerStats implements cri.Inspector.
func (f *Fake) ListContainerStats(context.Context, *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{}, nil
}

// ReopenContainerLog implements cri.Inspector.
func (f *Fake) ReopenContainerLog(_ context.Context, r *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.containers[r.ContainerId]; e != nil {
		f.note("reopen %s", e.config.Metadata.Name)
		return &runtimeapi.ReopenContainerLogResponse{}, os.WriteFile(e.status.LogPath, nil, 0o600)
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}

// ListImages implements cri.Images.
func (f *Fake) ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &runtimeapi.ListImagesResponse{}
	for _, i := range f.images {
		out.Images = append(out.Images, i)
	}
	return out, nil
}

// ImageStatus implements cri.Images.
func (f *Fake) ImageStatus(_ context.Context, r *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &runtimeapi.ImageStatusResponse{Image: f.images[r.Image.Image]}, nil
}

// PullImage implements cri.Images.
func (f *Fake) PullImage(_ context.Context, r *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	f.mu.Lock()
	f.note("pull %s", r.Image.Image)
	f.mu.Unlock()
	if f.OnPull != nil {
		if err := f.OnPull(r.Image.Image, r.Auth); err != nil {
			return nil, err
		}
	}
	f.AddImage(r.Image.Image)
	return &runtimeapi.PullImageResponse{ImageRef: "sha256:" + r.Image.Image}, nil
}

// RemoveImage implements cri.Images.
func (f *Fake) RemoveImage(_ context.Context, r *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, i := range f.images {
		if name == r.Image.Image || i.Id == r.Image.Image {
			f.note("remove-image %s", name)
			delete(f.images, name)
		}
	}
	return &runtimeapi.RemoveImageResponse{}, nil
}

// ImageFsInfo implements cri.Images.
func (f *Fake) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{}, nil
}

func (f *Fake) exec(id string, cmd []string) (string, int32) {
	if f.OnExec == nil {
		return "", 0
	}
	return f.OnExec(id, cmd)
}

// ExecSync implements cri.Streams.
func (f *Fake) ExecSync(_ context.Context, r *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	out, code := f.exec(r.ContainerId, r.Cmd)
	return &runtimeapi.ExecSyncResponse{Stdout: []byte(out), ExitCode: code}, nil
}

// ExecStream implements cri.Streams: it writes what OnExec says, or copies stdin to stdout when the command is "cat".
func (f *Fake) ExecStream(_ context.Context, id string, cmd []string, _ bool, stdin io.Reader, stdout, _ io.Writer, _ <-chan cri.Size) (int, error) {
	if len(cmd) == 1 && cmd[0] == "cat" && stdin != nil {
		_, err := io.Copy(stdout, stdin)
		return 0, err
	}
	out, code := f.exec(id, cmd)
	if stdout != nil {
		io.WriteString(stdout, out)
	}
	return int(code), nil
}

// AttachStream implements cri.Streams: it echoes.
func (f *Fake) AttachStream(_ context.Context, _ string, _ bool, stdin io.Reader, stdout, _ io.Writer, _ <-chan cri.Size) error {
	if stdin == nil || stdout == nil {
		return nil
	}
	_, err := io.Copy(stdout, stdin)
	return err
}

// PortForwardStream implements cri.Streams: it connects to the port on the loopback.
func (f *Fake) PortForwardStream(ctx context.Context, _ string, port int32, conn io.ReadWriteCloser) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer c.Close()
	go func() {
		io.Copy(c, conn)
		c.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(conn, c)
	return err
}
