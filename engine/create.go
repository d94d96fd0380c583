package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine/container"
	"karve/engine/image"
	"karve/engine/snapshot"
)

// CreateContainer prepares a container: its root file system is mounted and its specification written. When it fails
// nothing is left.
func (e *Engine) CreateContainer(ctx context.Context, r *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	p, err := e.findPod(r.PodSandboxId)
	if err != nil {
		return nil, err
	}
	cfg := r.GetConfig()
	m := cfg.GetMetadata()
	if m == nil || m.Name == "" {
		return nil, status.Error(codes.InvalidArgument, "container config must include metadata with a name")
	}
	if !p.ready() {
		return nil, status.Errorf(codes.FailedPrecondition, "sandbox %q is not ready", p.rec.ID)
	}
	if len(cfg.CDIDevices) > 0 {
		return nil, status.Error(codes.Unimplemented, "CDI devices are not supported")
	}
	release, err := e.reserve("container "+p.rec.ID+"/"+m.Name+"/"+strconv.FormatUint(uint64(m.Attempt), 10), func() bool {
		for _, c := range e.ctrs {
			if c.rec.SandboxID == p.rec.ID && c.config.Metadata.Name == m.Name && c.config.Metadata.Attempt == m.Attempt {
				return true
			}
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	defer release()
	im, err := e.images.Find(cfg.GetImage().GetImage())
	if err != nil {
		return nil, fmt.Errorf("create container: image %q: %w", cfg.GetImage().GetImage(), notFound(err))
	}
	icfg, err := e.images.Config(im)
	if err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	c := newCtr(ctrRecord{ID: newID(), SandboxID: p.rec.ID, CreatedAt: time.Now().UnixNano(), ImageID: im.ID,
		ImageRef: imageRef(im), ImageName: imageName(im, cfg.Image.Image), Chains: im.Chains}, proto.Clone(cfg).(*runtimeapi.ContainerConfig))
	c.rec.Cgroup = filepath.Join(e.podCgroup(p), c.rec.ID)
	c.rec.StopSignal = icfg.Config.StopSignal
	if cfg.StopSignal != runtimeapi.Signal_RUNTIME_DEFAULT {
		c.rec.StopSignal = cfg.StopSignal.String()
	}
	if cfg.LogPath != "" && p.config.LogDirectory != "" {
		c.rec.LogPath = filepath.Join(p.config.LogDirectory, filepath.Join("/", cfg.LogPath))
	}
	if err := e.makeContainer(p, c, icfg.Config); err != nil {
		if cerr := e.deleteContainer(context.WithoutCancel(ctx), nil, c); cerr != nil {
			e.log.Warn("failed container leaves something behind", "container", c.rec.ID, "err", cerr)
		}
		return nil, fmt.Errorf("create container %s: %w", m.Name, err)
	}
	e.mu.Lock()
	e.ctrs[c.rec.ID] = c
	e.mu.Unlock()
	e.emit(p, c.rec.ID, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return &runtimeapi.CreateContainerResponse{ContainerId: c.rec.ID}, nil
}

func (e *Engine) makeContainer(p *pod, c *ctr, img v1.Config) error {
	dir := e.ctrState(c.rec.ID)
	rootfs := filepath.Join(dir, "rootfs")
	for _, d := range []string{e.ctrDir(c.rec.ID), dir, rootfs} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	layers, err := e.snaps.Dirs(c.rec.Chains)
	if err != nil {
		return err
	}
	if err := snapshot.Mount(layers, e.ctrDir(c.rec.ID), rootfs); err != nil {
		return err
	}
	if c.rec.LogPath != "" {
		if err := os.MkdirAll(filepath.Dir(c.rec.LogPath), 0o755); err != nil {
			return fmt.Errorf("make log directory: %w", err)
		}
	}
	in := container.Input{Image: img, Rootfs: rootfs, Host: e.host, Cgroup: c.rec.Cgroup}
	if in.Config, err = e.prepareMounts(c, dir); err != nil {
		return err
	}
	sc := c.config.GetLinux().GetSecurityContext()
	if in.User, err = container.ResolveUser(rootfs, img.User, sc); err != nil {
		return err
	}
	c.rec.UID, c.rec.GID = int64(in.User.UID), int64(in.User.GID)
	for _, g := range in.User.Groups {
		c.rec.Groups = append(c.rec.Groups, int64(g))
	}
	if in.Sandbox, err = e.sandboxInput(p, c); err != nil {
		return err
	}
	if sc.GetPrivileged() {
		in.Host.Devices = hostDevices()
	}
	for _, d := range c.config.Devices {
		dev, err := container.Device(d.HostPath, d.ContainerPath)
		if err != nil {
			return err
		}
		in.Devices = append(in.Devices, dev)
	}
	if s := sc.GetSeccomp(); s.GetProfileType() == runtimeapi.SecurityProfile_Localhost {
		if in.Seccomp, err = e.seccompFile(s.LocalhostRef); err != nil {
			return err
		}
	}
	spec, err := container.Spec(in)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := jsonFile(filepath.Join(dir, "config.json"), spec); err != nil {
		return err
	}
	if c.rec.Config, err = encode(c.config); err != nil {
		return err
	}
	return e.saveCtr(c)
}

// sandboxInput is what the container takes from its pod.
func (e *Engine) sandboxInput(p *pod, c *ctr) (container.Sandbox, error) {
	s := container.Sandbox{Hostname: p.config.Hostname, NetNS: p.paths.Net, IPCNS: p.paths.IPC, UTSNS: p.paths.UTS,
		Shm: p.paths.Shm, ResolvConf: p.paths.ResolvConf, HostnameFile: p.paths.Hostname}
	if s.Hostname == "" {
		s.Hostname, _ = os.Hostname()
	}
	ns := c.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	switch ns.GetPid() {
	case runtimeapi.NamespaceMode_NODE:
		s.HostPID, c.rec.SharedPID = true, true
	case runtimeapi.NamespaceMode_POD:
		// A sandbox without a shared namespace and no choice by the container means one of its own.
		if ns != nil && p.rec.PauseNS {
			s.PIDNS, c.rec.SharedPID = filepath.Join(e.podState(p.rec.ID), "ns-pid"), true
		}
	case runtimeapi.NamespaceMode_TARGET:
		t, _, err := e.running(ns.TargetId)
		if err != nil {
			return s, err
		}
		if t.rec.SandboxID != p.rec.ID {
			return s, status.Errorf(codes.InvalidArgument, "target container %q is in another sandbox", ns.TargetId)
		}
		t.mu.Lock()
		s.PIDNS, c.rec.SharedPID = fmt.Sprintf("/proc/%d/ns/pid", t.pid), true
		t.mu.Unlock()
	}
	return s, nil
}

// prepareMounts returns a copy of the configuration in which every mount has a host path that exists.
func (e *Engine) prepareMounts(c *ctr, dir string) (*runtimeapi.ContainerConfig, error) {
	cfg := proto.Clone(c.config).(*runtimeapi.ContainerConfig)
	for _, m := range cfg.Mounts {
		if m.GetImage().GetImage() != "" {
			if err := e.mountImage(c, dir, m); err != nil {
				return nil, fmt.Errorf("mount image %q at %s: %w", m.Image.Image, m.ContainerPath, err)
			}
			continue
		}
		if !filepath.IsAbs(m.HostPath) {
			continue // refused by Spec
		}
		if _, err := os.Stat(m.HostPath); errors.Is(err, os.ErrNotExist) {
			if err := os.MkdirAll(m.HostPath, 0o755); err != nil {
				return nil, fmt.Errorf("make host path of mount: %w", err)
			}
		}
	}
	return cfg, nil
}

// mountImage makes the files of an image a mount's source, read-only.
func (e *Engine) mountImage(c *ctr, dir string, m *runtimeapi.Mount) error {
	im, err := e.images.Find(m.Image.Image)
	if err != nil {
		return notFound(err)
	}
	layers, err := e.snaps.Dirs(im.Chains)
	if err != nil {
		return err
	}
	at := filepath.Join(dir, fmt.Sprintf("image-%d", c.rec.ImageViews))
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	if err := snapshot.View(layers, at); err != nil {
		return err
	}
	c.rec.ImageViews++
	c.rec.Chains = append(c.rec.Chains[:len(c.rec.Chains):len(c.rec.Chains)], im.Chains...)
	m.HostPath, m.Readonly = at, true
	if m.ImageSubPath == "" {
		return nil
	}
	if filepath.IsAbs(m.ImageSubPath) || strings.Contains(m.ImageSubPath, "..") {
		return status.Errorf(codes.InvalidArgument, "image sub path %q must be relative and stay inside", m.ImageSubPath)
	}
	f, err := container.OpenInRoot(at, m.ImageSubPath)
	if err != nil {
		return err
	}
	defer f.Close()
	if m.HostPath, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd()))); err != nil {
		return err
	}
	if !strings.HasPrefix(m.HostPath, at+"/") {
		return unix.EXDEV
	}
	return nil
}

// seccompFile reads a profile in the OCI format.
func (e *Engine) seccompFile(ref string) (*specs.LinuxSeccomp, error) {
	path := strings.TrimPrefix(ref, "localhost/")
	if !filepath.IsAbs(path) {
		if e.opts.SeccompRoot == "" || !filepath.IsLocal(path) {
			return nil, status.Errorf(codes.InvalidArgument, "seccomp profile %q is not an absolute path", ref)
		}
		path = filepath.Join(e.opts.SeccompRoot, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read seccomp profile: %w", err)
	}
	p := &specs.LinuxSeccomp{}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("read seccomp profile %s: %w", path, err)
	}
	return p, nil
}

// imageRef identifies an image across machines if it has been pulled, else on this one.
func imageRef(im *image.Image) string {
	if len(im.Digests) > 0 {
		return im.Digests[0]
	}
	return im.ID
}

func imageName(im *image.Image, asked string) string {
	if len(im.Tags) > 0 {
		return im.Tags[0]
	}
	return asked
}

func notFound(err error) error {
	if errors.Is(err, image.ErrNotFound) {
		return status.Error(codes.NotFound, err.Error())
	}
	return err
}

// respec changes the limits in the specification of a container that was not started yet.
func (e *Engine) respec(c *ctr, res *specs.LinuxResources) error {
	path := filepath.Join(e.ctrState(c.rec.ID), "config.json")
	var s specs.Spec
	if err := load(path, &s); err != nil {
		return err
	}
	res.Devices = s.Linux.Resources.Devices
	s.Linux.Resources = res
	return jsonFile(path, &s)
}
