package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine/shim"
	"karve/engine/snapshot"
)

// ctr is a container in memory. mu guards what changes; op is held through start and removal.
type ctr struct {
	op         sync.Mutex
	mu         sync.Mutex
	rec        ctrRecord
	config     *runtimeapi.ContainerConfig         // never changed
	resources  *runtimeapi.LinuxContainerResources // the limits now; replaced, never changed
	state      runtimeapi.ContainerState
	pid        int
	startedAt  int64
	finishedAt int64
	exitCode   int32
	reason     string
	message    string
	starting   bool
	early      *shim.Status  // an exit that was reported while starting
	done       chan struct{} // closed when the container has exited
}

func newCtr(rec ctrRecord, c *runtimeapi.ContainerConfig) *ctr {
	return &ctr{rec: rec, config: c, resources: c.GetLinux().GetResources(), done: make(chan struct{})}
}

func (e *Engine) ctrDir(id string) string   { return e.rootDir("containers", id) }
func (e *Engine) ctrState(id string) string { return e.stateDir("c", short(id)) }
func (e *Engine) exitFile(id string) string { return filepath.Join(e.ctrDir(id), "exit.json") }

func (e *Engine) saveCtr(c *ctr) error {
	return save(filepath.Join(e.ctrDir(c.rec.ID), "container.json"), &c.rec)
}

func (e *Engine) findCtr(id string) (*ctr, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if c, ok := e.ctrs[id]; ok {
		return c, nil
	}
	return nil, status.Errorf(codes.NotFound, "container %q not found", id)
}

// running returns a container that runs and its pod.
func (e *Engine) running(id string) (*ctr, *pod, error) {
	c, err := e.findCtr(id)
	if err != nil {
		return nil, nil, err
	}
	p, err := e.findPod(c.rec.SandboxID)
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, nil, status.Errorf(codes.FailedPrecondition, "container %q is not running", id)
	}
	return c, p, nil
}

func (e *Engine) containersOf(sandbox string) []*ctr {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []*ctr
	for _, c := range e.ctrs {
		if c.rec.SandboxID == sandbox {
			out = append(out, c)
		}
	}
	return out
}

