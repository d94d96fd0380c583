package engine

import (
	"fmt"
	"os"
	"sync"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine/sandbox"
	"karve/engine/shim"
)

// restore reads what an earlier engine left, connects to the shims that live and settles what ended meanwhile. It runs
// before anybody else has the Engine.
func (e *Engine) restore() {
	loadAll(e, e.rootDir("sandboxes"), "sandbox.json", func(name string, rec *podRecord) error {
		if rec.ID != name || len(rec.ID) != 64 {
			return fmt.Errorf("record is of %q", rec.ID)
		}
		cfg, err := decodePod(rec.Config)
		if err != nil {
			return err
		}
		e.pods[rec.ID] = e.newPod(*rec, cfg)
		return nil
	})
	loadAll(e, e.rootDir("containers"), "container.json", func(name string, rec *ctrRecord) error {
		if rec.ID != name || len(rec.ID) != 64 {
			return fmt.Errorf("record is of %q", rec.ID)
		}
		cfg, err := decodeContainer(rec.Config)
		if err != nil {
			return err
		}
		e.ctrs[rec.ID] = newCtr(*rec, cfg)
		return nil
	})
	// Exits that shims report from now on wait until the state before them has been settled.
	var wg sync.WaitGroup
	for _, c := range e.ctrs {
		c.starting = true
	}
	for _, p := range e.pods {
		wg.Go(func() { e.adopt(p) })
	}
	wg.Wait()
	for _, c := range e.ctrs {
		if _, ok := e.pods[c.rec.SandboxID]; !ok {
			c.starting = false
			e.settleRestored(c)
		}
	}
}

// adopt reconnects to a pod's shim, or finds that it is gone.
func (e *Engine) adopt(p *pod) {
	known := map[string]shim.Status{}
	alive := false
	if p.rec.ShimPid != 0 {
		list, err := e.watch(p)
		if err != nil {
			e.log.Info("sandbox has no shim any more", "sandbox", p.rec.ID, "err", err)
		}
		alive = err == nil
		for _, st := range list {
			known[st.ID] = st
		}
	}
	if alive && p.paths.Net != "" && !sandbox.Pinned(p.paths.Net) {
		p.mu.Lock()
		p.rec.Ready = false
		p.mu.Unlock()
	}
	if !alive && p.rec.Ready {
		p.mu.Lock()
		p.rec.Ready, p.rec.ShimPid = false, 0
		p.mu.Unlock()
		if err := e.savePod(p); err != nil {
			e.log.Error("cannot save sandbox", "sandbox", p.rec.ID, "err", err)
		}
	}
	for _, c := range e.containersOf(p.rec.ID) {
		st, ok := known[c.rec.ID]
		c.mu.Lock()
		c.starting = false
		early := c.early
		c.early = nil
		switch {
		case ok:
			c.apply(st)
		case !alive || c.rec.Failed != "" || fileExists(e.exitFile(c.rec.ID)):
			c.mu.Unlock()
			e.settleRestored(c)
			continue
		default:
			c.state = runtimeapi.ContainerState_CONTAINER_CREATED
		}
		c.mu.Unlock()
		if early != nil {
			e.exited(*early)
		}
	}
}

// settleRestored decides how a container ended that no shim knows.
func (e *Engine) settleRestored(c *ctr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rec.Failed != "" {
		c.state, c.exitCode, c.reason, c.message = runtimeapi.ContainerState_CONTAINER_EXITED, 128, "StartError", c.rec.Failed
		c.startedAt, c.finishedAt = c.rec.CreatedAt, c.rec.CreatedAt
		close(c.done)
		return
	}
	var st shim.Status
	if load(e.exitFile(c.rec.ID), &st) == nil && st.FinishedAt != 0 {
		c.apply(st)
		return
	}
	shim.KillGroup(e.cgroups.KillDirs(c.rec.Cgroup))
	c.lose()
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
