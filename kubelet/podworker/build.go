package podworker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Host is what a status says about the node.
type Host struct {
	IPs []string
	// Scheme prefixes container ids: the name of the runtime.
	Scheme string
}

// Build returns the status of a pod: the API's last one (in.Pod.Status) with all that a kubelet decides written anew.
// Conditions of others are kept. It is pure.
func Build(in Input, host Host) corev1.PodStatus {
	pod, mem := in.Pod, &in.Memory
	out := *pod.Status.DeepCopy()
	if mem.Verdict != nil {
		out.Reason, out.Message = mem.Verdict.Reason, mem.Verdict.Message
	}
	plan := Plan{}
	stopping := Stopping(&in)
	if !stopping {
		plan = Step(in)
	}
	out.InitContainerStatuses, out.ContainerStatuses, out.EphemeralContainerStatuses = nil, nil, nil
	Containers(&pod.Spec, func(c *corev1.Container, init, ephemeral bool) {
		st := containerStatus(&in, c, init, ephemeral, stopping, plan.Waiting)
		scheme(&st, host.Scheme)
		switch {
		case init:
			out.InitContainerStatuses = append(out.InitContainerStatuses, st)
		case ephemeral:
			out.EphemeralContainerStatuses = append(out.EphemeralContainerStatuses, st)
		default:
			out.ContainerStatuses = append(out.ContainerStatuses, st)
		}
	})
	out.Phase = phase(&in, &out, stopping)
	if terminal(pod.Status.Phase) {
		out.Phase = pod.Status.Phase
	}
	out.ObservedGeneration = pod.Generation
	out.QOSClass = pod.Status.QOSClass
	if out.StartTime == nil && !mem.StartedAt.IsZero() {
		t := metav1.NewTime(mem.StartedAt)
		out.StartTime = &t
	}
	addresses(&in, &out, host)
	conditions(&in, &out)
	return out
}

// scheme turns the runtime's ids into those of the API.
func scheme(st *corev1.ContainerStatus, name string) {
	fix := func(id *string) {
		if *id != "" && name != "" && !strings.Contains(*id, "://") {
			*id = name + "://" + *id
		}
	}
	fix(&st.ContainerID)
	for _, t := range []*corev1.ContainerStateTerminated{st.State.Terminated, st.LastTerminationState.Terminated} {
		if t != nil {
			fix(&t.ContainerID)
		}
	}
}

func terminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

func addresses(in *Input, out *corev1.PodStatus, host Host) {
	if len(host.IPs) > 0 {
		out.HostIP, out.HostIPs = host.IPs[0], nil
		for _, ip := range host.IPs {
			out.HostIPs = append(out.HostIPs, corev1.HostIP{IP: ip})
		}
	}
	ips := host.IPs
	if !in.Pod.Spec.HostNetwork {
		ips = nil
		if len(in.Observed.Sandboxes) > 0 {
			ips = in.Observed.Sandboxes[0].IPs
		}
	} else if len(in.Observed.Sandboxes) == 0 {
		ips = nil
	}
	if len(ips) == 0 {
		return // the last known address stays with a pod that ended
	}
	out.PodIP, out.PodIPs = ips[0], nil
	for _, ip := range ips {
		out.PodIPs = append(out.PodIPs, corev1.PodIP{IP: ip})
	}
}

