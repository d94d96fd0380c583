package engine

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// matches tells whether labels has all of selector.
func matches(labels, selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func (p *pod) state() runtimeapi.PodSandboxState {
	if p.ready() {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}

func (p *pod) status() *runtimeapi.PodSandboxStatus {
	s := &runtimeapi.PodSandboxStatus{
		Id: p.rec.ID, Metadata: p.config.Metadata, State: p.state(), CreatedAt: p.rec.CreatedAt,
		Labels: p.config.Labels, Annotations: p.config.Annotations, RuntimeHandler: p.rec.Handler,
		Network: &runtimeapi.PodSandboxNetworkStatus{},
		Linux:   &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{Options: p.config.GetLinux().GetSecurityContext().GetNamespaceOptions()}},
	}
	if !p.opts.HostNetwork {
		s.Network.Ip, s.Network.AdditionalIps = parseIPs(p.rec.IPs)
	}
	return s
}

// PodSandboxStatus returns a sandbox's state and that of its containers.
func (e *Engine) PodSandboxStatus(_ context.Context, r *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	p, err := e.findPod(r.PodSandboxId)
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.PodSandboxStatusResponse{Status: p.status(), ContainersStatuses: e.containerStatuses(p.rec.ID), Timestamp: time.Now().UnixNano()}
	if r.Verbose {
		p.mu.RLock()
		b, _ := json.Marshal(map[string]any{"shimPid": p.rec.ShimPid, "networkNamespace": p.paths.Net, "cgroup": e.podCgroup(p)})
		p.mu.RUnlock()
		resp.Info = map[string]string{"info": string(b)}
	}
	return resp, nil
}

// ListPodSandbox lists sandboxes, the newest first.
func (e *Engine) ListPodSandbox(_ context.Context, r *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	f := r.GetFilter()
	var out []*runtimeapi.PodSandbox
	e.mu.RLock()
	for _, p := range e.pods {
		state := p.state()
		if f.GetId() != "" && !strings.HasPrefix(p.rec.ID, f.Id) || f.GetState() != nil && f.State.State != state || !matches(p.config.Labels, f.GetLabelSelector()) {
			continue
		}
		out = append(out, &runtimeapi.PodSandbox{Id: p.rec.ID, Metadata: p.config.Metadata, State: state, CreatedAt: p.rec.CreatedAt,
			Labels: p.config.Labels, Annotations: p.config.Annotations, RuntimeHandler: p.rec.Handler})
	}
	e.mu.RUnlock()
	slices.SortFunc(out, func(a, b *runtimeapi.PodSandbox) int { return int(b.CreatedAt - a.CreatedAt) })
	return &runtimeapi.ListPodSandboxResponse{Items: out}, nil
}

func (c *ctr) status() *runtimeapi.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	img := &runtimeapi.ImageSpec{Image: c.rec.ImageName}
	if c.config.Image != nil {
		img.Annotations, img.UserSpecifiedImage, img.RuntimeHandler = c.config.Image.Annotations, c.config.Image.UserSpecifiedImage, c.config.Image.RuntimeHandler
	}
	s := &runtimeapi.ContainerStatus{
		Id: c.rec.ID, Metadata: c.config.Metadata, State: c.state, CreatedAt: c.rec.CreatedAt, StartedAt: c.startedAt,
		FinishedAt: c.finishedAt, ExitCode: c.exitCode, Image: img, ImageRef: c.rec.ImageRef, ImageId: c.rec.ImageID,
		Reason: c.reason, Message: c.message, Labels: c.config.Labels, Annotations: c.config.Annotations, Mounts: c.config.Mounts,
		LogPath: c.rec.LogPath, StopSignal: signalEnum(c.rec.StopSignal),
		User: &runtimeapi.ContainerUser{Linux: &runtimeapi.LinuxContainerUser{Uid: c.rec.UID, Gid: c.rec.GID, SupplementalGroups: c.rec.Groups}},
	}
	if c.resources != nil {
		s.Resources = &runtimeapi.ContainerResources{Linux: c.resources}
	}
	return s
}

// containerStatuses returns the states of a sandbox's containers, the oldest first.
func (e *Engine) containerStatuses(sandbox string) []*runtimeapi.ContainerStatus {
	var out []*runtimeapi.ContainerStatus
	for _, c := range e.containersOf(sandbox) {
		out = append(out, c.status())
	}
	slices.SortFunc(out, func(a, b *runtimeapi.ContainerStatus) int { return int(a.CreatedAt - b.CreatedAt) })
	return out
}

// ContainerStatus returns a container's state.
func (e *Engine) ContainerStatus(_ context.Context, r *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	c, err := e.findCtr(r.ContainerId)
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.ContainerStatusResponse{Status: c.status()}
	if r.Verbose {
		c.mu.Lock()
		b, _ := json.Marshal(map[string]any{"pid": c.pid, "sandboxID": c.rec.SandboxID, "cgroup": c.rec.Cgroup})
		c.mu.Unlock()
		resp.Info = map[string]string{"info": string(b)}
	}
	return resp, nil
}

// ListContainers lists containers, the newest first.
func (e *Engine) ListContainers(_ context.Context, r *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	f := r.GetFilter()
	var out []*runtimeapi.Container
	e.mu.RLock()
	for _, c := range e.ctrs {
		c.mu.Lock()
		state := c.state
		c.mu.Unlock()
		if f.GetId() != "" && !strings.HasPrefix(c.rec.ID, f.Id) || f.GetPodSandboxId() != "" && c.rec.SandboxID != f.PodSandboxId ||
			f.GetState() != nil && f.State.State != state || !matches(c.config.Labels, f.GetLabelSelector()) {
			continue
		}
		out = append(out, &runtimeapi.Container{Id: c.rec.ID, PodSandboxId: c.rec.SandboxID, Metadata: c.config.Metadata,
			Image: c.config.Image, ImageRef: c.rec.ImageRef, ImageId: c.rec.ImageID, State: state, CreatedAt: c.rec.CreatedAt,
			Labels: c.config.Labels, Annotations: c.config.Annotations})
	}
	e.mu.RUnlock()
	slices.SortFunc(out, func(a, b *runtimeapi.Container) int { return int(b.CreatedAt - a.CreatedAt) })
	return &runtimeapi.ListContainersResponse{Containers: out}, nil
}
