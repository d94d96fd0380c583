// Package podrun runs the pods of a node: it observes them through the runtime, asks podworker what to do, does it, and
// hands the status to the writer. The kubelet feeds it pods and events. One pod has at most one goroutine that looks and
// one that acts, and neither while nothing is due. It decides nothing that podworker could decide.
package podrun

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/client"
	"karve/kubelet/cgroup"
	"karve/kubelet/cri"
	"karve/kubelet/criconfig"
	"karve/kubelet/image"
	"karve/kubelet/podworker"
	"karve/kubelet/probe"
	"karve/kubelet/source"
	"karve/kubelet/status"
	"karve/kubelet/volume"
)

// Runtime is what pods need of a container runtime.
type Runtime interface {
	cri.Sandboxes
	cri.Containers
	cri.Inspector
	cri.Streams
}

// Events records what happened to a pod or container.
type Events interface {
	EventRef(ref corev1.ObjectReference, eventType, reason, format string, args ...any)
}

// Facts are the changing things that pods ask about their node. Its methods do not block.
type Facts interface {
	HostIPs() []string
	Allocatable() corev1.ResourceList
	// Services returns the services whose variables pods of the namespace may see.
	Services(namespace string) []*corev1.Service
	// Network is nil once pods can be given addresses.
	Network() error
	// Admit says why the node cannot take a pod, or nil.
	Admit(pod *corev1.Pod) *podworker.Verdict
}

// Config is what a Set is made of.
type Config struct {
	Runtime   Runtime
	Transport client.Transport
	Images    *image.Puller
	Volumes   *volume.Volumes
	Cgroups   cgroup.Tree
	Node      criconfig.Node
	Facts     Facts
	Events    Events
	Scheme    string
	HostsFile string
	Log       *slog.Logger
	// Slow is how long a failed step waits before it is tried again, doubling up to Slower.
	Slow, Slower time.Duration
}

// Set is the pods of a node. It is safe for concurrent use.
type Set struct {
	Config
	ctx     context.Context
	objects *source.Objects
	writer  *status.Writer
	checker *probe.Checker

	mu      sync.Mutex
	workers map[types.UID]*worker

	spawning sync.Mutex
	closed   bool
	wg       sync.WaitGroup
}

// New returns a set without pods. What it starts ends with ctx; containers go on.
func New(ctx context.Context, c Config) *Set {
	s := &Set{Config: c, ctx: ctx, workers: map[types.UID]*worker{}, checker: probe.NewChecker(c.Runtime)}
	s.objects = source.New(ctx, c.Transport, c.Log, s.sourceChanged)
	s.writer = status.New(ctx, c.Transport, c.Log, s.written)
	if s.Slow == 0 {
		s.Slow = time.Second
	}
	if s.Slower == 0 {
		s.Slower = 2 * time.Minute
	}
	return s
}

// Wait waits until nothing is being done for any pod; call it after ctx ended. Nothing begins after it.
func (s *Set) Wait() {
	s.spawning.Lock()
	s.closed = true
	s.spawning.Unlock()
	s.wg.Wait()
}

// spawn runs fn in a goroutine that Wait waits for, and reports whether it does: not after Wait was called.
func (s *Set) spawn(fn func()) bool {
	s.spawning.Lock()
	defer s.spawning.Unlock()
	if s.closed {
		return false
	}
	s.wg.Go(fn)
	return true
}

// Update takes the newest state of a pod that the API has.
func (s *Set) Update(pod *corev1.Pod) { s.take(pod, false) }

// Static takes a pod that the API did not assign.
func (s *Set) Static(pod *corev1.Pod) { s.take(pod, true) }

func (s *Set) take(pod *corev1.Pod, static bool) {
	s.mu.Lock()
	w := s.workers[pod.UID]
	fresh := w == nil
	if fresh {
		w = newWorker(s, pod)
		w.static = static
		s.workers[pod.UID] = w
	}
	s.mu.Unlock()
	w.update(pod, fresh)
}

// Remove says that the API no longer has the pod; last is how it was at the end.
func (s *Set) Remove(last *corev1.Pod) {
	if w := s.get(last.UID); w != nil {
		w.update(last, false)
		w.gone()
	}
}

