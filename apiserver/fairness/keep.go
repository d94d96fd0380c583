package fairness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	flowv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/api"
	"karve/client"
)

// The field managers that this package writes as: one for the objects every cluster has, one for conditions.
const (
	producer = "api-priority-and-fairness-config-producer-v1"
	consumer = "api-priority-and-fairness-config-consumer-v1"
)

const (
	// adjustEvery is how often levels lend seats anew.
	adjustEvery = 10 * time.Second
	// keepAfter is how long after a change the objects every cluster has are brought back to what they should be, so that
	// somebody who takes one over can do that in more than one step.
	keepAfter = time.Minute
	// againAfter is when a write that failed is tried again.
	againAfter = 5 * time.Second
)

// follow has the loop of Run look whenever an object changes.
func (f *Fairness) follow() {
	client.CacheOf[*flowv1.FlowSchema](f.opts.Caches).Handle(func(_, _ *flowv1.FlowSchema) { f.nudge() })
	client.CacheOf[*flowv1.PriorityLevelConfiguration](f.opts.Caches).Handle(func(_, _ *flowv1.PriorityLevelConfiguration) { f.nudge() })
}

func (f *Fairness) nudge() {
	select {
	case f.nudged <- struct{}{}:
	default:
	}
}

// Run goes by the objects of the cluster, once the caches have them, until ctx ends: it follows their changes, lets levels
// lend seats to each other, and writes what the package owns.
func (f *Fairness) Run(ctx context.Context) {
	for _, synced := range []<-chan struct{}{client.CacheOf[*flowv1.FlowSchema](f.opts.Caches).Synced(), client.CacheOf[*flowv1.PriorityLevelConfiguration](f.opts.Caches).Synced()} {
		select {
		case <-synced:
		case <-ctx.Done():
			return
		}
	}
	adjust := time.NewTicker(adjustEvery)
	defer adjust.Stop()
	keep, again := time.NewTimer(keepAfter), time.NewTimer(againAfter)
	keep.Stop()
	again.Stop()
	f.nudge()
	armed := false
	for {
		select {
		case <-f.nudged:
		case <-again.C:
		case <-adjust.C:
			f.adjust()
			continue
		case <-keep.C:
			armed = false
			if err := f.Ensure(ctx); err != nil {
				f.log.Warn("flow control objects not kept", "err", err)
				keep.Reset(keepAfter)
				armed = true
			}
			continue
		case <-ctx.Done():
			return
		}
		if err := f.look(ctx); err != nil && ctx.Err() == nil {
			f.log.Warn("condition of a flow schema not written", "err", err)
			again.Reset(againAfter)
		}
		if !armed {
			keep.Reset(keepAfter)
			armed = true
		}
	}
}

// Settle takes over a change at once, so that it is in effect, and its condition written, when who made it gets the answer.
func (f *Fairness) Settle(ctx context.Context) {
	if err := f.look(ctx); err != nil && ctx.Err() == nil {
		f.log.Debug("flow control not settled at once", "err", err)
		f.nudge()
	}
}

// look takes over what there is, and writes the conditions that say what it found. It reads past the caches, for Settle is
// called when they may not have seen yet what it is called for.
func (f *Fairness) look(ctx context.Context) error {
	f.looking.Lock()
	defer f.looking.Unlock()
	all, _, err := client.Of[*flowv1.FlowSchema](f.opts.Write).List(ctx, "", metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list flow schemas: %w", err)
	}
	plcs, _, err := client.Of[*flowv1.PriorityLevelConfiguration](f.opts.Write).List(ctx, "", metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list priority levels: %w", err)
	}
	f.digest(plcs, all)
	there := map[string]bool{exempt: true, catchAll: true}
	for _, o := range plcs {
		there[o.Name] = true
	}
	var errs []error
	for _, s := range all {
		if c, changed := dangling(s, there[s.Spec.PriorityLevelConfiguration.Name], time.Now()); changed {
			errs = append(errs, f.apply(ctx, s, c))
		}
	}
	return errors.Join(errs...)
}

