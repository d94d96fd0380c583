// Package replicaset keeps as many pods as a ReplicaSet or a ReplicationController asks for. plan decides; the rest reads
// caches and sends what was decided. It is run by package controller; Deployments are not its business.
package replicaset

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
	"karve/client"
	"karve/controller/loop"
	"karve/controller/owner"
	"karve/controller/pods"
)

// Names and component of the two controllers.
const (
	Name           = "replicaset-controller"
	NameController = "replicationcontroller-controller"
	eventsRC       = "replication-controller"
)

// kind is what differs between the two owners of pods.
type kind[T client.Object] struct {
	gvk       schema.GroupVersionKind
	component string
	desired   func(T) Desired
	selector  func(T) (labels.Selector, error)
	template  func(T) *corev1.PodTemplateSpec
	// withStatus returns a copy with that status.
	withStatus func(T, appsv1.ReplicaSetStatus) T
}

type shell[T client.Object] struct {
	kind[T]
	env    *loop.Env
	queue  *loop.Queue
	events loop.Events
	pods   *client.Cache[*corev1.Pod]
	sets   *client.Cache[T]
}

// New returns the ReplicaSet controller.
func New(env *loop.Env) *loop.Controller {
	return build(env, Name, kind[*appsv1.ReplicaSet]{
		gvk: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), component: Name,
		desired: func(rs *appsv1.ReplicaSet) Desired {
			return Desired{Replicas: replicas(rs.Spec.Replicas), MinReadySeconds: rs.Spec.MinReadySeconds, Labels: rs.Spec.Template.Labels,
				Generation: rs.Generation, Deleting: rs.DeletionTimestamp != nil, Status: rs.Status, Terminating: true}
		},
		selector: func(rs *appsv1.ReplicaSet) (labels.Selector, error) {
			return metav1.LabelSelectorAsSelector(rs.Spec.Selector)
		},
		template: func(rs *appsv1.ReplicaSet) *corev1.PodTemplateSpec { return &rs.Spec.Template },
		withStatus: func(rs *appsv1.ReplicaSet, s appsv1.ReplicaSetStatus) *appsv1.ReplicaSet {
			c := *rs
			c.Status = s
			return &c
		},
	})
}