func prior(in *Input, name string, init, ephemeral bool) *corev1.ContainerStatus {
	list := in.Pod.Status.ContainerStatuses
	if init {
		list = in.Pod.Status.InitContainerStatuses
	}
	if ephemeral {
		list = in.Pod.Status.EphemeralContainerStatuses
	}
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

func containerStatus(in *Input, c *corev1.Container, init, ephemeral, stopping bool, waiting []Waiting) corev1.ContainerStatus {
	st := corev1.ContainerStatus{Name: c.Name, Image: c.Image}
	old := prior(in, c.Name, init, ephemeral)
	last := in.Observed.Latest(c.Name)
	switch {
	case last != nil:
		observed(in, c, init, last, &st)
	case old != nil && (old.State.Running != nil || old.State.Terminated != nil || old.LastTerminationState.Terminated != nil):
		vanished(in, c, init, stopping, old, &st)
	default:
		st.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		if len(in.Pod.Spec.InitContainers) > 0 && (!init || len(in.Observed.Containers) == 0) {
			st.State.Waiting.Reason = "PodInitializing"
		}
	}
	if st.State.Waiting != nil || st.State.Terminated != nil && !stopping {
		explain(in, c, init, waiting, &st)
	}
	if !ephemeral {
		up := st.State.Running != nil && last != nil && in.Memory.Up[last.ID]
		st.Started = &up
		st.Ready = ready(in, c, init, last, &st)
		if st.State.Running != nil {
			st.Resources = resources(c)
			st.AllocatedResources = c.Resources.Requests
		} else if old != nil { // what a stopped container had stays on record; the API keeps it anyway
			st.Resources, st.AllocatedResources = old.Resources, old.AllocatedResources
		}
	}
	if st.State.Running != nil && old != nil {
		st.VolumeMounts, st.User = old.VolumeMounts, old.User
	}
	return st
}

func resources(c *corev1.Container) *corev1.ResourceRequirements {
	return c.Resources.DeepCopy()
}

func ready(in *Input, c *corev1.Container, init bool, last *Container, st *corev1.ContainerStatus) bool {
	if init && !Sidecar(c) {
		return st.State.Terminated != nil && st.State.Terminated.ExitCode == 0
	}
	if st.State.Running == nil || last == nil || !in.Memory.Up[last.ID] {
		return false
	}
	return c.ReadinessProbe == nil || in.Memory.Passed[last.ID]
}

func observed(in *Input, c *corev1.Container, init bool, last *Container, st *corev1.ContainerStatus) {
	st.RestartCount = last.RestartCount
	st.Image, st.ImageID = last.Image, last.ImageRef
	if st.Image == "" {
		st.Image = c.Image
	}
	st.ContainerID = last.ID
	switch last.State {
	case Running, Unknown:
		st.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(last.StartedAt)}
	case Exited:
		st.State.Terminated = terminated(last)
	case Created:
		st.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	}
	if prev := in.Observed.before(c.Name); prev != nil && prev.State == Exited {
		st.LastTerminationState.Terminated = terminated(prev)
	} else if old := prior(in, c.Name, init, false); old != nil && last.RestartCount > 0 && old.RestartCount == last.RestartCount {
		old.LastTerminationState.DeepCopyInto(&st.LastTerminationState)
	}
}

func terminated(c *Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message,
		StartedAt: metav1.NewTime(c.StartedAt), FinishedAt: metav1.NewTime(c.FinishedAt), ContainerID: c.ID}
	if c.StartedAt.IsZero() || c.StartedAt.Unix() == 0 {
		t.StartedAt = metav1.NewTime(c.CreatedAt)
	}
	switch {
	case c.Reason != "":
	case c.ExitCode == 0:
		t.Reason = "Completed"
	default:
		t.Reason = "Error"
	}
	return t
}

// vanished is the status of a container that was reported before and that the runtime no longer has.
func vanished(in *Input, c *corev1.Container, init, stopping bool, old *corev1.ContainerStatus, st *corev1.ContainerStatus) {
	*st = *old.DeepCopy()
	if old.State.Running == nil {
		return
	}
	lost := &corev1.ContainerStateTerminated{Reason: "ContainerStatusUnknown", ExitCode: 137, ContainerID: old.ContainerID,
		Message: "The container could not be located when the pod was terminated"}
	st.Ready = false
	if stopping || !init && !Restarts(in.Pod, c, 137, init) {
		st.State = corev1.ContainerState{Terminated: lost}
		return
	}
	lost.Message = "The container could not be located when the pod was deleted.  The container used to be Running"
	st.LastTerminationState = corev1.ContainerState{Terminated: lost}
	st.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}
}

