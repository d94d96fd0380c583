// Package statefulset keeps the pods of StatefulSets: each with a lasting name, its own volume claims, and, unless asked
// otherwise, made and deleted one at a time in order. plan decides; the shell sends what was decided. It is run by package
// controller.
package statefulset

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/controller/history"
	"karve/controller/loop"
	"karve/controller/owner"
	"karve/controller/pods"
)

// Name is the controller's name and the component of its events.
const Name = "statefulset-controller"

var kind = appsv1.SchemeGroupVersion.WithKind("StatefulSet")

type shell struct {
	env       *loop.Env
	queue     *loop.Queue
	events    loop.Events
	sets      *client.Cache[*appsv1.StatefulSet]
	pods      *client.Cache[*corev1.Pod]
	claims    *client.Cache[*corev1.PersistentVolumeClaim]
	revisions *client.Cache[*appsv1.ControllerRevision]
}

// New returns the controller.
func New(env *loop.Env) *loop.Controller {
	s := &shell{env: env, queue: loop.NewQueue(), events: env.Events(Name), sets: client.CacheOf[*appsv1.StatefulSet](env.Caches), pods: client.CacheOf[*corev1.Pod](env.Caches),
		claims: client.CacheOf[*corev1.PersistentVolumeClaim](env.Caches), revisions: client.CacheOf[*appsv1.ControllerRevision](env.Caches)}
	owner.Index(s.pods)
	owner.Index(s.revisions)
	s.sets.Handle(func(old, now *appsv1.StatefulSet) {
		if now == nil {
			now = old
		}
		s.queue.Add(client.Key(now))
	})
	s.pods.Handle(func(old, now *corev1.Pod) {
		for _, p := range [...]*corev1.Pod{old, now} {
			if p == nil {
				continue
			}
			if ref := metav1.GetControllerOfNoCopy(p); ref != nil {
				if ref.Kind == kind.Kind {
					s.queue.Add(p.Namespace + "/" + ref.Name)
				}
			} else if set, ok := s.sets.Get(p.Namespace, parent(p.Name)); ok {
				s.queue.Add(client.Key(set))
			}
		}
	})
	return &loop.Controller{Name: Name, Queue: s.queue, Workers: 4, Sync: s.sync}
}

// parent returns the name of the set that a pod of this name would belong to.
func parent(pod string) string {
	for i := len(pod) - 1; i > 0; i-- {
		if pod[i] == '-' {
			return pod[:i]
		}
	}
	return ""
}

