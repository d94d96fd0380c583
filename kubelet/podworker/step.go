package podworker

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Op is a kind of action.
type Op int

// The actions a step can ask for. The shell carries those of one plan out in order, and then steps again.
const (
	// Setup makes the pod's directories, cgroup and volumes.
	Setup Op = iota + 1
	// RunSandbox starts a sandbox; Attempt says which.
	RunSandbox
	// StopSandbox stops sandbox ID, with whatever still runs in it.
	StopSandbox
	// RemoveSandbox forgets sandbox ID.
	RemoveSandbox
	// Start pulls, creates and starts the container called Name; Attempt is its restart count.
	Start
	// Stop ends the containers in IDs together, each with its preStop hook, within Grace seconds.
	Stop
	// Remove forgets the exited container ID.
	Remove
	// TearDown undoes Setup, as far as the pod's logs are not concerned.
	TearDown
	// Finish deletes the pod from the API.
	Finish
	// Purge removes all that is left of a pod the API no longer has.
	Purge
)

// Action is one thing to do. Which fields are set depends on Op.
type Action struct {
	Op      Op
	ID      string
	IDs     []string
	Name    string
	Attempt uint32
	Grace   int64
	// Reason says why a container is stopped: an event message.
	Reason string
	// Forced: Grace came with the decision and is not the pod's own.
	Forced bool
}

// Waiting is a container in restart back-off.
type Waiting struct {
	Name  string
	Delay time.Duration
	Until time.Time
}

// Plan is what a step decided. Wake is when to step again though nothing happened; zero means never.
type Plan struct {
	Actions []Action
	Wake    time.Time
	Waiting []Waiting
}

type planner struct {
	Input
	plan Plan
}

// Step returns what is due for a pod. It is pure: it reads in and changes nothing.
func Step(in Input) Plan {
	p := &planner{Input: in}
	if in.Memory.Verdict == nil {
		if left, on := DeadlineLeft(in.Pod, &in.Memory, in.Now); on {
			p.wake(in.Now.Add(left))
		}
	}
	if Stopping(&in) || Finished(&in) {
		p.end()
	} else {
		p.run()
	}
	return p.plan
}

func (p *planner) do(a Action) { p.plan.Actions = append(p.plan.Actions, a) }

func (p *planner) wake(at time.Time) {
	if at.After(p.Now) && (p.plan.Wake.IsZero() || at.Before(p.plan.Wake)) {
		p.plan.Wake = at
	}
}

// DeadlineLeft returns how long the pod may still be active, when it has such a limit. It is never negative.
func DeadlineLeft(pod *corev1.Pod, mem *Memory, now time.Time) (time.Duration, bool) {
	if pod.Spec.ActiveDeadlineSeconds == nil {
		return 0, false
	}
	start := mem.StartedAt
	if pod.Status.StartTime != nil {
		start = pod.Status.StartTime.Time
	}
	left := start.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second).Sub(now)
	return max(left, 0), true
}

// Stopping reports whether the pod has to end whatever its containers do.
func Stopping(in *Input) bool {
	if in.Memory.Gone || in.Memory.Verdict != nil || in.Pod.DeletionTimestamp != nil {
		return true
	}
	phase := in.Pod.Status.Phase
	return phase == corev1.PodFailed || phase == corev1.PodSucceeded
}

