package podworker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// world is a pod and what is known of it; tests change it.
type world struct {
	pod *corev1.Pod
	obs Observed
	mem Memory
}

func newWorld(change ...func(*world)) Input {
	grace := int64(30)
	w := &world{pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways,
		TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{{Name: "a"}}}},
		mem: Memory{Ready: true, StartedAt: now.Add(-time.Minute), Troubles: map[string]Trouble{}, Backoffs: map[string]Backoff{}, Up: map[string]bool{}, Passed: map[string]bool{}, Kills: map[string]Kill{}}}
	for _, fn := range change {
		fn(w)
	}
	return Input{Pod: w.pod, Observed: w.obs, Memory: w.mem, Hash: func(c *corev1.Container) string { return c.Image }, Now: now}
}

func policy(p corev1.RestartPolicy) func(*world) {
	return func(w *world) { w.pod.Spec.RestartPolicy = p }
}

func sandbox(id string, ready bool) func(*world) {
	return func(w *world) {
		w.obs.Sandboxes = append([]Sandbox{{ID: id, Ready: ready, IPs: []string{"10.0.0.1"}, Attempt: uint32(len(w.obs.Sandboxes))}}, w.obs.Sandboxes...)
	}
}

// has adds a container in the newest sandbox: its id is name and restart count.
func has(name string, state ContainerState, code int32) func(*world) {
	return func(w *world) {
		n := int32(0)
		if last := w.obs.Latest(name); last != nil {
			n = last.RestartCount + 1
		}
		c := Container{ID: fmt.Sprintf("%s%d", name, n), Name: name, State: state, ExitCode: code, RestartCount: n, CreatedAt: now.Add(-9 * time.Second), StartedAt: now.Add(-9 * time.Second)}
		if len(w.obs.Sandboxes) > 0 {
			c.SandboxID = w.obs.Sandboxes[0].ID
		}
		if state == Exited {
			c.FinishedAt = now.Add(-5 * time.Second)
		}
		w.obs.Containers = append([]Container{c}, w.obs.Containers...)
		w.mem.Up[c.ID] = state == Running
	}
}

func inits(list ...corev1.Container) func(*world) {
	return func(w *world) { w.pod.Spec.InitContainers = list }
}

func sidecar(name string) corev1.Container {
	always := corev1.ContainerRestartPolicyAlways
	return corev1.Container{Name: name, RestartPolicy: &always}
}

func deleted(grace int64) func(*world) {
	return func(w *world) {
		t := metav1.NewTime(now)
		w.pod.DeletionTimestamp, w.pod.DeletionGracePeriodSeconds = &t, &grace
	}
}

func (a Action) String() string {
	names := map[Op]string{Setup: "setup", RunSandbox: "run-sandbox", StopSandbox: "stop-sandbox", RemoveSandbox: "remove-sandbox", Start: "start", Stop: "stop",
		Remove: "remove", TearDown: "tear-down", Finish: "finish", Purge: "purge"}
	out := names[a.Op]
	switch a.Op {
	case RunSandbox:
		out += fmt.Sprintf(" %d", a.Attempt)
	case StopSandbox, RemoveSandbox, Remove:
		out += " " + a.ID
	case Start:
		out += fmt.Sprintf(" %s %d", a.Name, a.Attempt)
	case Stop:
		out += fmt.Sprintf(" %s %ds", strings.Join(a.IDs, "+"), a.Grace)
	}
	return out
}

