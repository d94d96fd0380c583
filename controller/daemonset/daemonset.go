// Package daemonset keeps one pod of each DaemonSet on every node that it selects, and replaces pods of former templates
// within maxUnavailable or maxSurge. plan decides; the shell sends what was decided. It is run by package controller. The
// pods name their node by affinity; binding them is the scheduler's.
package daemonset

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"karve/client"
	"karve/controller/history"
	"karve/controller/loop"
	"karve/controller/owner"
	"karve/controller/pods"
)

// Name is the controller's name and the component of its events.
const Name = "daemonset-controller"

var kind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

type shell struct {
	env       *loop.Env
	queue     *loop.Queue
	events    loop.Events
	sets      *client.Cache[*appsv1.DaemonSet]
	pods      *client.Cache[*corev1.Pod]
	nodes     *client.Cache[*corev1.Node]
	revisions *client.Cache[*appsv1.ControllerRevision]
}

// New returns the controller.
func New(env *loop.Env) *loop.Controller {
	s := &shell{env: env, queue: loop.NewQueue(), events: env.Events(Name), sets: client.CacheOf[*appsv1.DaemonSet](env.Caches), pods: client.CacheOf[*corev1.Pod](env.Caches),
		nodes: client.CacheOf[*corev1.Node](env.Caches), revisions: client.CacheOf[*appsv1.ControllerRevision](env.Caches)}
	owner.Index(s.pods)
	owner.Index(s.revisions)
	s.sets.Index("namespace", func(d *appsv1.DaemonSet) []string { return []string{d.Namespace} })
	s.sets.Handle(func(old, now *appsv1.DaemonSet) {
		if now == nil {
			now = old
		}
		s.queue.Add(client.Key(now))
	})
	s.pods.Handle(func(old, now *corev1.Pod) {
		for _, p := range [...]*corev1.Pod{old, now} {
			if p != nil {
				s.podChanged(p, p == now)
			}
		}
	})
	s.nodes.Handle(func(old, now *corev1.Node) {
		if old != nil && now != nil && maps.Equal(old.Labels, now.Labels) && apiequality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) {
			return
		}
		for _, d := range s.sets.List() {
			s.queue.Add(client.Key(d))
		}
	})
	return &loop.Controller{Name: Name, Queue: s.queue, Workers: 2, Sync: s.sync}
}

func (s *shell) podChanged(p *corev1.Pod, current bool) {
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil {
		if ref.Kind == kind.Kind {
			s.queue.Add(p.Namespace + "/" + ref.Name)
		}
		return
	}
	if !current || p.DeletionTimestamp != nil {
		return
	}
	for _, d := range s.sets.ByIndex("namespace", p.Namespace) {
		if sel, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(p.Labels)) {
			s.queue.Add(client.Key(d))
		}
	}
}