// StartContainer starts a created container. One that cannot be started counts as exited with code 128.
func (e *Engine) StartContainer(ctx context.Context, r *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	c, err := e.findCtr(r.ContainerId)
	if err != nil {
		return nil, err
	}
	p, err := e.findPod(c.rec.SandboxID)
	if err != nil {
		return nil, err
	}
	c.op.Lock()
	defer c.op.Unlock()
	if !p.ready() {
		return nil, status.Errorf(codes.FailedPrecondition, "sandbox %q is not ready", p.rec.ID)
	}
	c.mu.Lock()
	if c.state != runtimeapi.ContainerState_CONTAINER_CREATED {
		c.mu.Unlock()
		return nil, status.Errorf(codes.FailedPrecondition, "container %q is not in created state", c.rec.ID)
	}
	c.starting = true
	c.mu.Unlock()
	rt, err := e.shimRuntime(p)
	if err != nil {
		return nil, err
	}
	// Not cancelled with the caller: a start that is half known would be worse than one that is late.
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startPatience)
	defer cancel()
	reply, err := p.shim.Do(sctx, shim.Request{Op: shim.OpStart, ID: c.rec.ID, Start: &shim.Start{
		Runtime: rt, Bundle: e.ctrState(c.rec.ID), ExitFile: e.exitFile(c.rec.ID), LogPath: c.rec.LogPath,
		Terminal: c.config.Tty, Stdin: c.config.Stdin, StdinOnce: c.config.StdinOnce,
		OOMFile: e.cgroups.OOMFile(c.rec.Cgroup), KillDirs: e.cgroups.KillDirs(c.rec.Cgroup), SharedPID: c.rec.SharedPID,
	}})
	if err == nil && len(reply.Status) != 1 {
		err = errors.New("shim did not say what it started")
	}
	if err != nil {
		e.startFailed(p, c, err)
		return nil, fmt.Errorf("start container %s: %w", c.rec.ID, err)
	}
	c.mu.Lock()
	c.starting = false
	c.state, c.pid, c.startedAt = runtimeapi.ContainerState_CONTAINER_RUNNING, reply.Pid, reply.Status[0].StartedAt
	early := c.early
	c.early = nil
	c.mu.Unlock()
	e.emit(p, c.rec.ID, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	if early != nil {
		e.exited(*early)
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// startPatience bounds how long a runtime may take to start a container.
const startPatience = 4 * time.Minute

func (e *Engine) startFailed(p *pod, c *ctr, cause error) {
	now := time.Now().UnixNano()
	c.mu.Lock()
	c.starting, c.early = false, nil
	c.state, c.exitCode, c.reason, c.message = runtimeapi.ContainerState_CONTAINER_EXITED, 128, "StartError", cause.Error()
	c.startedAt, c.finishedAt = now, now
	c.rec.Failed = cause.Error()
	close(c.done)
	if err := e.saveCtr(c); err != nil {
		e.log.Error("cannot save container", "container", c.rec.ID, "err", err)
	}
	c.mu.Unlock()
	e.emit(p, c.rec.ID, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// exited takes note of the end of a container. It may be told more than once.
func (e *Engine) exited(st shim.Status) {
	c, err := e.findCtr(st.ID)
	if err != nil {
		return
	}
	c.mu.Lock()
	if c.starting {
		c.early = &st
		c.mu.Unlock()
		return
	}
	if c.state == runtimeapi.ContainerState_CONTAINER_EXITED {
		c.mu.Unlock()
		return
	}
	c.apply(st)
	c.mu.Unlock()
	if p, err := e.findPod(c.rec.SandboxID); err == nil {
		e.emit(p, c.rec.ID, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
}

// apply sets what a status says; the caller holds mu.
func (c *ctr) apply(st shim.Status) {
	c.pid, c.startedAt = st.Pid, st.StartedAt
	if st.FinishedAt == 0 {
		c.state = runtimeapi.ContainerState_CONTAINER_RUNNING
		return
	}
	c.state, c.finishedAt, c.exitCode = runtimeapi.ContainerState_CONTAINER_EXITED, st.FinishedAt, int32(st.ExitCode)
	switch {
	case st.OOM && st.ExitCode != 0:
		c.reason = "OOMKilled"
	case st.ExitCode == 0:
		c.reason = "Completed"
	default:
		c.reason = "Error"
	}
	close(c.done)
}

// settle makes sure of the end of a container whose shim is gone. What the shim wrote last counts; without that the
// container is killed and how it ended stays unknown. A container that was never started stays created.
func (e *Engine) settle(p *pod, c *ctr) {
	c.mu.Lock()
	if c.state == runtimeapi.ContainerState_CONTAINER_EXITED || c.state == runtimeapi.ContainerState_CONTAINER_CREATED && !c.starting {
		c.mu.Unlock()
		return
	}
	if c.starting {
		// The start itself sees that the shim is gone.
		c.mu.Unlock()
		return
	}
	var st shim.Status
	if load(e.exitFile(c.rec.ID), &st) == nil && st.FinishedAt != 0 {
		c.apply(st)
	} else {
		shim.KillGroup(e.cgroups.KillDirs(c.rec.Cgroup))
		c.lose()
	}
	c.mu.Unlock()
	e.emit(p, c.rec.ID, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

// lose marks a container whose end nobody saw; the caller holds mu.
func (c *ctr) lose() {
	c.state, c.exitCode, c.finishedAt, c.reason = runtimeapi.ContainerState_CONTAINER_EXITED, 255, time.Now().UnixNano(), "Unknown"
	c.message = "The container could not be located after its supervisor or the machine went away."
	close(c.done)
}

// StopContainer asks a container to end and kills it when the timeout, in seconds, is over. It may be repeated.
func (e *Engine) StopContainer(ctx context.Context, r *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	c, err := e.findCtr(r.ContainerId)
	if err != nil {
		if status.Code(err) == codes.NotFound {
			return &runtimeapi.StopContainerResponse{}, nil
		}
		return nil, err
	}
	if err := e.stopContainer(ctx, c, time.Duration(max(r.Timeout, 0))*time.Second); err != nil {
		return nil, fmt.Errorf("stop container %s: %w", r.ContainerId, err)
	}
	return &runtimeapi.StopContainerResponse{}, nil
}

func (e *Engine) stopContainer(ctx context.Context, c *ctr, timeout time.Duration) error {
	c.mu.Lock()
	active := c.state == runtimeapi.ContainerState_CONTAINER_RUNNING || c.starting
	c.mu.Unlock()
	if !active {
		return nil
	}
	p, err := e.findPod(c.rec.SandboxID)
	if err != nil {
		return err
	}
	if timeout > 0 {
		sig, err := parseSignal(c.rec.StopSignal)
		if err != nil {
			e.log.Warn("stop signal is unknown, SIGTERM is sent", "container", c.rec.ID, "signal", c.rec.StopSignal)
			sig = sigTerm
		}
		// A process that is already gone is what is wanted.
		_, _ = p.shim.Do(ctx, shim.Request{Op: shim.OpSignal, ID: c.rec.ID, Signal: sig})
		t := time.NewTimer(timeout)
		defer t.Stop()
		select {
		case <-c.done:
			return nil
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_, _ = p.shim.Do(ctx, shim.Request{Op: shim.OpSignal, ID: c.rec.ID, Signal: sigKill, All: true})
	t := time.NewTimer(killPatience)
	defer t.Stop()
	select {
	case <-c.done:
		return nil
	case <-t.C:
		return errors.New("processes do not end although they were killed")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// killPatience is how long a killed process may take to be gone; it may be stuck in the kernel.
const killPatience = 2 * time.Minute

// RemoveContainer kills a container if it runs, and deletes it. It may be repeated.
func (e *Engine) RemoveContainer(ctx context.Context, r *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	c, err := e.findCtr(r.ContainerId)
	if err != nil {
		if status.Code(err) == codes.NotFound {
			return &runtimeapi.RemoveContainerResponse{}, nil
		}
		return nil, err
	}
	if err := e.removeContainer(ctx, c); err != nil {
		return nil, fmt.Errorf("remove container %s: %w", r.ContainerId, err)
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func (e *Engine) removeContainer(ctx context.Context, c *ctr) error {
	if err := e.stopContainer(ctx, c, 0); err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	p, perr := e.findPod(c.rec.SandboxID)
	if perr == nil {
		// Returns when the runtime has forgotten the container. A shim that is gone leaves that to us.
		_, _ = p.shim.Do(ctx, shim.Request{Op: shim.OpForget, ID: c.rec.ID})
	}
	if err := e.deleteContainer(ctx, p, c); err != nil {
		return err
	}
	e.mu.Lock()
	_, was := e.ctrs[c.rec.ID]
	delete(e.ctrs, c.rec.ID)
	e.mu.Unlock()
	e.cpu.forget(c.rec.ID)
	e.disk.forget(c.rec.ID)
	if was && p != nil {
		e.emit(p, c.rec.ID, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	}
	return nil
}

// deleteContainer removes everything a container left. p may be nil.
func (e *Engine) deleteContainer(ctx context.Context, p *pod, c *ctr) error {
	if _, err := os.Stat(e.stateDir("runc", c.rec.ID)); err == nil && p != nil {
		if rt, err := e.shimRuntime(p); err == nil {
			if out, err := exec.CommandContext(ctx, rt.Path, "--root", rt.Root, "delete", "--force", c.rec.ID).CombinedOutput(); err != nil {
				e.log.Warn("runtime cannot delete container", "container", c.rec.ID, "err", err, "output", string(out))
			}
		}
	}
	if err := e.cgroups.Remove(c.rec.Cgroup); err != nil {
		return err
	}
	dir := e.ctrState(c.rec.ID)
	for i := range c.rec.ImageViews {
		if err := snapshot.Unmount(filepath.Join(dir, fmt.Sprintf("image-%d", i))); err != nil {
			return err
		}
	}
	if err := snapshot.Unmount(filepath.Join(dir, "rootfs")); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove bundle: %w", err)
	}
	if err := os.RemoveAll(e.ctrDir(c.rec.ID)); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}

// ReopenContainerLog makes the shim write to a new file after the old one was renamed.
func (e *Engine) ReopenContainerLog(ctx context.Context, r *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	c, p, err := e.running(r.ContainerId)
	if err != nil {
		return nil, err
	}
	if _, err := p.shim.Do(ctx, shim.Request{Op: shim.OpReopen, ID: c.rec.ID}); err != nil {
		return nil, fmt.Errorf("reopen log of container %s: %w", c.rec.ID, err)
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}

// runtimeFor returns the OCI runtime of a handler.
func (e *Engine) runtimeFor(handler string) (string, error) {
	if handler == "" || handler == "runc" {
		return "", nil
	}
	if path, ok := e.opts.Runtimes[handler]; ok {
		return path, nil
	}
	return "", status.Errorf(codes.InvalidArgument, "no runtime for %q is configured", handler)
}

// shimRuntime is how a pod's shim calls its runtime. A pod keeps the programs it was started with.
func (e *Engine) shimRuntime(p *pod) (shim.Runtime, error) {
	path, err := e.runtimeFor(p.rec.Handler)
	if err != nil {
		return shim.Runtime{}, err
	}
	if path == "" {
		path = filepath.Join(p.rec.Programs, "runc")
	}
	return shim.Runtime{Path: path, Root: e.stateDir("runc")}, nil
}

func jsonFile(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
