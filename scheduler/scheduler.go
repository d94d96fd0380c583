// Package scheduler gives every pod that has none a node: filter, score, assume, bind in the background. It watches pods and
// nodes through client and writes bindings, conditions and events; it runs against any conformant API server. cluster
// starts it. The rules are pure and live below it: snapshot, filter, score, queue, explain.
package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
	"karve/scheduler/explain"
	"karve/scheduler/filter"
	"karve/scheduler/queue"
	"karve/scheduler/score"
	"karve/scheduler/snapshot"
)

// Name is the scheduler that pods which name none ask for, and the component of its events.
const Name = "default-scheduler"

// Options is what a scheduler needs.
type Options struct {
	Transport client.Transport
	Log       *slog.Logger
	// Binders is how many bindings are written at once (0: 64).
	Binders int
}

// Scheduler is one scheduler. Make it with New and Run it once.
type Scheduler struct {
	opts   Options
	log    *slog.Logger
	caches *client.Caches
	events *client.Recorder
	queue  *queue.Queue
	pods   client.Resource[*corev1.Pod]
	slots  chan struct{}

	mu    sync.Mutex // guards state
	state *snapshot.State
}

// New returns a scheduler that does nothing until Run.
func New(o Options) (*Scheduler, error) {
	if o.Transport == nil || o.Log == nil {
		return nil, errors.New("make scheduler: Transport and Log are needed")
	}
	if o.Binders == 0 {
		o.Binders = 64
	}
	s := &Scheduler{opts: o, log: o.Log, caches: client.NewCaches(o.Transport, o.Log), events: client.NewRecorder(o.Transport, o.Log, Name, ""),
		queue: queue.New(time.Now), pods: client.Of[*corev1.Pod](o.Transport), slots: make(chan struct{}, o.Binders), state: snapshot.New()}
	client.CacheOf[*corev1.Node](s.caches).Handle(s.nodeChanged)
	client.CacheOf[*corev1.Pod](s.caches).Handle(s.podChanged)
	return s, nil
}

// Run schedules until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.caches.Run(ctx) })
	wg.Go(func() { s.events.Run(ctx) })
	if s.caches.WaitSynced(ctx) != nil {
		return nil
	}
	for {
		it, moves, err := s.queue.Next(ctx)
		if err != nil {
			return nil
		}
		s.schedule(ctx, &wg, it, moves)
	}
}

func (s *Scheduler) nodeChanged(old, now *corev1.Node) {
	s.mu.Lock()
	if now == nil {
		s.state.RemoveNode(old.Name)
	} else {
		s.state.SetNode(now)
	}
	s.mu.Unlock()
	if now != nil && (old == nil || mayHelp(old, now)) {
		s.queue.Move()
	}
}

// mayHelp reports whether a change of a node can let a pod in that it kept out: a heartbeat cannot.
func mayHelp(old, now *corev1.Node) bool {
	return !equal(old.Spec.Taints, now.Spec.Taints) || old.Spec.Unschedulable != now.Spec.Unschedulable || !equal(old.Labels, now.Labels) ||
		!equal(old.Status.Allocatable, now.Status.Allocatable)
}

func (s *Scheduler) podChanged(old, now *corev1.Pod) {
	if now == nil || finished(now) {
		gone := old
		if gone == nil {
			gone = now
		}
		s.queue.Remove(gone.UID)
		s.mu.Lock()
		freed := s.state.Remove(gone.UID)
		s.mu.Unlock()
		if freed {
			s.queue.Move()
		}
		return
	}
	if now.Spec.NodeName != "" {
		s.queue.Remove(now.UID)
		if old != nil && old.Spec.NodeName == now.Spec.NodeName && old.Generation == now.Generation && old.UID == now.UID {
			return // its status changed: nothing that decisions count
		}
		p := snapshot.NewPod(now)
		s.mu.Lock()
		s.state.Place(p, now.Spec.NodeName)
		s.mu.Unlock()
		return
	}
	if now.Spec.SchedulerName != Name || now.DeletionTimestamp != nil || len(now.Spec.SchedulingGates) > 0 {
		s.queue.Remove(now.UID)
		return
	}
	if old != nil && old.UID == now.UID && old.Generation == now.Generation && equal(old.Labels, now.Labels) && len(old.Spec.SchedulingGates) == 0 {
		return // our own condition, most likely
	}
	s.queue.Set(snapshot.NewPod(now))
}

func finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// schedule decides on one pod, counts it as placed, and writes the binding in the background.
func (s *Scheduler) schedule(ctx context.Context, wg *sync.WaitGroup, it *queue.Item, moves uint64) {
	pod := it.Pod
	s.mu.Lock()
	node, total, refusals := decide(s.state, pod)
	if node != "" {
		s.state.Place(pod, node)
	}
	s.mu.Unlock()
	if node == "" {
		s.refuse(ctx, pod, explain.Message(total, refusals))
		s.queue.Retry(it, moves)
		return
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	wg.Go(func() {
		defer func() { <-s.slots }()
		s.bind(ctx, it, node, moves)
	})
}

// decide picks a node, or says what is wrong with each.
func decide(state *snapshot.State, pod *snapshot.Pod) (node string, total int, refusals []explain.Refusal) {
	nodes := state.Nodes()
	q := filter.NewQuery(pod)
	fit := make([]*snapshot.Node, 0, len(nodes))
	for _, n := range nodes {
		if plugin, reasons := filter.Check(q, n); len(reasons) > 0 {
			refusals = append(refusals, explain.Refusal{Node: n.Name, Plugin: plugin, Reasons: reasons})
			continue
		}
		fit = append(fit, n)
	}
	best := score.Best(score.NewQuery(pod), fit)
	if len(best) == 0 {
		return "", len(nodes), refusals
	}
	return best[rand.IntN(len(best))].Name, len(nodes), nil
}

func (s *Scheduler) bind(ctx context.Context, it *queue.Item, node string, moves uint64) {
	pod := it.Pod
	_, err := s.pods.CreateSub(ctx, pod.Namespace, pod.Name, "binding", &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node}})
	if err == nil {
		s.queue.Done(pod.UID)
		s.events.Event(pod.Pod, corev1.EventTypeNormal, "Scheduled", "Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, node)
		return
	}
	s.mu.Lock()
	s.state.Remove(pod.UID)
	s.mu.Unlock()
	if ctx.Err() != nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		s.queue.Done(pod.UID) // gone, or bound by another: the watch says what is so
		return
	}
	s.log.Warn("pod not bound, trying again", "pod", pod.Namespace+"/"+pod.Name, "node", node, "err", err)
	s.queue.Retry(it, moves+1)
}

// refuse tells people why: in an event, and in the pod's condition when that is news.
func (s *Scheduler) refuse(ctx context.Context, pod *snapshot.Pod, message string) {
	s.events.Event(pod.Pod, corev1.EventTypeWarning, "FailedScheduling", "%s", message)
	if now, ok := client.CacheOf[*corev1.Pod](s.caches).Get(pod.Namespace, pod.Name); ok {
		for _, c := range now.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable && c.Message == message {
				return
			}
		}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
		Reason: corev1.PodReasonUnschedulable, Message: message, LastTransitionTime: metav1.NewTime(time.Now()), ObservedGeneration: pod.Generation}}}})
	if err != nil {
		return
	}
	if _, err := s.pods.Patch(ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, patch, "status"); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		s.log.Warn("pod condition not written", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}
