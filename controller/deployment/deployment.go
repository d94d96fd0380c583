// Package deployment rolls Deployments out through ReplicaSets: it makes one per template, moves replicas from the old to
// the new within maxSurge and maxUnavailable, keeps revisions for rollback and reports progress. plan decides; the shell
// reads caches and sends what was decided. It is run by package controller and never touches a pod.
package deployment

import (
	"context"
	"fmt"
	"maps"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"karve/client"
	"karve/controller/loop"
	"karve/controller/owner"
	"karve/controller/pods"
)

// Name is the controller's name and the component of its events.
const Name = "deployment-controller"

var (
	kind    = appsv1.SchemeGroupVersion.WithKind("Deployment")
	setKind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
)

type shell struct {
	env    *loop.Env
	queue  *loop.Queue
	events loop.Events
	all    *client.Cache[*appsv1.Deployment]
	sets   *client.Cache[*appsv1.ReplicaSet]
	pods   *client.Cache[*corev1.Pod]
}

// New returns the Deployment controller.
func New(env *loop.Env) *loop.Controller {
	s := &shell{env: env, queue: loop.NewQueue(), events: env.Events(Name), all: client.CacheOf[*appsv1.Deployment](env.Caches),
		sets: client.CacheOf[*appsv1.ReplicaSet](env.Caches), pods: client.CacheOf[*corev1.Pod](env.Caches)}
	owner.Index(s.sets)
	owner.Index(s.pods)
	s.all.Index("namespace", func(d *appsv1.Deployment) []string { return []string{d.Namespace} })
	s.all.Handle(func(old, now *appsv1.Deployment) {
		if now == nil {
			now = old
		}
		s.queue.Add(client.Key(now))
	})
	s.sets.Handle(func(old, now *appsv1.ReplicaSet) {
		for _, rs := range [...]*appsv1.ReplicaSet{old, now} {
			if rs != nil {
				s.setChanged(rs, rs == now)
			}
		}
	})
	s.pods.Handle(func(old, now *corev1.Pod) {
		if old != nil && (now == nil || pods.Finished(now)) {
			s.podGone(old)
		}
	})
	return &loop.Controller{Name: Name, Queue: s.queue, Workers: 5, Sync: s.sync}
}

func (s *shell) setChanged(rs *appsv1.ReplicaSet, current bool) {
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		if ref.Kind == kind.Kind {
			s.queue.Add(rs.Namespace + "/" + ref.Name)
		}
		return
	}
	if !current || rs.DeletionTimestamp != nil {
		return
	}
	for _, d := range s.all.ByIndex("namespace", rs.Namespace) {
		if sel, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(rs.Labels)) {
			s.queue.Add(client.Key(d))
		}
	}
}

// podGone wakes a Deployment that waits for its old pods to end (Recreate).
func (s *shell) podGone(p *corev1.Pod) {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil || ref.Kind != setKind.Kind {
		return
	}
	rs, ok := s.sets.Get(p.Namespace, ref.Name)
	if !ok {
		return
	}
	up := metav1.GetControllerOfNoCopy(rs)
	if up == nil || up.Kind != kind.Kind {
		return
	}
	if d, ok := s.all.Get(p.Namespace, up.Name); ok && d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		s.queue.Add(client.Key(d))
	}
}

func (s *shell) oldPods(old []*appsv1.ReplicaSet) bool {
	for _, rs := range old {
		for _, p := range owner.Owned(s.pods, rs.UID) {
			if !pods.Finished(p) {
				return true
			}
		}
	}
	return false
}