// explain turns the state of a container that is to run and does not into the reason why.
func explain(in *Input, c *corev1.Container, init bool, waiting []Waiting, st *corev1.ContainerStatus) {
	wait := func(reason, message string) {
		if t := st.State.Terminated; t != nil {
			st.LastTerminationState = corev1.ContainerState{Terminated: t}
		}
		st.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	if t, ok := in.Memory.Troubles[c.Name]; ok {
		if term := st.State.Terminated; term == nil || Restarts(in.Pod, c, term.ExitCode, init) {
			wait(t.shown(in.Now))
			return
		}
	}
	for _, w := range waiting {
		if w.Name == c.Name {
			wait("CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)", short(w.Delay), c.Name, in.Pod.Name, in.Pod.Namespace, in.Pod.UID))
		}
	}
}

func short(d time.Duration) string { return d.String() }

// phase sums the containers up.
func phase(in *Input, st *corev1.PodStatus, stopping bool) corev1.PodPhase {
	pod := in.Pod
	if in.Memory.Verdict != nil {
		return corev1.PodFailed
	}
	var pendingInit, failedInit int
	for i := range pod.Spec.InitContainers {
		c, s := &pod.Spec.InitContainers[i], &st.InitContainerStatuses[i]
		switch {
		case Sidecar(c):
			if s.Started == nil || !*s.Started {
				if s.State.Terminated == nil && s.LastTerminationState.Terminated == nil {
					pendingInit++
				}
			}
		case s.State.Terminated != nil:
			if s.State.Terminated.ExitCode != 0 {
				failedInit++
				if Restarts(pod, c, s.State.Terminated.ExitCode, true) {
					pendingInit++
				}
			}
		default:
			pendingInit++
		}
	}
	var waiting, running, stopped, succeeded, again int
	for i := range pod.Spec.Containers {
		c, s := &pod.Spec.Containers[i], &st.ContainerStatuses[i]
		switch {
		case s.State.Running != nil:
			running++
		case s.State.Terminated != nil:
			stopped++
			if s.State.Terminated.ExitCode == 0 {
				succeeded++
			}
			if Restarts(pod, c, s.State.Terminated.ExitCode, false) {
				again++
			}
		case s.LastTerminationState.Terminated != nil:
			stopped++
			again++
		default:
			waiting++
		}
	}
	idle := running == 0 && !in.Observed.alive()
	switch {
	case failedInit > 0 && pendingInit == 0 && stopped == 0 && running == 0:
		return corev1.PodFailed
	case stopping && idle && stopped > 0 && waiting == 0, stopping && idle && pod.DeletionTimestamp != nil && stopped+waiting > 0 && len(in.Observed.Containers) > 0:
		if succeeded == len(pod.Spec.Containers) && failedInit == 0 {
			return corev1.PodSucceeded
		}
		return corev1.PodFailed
	case pendingInit > 0 && running == 0 && stopped == 0, waiting > 0:
		return corev1.PodPending
	case running > 0:
		return corev1.PodRunning
	case stopped > 0 && again == 0:
		if stopped == succeeded {
			return corev1.PodSucceeded
		}
		return corev1.PodFailed
	case stopped > 0:
		return corev1.PodRunning
	}
	return corev1.PodPending
}

