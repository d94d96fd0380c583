package podrun

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
	"karve/kubelet/criconfig"
	"karve/kubelet/podworker"
)

// worker is one pod. mu guards all fields below it; nothing slow happens under it.
type worker struct {
	set *Set
	uid types.UID

	mu       sync.Mutex
	pod      *corev1.Pod
	orphan   bool
	static   bool
	mirror   *corev1.Pod // the API's image of a pod that is not the API's
	obs      podworker.Observed
	mem      podworker.Memory
	known    bool // obs is what the runtime said at least once
	stale    bool // obs must be read anew
	looking  bool
	dirty    bool
	acting   bool
	stopping bool // what acts now is on the way out
	grace    int64
	cancel   context.CancelFunc
	retryAt  time.Time
	fails    int
	finished bool // the API was told to delete the pod
	dead     bool // purged: nothing is left to do
	built    corev1.PodStatus
	timer    *time.Timer
	timerAt  time.Time

	exited    map[string]podworker.Container // by id: what ended does not change
	probes    map[string]context.CancelFunc
	hooked    map[string]bool // containers whose postStart hook is over
	stopHook  map[string]bool // containers whose preStop hook ran
	pulls     map[string]podworker.Backoff
	announced map[string]time.Time
	refreshAt time.Time
}

func newWorker(s *Set, pod *corev1.Pod) *worker {
	return &worker{set: s, uid: pod.UID, pod: pod, stale: true, exited: map[string]podworker.Container{}, probes: map[string]context.CancelFunc{},
		hooked: map[string]bool{}, stopHook: map[string]bool{}, pulls: map[string]podworker.Backoff{}, announced: map[string]time.Time{},
		mem: podworker.Memory{StartedAt: time.Now(), Troubles: map[string]podworker.Trouble{}, Backoffs: map[string]podworker.Backoff{},
			Passed: map[string]bool{}, Up: map[string]bool{}, Kills: map[string]podworker.Kill{}}}
}

func (w *worker) name() string { return w.pod.Namespace + "/" + w.pod.Name }

func (w *worker) update(pod *corev1.Pod, fresh bool) {
	w.mu.Lock()
	if !fresh && client.Revision(pod.ResourceVersion) < client.Revision(w.pod.ResourceVersion) {
		pod = w.pod
	}
	content := !fresh && (!sameMap(pod.Labels, w.pod.Labels) || !sameMap(pod.Annotations, w.pod.Annotations))
	w.pod, w.orphan = pod, false
	if content {
		w.refreshAt = time.Now()
	}
	w.mu.Unlock()
	w.touch(fresh)
}