// dangling returns the condition that says whether a schema's level exists, and whether the schema lacks it.
func dangling(s *flowv1.FlowSchema, found bool, now time.Time) (flowv1.FlowSchemaCondition, bool) {
	name := s.Spec.PriorityLevelConfiguration.Name
	c := flowv1.FlowSchemaCondition{Type: flowv1.FlowSchemaConditionDangling, Status: flowv1.ConditionTrue, Reason: "NotFound", LastTransitionTime: metav1.NewTime(now),
		Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q but there is no such object", name)}
	if found {
		c.Status, c.Reason = flowv1.ConditionFalse, "Found"
		c.Message = fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", name)
	}
	for _, old := range s.Status.Conditions {
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		return c, old.Status != c.Status || old.Reason != c.Reason || old.Message != c.Message
	}
	return c, true
}

func (f *Fairness) apply(ctx context.Context, s *flowv1.FlowSchema, c flowv1.FlowSchemaCondition) error {
	body, err := json.Marshal(map[string]any{"apiVersion": flowv1.SchemeGroupVersion.String(), "kind": "FlowSchema", "metadata": map[string]any{"name": s.Name},
		"status": map[string]any{"conditions": []flowv1.FlowSchemaCondition{c}}})
	if err != nil {
		return fmt.Errorf("encode status of flow schema %s: %w", s.Name, err)
	}
	_, err = f.opts.Write.Do(ctx, &client.Request{Verb: "patch", Resource: api.Of(s).GVR(), Name: s.Name, Subresource: "status",
		PatchType: types.ApplyPatchType, Patch: body, FieldManager: consumer, Force: true})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status of flow schema %s: %w", s.Name, err)
	}
	return nil
}

// Ensure creates the objects every cluster has, brings those up to date that nobody took over, and removes those of earlier
// versions.
func (f *Fairness) Ensure(ctx context.Context) error {
	return errors.Join(
		ensure(ctx, f.opts.Write, levels(), func(old, want *flowv1.PriorityLevelConfiguration) *flowv1.PriorityLevelConfiguration {
			next := old.DeepCopy()
			next.Spec = want.Spec
			if old.Name == exempt && old.Spec.Exempt != nil {
				next.Spec.Exempt = old.Spec.Exempt // how many seats the exempt take from the others is for people to say
			}
			return next
		}),
		ensure(ctx, f.opts.Write, schemas(), func(old, want *flowv1.FlowSchema) *flowv1.FlowSchema {
			next := old.DeepCopy()
			next.Spec = want.Spec
			return next
		}))
}

// ensure sees to the objects of one kind, all at a time. update returns a copy of old with the spec it should have.
func ensure[T client.Object](ctx context.Context, t client.Transport, want []T, update func(old, want T) T) error {
	res := client.Of[T](t).As(producer)
	have, _, err := res.List(ctx, "", metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list %T: %w", *new(T), err)
	}
	byName := map[string]T{}
	for _, o := range have {
		byName[o.GetName()] = o
	}
	var wg sync.WaitGroup
	errs := make([]error, len(want), len(want)+1)
	for i, w := range want {
		old, ok := byName[w.GetName()]
		delete(byName, w.GetName())
		wg.Go(func() {
			if !ok {
				if _, err := res.Create(ctx, w); err != nil && !apierrors.IsAlreadyExists(err) {
					errs[i] = fmt.Errorf("create %T %s: %w", w, w.GetName(), err)
				}
				return
			}
			if next, changed := kept(old, w, update); changed {
				if _, err := res.Update(ctx, next); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
					errs[i] = fmt.Errorf("update %T %s: %w", w, w.GetName(), err)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, remove(ctx, res, byName))...)
}

// remove deletes the objects that an earlier version kept.
func remove[T client.Object](ctx context.Context, res client.Resource[T], rest map[string]T) error {
	var errs []error
	for name, o := range rest {
		if o.GetAnnotations()[autoUpdate] != "true" {
			continue
		}
		uid, rv := o.GetUID(), o.GetResourceVersion()
		err := res.Delete(ctx, "", name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &rv}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete %T %s: %w", o, name, err))
		}
	}
	return errors.Join(errs...)
}

// kept returns what an object should be, and whether it differs. Its annotation says whether its spec is the server's; one
// without it is, as long as nobody changed the spec.
func kept[T client.Object](old, want T, update func(old, want T) T) (T, bool) {
	auto, err := strconv.ParseBool(old.GetAnnotations()[autoUpdate])
	said := err == nil
	if !said {
		auto = old.GetGeneration() == 1
	}
	if mandatory(old.GetName()) {
		said, auto = said && auto, true
	}
	next := old.DeepCopyObject().(T)
	if auto {
		next = update(old, want)
	}
	if !said {
		a := map[string]string{}
		for k, v := range old.GetAnnotations() {
			a[k] = v
		}
		a[autoUpdate] = strconv.FormatBool(auto)
		next.SetAnnotations(a)
	}
	return next, !equality.Semantic.DeepEqual(old, next)
}
