package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine/sandbox"
	"karve/engine/shim"
	"karve/engine/shim/client"
)

// pod is a sandbox in memory. mu guards rec; op is held through a whole operation, so that those exclude each other.
type pod struct {
	op     sync.Mutex
	mu     sync.RWMutex
	rec    podRecord
	config *runtimeapi.PodSandboxConfig
	opts   sandbox.Options
	paths  sandbox.Paths
	shim   *client.Client
	// stopping is set before the shim is told to leave; losing it before that is a failure.
	stopping bool
	unwatch  context.CancelFunc
}

func (e *Engine) podDir(id string) string   { return e.rootDir("sandboxes", id) }
func (e *Engine) podState(id string) string { return e.stateDir("s", short(id)) }

func (e *Engine) newPod(rec podRecord, c *runtimeapi.PodSandboxConfig) *pod {
	o := sandboxOptions(c)
	return &pod{rec: rec, config: c, opts: o, paths: sandbox.At(e.podState(rec.ID), e.podDir(rec.ID), o), shim: client.At(e.podState(rec.ID)), unwatch: func() {}}
}

func (e *Engine) savePod(p *pod) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return save(filepath.Join(e.podDir(p.rec.ID), "sandbox.json"), &p.rec)
}

func (p *pod) ready() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.rec.Ready
}

func (p *pod) request() PodNetworkRequest {
	m := p.config.Metadata
	return PodNetworkRequest{SandboxID: p.rec.ID, Namespace: m.Namespace, Name: m.Name, UID: m.Uid,
		PortMappings: p.config.PortMappings, Labels: p.config.Labels, Annotations: p.config.Annotations}
}

func (e *Engine) findPod(id string) (*pod, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if p, ok := e.pods[id]; ok {
		return p, nil
	}
	return nil, status.Errorf(codes.NotFound, "sandbox %q not found", id)
}

// reserve makes sure that two creations do not use the same name at the same time; taken is asked under the lock.
func (e *Engine) reserve(name string, taken func() bool) (release func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.reserved[name] || taken() {
		return nil, status.Errorf(codes.AlreadyExists, "%s already exists", name)
	}
	e.reserved[name] = true
	return func() {
		e.mu.Lock()
		delete(e.reserved, name)
		e.mu.Unlock()
	}, nil
}

func sameMetadata(a, b *runtimeapi.PodSandboxMetadata) bool {
	return a.Name == b.Name && a.Namespace == b.Namespace && a.Uid == b.Uid && a.Attempt == b.Attempt
}