func sameMap(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

func (w *worker) gone() {
	w.mu.Lock()
	w.mem.Gone = true
	w.mu.Unlock()
	w.touch(true)
}

func (w *worker) verdict(v *podworker.Verdict) {
	w.mu.Lock()
	if w.mem.Verdict == nil {
		w.mem.Verdict = v
	}
	w.mu.Unlock()
	w.touch(false)
}

// sourceChanged: what the pod waited for may be there, and its volumes may show something old.
func (w *worker) sourceChanged() {
	w.mu.Lock()
	w.refreshAt = time.Now()
	w.mem.Setup = nil
	w.retryAt, w.fails = time.Time{}, 0
	for name, t := range w.mem.Troubles {
		if t.Reason == "CreateContainerConfigError" {
			t.Until = time.Time{}
			w.mem.Troubles[name] = t
		}
	}
	w.mu.Unlock()
	w.touch(false)
}

func (w *worker) view() (View, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.orphan || w.mem.Gone || w.pod.Name == "" {
		return View{}, false
	}
	pod := *w.pod
	if w.known {
		pod.Status = w.built
	}
	return View{Pod: &pod, Observed: w.obs}, true
}

// touch makes the pod be looked at, in a goroutine that ends when there is nothing more to see.
func (w *worker) touch(observe bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty = true
	w.stale = w.stale || observe
	if w.looking || w.dead || w.set.ctx.Err() != nil {
		return
	}
	w.looking = w.set.spawn(w.look)
}

func (w *worker) look() {
	for {
		w.mu.Lock()
		if !w.dirty || w.dead || w.set.ctx.Err() != nil {
			w.looking = false
			w.mu.Unlock()
			return
		}
		w.dirty = false
		observe := w.stale
		w.stale = false
		w.mu.Unlock()
		if observe {
			obs, err := w.observe(w.set.ctx)
			w.mu.Lock()
			if err != nil {
				w.set.Log.Warn("pod not observed", "pod", w.name(), "err", err)
				w.stale = true
				w.later(time.Now().Add(w.set.Slow))
				w.mu.Unlock()
				continue
			}
			w.obs = obs
			if !w.known {
				w.adopt()
			}
			w.mu.Unlock()
		}
		w.mu.Lock()
		w.decide(time.Now())
		w.mu.Unlock()
	}
}

// adopt takes over what an earlier kubelet left running, and checks whether a pod that is new fits.
func (w *worker) adopt() {
	w.known = true
	started := w.pod.Status.StartTime
	if started != nil {
		w.mem.StartedAt = started.Time
	}
	if len(w.obs.Containers) == 0 && len(w.obs.Sandboxes) == 0 && !w.mem.Gone && w.pod.DeletionTimestamp == nil && w.pod.Status.Phase != corev1.PodFailed && w.pod.Status.Phase != corev1.PodSucceeded && started == nil {
		if v := w.set.Facts.Admit(w.pod); v != nil {
			w.mem.Verdict = v
			w.event("", corev1.EventTypeWarning, v.Reason, v.Message)
		}
		return
	}
	for _, list := range [][]corev1.ContainerStatus{w.pod.Status.InitContainerStatuses, w.pod.Status.ContainerStatuses, w.pod.Status.EphemeralContainerStatuses} {
		for i := range list {
			st := &list[i]
			last := w.obs.Latest(st.Name)
			if last == nil || last.State != podworker.Running {
				continue
			}
			c, _, _ := podworker.Find(&w.pod.Spec, st.Name)
			w.hooked[last.ID] = true
			if c == nil || c.StartupProbe == nil || st.Started != nil && *st.Started {
				w.mem.Up[last.ID] = true
			}
			w.mem.Passed[last.ID] = st.Ready
		}
	}
	for i := range w.obs.Containers { // running, but never reported
		if c := &w.obs.Containers[i]; c.State == podworker.Running && !w.hooked[c.ID] {
			w.hooked[c.ID] = true
			if spec, _, _ := podworker.Find(&w.pod.Spec, c.Name); spec == nil || spec.StartupProbe == nil {
				w.mem.Up[c.ID] = true
			}
		}
	}
}

func (w *worker) input(now time.Time) podworker.Input {
	return podworker.Input{Pod: w.pod, Observed: w.obs, Memory: w.mem, Hash: criconfig.Hash, Now: now}
}

// decide builds the status, hands it on, and starts what is due. It is called with mu held and does not block.
func (w *worker) decide(now time.Time) {
	if !w.known || w.dead {
		return
	}
	if left, on := podworker.DeadlineLeft(w.pod, &w.mem, now); on && left == 0 && w.mem.Verdict == nil && !w.mem.Gone && w.pod.Status.Phase != corev1.PodFailed && w.pod.Status.Phase != corev1.PodSucceeded {
		w.mem.Verdict = &podworker.Verdict{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"}
		w.event("", corev1.EventTypeNormal, "DeadlineExceeded", w.mem.Verdict.Message)
	}
	w.watchProbes()
	in := w.input(now)
	if !w.mem.Gone && !w.orphan && w.pod.Name != "" {
		w.built = podworker.Build(in, podworker.Host{IPs: w.set.Facts.HostIPs(), Scheme: w.set.Scheme})
		w.mem.Settled = w.put()
		in.Memory.Settled = w.mem.Settled
	}
	plan := podworker.Step(in)
	w.announce(plan.Waiting)
	w.later(plan.Wake)
	stopping := podworker.Stopping(&in)
	if w.acting {
		grace := podworker.Grace(&in)
		if stopping && (!w.stopping || grace < w.grace) {
			w.stopping, w.grace = true, grace
			w.cancel()
		}
		return
	}
	if w.finished && !w.mem.Gone {
		return
	}
	actions := plan.Actions
	if len(actions) == 0 && w.mem.Ready && !stopping && !w.refreshAt.IsZero() {
		if now.Before(w.refreshAt) {
			w.later(w.refreshAt)
		} else {
			actions = []podworker.Action{{Op: refresh}}
		}
	}
	if len(actions) == 0 {
		return
	}
	if now.Before(w.retryAt) {
		w.later(w.retryAt)
		return
	}
	ctx, cancel := context.WithCancel(w.set.ctx)
	w.acting, w.cancel, w.stopping, w.grace = true, cancel, stopping, podworker.Grace(&in)
	if !w.set.spawn(func() { w.act(ctx, cancel, actions) }) {
		cancel()
	}
}

// put hands the status to the writer. It is called with mu held.
func (w *worker) put() bool {
	if !w.static {
		return w.set.writer.Put(w.pod, &w.built)
	}
	if w.mirror == nil {
		return true
	}
	return w.set.writer.Put(w.mirror, &w.built)
}

func (w *worker) mirrored(m *corev1.Pod) {
	w.mu.Lock()
	w.mirror = m
	pod := *w.pod // conditions keep their times through the API's image
	pod.Status = m.Status
	w.pod = &pod
	w.mu.Unlock()
	w.touch(false)
}

// refresh is an action of the shell's own: it writes the content of volumes anew.
const refresh = podworker.Op(-1)

func (w *worker) act(ctx context.Context, cancel context.CancelFunc, actions []podworker.Action) {
	var err error
	for i := range actions {
		if err = w.carry(ctx, &actions[i]); err != nil || ctx.Err() != nil {
			break
		}
	}
	cut := ctx.Err() != nil
	cancel()
	w.mu.Lock()
	w.acting = false
	switch {
	case err != nil && !cut:
		w.fails++
		w.retryAt = time.Now().Add(min(w.set.Slow<<min(w.fails-1, 10), w.set.Slower))
		w.set.Log.Warn("pod action failed", "pod", w.name(), "err", err)
	case err == nil:
		w.fails, w.retryAt = 0, time.Time{}
	}
	w.mu.Unlock()
	w.touch(true)
}

// later makes the pod be looked at again at a time. It is called with mu held.
func (w *worker) later(at time.Time) {
	if at.IsZero() {
		return
	}
	if w.timer != nil && w.timerAt.After(time.Now()) && !at.Before(w.timerAt) {
		return // an earlier look is due anyway, and finds the rest
	}
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timerAt = at
	w.timer = time.AfterFunc(max(time.Until(at), time.Millisecond), func() { w.touch(false) })
}

// announce records once per back-off that a container waits.
func (w *worker) announce(list []podworker.Waiting) {
	for _, b := range list {
		if w.announced[b.Name].Equal(b.Until) {
			continue
		}
		w.announced[b.Name] = b.Until
		w.event(b.Name, corev1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", b.Name, w.pod.Name, w.pod.Namespace, w.pod.UID))
	}
}

// event records an event of the pod, or of one of its containers. It is called with mu held.
func (w *worker) event(container, eventType, reason, message string) {
	w.set.event(w.pod, container, eventType, reason, message)
}

func (s *Set) event(pod *corev1.Pod, container, eventType, reason, message string) {
	if pod.Name == "" {
		return
	}
	ref := corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion}
	if container != "" {
		field := "containers"
		switch _, init, ephemeral := podworker.Find(&pod.Spec, container); {
		case init:
			field = "initContainers"
		case ephemeral:
			field = "ephemeralContainers"
		}
		ref.FieldPath = "spec." + field + "{" + container + "}"
	}
	s.Events.EventRef(ref, eventType, reason, "%s", message)
}

func deleteNow(uid types.UID) metav1.DeleteOptions {
	zero := int64(0)
	return metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}}
}