// NewReplicationController returns the controller of ReplicationControllers.
func NewReplicationController(env *loop.Env) *loop.Controller {
	return build(env, NameController, kind[*corev1.ReplicationController]{
		gvk: corev1.SchemeGroupVersion.WithKind("ReplicationController"), component: eventsRC,
		desired: func(rc *corev1.ReplicationController) Desired {
			d := Desired{Replicas: replicas(rc.Spec.Replicas), MinReadySeconds: rc.Spec.MinReadySeconds, Generation: rc.Generation,
				Deleting: rc.DeletionTimestamp != nil, Status: statusFromRC(rc.Status)}
			if rc.Spec.Template != nil {
				d.Labels = rc.Spec.Template.Labels
			}
			return d
		},
		selector: func(rc *corev1.ReplicationController) (labels.Selector, error) {
			return labels.SelectorFromSet(rc.Spec.Selector), nil
		},
		template: func(rc *corev1.ReplicationController) *corev1.PodTemplateSpec { return rc.Spec.Template },
		withStatus: func(rc *corev1.ReplicationController, s appsv1.ReplicaSetStatus) *corev1.ReplicationController {
			c := *rc
			c.Status = statusToRC(s)
			return &c
		},
	})
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

func statusFromRC(s corev1.ReplicationControllerStatus) appsv1.ReplicaSetStatus {
	out := appsv1.ReplicaSetStatus{Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
	}
	return out
}

func statusToRC(s appsv1.ReplicaSetStatus) corev1.ReplicationControllerStatus {
	out := corev1.ReplicationControllerStatus{Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, corev1.ReplicationControllerCondition{Type: corev1.ReplicationControllerConditionType(c.Type),
			Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
	}
	return out
}

func build[T client.Object](env *loop.Env, name string, k kind[T]) *loop.Controller {
	s := &shell[T]{kind: k, env: env, queue: loop.NewQueue(), events: env.Events(k.component),
		pods: client.CacheOf[*corev1.Pod](env.Caches), sets: client.CacheOf[T](env.Caches)}
	owner.Index(s.pods)
	owner.Index(s.sets)
	s.sets.Index("namespace", func(o T) []string { return []string{o.GetNamespace()} })
	s.sets.Handle(func(old, now T) {
		if any(now) == any(*new(T)) {
			now = old
		}
		s.queue.Add(client.Key(now))
	})
	s.pods.Handle(s.podChanged)
	return &loop.Controller{Name: name, Queue: s.queue, Workers: 5, Sync: s.sync}
}

func (s *shell[T]) podChanged(old, now *corev1.Pod) {
	for _, p := range [...]*corev1.Pod{old, now} {
		if p == nil {
			continue
		}
		if ref := metav1.GetControllerOfNoCopy(p); ref != nil {
			if ref.Kind == s.gvk.Kind && api.ByKind(s.gvk) != nil && ref.APIVersion == s.gvk.GroupVersion().String() {
				s.queue.Add(p.Namespace + "/" + ref.Name)
			}
			continue
		}
		if p != now || p.DeletionTimestamp != nil {
			continue
		}
		for _, o := range s.sets.ByIndex("namespace", p.Namespace) {
			if sel, err := s.selector(o); err == nil && !sel.Empty() && sel.Matches(labels.Set(p.Labels)) {
				s.queue.Add(client.Key(o))
			}
		}
	}
}

func (s *shell[T]) sync(ctx context.Context, key string) error {
	set, ok := s.sets.GetKey(key)
	if !ok {
		return nil
	}
	selector, err := s.selector(set)
	if err != nil {
		return fmt.Errorf("selector of %s: %w", key, err)
	}
	tpl := s.template(set)
	if selector.Empty() || tpl == nil {
		return nil
	}
	mine, err := owner.Claim(ctx, s.pods, client.Of[*corev1.Pod](s.env.T()), set, s.gvk, selector, func() (metav1.Object, error) {
		return client.Of[T](s.env.T()).Get(ctx, set.GetNamespace(), set.GetName())
	})
	if err != nil {
		return err
	}
	d := s.desired(set)
	var perNode map[string]int
	if int(d.Replicas) < len(mine) {
		perNode = s.companions(set)
	}
	p := plan(d, mine, perNode, s.env.Now())
	reason, failure := s.carryOut(ctx, set, tpl, p)
	message := ""
	if failure != nil {
		message = failure.Error()
	}
	p.Status.Conditions = withFailure(p.Status.Conditions, reason, message, s.env.Now())
	if p.Recheck > 0 {
		s.queue.AddAfter(key, p.Recheck+time.Millisecond)
	}
	if !sameStatus(p.Status, d.Status) {
		got, err := client.Of[T](s.env.T()).UpdateStatus(ctx, s.withStatus(set, p.Status))
		if apierrors.IsNotFound(err) {
			return failure
		}
		if err != nil {
			return fmt.Errorf("update status of %s: %w", key, err)
		}
		if err := loop.See(ctx, s.sets, got); err != nil {
			return err
		}
	}
	return failure
}

// companions counts, per node, the active pods of every set with the same controller as set, itself included.
func (s *shell[T]) companions(set T) map[string]int {
	related := []T{set}
	if ref := metav1.GetControllerOfNoCopy(set); ref != nil {
		related = owner.Owned(s.sets, ref.UID)
	}
	n := map[string]int{}
	for _, r := range related {
		for _, p := range owner.Owned(s.pods, r.GetUID()) {
			if pods.Active(p) && p.Spec.NodeName != "" {
				n[p.Spec.NodeName]++
			}
		}
	}
	return n
}

// carryOut creates and deletes pods. reason is empty when all went well.
func (s *shell[T]) carryOut(ctx context.Context, set T, tpl *corev1.PodTemplateSpec, p Plan) (reason string, err error) {
	res := client.Of[*corev1.Pod](s.env.T())
	if p.Create > 0 {
		pod := pods.FromTemplate(tpl, set, s.gvk)
		newest := newestOf[*corev1.Pod]{}
		_, err := pods.SlowStart(p.Create, func() error {
			got, err := res.Create(ctx, pod)
			if err != nil {
				if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
					s.events.Event(set, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
				}
				return err
			}
			newest.see(got)
			s.events.Event(set, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %s", got.Name)
			return nil
		})
		if got := newest.get(); got != nil {
			if err := loop.See(ctx, s.pods, got); err != nil {
				return "", err
			}
		}
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return "", nil // everything in it is about to go, this set too
		}
		if err != nil {
			return "FailedCreate", err
		}
	}
	if len(p.Delete) > 0 {
		errs := loop.Parallel(len(p.Delete), pods.Width, func(i int) error {
			pod := p.Delete[i]
			err := res.Delete(ctx, pod.Namespace, pod.Name, loop.OfUID(pod))
			if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				return nil
			}
			if err != nil {
				s.events.Event(set, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
				return err
			}
			s.events.Event(set, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %s", pod.Name)
			return loop.Gone(ctx, s.pods, pod)
		})
		for _, err := range errs {
			if err != nil {
				return "FailedDelete", err
			}
		}
	}
	return "", nil
}