// RunPodSandbox makes a sandbox and starts its shim. When it fails nothing is left.
func (e *Engine) RunPodSandbox(ctx context.Context, r *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	c := r.GetConfig()
	m := c.GetMetadata()
	if m == nil || m.Name == "" {
		return nil, status.Error(codes.InvalidArgument, "sandbox config must include metadata with a name")
	}
	if _, err := e.runtimeFor(r.RuntimeHandler); err != nil {
		return nil, err
	}
	if u := c.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions(); u != nil && u.Mode == runtimeapi.NamespaceMode_POD {
		return nil, status.Error(codes.Unimplemented, "user namespaces are not supported")
	}
	release, err := e.reserve("sandbox "+m.Namespace+"/"+m.Name+"/"+m.Uid+"/"+strconv.FormatUint(uint64(m.Attempt), 10), func() bool {
		for _, p := range e.pods {
			if sameMetadata(p.config.Metadata, m) {
				return true
			}
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	defer release()
	raw, err := encode(c)
	if err != nil {
		return nil, err
	}
	p := e.newPod(podRecord{ID: newID(), Config: raw, Handler: r.RuntimeHandler, CreatedAt: time.Now().UnixNano(),
		Programs: e.progs.Dir, OwnCgroup: c.GetLinux().GetCgroupParent() == ""}, c)
	if err := e.makePod(ctx, p); err != nil {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupPatience)
		defer cancel()
		if cerr := errors.Join(e.stopPod(cctx, p), e.deletePod(p)); cerr != nil {
			// Kept as a sandbox that is not ready, so that its removal is tried again.
			e.log.Warn("failed sandbox cannot be removed yet", "sandbox", p.rec.ID, "err", cerr)
			e.mu.Lock()
			e.pods[p.rec.ID] = p
			e.mu.Unlock()
		}
		return nil, fmt.Errorf("run sandbox %s/%s: %w", m.Namespace, m.Name, err)
	}
	e.mu.Lock()
	e.pods[p.rec.ID] = p
	e.mu.Unlock()
	e.emit(p, p.rec.ID, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	e.emit(p, p.rec.ID, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: p.rec.ID}, nil
}

// cleanupPatience bounds the clean-up after a failure, whose caller may be gone.
const cleanupPatience = 30 * time.Second

func (e *Engine) makePod(ctx context.Context, p *pod) error {
	dir := e.podState(p.rec.ID)
	if err := os.Mkdir(e.podDir(p.rec.ID), 0o700); err != nil {
		return err
	}
	p.rec.Attached = !p.opts.HostNetwork
	if err := e.savePod(p); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	// The shim starts while the namespaces are made.
	started := make(chan error, 1)
	go func() { started <- e.launchShim(p, dir) }()
	err := sandbox.Make(p.paths, p.opts, p.config.DnsConfig)
	if err == nil && !p.opts.HostNetwork {
		var res PodNetworkResult
		if res, err = e.opts.Network.Attach(ctx, p.paths.Net, p.request()); err != nil {
			err = fmt.Errorf("attach network: %w", err)
		}
		for _, ip := range res.IPs {
			p.rec.IPs = append(p.rec.IPs, ip.String())
		}
	}
	if serr := <-started; err == nil {
		err = serr
	}
	if err != nil {
		return err
	}
	if _, err := e.watch(p); err != nil {
		return err
	}
	if p.config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid() == runtimeapi.NamespaceMode_POD {
		if err := e.startPause(ctx, p, dir); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.rec.Ready = true
	p.mu.Unlock()
	return e.savePod(p)
}

func (e *Engine) launchShim(p *pod, dir string) error {
	cg := filepath.Join(e.opts.CgroupRoot, "shims")
	fd, err := e.cgroups.OpenLeaf(cg)
	if err != nil {
		e.log.Warn("shim stays in the engine's cgroup", "err", err)
	}
	if fd >= 0 {
		defer os.NewFile(uintptr(fd), "cgroup").Close()
	}
	pid, err := client.Launch(e.progs.Shim, dir, fd)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.rec.ShimPid = pid
	p.mu.Unlock()
	// Moving a process waits for every processor; the shim need not wait for it. What it starts has a cgroup of its own.
	go func() {
		if err := e.cgroups.JoinNamed(cg, pid); err != nil && !errors.Is(err, unix.ESRCH) {
			e.log.Warn("shim stays in the engine's cgroup", "err", err)
		}
	}()
	return nil
}

func (e *Engine) startPause(ctx context.Context, p *pod, dir string) error {
	r, err := p.shim.Do(ctx, shim.Request{Op: shim.OpPause, ID: p.paths.Empty})
	if err != nil {
		return err
	}
	if err := sandbox.Keep(fmt.Sprintf("/proc/%d/ns/pid", r.Pid), filepath.Join(dir, "ns-pid")); err != nil {
		return err
	}
	p.rec.PauseNS = true
	return nil
}

// watch connects to a pod's shim. Exits it reports reach the containers; losing it fails the pod.
func (e *Engine) watch(p *pod) ([]shim.Status, error) {
	ctx, cancel := context.WithCancel(e.ctx)
	r, closed, err := p.shim.Watch(ctx, func(st shim.Status) { e.exited(st) })
	if err != nil {
		cancel()
		return nil, err
	}
	p.mu.Lock()
	p.unwatch = cancel
	p.rec.ShimPid = r.Pid
	p.mu.Unlock()
	go func() {
		<-closed
		if ctx.Err() == nil {
			e.shimLost(p)
		}
	}()
	return r.Status, nil
}

// shimLost ends a pod whose shim died: nobody else can tell how its containers end.
func (e *Engine) shimLost(p *pod) {
	p.mu.Lock()
	stopping := p.stopping
	p.rec.Ready = false
	p.mu.Unlock()
	if stopping {
		return
	}
	e.log.Error("shim died, its containers are killed", "sandbox", p.rec.ID)
	if err := e.savePod(p); err != nil {
		e.log.Error("cannot save sandbox", "sandbox", p.rec.ID, "err", err)
	}
	for _, c := range e.containersOf(p.rec.ID) {
		e.settle(p, c)
	}
	e.emit(p, p.rec.ID, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// StopPodSandbox kills what runs in a sandbox and takes it off the network. It may be repeated.
func (e *Engine) StopPodSandbox(ctx context.Context, r *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	p, err := e.findPod(r.PodSandboxId)
	if err != nil {
		if status.Code(err) == codes.NotFound {
			return &runtimeapi.StopPodSandboxResponse{}, nil
		}
		return nil, err
	}
	p.op.Lock()
	defer p.op.Unlock()
	was := p.ready()
	if err := e.stopPod(ctx, p); err != nil {
		return nil, fmt.Errorf("stop sandbox %s: %w", p.rec.ID, err)
	}
	if was {
		e.emit(p, p.rec.ID, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

func (e *Engine) stopPod(ctx context.Context, p *pod) error {
	p.mu.Lock()
	p.stopping = true
	pid := p.rec.ShimPid
	p.mu.Unlock()
	if pid != 0 {
		// The shim answers when every container has ended and that is on disk; the watch has told us of each.
		if _, err := p.shim.Do(ctx, shim.Request{Op: shim.OpShutdown}); err != nil {
			if ctx.Err() != nil {
				return err
			}
			killShim(pid, p.rec.Programs)
		}
	}
	for _, c := range e.containersOf(p.rec.ID) {
		e.settle(p, c)
	}
	p.unwatch()
	p.mu.Lock()
	p.rec.Ready, p.rec.ShimPid = false, 0
	attached := p.rec.Attached
	p.mu.Unlock()
	if attached {
		if err := e.opts.Network.Detach(ctx, p.paths.Net, p.request()); err != nil {
			return fmt.Errorf("detach network: %w", err)
		}
		p.mu.Lock()
		p.rec.Attached = false
		p.mu.Unlock()
	}
	if err := sandbox.Remove(e.podState(p.rec.ID)); err != nil {
		return err
	}
	if _, err := os.Stat(e.podDir(p.rec.ID)); err != nil {
		return nil
	}
	return e.savePod(p)
}

// killShim kills a shim that does not answer, if the process still is one.
func killShim(pid int, programs string) {
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil || exe != filepath.Join(programs, "karve-shim") {
		return
	}
	if pr, err := os.FindProcess(pid); err == nil {
		_ = pr.Kill()
	}
}

// RemovePodSandbox stops a sandbox and deletes it with its containers. It may be repeated.
func (e *Engine) RemovePodSandbox(ctx context.Context, r *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	p, err := e.findPod(r.PodSandboxId)
	if err != nil {
		if status.Code(err) == codes.NotFound {
			return &runtimeapi.RemovePodSandboxResponse{}, nil
		}
		return nil, err
	}
	p.op.Lock()
	defer p.op.Unlock()
	if err := e.stopPod(ctx, p); err != nil {
		return nil, fmt.Errorf("remove sandbox %s: %w", p.rec.ID, err)
	}
	for _, c := range e.containersOf(p.rec.ID) {
		if err := e.removeContainer(ctx, c); err != nil {
			return nil, fmt.Errorf("remove sandbox %s: %w", p.rec.ID, err)
		}
	}
	if err := e.deletePod(p); err != nil {
		return nil, fmt.Errorf("remove sandbox %s: %w", p.rec.ID, err)
	}
	e.mu.Lock()
	delete(e.pods, p.rec.ID)
	e.mu.Unlock()
	e.emit(p, p.rec.ID, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func (e *Engine) deletePod(p *pod) error {
	if p.rec.OwnCgroup {
		if err := e.cgroups.Remove(e.podCgroup(p)); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(e.podDir(p.rec.ID)); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}

func (e *Engine) podCgroup(p *pod) string {
	if parent := p.config.GetLinux().GetCgroupParent(); parent != "" {
		return filepath.Join("/", parent)
	}
	return filepath.Join(e.opts.CgroupRoot, p.rec.ID)
}

func parseIPs(in []string) (first string, rest []*runtimeapi.PodIP) {
	for _, s := range in {
		if _, err := netip.ParseAddr(s); err != nil {
			continue
		}
		if first == "" {
			first = s
		} else {
			rest = append(rest, &runtimeapi.PodIP{Ip: s})
		}
	}
	return first, rest
}