// Finished reports whether nothing of the pod runs or will be run again.
func Finished(in *Input) bool {
	pod := in.Pod
	if in.Observed.alive() {
		// Sidecars do not keep a pod alive.
		for i := range in.Observed.Containers {
			c := &in.Observed.Containers[i]
			if c.State != Running && c.State != Unknown {
				continue
			}
			spec, init, _ := Find(&pod.Spec, c.Name)
			if spec == nil || !init || !Sidecar(spec) {
				return false
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if Sidecar(c) {
			continue
		}
		if last := in.Observed.Latest(c.Name); last != nil && last.State == Exited && last.ExitCode != 0 &&
			!Restarts(pod, c, last.ExitCode, true) && !initialised(pod, &in.Observed) {
			return true
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		last := in.Observed.Latest(c.Name)
		if last == nil || last.State != Exited || Restarts(pod, c, last.ExitCode, false) {
			return false
		}
	}
	return true
}

// initialised reports whether a regular container was ever created in the newest sandbox: then the init containers ran.
func initialised(pod *corev1.Pod, obs *Observed) bool {
	if len(obs.Sandboxes) == 0 {
		return false
	}
	for i := range pod.Spec.Containers {
		if last := obs.Latest(pod.Spec.Containers[i].Name); last != nil && last.SandboxID == obs.Sandboxes[0].ID {
			return true
		}
	}
	return false
}

// Grace returns the seconds that the containers of the pod get to end.
func Grace(in *Input) int64 {
	pod := in.Pod
	switch {
	case pod.DeletionGracePeriodSeconds != nil:
		return *pod.DeletionGracePeriodSeconds
	case in.Memory.Verdict != nil && in.Memory.Verdict.Reason != "DeadlineExceeded":
		return 1
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return *pod.Spec.TerminationGracePeriodSeconds
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}

// end plans the way out: containers, then the sidecars last started first, then sandboxes, then what Setup made, then the
// API object, then what is left.
func (p *planner) end() {
	var side, rest []string
	sidecar := map[string]string{}
	for i := range p.Observed.Containers {
		c := &p.Observed.Containers[i]
		if c.State != Running && c.State != Unknown {
			continue
		}
		if spec, init, _ := Find(&p.Pod.Spec, c.Name); spec != nil && init && Sidecar(spec) {
			sidecar[c.Name] = c.ID
			continue
		}
		rest = append(rest, c.ID)
	}
	for i := len(p.Pod.Spec.InitContainers) - 1; i >= 0; i-- {
		if id := sidecar[p.Pod.Spec.InitContainers[i].Name]; id != "" {
			side = append(side, id)
		}
	}
	if len(rest)+len(side) > 0 {
		grace := Grace(&p.Input)
		if len(rest) > 0 {
			p.do(Action{Op: Stop, IDs: rest, Grace: grace})
		}
		for _, id := range side {
			p.do(Action{Op: Stop, IDs: []string{id}, Grace: grace})
		}
		return
	}
	for _, s := range p.Observed.Sandboxes {
		if s.Ready {
			p.do(Action{Op: StopSandbox, ID: s.ID})
		}
	}
	if len(p.plan.Actions) > 0 {
		return
	}
	if !p.Memory.TornDown {
		p.do(Action{Op: TearDown})
		return
	}
	switch {
	case p.Memory.Gone:
		p.do(Action{Op: Purge})
	case p.Pod.DeletionTimestamp != nil && p.Memory.Settled:
		p.do(Action{Op: Finish})
	}
}

// run plans for a pod that is meant to run.
func (p *planner) run() {
	if t := p.Memory.Setup; t != nil && p.Now.Before(t.Until) {
		p.wake(t.Turn)
		p.wake(t.Until)
		return
	}
	if !p.Memory.Ready {
		p.do(Action{Op: Setup})
		return
	}
	sandbox := p.Observed.Sandbox()
	if sandbox == nil {
		p.newSandbox()
		return
	}
	p.kills(sandbox)
	p.clean(sandbox)
	if initialised(p.Pod, &p.Observed) {
		for i := range p.Pod.Spec.InitContainers {
			if c := &p.Pod.Spec.InitContainers[i]; Sidecar(c) {
				p.keep(c, true, sandbox)
			}
		}
	} else if !p.init(sandbox) {
		return
	}
	for i := range p.Pod.Spec.Containers {
		p.keep(&p.Pod.Spec.Containers[i], false, sandbox)
	}
	for i := range p.Pod.Spec.EphemeralContainers {
		c := (*corev1.Container)(&p.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		if p.Observed.Latest(c.Name) == nil {
			p.start(c, nil)
		}
	}
}

// newSandbox replaces a sandbox that is missing or dead; what runs in a dead one is ended first.
func (p *planner) newSandbox() {
	attempt := uint32(0)
	if len(p.Observed.Sandboxes) > 0 {
		attempt = p.Observed.Sandboxes[0].Attempt + 1
	}
	var ids []string
	for i := range p.Observed.Containers {
		if c := &p.Observed.Containers[i]; c.State == Running || c.State == Unknown {
			ids = append(ids, c.ID)
		}
	}
	if len(ids) > 0 {
		p.do(Action{Op: Stop, IDs: ids, Grace: Grace(&p.Input), Reason: "Pod sandbox changed, it will be killed and re-created."})
	}
	for _, s := range p.Observed.Sandboxes {
		p.do(Action{Op: StopSandbox, ID: s.ID})
	}
	p.do(Action{Op: RunSandbox, Attempt: attempt})
}

// kills ends the running containers that a probe or hook condemned, whose spec changed, or that the spec no longer has.
func (p *planner) kills(sandbox *Sandbox) {
	for i := range p.Observed.Containers {
		c := &p.Observed.Containers[i]
		if c.State != Running && c.State != Unknown {
			continue
		}
		grace := Grace(&p.Input)
		spec, _, ephemeral := Find(&p.Pod.Spec, c.Name)
		kill, condemned := p.Memory.Kills[c.ID]
		switch {
		case condemned:
			if kill.Grace != nil {
				p.do(Action{Op: Stop, IDs: []string{c.ID}, Grace: *kill.Grace, Reason: kill.Message, Forced: true})
				continue
			}
			p.do(Action{Op: Stop, IDs: []string{c.ID}, Grace: grace, Reason: kill.Message})
		case spec == nil:
			p.do(Action{Op: Stop, IDs: []string{c.ID}, Grace: grace})
		case c.State == Unknown:
			p.do(Action{Op: Stop, IDs: []string{c.ID}, Grace: grace, Reason: fmt.Sprintf("Container %s is in an unknown state, trying to kill it", c.Name)})
		case !ephemeral && p.Hash != nil && c.Hash != "" && c.Hash != p.Hash(spec):
			p.do(Action{Op: Stop, IDs: []string{c.ID}, Grace: grace, Reason: fmt.Sprintf("Container %s definition changed, will be restarted", c.Name)})
		case c.SandboxID != sandbox.ID:
			p.do(Action{Op: Stop, IDs: []string{c.ID}, Grace: grace})
		}
	}
}

// clean forgets containers beyond the newest and one before it per name, those that were created but never started, and
// sandboxes nothing refers to.
func (p *planner) clean(sandbox *Sandbox) {
	count := map[string]int{}
	used := map[string]bool{sandbox.ID: true}
	for i := range p.Observed.Containers {
		c := &p.Observed.Containers[i]
		count[c.Name]++
		if c.State == Created || c.State == Exited && count[c.Name] > 2 {
			p.do(Action{Op: Remove, ID: c.ID, Name: c.Name})
			continue
		}
		used[c.SandboxID] = true
	}
	for i := range p.Observed.Sandboxes {
		if s := &p.Observed.Sandboxes[i]; !used[s.ID] {
			p.do(Action{Op: RemoveSandbox, ID: s.ID})
		}
	}
}

// init takes the init containers one step further and reports whether all are done.
func (p *planner) init(sandbox *Sandbox) bool {
	for i := range p.Pod.Spec.InitContainers {
		c := &p.Pod.Spec.InitContainers[i]
		last := p.Observed.Latest(c.Name)
		if last != nil && (last.SandboxID != sandbox.ID || last.State == Created) {
			p.start(c, last)
			return false
		}
		if Sidecar(c) {
			p.keep(c, true, sandbox)
			if last == nil || last.State != Running || !p.Memory.Up[last.ID] {
				return false
			}
			continue
		}
		switch {
		case last == nil:
			p.start(c, nil)
			return false
		case last.State != Exited:
			return false
		case last.ExitCode != 0:
			p.keep(c, true, sandbox)
			return false
		}
	}
	return true
}

// keep starts a container that is not there, and restarts one that ended and is to run again.
func (p *planner) keep(c *corev1.Container, init bool, sandbox *Sandbox) {
	last := p.Observed.Latest(c.Name)
	switch {
	case last == nil:
		p.start(c, nil)
	case last.State == Created:
		p.start(c, last)
	case last.State == Exited && Restarts(p.Pod, c, last.ExitCode, init):
		b := p.Memory.Backoffs[c.Name]
		if until := b.until(last.FinishedAt, p.Now); last.SandboxID == sandbox.ID && p.Now.Before(until) {
			p.plan.Waiting = append(p.plan.Waiting, Waiting{Name: c.Name, Delay: b.Delay, Until: until})
			p.wake(until)
			return
		}
		p.start(c, last)
	}
}

func (p *planner) start(c *corev1.Container, last *Container) {
	if t, ok := p.Memory.Troubles[c.Name]; ok && p.Now.Before(t.Until) {
		p.wake(t.Turn)
		p.wake(t.Until)
		return
	}
	attempt := uint32(0)
	if last != nil {
		attempt = uint32(last.RestartCount)
		if last.State != Created {
			attempt++
		}
	}
	p.do(Action{Op: Start, Name: c.Name, Attempt: attempt})
}