func TestStep(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   Input
		want string
		wake time.Duration
	}{
		{"new pod is set up", newWorld(func(w *world) { w.mem.Ready = false }), "setup", 0},
		{"then gets a sandbox", newWorld(), "run-sandbox 0", 0},
		{"then its container", newWorld(sandbox("s", true)), "start a 0", 0},
		{"and is left alone", newWorld(sandbox("s", true), has("a", Running, 0)), "", 0},
		{"exit is restarted at once the first time", newWorld(sandbox("s", true), has("a", Exited, 1)), "start a 1", 0},
		{"and later after a back-off", newWorld(sandbox("s", true), has("a", Exited, 1), func(w *world) { w.mem.Backoffs["a"] = Backoff{Delay: 20 * time.Second, Last: now} }), "", 15 * time.Second},
		{"which is over in the end", newWorld(sandbox("s", true), has("a", Exited, 1), func(w *world) { w.mem.Backoffs["a"] = Backoff{Delay: 5 * time.Second, Last: now} }), "start a 1", 0},
		{"and forgotten after ten quiet minutes", newWorld(sandbox("s", true), has("a", Exited, 1), func(w *world) { w.mem.Backoffs["a"] = Backoff{Delay: BackoffMax, Last: now.Add(-time.Hour)} }), "start a 1", 0},
		{"never: exit ends the pod", newWorld(policy(corev1.RestartPolicyNever), sandbox("s", true), has("a", Exited, 1)), "stop-sandbox s", 0},
		{"on failure: failure is restarted", newWorld(policy(corev1.RestartPolicyOnFailure), sandbox("s", true), has("a", Exited, 1)), "start a 1", 0},
		{"on failure: success ends the pod", newWorld(policy(corev1.RestartPolicyOnFailure), sandbox("s", true), has("a", Exited, 0)), "stop-sandbox s", 0},
		{"ended pod is torn down", newWorld(policy(corev1.RestartPolicyNever), sandbox("s", false), has("a", Exited, 0)), "tear-down", 0},
		{"and stays", newWorld(policy(corev1.RestartPolicyNever), sandbox("s", false), has("a", Exited, 0), func(w *world) { w.mem.TornDown = true }), "", 0},
		{"a rule restarts one exit code", newWorld(policy(corev1.RestartPolicyNever), sandbox("s", true), has("a", Exited, 42), func(w *world) {
			w.pod.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestart,
				ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
		}), "start a 1", 0},
		{"dead sandbox is replaced, and its container with it", newWorld(sandbox("s", false), has("a", Running, 0)), "stop a0 30s, stop-sandbox s, run-sandbox 1", 0},
		{"a container of the old sandbox is started in the new one", newWorld(sandbox("s", true), has("a", Exited, 137), sandbox("t", true), func(w *world) { w.mem.Backoffs["a"] = Backoff{Delay: BackoffMax, Last: now} }), "start a 1", 0},
		{"init first", newWorld(inits(corev1.Container{Name: "i"}), sandbox("s", true)), "start i 0", 0},
		{"init runs", newWorld(inits(corev1.Container{Name: "i"}), sandbox("s", true), has("i", Running, 0)), "", 0},
		{"init done", newWorld(inits(corev1.Container{Name: "i"}), sandbox("s", true), has("i", Exited, 0)), "start a 0", 0},
		{"init failed and is run again", newWorld(inits(corev1.Container{Name: "i"}), sandbox("s", true), has("i", Exited, 1)), "start i 1", 0},
		{"init failed for good", newWorld(policy(corev1.RestartPolicyNever), inits(corev1.Container{Name: "i"}), sandbox("s", true), has("i", Exited, 1)), "stop-sandbox s", 0},
		{"init is not run again beside its container", newWorld(inits(corev1.Container{Name: "i"}), sandbox("s", true), has("i", Exited, 1), has("a", Running, 0)), "", 0},
		{"sidecar starts before the next init", newWorld(inits(sidecar("x"), corev1.Container{Name: "i"}), sandbox("s", true)), "start x 0", 0},
		{"and has to be up first", newWorld(inits(sidecar("x"), corev1.Container{Name: "i"}), sandbox("s", true), has("x", Running, 0), func(w *world) { w.mem.Up["x0"] = false }), "", 0},
		{"then the next", newWorld(inits(sidecar("x"), corev1.Container{Name: "i"}), sandbox("s", true), has("x", Running, 0)), "start i 0", 0},
		{"sidecar is restarted whatever the policy", newWorld(policy(corev1.RestartPolicyNever), inits(sidecar("x")), sandbox("s", true), has("a", Running, 0), has("x", Exited, 0)), "start x 1", 0},
		{"sidecar ends with the last container", newWorld(policy(corev1.RestartPolicyNever), inits(sidecar("x")), sandbox("s", true), has("x", Running, 0), has("a", Exited, 0)), "stop x0 30s", 0},
		{"deletion ends containers first", newWorld(sandbox("s", true), has("a", Running, 0), deleted(7)), "stop a0 7s", 0},
		{"and sidecars after them, the last first", newWorld(inits(sidecar("x"), sidecar("y")), sandbox("s", true), has("x", Running, 0), has("y", Running, 0), has("a", Running, 0), deleted(7)), "stop a0 7s, stop y0 7s, stop x0 7s", 0},
		{"then the sandbox", newWorld(sandbox("s", true), has("a", Exited, 0), deleted(7)), "stop-sandbox s", 0},
		{"then volumes", newWorld(sandbox("s", false), has("a", Exited, 0), deleted(7)), "tear-down", 0},
		{"then waits for the status", newWorld(sandbox("s", false), deleted(7), func(w *world) { w.mem.TornDown = true }), "", 0},
		{"then the API object", newWorld(sandbox("s", false), deleted(7), func(w *world) { w.mem.TornDown, w.mem.Settled = true, true }), "finish", 0},
		{"a pod that is gone is ended too", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) { w.mem.Gone = true }), "stop a0 30s", 0},
		{"and purged", newWorld(sandbox("s", false), func(w *world) { w.mem.Gone, w.mem.TornDown = true, true }), "purge", 0},
		{"deleted before anything was made", newWorld(deleted(7), func(w *world) { w.mem.Ready = false }), "tear-down", 0},
		{"failed probe", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) { g := int64(3); w.mem.Kills["a0"] = Kill{Message: "m", Grace: &g} }), "stop a0 3s", 0},
		{"changed image", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) { w.obs.Containers[0].Hash, w.pod.Spec.Containers[0].Image = "v1", "v2" }), "stop a0 30s", 0},
		{"unknown state", newWorld(sandbox("s", true), has("a", Unknown, 0)), "stop a0 30s", 0},
		{"created and never started is made anew", newWorld(sandbox("s", true), has("a", Created, 0)), "remove a0, start a 0", 0},
		{"trouble waits", newWorld(sandbox("s", true), func(w *world) {
			w.mem.Troubles["a"] = Trouble{Reason: "ErrImagePull", Until: now.Add(time.Minute), Turn: now.Add(time.Second)}
		}), "", time.Second},
		{"a pod cannot outlive its deadline", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) { d := int64(90); w.pod.Spec.ActiveDeadlineSeconds = &d }), "", 30 * time.Second},
		{"verdict ends the pod", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) { w.mem.Verdict = &Verdict{Reason: "DeadlineExceeded"} }), "stop a0 30s", 0},
		{"terminal phase is final", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) { w.pod.Status.Phase = corev1.PodFailed }), "stop a0 30s", 0},
		{"one dead container is kept", newWorld(sandbox("s", true), has("a", Exited, 1), has("a", Exited, 1), has("a", Running, 0)), "remove a0", 0},
		{"ephemeral containers come last", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) {
			w.pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e"}}}
		}), "start e 0", 0},
		{"and are not restarted", newWorld(sandbox("s", true), has("a", Running, 0), has("e", Exited, 1), func(w *world) {
			w.pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e"}}}
		}), "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plan := Step(tc.in)
			var got []string
			for _, a := range plan.Actions {
				got = append(got, a.String())
			}
			if s := strings.Join(got, ", "); s != tc.want {
				t.Errorf("got %q, want %q", s, tc.want)
			}
			if tc.wake == 0 && !plan.Wake.IsZero() || tc.wake != 0 && !plan.Wake.Equal(now.Add(tc.wake)) {
				t.Errorf("wake at %v, want %v", plan.Wake, tc.wake)
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	var b Backoff
	var got []string
	at := now
	for range 8 {
		b = b.Next(at)
		got = append(got, b.Delay.String())
		at = at.Add(b.Delay)
	}
	if s := strings.Join(got, " "); s != "10s 20s 40s 1m20s 2m40s 5m0s 5m0s 5m0s" {
		t.Error(s)
	}
	if b = b.Next(at.Add(time.Hour)); b.Delay != BackoffBase {
		t.Errorf("after a quiet hour: %v", b.Delay)
	}
}

func TestBuild(t *testing.T) {
	cond := func(st *corev1.PodStatus, kind corev1.PodConditionType) string {
		for _, c := range st.Conditions {
			if c.Type == kind {
				return strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message))
			}
		}
		return ""
	}
	state := func(s *corev1.ContainerStatus) string {
		switch {
		case s.State.Running != nil:
			return "running"
		case s.State.Terminated != nil:
			return fmt.Sprintf("terminated %s %d", s.State.Terminated.Reason, s.State.Terminated.ExitCode)
		case s.State.Waiting != nil:
			return "waiting " + s.State.Waiting.Reason
		}
		return ""
	}
	gate := func(w *world) { w.pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "x/y"}} }
	for _, tc := range []struct {
		name                              string
		in                                Input
		phase                             corev1.PodPhase
		state, ready, initialised, ready2 string
	}{
		{"new", newWorld(), "Pending", "waiting ContainerCreating", "False ContainersNotReady containers with unready status: [a]", "True", ""},
		{"new with init", newWorld(inits(corev1.Container{Name: "i"})), "Pending", "waiting PodInitializing", "False ContainersNotReady containers with unready status: [a]", "False ContainersNotInitialized containers with incomplete status: [i]", ""},
		{"running", newWorld(sandbox("s", true), has("a", Running, 0)), "Running", "running", "True", "True", ""},
		{"not up yet", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) { w.mem.Up["a0"] = false }), "Running", "running", "False ContainersNotReady containers with unready status: [a]", "True", ""},
		{"unready", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) { w.pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{} }), "Running", "running", "False ContainersNotReady containers with unready status: [a]", "True", ""},
		{"probed ready", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) { w.pod.Spec.Containers[0].ReadinessProbe, w.mem.Passed["a0"] = &corev1.Probe{}, true }), "Running", "running", "True", "True", ""},
		{"gated", newWorld(sandbox("s", true), has("a", Running, 0), gate), "Running", "running", `False ReadinessGatesNotReady corresponding condition of pod readiness gate "x/y" does not exist.`, "True", "True"},
		{"gate open", newWorld(sandbox("s", true), has("a", Running, 0), gate, func(w *world) {
			w.pod.Status.Conditions = []corev1.PodCondition{{Type: "x/y", Status: corev1.ConditionTrue}}
		}), "Running", "running", "True", "True", ""},
		{"succeeded", newWorld(policy(corev1.RestartPolicyNever), sandbox("s", true), has("a", Exited, 0)), "Succeeded", "terminated Completed 0", "False PodCompleted", "True", ""},
		{"failed", newWorld(policy(corev1.RestartPolicyNever), sandbox("s", true), has("a", Exited, 9)), "Failed", "terminated Error 9", "False PodFailed", "True", ""},
		{"out of memory", newWorld(policy(corev1.RestartPolicyNever), sandbox("s", true), has("a", Exited, 137), func(w *world) { w.obs.Containers[0].Reason = "OOMKilled" }), "Failed", "terminated OOMKilled 137", "False PodFailed", "True", ""},
		{"init failed for good", newWorld(policy(corev1.RestartPolicyNever), inits(corev1.Container{Name: "i"}), sandbox("s", true), has("i", Exited, 1)), "Failed", "waiting PodInitializing", "False PodFailed", "False ContainersNotInitialized containers with incomplete status: [i]", ""},
		{"back-off", newWorld(sandbox("s", true), has("a", Exited, 1), func(w *world) { w.mem.Backoffs["a"] = Backoff{Delay: 20 * time.Second, Last: now} }), "Running", "waiting CrashLoopBackOff", "False ContainersNotReady containers with unready status: [a]", "True", ""},
		{"pull failed", newWorld(sandbox("s", true), func(w *world) {
			w.mem.Troubles["a"] = Trouble{Reason: "ErrImagePull", LaterReason: "ImagePullBackOff", Turn: now.Add(time.Second), Until: now.Add(time.Minute)}
		}), "Pending", "waiting ErrImagePull", "False ContainersNotReady containers with unready status: [a]", "True", ""},
		{"pull backs off", newWorld(sandbox("s", true), func(w *world) {
			w.mem.Troubles["a"] = Trouble{Reason: "ErrImagePull", LaterReason: "ImagePullBackOff", Turn: now, Until: now.Add(time.Minute)}
		}), "Pending", "waiting ImagePullBackOff", "False ContainersNotReady containers with unready status: [a]", "True", ""},
		{"deadline", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) { w.mem.Verdict = &Verdict{Reason: "DeadlineExceeded"} }), "Failed", "running", "False PodFailed", "True", ""},
		{"terminal phase is final", newWorld(sandbox("s", true), has("a", Running, 0), func(w *world) { w.pod.Status.Phase = corev1.PodSucceeded }), "Succeeded", "running", "False PodCompleted", "True", ""},
		{"vanished", newWorld(policy(corev1.RestartPolicyNever), deleted(1), func(w *world) {
			w.pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		}), "Failed", "terminated ContainerStatusUnknown 137", "False PodFailed", "True", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := Build(tc.in, Host{IPs: []string{"192.0.2.1"}, Scheme: "karve"})
			if st.Phase != tc.phase || state(&st.ContainerStatuses[0]) != tc.state || cond(&st, corev1.PodReady) != tc.ready || cond(&st, corev1.PodInitialized) != tc.initialised {
				t.Errorf("phase %s, state %s, ready %s, initialised %s", st.Phase, state(&st.ContainerStatuses[0]), cond(&st, corev1.PodReady), cond(&st, corev1.PodInitialized))
			}
			if got := cond(&st, corev1.ContainersReady); tc.ready2 != "" && got != tc.ready2 {
				t.Errorf("containers ready: %s", got)
			}
		})
	}
}

func TestBuildKeepsTransitionTimes(t *testing.T) {
	in := newWorld(sandbox("s", true), has("a", Running, 0))
	first := Build(in, Host{})
	in.Pod.Status, in.Now = first, now.Add(time.Hour)
	second := Build(in, Host{})
	for i := range second.Conditions {
		if !second.Conditions[i].LastTransitionTime.Equal(&first.Conditions[i].LastTransitionTime) {
			t.Errorf("%s moved", second.Conditions[i].Type)
		}
	}
	in.Memory.Up = map[string]bool{}
	third := Build(in, Host{})
	for _, c := range third.Conditions {
		if c.Type == corev1.PodReady && !c.LastTransitionTime.Time.Equal(in.Now) {
			t.Error("Ready changed without its time")
		}
	}
}
