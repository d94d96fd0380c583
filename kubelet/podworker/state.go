// Package podworker decides what a pod needs next and what its status is. It is the pure core of the kubelet: Step and
// Build are functions of the spec, of what the runtime shows, of what was remembered, and of the time. kubelet/podrun
// calls it and carries the actions out. It owns no goroutine, clock, container or API object. See DESIGN.md.
package podworker

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ContainerState is the runtime's view of one container.
type ContainerState int

// The states of a container.
const (
	Created ContainerState = iota
	Running
	Exited
	Unknown
)

// Container is one container (one attempt of one entry of the spec) as observed.
type Container struct {
	ID, Name, SandboxID              string
	State                            ContainerState
	CreatedAt, StartedAt, FinishedAt time.Time
	ExitCode                         int32
	Reason, Message                  string
	Image, ImageID, ImageRef         string
	RestartCount                     int32
	Hash                             string
}

// Sandbox is one pod sandbox as observed.
type Sandbox struct {
	ID        string
	Ready     bool
	IPs       []string
	Attempt   uint32
	CreatedAt time.Time
}

// Observed is what the runtime shows of one pod; both lists are newest first.
type Observed struct {
	Sandboxes  []Sandbox
	Containers []Container
}

// Latest returns the newest container of that name, or nil.
func (o *Observed) Latest(name string) *Container {
	for i := range o.Containers {
		if o.Containers[i].Name == name {
			return &o.Containers[i]
		}
	}
	return nil
}

// before returns the container of that name that came before the newest, or nil.
func (o *Observed) before(name string) *Container {
	seen := false
	for i := range o.Containers {
		if o.Containers[i].Name == name {
			if seen {
				return &o.Containers[i]
			}
			seen = true
		}
	}
	return nil
}

// Sandbox returns the newest sandbox when it is ready, or nil.
func (o *Observed) Sandbox() *Sandbox {
	if len(o.Sandboxes) > 0 && o.Sandboxes[0].Ready {
		return &o.Sandboxes[0]
	}
	return nil
}

func (o *Observed) alive() bool {
	for i := range o.Containers {
		if o.Containers[i].State == Running || o.Containers[i].State == Unknown {
			return true
		}
	}
	return false
}

// Trouble is why a container, or the whole pod, waits. It is shown as Reason and Message, and as Later* from Turn on;
// nothing is tried again before Until.
type Trouble struct {
	Reason, Message           string
	LaterReason, LaterMessage string
	Turn, Until               time.Time
}

func (t *Trouble) shown(now time.Time) (reason, message string) {
	if t.LaterReason != "" && !now.Before(t.Turn) {
		return t.LaterReason, t.LaterMessage
	}
	return t.Reason, t.Message
}

// Kill is a decision to end a running container.
type Kill struct {
	Message string
	// Grace in seconds overrides the pod's when set.
	Grace *int64
}

// Verdict is a reason for which a pod ends as Failed without (or before) its containers ending by themselves.
type Verdict struct{ Reason, Message string }

// Memory is what is remembered of a pod between steps and cannot be observed. Maps may be nil. The shell changes it.
type Memory struct {
	// Verdict ends the pod as Failed.
	Verdict *Verdict
	// Gone: the API no longer has the pod.
	Gone bool
	// Ready to run sandboxes: volumes mounted, directories and cgroup made.
	Ready bool
	// TornDown: volumes unmounted, cgroup removed. Settled: the API has the final status.
	TornDown, Settled bool
	// Setup is the trouble of the pod as a whole; Troubles that of its containers by name.
	Setup    *Trouble
	Troubles map[string]Trouble
	// Backoffs by container name.
	Backoffs map[string]Backoff
	// Passed and Up by container id: the readiness probe last succeeded; the startup probe and postStart hook are done.
	Passed, Up map[string]bool
	// Kills by container id: running containers that must end (a probe failed, a hook failed).
	Kills map[string]Kill
	// StartedAt is when this node first saw the pod.
	StartedAt time.Time
}

// Input is all that a step depends on.
type Input struct {
	Pod      *corev1.Pod
	Observed Observed
	Memory   Memory
	Hash     func(*corev1.Container) string
	Now      time.Time
}

// Backoff is a growing delay between restarts of a container.
type Backoff struct {
	Delay time.Duration
	Last  time.Time
}

// The bounds of restart and pull delays.
const (
	BackoffBase = 10 * time.Second
	BackoffMax  = 5 * time.Minute
)

// Next returns the back-off after another start at now: it doubles, and begins anew after a quiet time of twice the most.
func (b Backoff) Next(now time.Time) Backoff {
	if b.Delay == 0 || now.Sub(b.Last) > 2*BackoffMax {
		return Backoff{Delay: BackoffBase, Last: now}
	}
	return Backoff{Delay: min(2*b.Delay, BackoffMax), Last: now}
}

// until returns the earliest next start after an exit at finished.
func (b Backoff) until(finished, now time.Time) time.Time {
	if b.Delay == 0 || now.Sub(b.Last) > 2*BackoffMax {
		return time.Time{}
	}
	return finished.Add(b.Delay)
}

// Sidecar reports whether an init container keeps running beside the others.
func Sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// Restarts reports whether a container of the pod is run again after it exited with code. init is whether it is one of
// the pod's init containers.
func Restarts(pod *corev1.Pod, c *corev1.Container, code int32, init bool) bool {
	if init && Sidecar(c) {
		return true
	}
	for _, r := range c.RestartPolicyRules {
		if r.Action == corev1.ContainerRestartRuleActionRestart && r.ExitCodes != nil && matches(r.ExitCodes, code) {
			return true
		}
	}
	policy := string(pod.Spec.RestartPolicy)
	if c.RestartPolicy != nil {
		policy = string(*c.RestartPolicy)
	}
	switch policy {
	case string(corev1.RestartPolicyNever):
		return false
	case string(corev1.RestartPolicyOnFailure):
		return code != 0
	}
	return !init || code != 0
}

func matches(on *corev1.ContainerRestartRuleOnExitCodes, code int32) bool {
	in := false
	for _, v := range on.Values {
		in = in || v == code
	}
	return in == (on.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn)
}

// Containers calls fn for every entry of the spec: init containers, then containers, then ephemeral ones.
func Containers(spec *corev1.PodSpec, fn func(c *corev1.Container, init, ephemeral bool)) {
	for i := range spec.InitContainers {
		fn(&spec.InitContainers[i], true, false)
	}
	for i := range spec.Containers {
		fn(&spec.Containers[i], false, false)
	}
	for i := range spec.EphemeralContainers {
		fn((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon), false, true)
	}
}

// Find returns the entry of the spec of that name, or nil.
func Find(spec *corev1.PodSpec, name string) (found *corev1.Container, init, ephemeral bool) {
	Containers(spec, func(c *corev1.Container, i, e bool) {
		if c.Name == name {
			found, init, ephemeral = c, i, e
		}
	})
	return found, init, ephemeral
}