func conditions(in *Input, st *corev1.PodStatus) {
	pod := in.Pod
	set := func(kind corev1.PodConditionType, ok bool, reason, message string) {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message,
			ObservedGeneration: pod.Generation, LastTransitionTime: metav1.NewTime(in.Now.Truncate(time.Second))}
		if ok {
			c.Status = corev1.ConditionTrue
		}
		for i := range st.Conditions {
			if st.Conditions[i].Type == kind {
				if st.Conditions[i].Status == c.Status {
					c.LastTransitionTime = st.Conditions[i].LastTransitionTime
				}
				c.LastProbeTime = st.Conditions[i].LastProbeTime
				st.Conditions[i] = c
				return
			}
		}
		st.Conditions = append(st.Conditions, c)
	}
	sandbox := in.Observed.Sandbox()
	set(corev1.PodReadyToStartContainers, sandbox != nil && (pod.Spec.HostNetwork || len(sandbox.IPs) > 0), "", "")
	initOK, initReason, initMessage := initialisedCondition(in, st)
	set(corev1.PodInitialized, initOK, initReason, initMessage)
	ok, reason, message := containersReady(in, st)
	readyOK, readyReason, readyMessage := ok, reason, message
	if ok {
		if gates := failedGates(pod); len(gates) > 0 {
			readyOK, readyReason, readyMessage = false, "ReadinessGatesNotReady", strings.Join(gates, ", ")
		}
	}
	set(corev1.PodReady, readyOK, readyReason, readyMessage)
	set(corev1.ContainersReady, ok, reason, message)
	set(corev1.PodScheduled, true, "", "")
	if pod.DeletionTimestamp != nil || terminal(st.Phase) {
		return
	}
	order(st.Conditions)
}

// order puts the conditions of the kubelet where clients are used to find them and leaves those of others in place.
func order(list []corev1.PodCondition) {
	rank := map[corev1.PodConditionType]int{corev1.PodReadyToStartContainers: -5, corev1.PodInitialized: -4, corev1.PodReady: -3,
		corev1.ContainersReady: -2, corev1.PodScheduled: -1}
	slices.SortStableFunc(list, func(a, b corev1.PodCondition) int { return rank[a.Type] - rank[b.Type] })
}

func initialisedCondition(in *Input, st *corev1.PodStatus) (bool, string, string) {
	if len(in.Pod.Spec.InitContainers) == 0 {
		return true, "", ""
	}
	if st.Phase == corev1.PodSucceeded {
		return true, "PodCompleted", ""
	}
	if initialised(in.Pod, &in.Observed) {
		return true, "", ""
	}
	var missing []string
	for i := range in.Pod.Spec.InitContainers {
		s := &st.InitContainerStatuses[i]
		if Sidecar(&in.Pod.Spec.InitContainers[i]) {
			if s.Started == nil || !*s.Started {
				missing = append(missing, s.Name)
			}
		} else if !s.Ready {
			missing = append(missing, s.Name)
		}
	}
	if len(missing) > 0 {
		return false, "ContainersNotInitialized", fmt.Sprintf("containers with incomplete status: %v", missing)
	}
	return true, "", ""
}

func containersReady(in *Input, st *corev1.PodStatus) (bool, string, string) {
	switch st.Phase {
	case corev1.PodSucceeded:
		return false, "PodCompleted", ""
	case corev1.PodFailed:
		return false, "PodFailed", ""
	}
	var bad []string
	for i := range in.Pod.Spec.InitContainers {
		if Sidecar(&in.Pod.Spec.InitContainers[i]) && !st.InitContainerStatuses[i].Ready {
			bad = append(bad, st.InitContainerStatuses[i].Name)
		}
	}
	for i := range st.ContainerStatuses {
		if !st.ContainerStatuses[i].Ready {
			bad = append(bad, st.ContainerStatuses[i].Name)
		}
	}
	if len(bad) > 0 {
		return false, "ContainersNotReady", fmt.Sprintf("containers with unready status: %v", bad)
	}
	return true, "", ""
}

func failedGates(pod *corev1.Pod) []string {
	var out []string
	for _, g := range pod.Spec.ReadinessGates {
		state := ""
		for _, c := range pod.Status.Conditions {
			if c.Type == g.ConditionType {
				state = string(c.Status)
			}
		}
		switch state {
		case "":
			out = append(out, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", string(g.ConditionType)))
		case string(corev1.ConditionTrue):
		default:
			out = append(out, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s", string(g.ConditionType), state))
		}
	}
	return out
}