// Touch looks at a pod again; observe asks the runtime anew.
func (s *Set) Touch(uid types.UID, observe bool) {
	if w := s.get(uid); w != nil {
		w.touch(observe)
	}
}

// TouchAll looks at every pod again.
func (s *Set) TouchAll(observe bool) {
	for _, w := range s.all() {
		w.touch(observe)
	}
}

// Event takes an event of the runtime.
func (s *Set) Event(ev *runtimeapi.ContainerEventResponse) {
	uid := ev.GetPodSandboxStatus().GetMetadata().GetUid()
	if uid == "" {
		uid = ev.GetPodSandboxStatus().GetLabels()[cri.PodUID]
	}
	if uid == "" && len(ev.GetContainersStatuses()) > 0 {
		uid = ev.ContainersStatuses[0].GetLabels()[cri.PodUID]
	}
	if uid == "" {
		s.TouchAll(true)
		return
	}
	s.Touch(types.UID(uid), true)
}

// Orphans ends what the runtime or the disk still has of pods that the API does not know. Call it only when every pod of
// the node was given to Update.
func (s *Set) Orphans(ctx context.Context, onDisk []types.UID) {
	list, err := s.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		s.Log.Warn("orphaned pods not looked for", "err", err)
		return
	}
	for _, sb := range list.Items {
		uid, meta := types.UID(sb.Labels[cri.PodUID]), sb.GetMetadata()
		if uid == "" || s.get(uid) != nil {
			continue
		}
		s.Log.Info("ending a pod that the API does not know", "pod", meta.GetNamespace()+"/"+meta.GetName(), "uid", uid)
		s.orphan(uid, meta.GetNamespace(), meta.GetName())
	}
	for _, uid := range onDisk {
		if s.get(uid) == nil {
			s.orphan(uid, "", "")
		}
	}
}

func (s *Set) orphan(uid types.UID, namespace, name string) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, Namespace: namespace, Name: name}}
	s.mu.Lock()
	w := newWorker(s, pod)
	s.workers[uid] = w
	s.mu.Unlock()
	w.gone()
}

func (s *Set) get(uid types.UID) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workers[uid]
}

func (s *Set) all() []*worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*worker, 0, len(s.workers))
	for _, w := range s.workers {
		out = append(out, w)
	}
	return out
}

func (s *Set) forget(uid types.UID) {
	s.mu.Lock()
	delete(s.workers, uid)
	s.mu.Unlock()
	s.writer.Forget(uid)
	s.objects.Release(uid)
}

func (s *Set) sourceChanged(uid types.UID) {
	if w := s.get(uid); w != nil {
		w.sourceChanged()
	}
}

func (s *Set) written(uid types.UID, pod *corev1.Pod) {
	w := s.get(uid)
	if w == nil {
		return
	}
	if pod == nil {
		w.touch(false)
		return
	}
	w.update(pod, false)
}

// View is a pod as the node sees it.
type View struct {
	Pod      *corev1.Pod
	Observed podworker.Observed
}

// Views returns every pod that is not an orphan, with its status as last built.
func (s *Set) Views() []View {
	var out []View
	for _, w := range s.all() {
		if v, ok := w.view(); ok {
			out = append(out, v)
		}
	}
	return out
}

// Find returns the pod of that name, and of that uid when one is given.
func (s *Set) Find(namespace, name string, uid types.UID) (View, bool) {
	for _, v := range s.Views() {
		if v.Pod.Namespace == namespace && v.Pod.Name == name && (uid == "" || uid == v.Pod.UID) {
			return v, true
		}
	}
	return View{}, false
}

// Evict ends a pod as Failed.
func (s *Set) Evict(uid types.UID, reason, message string) {
	if w := s.get(uid); w != nil {
		w.verdict(&podworker.Verdict{Reason: reason, Message: message})
	}
}

// Mirror says that the API shows the pod of that uid, which it did not make, as mirror: the status is written there.
func (s *Set) Mirror(uid types.UID, mirror *corev1.Pod) {
	if w := s.get(uid); w != nil {
		w.mirrored(mirror)
	}
}