func (s *shell) sync(ctx context.Context, key string) error {
	ds, ok := s.sets.GetKey(key)
	if !ok {
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(ds.Spec.Selector)
	if err != nil {
		return fmt.Errorf("selector of %s: %w", key, err)
	}
	if selector.Empty() {
		s.events.Event(ds, corev1.EventTypeWarning, "SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.")
		return nil
	}
	live := func() (metav1.Object, error) {
		return client.Of[*appsv1.DaemonSet](s.env.T()).Get(ctx, ds.Namespace, ds.Name)
	}
	mine, err := owner.Claim(ctx, s.pods, client.Of[*corev1.Pod](s.env.T()), ds, kind, selector, live)
	if err != nil {
		return err
	}
	hash := ""
	if ds.DeletionTimestamp == nil {
		revisions, err := owner.Claim(ctx, s.revisions, client.Of[*appsv1.ControllerRevision](s.env.T()), ds, kind, selector, live)
		if err != nil {
			return err
		}
		if hash, err = s.record(ctx, ds, revisions, mine); err != nil {
			return err
		}
	}
	generation := templateGeneration(ds)
	p := plan(ds, mine, s.nodes.List(), hash, generation, s.env.Now())
	if p.Recheck > 0 {
		s.queue.AddAfter(key, p.Recheck+time.Millisecond)
	}
	failure := s.carryOut(ctx, ds, p, hash, generation)
	if !apiequality.Semantic.DeepEqual(p.Status, ds.Status) {
		c := *ds
		c.Status = p.Status
		got, err := client.Of[*appsv1.DaemonSet](s.env.T()).UpdateStatus(ctx, &c)
		if err != nil {
			return fmt.Errorf("update status of daemon set %s: %w", key, err)
		}
		if err := loop.See(ctx, s.sets, got); err != nil {
			return err
		}
	}
	return failure
}

func templateGeneration(ds *appsv1.DaemonSet) *int64 {
	n, err := strconv.ParseInt(ds.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// record keeps the history of templates and returns the hash of the present one.
func (s *shell) record(ctx context.Context, ds *appsv1.DaemonSet, have []*appsv1.ControllerRevision, mine []*corev1.Pod) (string, error) {
	used := map[string]bool{}
	for _, p := range mine {
		used[p.Labels[hashLabel]] = true
	}
	plan, err := history.Plan(history.Of{Owner: ds, Kind: kind, Template: &ds.Spec.Template, Collisions: ds.Status.CollisionCount, Limit: ds.Spec.RevisionHistoryLimit},
		have, func(r *appsv1.ControllerRevision) bool { return used[r.Labels[hashLabel]] })
	if err != nil {
		return "", err
	}
	now, got := plan.Now, plan.Now
	res := client.Of[*appsv1.ControllerRevision](s.env.T())
	switch {
	case plan.Fresh:
		if got, err = res.Create(ctx, now); apierrors.IsAlreadyExists(err) {
			return "", s.collided(ctx, ds, now, err)
		}
	case plan.Changed:
		got, err = res.Update(ctx, now)
	}
	if err != nil {
		return "", fmt.Errorf("write revision %s: %w", client.Key(now), err)
	}
	if plan.Fresh || plan.Changed {
		if err := loop.See(ctx, s.revisions, got); err != nil {
			return "", err
		}
	}
	for _, r := range plan.Drop {
		if err := res.Delete(ctx, r.Namespace, r.Name, loop.OfUID(r)); err != nil && !apierrors.IsNotFound(err) {
			return "", fmt.Errorf("delete revision %s: %w", client.Key(r), err)
		}
	}
	return got.Labels[hashLabel], nil
}

// collided raises the collision count, which changes the next name, unless the revision is ours and the cache was behind.
func (s *shell) collided(ctx context.Context, ds *appsv1.DaemonSet, r *appsv1.ControllerRevision, cause error) error {
	other, err := client.Of[*appsv1.ControllerRevision](s.env.T()).Get(ctx, r.Namespace, r.Name)
	if err != nil || metav1.IsControlledBy(other, ds) && history.Same(other.Data.Raw, r.Data.Raw) {
		return cause
	}
	c := *ds
	n := int32(1)
	if ds.Status.CollisionCount != nil {
		n += *ds.Status.CollisionCount
	}
	c.Status.CollisionCount = &n
	if _, err := client.Of[*appsv1.DaemonSet](s.env.T()).UpdateStatus(ctx, &c); err != nil {
		return err
	}
	return cause
}

func (s *shell) carryOut(ctx context.Context, ds *appsv1.DaemonSet, p Plan, hash string, generation *int64) error {
	res := client.Of[*corev1.Pod](s.env.T())
	for _, pod := range p.Failed {
		s.events.Event(ds, corev1.EventTypeWarning, "FailedDaemonPod", "Found failed daemon pod %s on node %s, will try to kill it", client.Key(pod), pod.Spec.NodeName)
	}
	for _, err := range loop.Parallel(len(p.Delete), pods.Width, func(i int) error {
		pod := p.Delete[i]
		err := res.Delete(ctx, pod.Namespace, pod.Name, loop.OfUID(pod))
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		if err != nil {
			s.events.Event(ds, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
			return fmt.Errorf("delete pod %s: %w", client.Key(pod), err)
		}
		s.events.Event(ds, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %s", pod.Name)
		return loop.Gone(ctx, s.pods, pod)
	}) {
		if err != nil {
			return err
		}
	}
	next := make(chan string, len(p.Create))
	for _, n := range p.Create {
		next <- n
	}
	_, err := pods.SlowStart(len(p.Create), func() error {
		got, err := res.Create(ctx, newPod(ds, <-next, hash, generation))
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err != nil {
			s.events.Event(ds, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
			return fmt.Errorf("create pod of daemon set %s: %w", client.Key(ds), err)
		}
		s.events.Event(ds, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %s", got.Name)
		return loop.See(ctx, s.pods, got)
	})
	return err
}

// newPod returns the pod for a node, which it names by affinity so that the scheduler binds it like any other.
func newPod(ds *appsv1.DaemonSet, node, hash string, generation *int64) *corev1.Pod {
	p := pods.FromTemplate(&ds.Spec.Template, ds, kind)
	p.Labels = maps.Clone(p.Labels)
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[hashLabel] = hash
	if generation != nil {
		p.Labels[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(*generation, 10)
	}
	p.Spec.Tolerations = tolerating(&ds.Spec.Template.Spec)
	a := &corev1.Affinity{}
	if p.Spec.Affinity != nil {
		a = p.Spec.Affinity.DeepCopy()
	}
	if a.NodeAffinity == nil {
		a.NodeAffinity = &corev1.NodeAffinity{}
	}
	a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}
	p.Spec.Affinity = a
	return p
}
