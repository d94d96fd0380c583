package podrun

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/kubelet/podworker"
	"karve/kubelet/probe"
)

// hook runs a postStart or preStop handler.
func (w *worker) hook(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		timeout := int64(0)
		if at, ok := ctx.Deadline(); ok {
			timeout = max(int64(time.Until(at)/time.Second), 1)
		}
		r, err := w.set.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: h.Exec.Command, Timeout: timeout})
		if err != nil {
			return err
		}
		if r.ExitCode != 0 {
			return fmt.Errorf("command exited with %d", r.ExitCode)
		}
		return nil
	case h.HTTPGet != nil:
		ok, text, err := w.set.checker.HTTP(ctx, h.HTTPGet, c, w.ip(pod))
		if err == nil && !ok {
			err = errors.New(text)
		}
		return err
	case h.Sleep != nil:
		select {
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (w *worker) preStop(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, limit time.Duration) {
	hctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// A container that ends by itself ends its hook.
	watch := time.AfterFunc(0, func() {
		for hctx.Err() == nil {
			select {
			case <-hctx.Done():
				return
			case <-time.After(250 * time.Millisecond):
			}
			w.mu.Lock()
			last := w.obs.Latest(c.Name)
			ended := last == nil || last.ID != id || last.State == podworker.Exited
			w.mu.Unlock()
			if ended {
				cancel()
			}
		}
	})
	defer watch.Stop()
	if err := w.hook(hctx, pod, c, id, c.Lifecycle.PreStop); err != nil && hctx.Err() == nil {
		w.set.event(pod, c.Name, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
	}
}

func (w *worker) ip(pod *corev1.Pod) string {
	if ips := w.facts(pod).PodIPs; len(ips) > 0 {
		return ips[0]
	}
	return "127.0.0.1"
}

// watchProbes begins the probes of containers that run and ends those of others. It is called with mu held.
func (w *worker) watchProbes() {
	alive := map[string]bool{}
	for i := range w.obs.Containers {
		c := &w.obs.Containers[i]
		if c.State != podworker.Running || !w.hooked[c.ID] {
			continue
		}
		spec, _, ephemeral := podworker.Find(&w.pod.Spec, c.Name)
		if spec == nil || ephemeral || spec.LivenessProbe == nil && spec.ReadinessProbe == nil && spec.StartupProbe == nil {
			continue
		}
		alive[c.ID] = true
		if w.probes[c.ID] != nil || w.mem.TornDown {
			continue
		}
		ips := w.set.Facts.HostIPs()
		if sb := w.obs.Sandbox(); sb != nil && !w.pod.Spec.HostNetwork {
			ips = sb.IPs
		}
		if len(ips) == 0 {
			continue
		}
		ctx, cancel := context.WithCancel(w.set.ctx)
		w.probes[c.ID] = cancel
		if spec.StartupProbe != nil && w.mem.Up[c.ID] {
			spec = spec.DeepCopy() // passed under an earlier kubelet
			spec.StartupProbe = nil
		}
		t := probe.Target{Container: spec, ID: c.ID, IP: ips[0], StartedAt: c.StartedAt}
		w.set.spawn(func() { w.set.checker.Watch(ctx, t, &reporter{w: w, id: c.ID, c: spec}) })
	}
	for id, cancel := range w.probes {
		if !alive[id] {
			cancel()
			delete(w.probes, id)
		}
	}
}

// reporter is what the probes of one container find.
type reporter struct {
	w  *worker
	id string
	c  *corev1.Container
}

// Verdict implements probe.Reporter.
func (r *reporter) Verdict(kind probe.Kind, healthy bool, _ string) {
	w := r.w
	w.mu.Lock()
	switch kind {
	case probe.Readiness:
		w.mem.Passed[r.id] = healthy
	case probe.Startup:
		if healthy {
			w.mem.Up[r.id] = true
		} else {
			w.mem.Kills[r.id] = kill(r.c.Name, "startup", r.c.StartupProbe)
		}
	case probe.Liveness:
		if !healthy {
			w.mem.Kills[r.id] = kill(r.c.Name, "liveness", r.c.LivenessProbe)
		}
	}
	w.mu.Unlock()
	w.touch(false)
}

func kill(name, kind string, p *corev1.Probe) podworker.Kill {
	return podworker.Kill{Message: fmt.Sprintf("Container %s failed %s probe, will be restarted", name, kind), Grace: p.TerminationGracePeriodSeconds}
}

// Failed implements probe.Reporter.
func (r *reporter) Failed(kind probe.Kind, text string, err error) {
	message := fmt.Sprintf("%s probe failed: %s", kind, text)
	if err != nil {
		message = fmt.Sprintf("%s probe errored and resulted in unknown state: %s", kind, err)
	}
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.event(r.c.Name, corev1.EventTypeWarning, "Unhealthy", message)
}