func (s *shell) sync(ctx context.Context, key string) error {
	d, ok := s.all.GetKey(key)
	if !ok {
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return fmt.Errorf("selector of %s: %w", key, err)
	}
	if selector.Empty() {
		s.events.Event(d, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		return nil
	}
	sets, err := owner.Claim(ctx, s.sets, client.Of[*appsv1.ReplicaSet](s.env.T()), d, kind, selector, func() (metav1.Object, error) {
		return client.Of[*appsv1.Deployment](s.env.T()).Get(ctx, d.Namespace, d.Name)
	})
	if err != nil {
		return err
	}
	p, err := plan(d, sets, s.oldPods, s.env.Now())
	if err != nil {
		return err
	}
	if p.Create != nil {
		if err := s.create(ctx, d, &p); err != nil {
			return err
		}
	}
	if err := s.resize(ctx, d, p.Update); err != nil {
		return err
	}
	for _, rs := range p.Delete {
		if err := client.Of[*appsv1.ReplicaSet](s.env.T()).Delete(ctx, rs.Namespace, rs.Name, loop.OfUID(rs)); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete replica set %s: %w", client.Key(rs), err)
		}
	}
	if err := s.report(ctx, d, p.Status, p.Revision); err != nil {
		return err
	}
	if p.Recheck > 0 {
		s.queue.AddAfter(key, p.Recheck)
	}
	return nil
}

// create makes the new ReplicaSet. A name that belongs to something else raises the collision count, which changes the name.
func (s *shell) create(ctx context.Context, d *appsv1.Deployment, p *Plan) error {
	res := client.Of[*appsv1.ReplicaSet](s.env.T())
	got, err := res.Create(ctx, p.Create)
	switch {
	case apierrors.IsAlreadyExists(err):
		other, getErr := res.Get(ctx, p.Create.Namespace, p.Create.Name)
		if getErr != nil {
			return getErr
		}
		if metav1.IsControlledBy(other, d) && sameTemplate(&other.Spec.Template, &d.Spec.Template) {
			return loop.See(ctx, s.sets, other) // ours: the cache was behind
		}
		status := d.Status.DeepCopy()
		n := int32(1)
		if status.CollisionCount != nil {
			n += *status.CollisionCount
		}
		status.CollisionCount = &n
		if err := s.report(ctx, d, *status, d.Annotations[annRevision]); err != nil {
			return err
		}
		return err
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case err != nil:
		message := fmt.Sprintf("Failed to create new replica set %q: %v", p.Create.Name, err)
		if hasDeadline(d) {
			status := d.Status.DeepCopy()
			setCondition(status, progressing("False", "ReplicaSetCreateError", message, s.env.Now()))
			if err := s.report(ctx, d, *status, d.Annotations[annRevision]); err != nil {
				return err
			}
		}
		s.events.Event(d, corev1.EventTypeWarning, "ReplicaSetCreateError", "%s", message)
		return fmt.Errorf("create replica set %s: %w", client.Key(p.Create), err)
	}
	if n := count(got); n > 0 {
		s.events.Event(d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", got.Name, n)
	}
	return loop.See(ctx, s.sets, got)
}

func (s *shell) resize(ctx context.Context, d *appsv1.Deployment, list []Resize) error {
	for _, r := range list {
		got, err := client.Of[*appsv1.ReplicaSet](s.env.T()).Update(ctx, r.Set)
		if err != nil {
			return fmt.Errorf("scale replica set %s: %w", client.Key(r.Set), err)
		}
		if n := count(r.Set); n != r.Was {
			way := "up"
			if n < r.Was {
				way = "down"
			}
			s.events.Event(d, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", way, r.Set.Name, r.Was, n)
		}
		if err := loop.See(ctx, s.sets, got); err != nil {
			return err
		}
	}
	return nil
}

// report writes the status and the revision, in one request, if either changed.
func (s *shell) report(ctx context.Context, d *appsv1.Deployment, status appsv1.DeploymentStatus, rev string) error {
	if apiequality.Semantic.DeepEqual(status, d.Status) && rev == d.Annotations[annRevision] {
		return nil
	}
	c := *d
	c.Status = status
	if rev != "" {
		c.Annotations = maps.Clone(d.Annotations)
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[annRevision] = rev
	}
	res := client.Of[*appsv1.Deployment](s.env.T())
	got, err := res.UpdateStatus(ctx, &c)
	if err != nil {
		return fmt.Errorf("update status of deployment %s: %w", client.Key(d), err)
	}
	// A status write only sometimes carries metadata along; without the revision clients cannot roll back.
	if rev != "" && got.Annotations[annRevision] != rev {
		c := got.DeepCopy()
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[annRevision] = rev
		if got, err = res.Update(ctx, c); err != nil {
			return fmt.Errorf("write revision of deployment %s: %w", client.Key(d), err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return loop.See(ctx, s.all, got)
}