func (s *shell) sync(ctx context.Context, key string) error {
	set, ok := s.sets.GetKey(key)
	if !ok {
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil || selector.Empty() {
		return err
	}
	live := func() (metav1.Object, error) {
		return client.Of[*appsv1.StatefulSet](s.env.T()).Get(ctx, set.Namespace, set.Name)
	}
	mine, err := owner.Claim(ctx, s.pods, client.Of[*corev1.Pod](s.env.T()), set, kind, selector, live)
	if err != nil {
		return err
	}
	revisions, err := owner.Claim(ctx, s.revisions, client.Of[*appsv1.ControllerRevision](s.env.T()), set, kind, selector, live)
	if err != nil {
		return err
	}
	current, update, err := s.record(ctx, set, revisions, mine)
	if err != nil {
		return err
	}
	p := plan(set, mine, current.Name, update.Name, s.env.Now())
	if p.Recheck > 0 {
		s.queue.AddAfter(key, p.Recheck+time.Millisecond)
	}
	failure := s.carryOut(ctx, set, p, current, update)
	if !apiequality.Semantic.DeepEqual(p.Status, set.Status) {
		c := *set
		c.Status = p.Status
		got, err := client.Of[*appsv1.StatefulSet](s.env.T()).UpdateStatus(ctx, &c)
		if err != nil {
			return fmt.Errorf("update status of stateful set %s: %w", key, err)
		}
		if err := loop.See(ctx, s.sets, got); err != nil {
			return err
		}
	}
	return failure
}

// record keeps the history of templates and returns the revisions before and after the update in progress.
func (s *shell) record(ctx context.Context, set *appsv1.StatefulSet, have []*appsv1.ControllerRevision, mine []*corev1.Pod) (current, update *appsv1.ControllerRevision, err error) {
	used := map[string]bool{set.Status.CurrentRevision: true, set.Status.UpdateRevision: true}
	for _, p := range mine {
		used[revisionOf(p)] = true
	}
	plan, err := history.Plan(history.Of{Owner: set, Kind: kind, Template: &set.Spec.Template, Collisions: set.Status.CollisionCount, Limit: set.Spec.RevisionHistoryLimit},
		have, func(r *appsv1.ControllerRevision) bool { return used[r.Name] })
	if err != nil {
		return nil, nil, err
	}
	res := client.Of[*appsv1.ControllerRevision](s.env.T())
	update = plan.Now
	switch {
	case plan.Fresh:
		update, err = res.Create(ctx, plan.Now)
		if apierrors.IsAlreadyExists(err) {
			return nil, nil, s.collided(ctx, set, plan.Now, err)
		}
	case plan.Changed:
		update, err = res.Update(ctx, plan.Now)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("write revision %s: %w", client.Key(plan.Now), err)
	}
	if plan.Fresh || plan.Changed {
		if err := loop.See(ctx, s.revisions, update); err != nil {
			return nil, nil, err
		}
	}
	for _, r := range plan.Drop {
		if err := res.Delete(ctx, r.Namespace, r.Name, loop.OfUID(r)); err != nil && !apierrors.IsNotFound(err) {
			return nil, nil, fmt.Errorf("delete revision %s: %w", client.Key(r), err)
		}
	}
	current = update
	for _, r := range have {
		if r.Name == set.Status.CurrentRevision {
			current = r
		}
	}
	return current, update, nil
}

func (s *shell) collided(ctx context.Context, set *appsv1.StatefulSet, r *appsv1.ControllerRevision, cause error) error {
	other, err := client.Of[*appsv1.ControllerRevision](s.env.T()).Get(ctx, r.Namespace, r.Name)
	if err != nil || metav1.IsControlledBy(other, set) && history.Same(other.Data.Raw, r.Data.Raw) {
		return cause
	}
	c := *set
	n := int32(1)
	if set.Status.CollisionCount != nil {
		n += *set.Status.CollisionCount
	}
	c.Status.CollisionCount = &n
	if _, err := client.Of[*appsv1.StatefulSet](s.env.T()).UpdateStatus(ctx, &c); err != nil {
		return err
	}
	return cause
}

func (s *shell) carryOut(ctx context.Context, set *appsv1.StatefulSet, p Plan, current, update *appsv1.ControllerRevision) error {
	res := client.Of[*corev1.Pod](s.env.T())
	for _, pod := range p.Delete {
		switch pod.Status.Phase {
		case corev1.PodFailed:
			s.events.Event(set, corev1.EventTypeWarning, "RecreatingFailedPod", "StatefulSet %s is recreating failed Pod %s", client.Key(set), pod.Name)
		case corev1.PodSucceeded:
			s.events.Event(set, corev1.EventTypeNormal, "RecreatingTerminatedPod", "StatefulSet %s is recreating terminated Pod %s", client.Key(set), pod.Name)
		}
		err := res.Delete(ctx, pod.Namespace, pod.Name, loop.OfUID(pod))
		if err != nil && !apierrors.IsNotFound(err) {
			s.events.Event(set, corev1.EventTypeWarning, "FailedDelete", "delete Pod %s in StatefulSet %s failed error: %v", pod.Name, set.Name, err)
			return fmt.Errorf("delete pod %s: %w", client.Key(pod), err)
		}
		s.events.Event(set, corev1.EventTypeNormal, "SuccessfulDelete", "delete Pod %s in StatefulSet %s successful", pod.Name, set.Name)
		if err := loop.Gone(ctx, s.pods, pod); err != nil {
			return err
		}
	}
	for _, n := range p.Claims {
		if err := s.ensureClaims(ctx, set, n); err != nil {
			return err
		}
	}
	for _, m := range p.Create {
		from := current
		if m.Updated {
			from = update
		}
		pod, err := newPod(set, m.Ordinal, from)
		if err != nil {
			return err
		}
		if err := s.ensureClaims(ctx, set, m.Ordinal); err != nil {
			return err
		}
		got, err := res.Create(ctx, pod)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err != nil {
			if !apierrors.IsAlreadyExists(err) {
				s.events.Event(set, corev1.EventTypeWarning, "FailedCreate", "create Pod %s in StatefulSet %s failed error: %v", pod.Name, set.Name, err)
			}
			return fmt.Errorf("create pod %s: %w", client.Key(pod), err)
		}
		s.events.Event(set, corev1.EventTypeNormal, "SuccessfulCreate", "create Pod %s in StatefulSet %s successful", pod.Name, set.Name)
		if err := loop.See(ctx, s.pods, got); err != nil {
			return err
		}
	}
	return nil
}

func claimName(template, set string, ordinal int) string {
	return template + "-" + set + "-" + strconv.Itoa(ordinal)
}

// ensureClaims makes the volume claims of the pod at ordinal that do not exist. A claim outlives its pod, that is its point.
func (s *shell) ensureClaims(ctx context.Context, set *appsv1.StatefulSet, ordinal int) error {
	for i := range set.Spec.VolumeClaimTemplates {
		t := &set.Spec.VolumeClaimTemplates[i]
		name := claimName(t.Name, set.Name, ordinal)
		if _, ok := s.claims.Get(set.Namespace, name); ok {
			continue
		}
		c := t.DeepCopy()
		c.Name, c.Namespace = name, set.Namespace
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		maps.Copy(c.Labels, set.Spec.Selector.MatchLabels)
		if r := set.Spec.PersistentVolumeClaimRetentionPolicy; r != nil && r.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType {
			c.OwnerReferences = append(c.OwnerReferences, *metav1.NewControllerRef(set, kind))
		}
		got, err := client.Of[*corev1.PersistentVolumeClaim](s.env.T()).Create(ctx, c)
		if apierrors.IsAlreadyExists(err) {
			continue
		}
		pod := set.Name + "-" + strconv.Itoa(ordinal)
		if err != nil {
			s.events.Event(set, corev1.EventTypeWarning, "FailedCreate", "create Claim %s for Pod %s in StatefulSet %s failed error: %v", name, pod, set.Name, err)
			return fmt.Errorf("create claim %s: %w", name, err)
		}
		s.events.Event(set, corev1.EventTypeNormal, "SuccessfulCreate", "create Claim %s Pod %s in StatefulSet %s success", name, pod, set.Name)
		if err := loop.See(ctx, s.claims, got); err != nil {
			return err
		}
	}
	return nil
}

// newPod returns the pod at ordinal, made from the template that a revision holds.
func newPod(set *appsv1.StatefulSet, ordinal int, from *appsv1.ControllerRevision) (*corev1.Pod, error) {
	var doc struct {
		Spec struct {
			Template corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(from.Data.Raw, &doc); err != nil {
		return nil, fmt.Errorf("read revision %s: %w", client.Key(from), err)
	}
	p := pods.FromTemplate(&doc.Spec.Template, set, kind)
	p.Name, p.GenerateName = set.Name+"-"+strconv.Itoa(ordinal), set.Name+"-"
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.StatefulSetPodNameLabel] = p.Name
	p.Labels[appsv1.PodIndexLabel] = strconv.Itoa(ordinal)
	p.Labels[appsv1.ControllerRevisionHashLabelKey] = from.Name
	p.Spec.Hostname, p.Spec.Subdomain = p.Name, set.Spec.ServiceName
	for i := range set.Spec.VolumeClaimTemplates {
		t := set.Spec.VolumeClaimTemplates[i].Name
		p.Spec.Volumes = slices.DeleteFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == t })
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: t, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(t, set.Name, ordinal)}}})
	}
	return p, nil
}
