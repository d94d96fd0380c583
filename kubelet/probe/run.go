package probe

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Kind is one of the three probes of a container.
type Kind string

// The probes, named as events name them.
const (
	Startup   Kind = "Startup"
	Liveness  Kind = "Liveness"
	Readiness Kind = "Readiness"
)

// Counter turns single checks into a verdict by the thresholds of a probe.
type Counter struct {
	probe *corev1.Probe
	last  bool
	run   int32
}

// Add counts one check and reports the verdict, when the checks in a row are enough for one.
func (c *Counter) Add(ok bool) (healthy, decided bool) {
	if c.run == 0 || c.last != ok {
		c.last, c.run = ok, 0
	}
	c.run++
	threshold := c.probe.SuccessThreshold
	if !ok {
		threshold = c.probe.FailureThreshold
	}
	return ok, c.run >= max(threshold, 1)
}

// Reporter is told what probes find. Its methods must return quickly.
type Reporter interface {
	// Verdict is called when a probe reaches a verdict that differs from the one before.
	Verdict(kind Kind, healthy bool, text string)
	// Failed is called for each failed check (err nil) and each check that could not be done.
	Failed(kind Kind, text string, err error)
}

// Target is one running container.
type Target struct {
	Container *corev1.Container
	ID, IP    string
	StartedAt time.Time
}

// Watch probes a container until ctx ends: the startup probe until it succeeds, then liveness and readiness. The first
// check of each comes at once when its initial delay has passed. It returns when all is over; ctx must end with the
// container.
func (c *Checker) Watch(ctx context.Context, t Target, r Reporter) {
	if p := t.Container.StartupProbe; p != nil {
		if !c.loop(ctx, Startup, p, t, r, true) {
			return
		}
	}
	var wg sync.WaitGroup
	if p := t.Container.LivenessProbe; p != nil {
		wg.Go(func() { c.loop(ctx, Liveness, p, t, r, false) })
	}
	if p := t.Container.ReadinessProbe; p != nil {
		wg.Go(func() { c.loop(ctx, Readiness, p, t, r, false) })
	}
	wg.Wait()
}

// loop checks once a period. With once it returns true after the first healthy verdict.
func (c *Checker) loop(ctx context.Context, kind Kind, p *corev1.Probe, t Target, r Reporter, once bool) bool {
	period := time.Duration(max(p.PeriodSeconds, 1)) * time.Second
	timer := time.NewTimer(time.Until(t.StartedAt.Add(time.Duration(p.InitialDelaySeconds) * time.Second)))
	defer timer.Stop()
	counter := &Counter{probe: p}
	var verdict *bool
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
		}
		timer.Reset(period)
		ok, text, err := c.Check(ctx, p, t.Container, t.ID, t.IP)
		if ctx.Err() != nil {
			return false
		}
		if err != nil || !ok {
			r.Failed(kind, text, err)
		}
		if err != nil {
			continue
		}
		healthy, decided := counter.Add(ok)
		if !decided || verdict != nil && *verdict == healthy {
			continue
		}
		verdict = &healthy
		r.Verdict(kind, healthy, text)
		if once && healthy {
			return true
		}
		if kind != Readiness && !healthy {
			return false // the container is ended; its successor is probed anew
		}
	}
}
