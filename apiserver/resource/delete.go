package resource

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
	"karve/apiserver/admission"
	"karve/store"
)

// Deletion is what a delete ended with: the object as it last was, and whether it is gone already (or stays until its
// grace period or finalizers are done).
type Deletion struct {
	Object Object
	Gone   bool
}

// Answer is what a client gets: the object for the resources that answer with it and for those that linger.
func (x *Deletion) Answer(row *api.Row) runtime.Object {
	if !x.Gone || row.ReturnsDeleted {
		return x.Object
	}
	return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Name: x.Object.GetName(), Group: row.Group, Kind: row.Resource, UID: x.Object.GetUID()}}
}

// Delete deletes one object, at once or by marking it for its finalizers and its node.
func (d *Door) Delete(ctx context.Context, c *Call, opts *metav1.DeleteOptions) (*Deletion, error) {
	row := c.Row.Hub()
	admitted := false
	if err := d.catchUp(ctx); err != nil {
		return nil, err
	}
	for {
		rec := d.store.Get(c.key())
		if rec == nil {
			return nil, c.NotFound()
		}
		current := ObjectOf(rec)
		if current == nil {
			return nil, c.NotFound()
		}
		if err := precondition(c, opts.Preconditions, current); err != nil {
			return nil, err
		}
		if !admitted {
			a := d.attributes(c, admission.Delete, nil, current)
			if err := d.chain.Admit(ctx, a); err != nil {
				return nil, err
			}
			if err := d.chain.Validate(ctx, a); err != nil {
				return nil, err
			}
			admitted = true
		}
		out, err := d.deleteOnce(ctx, c, row, rec, current, opts)
		var conflict *store.ConflictError
		if !errors.As(err, &conflict) {
			return out, err
		}
	}
}

func (d *Door) deleteOnce(ctx context.Context, c *Call, row *api.Row, rec *store.Record, current Object, opts *metav1.DeleteOptions) (*Deletion, error) {
	want := current.DeepCopyObject().(Object)
	end := planDelete(row, want, opts, d.now())
	switch {
	case end == endPending:
		return &Deletion{Object: current}, nil
	case c.DryRun:
		return &Deletion{Object: want, Gone: end == endRemoved || end == endEnded}, nil
	case end == endMarked && equality.Semantic.DeepEqual(want, current):
		return &Deletion{Object: current}, nil
	case end == endMarked || end == endEnded:
		next, err := d.commit(ctx, row, rec.Key, rec.Revision, want)
		if err != nil {
			return nil, d.deleteFailed(c, err)
		}
		if rec = next; end == endMarked {
			return &Deletion{Object: ObjectOf(rec)}, nil
		}
	}
	// What has been marked is removed even if the client, who may have seen the mark, has stopped waiting.
	last, err := d.remove(context.WithoutCancel(ctx), c, row, rec)
	if err != nil {
		return nil, err
	}
	return &Deletion{Object: last, Gone: true}, nil
}

// ending is what a delete comes to.
type ending int

const (
	endPending ending = iota // the object is going already and this delete changes nothing about that
	endMarked                // its mark or its finalizers change; it stays until they are done with
	endEnded                 // it is marked without any grace, which watchers see, and then removed
	endRemoved               // it is removed as it is
)

// planDelete works out what a delete comes to and makes want what it leaves behind.
func planDelete(row *api.Row, want Object, opts *metav1.DeleteOptions, now time.Time) ending {
	if ns, ok := want.(*corev1.Namespace); ok {
		if ns.DeletionTimestamp == nil {
			t := metav1.NewTime(now).Rfc3339Copy()
			ns.DeletionTimestamp, ns.Status.Phase = &t, corev1.NamespaceTerminating
			ns.Finalizers = finalizersFor(row, ns, opts)
			return endMarked
		}
		if len(ns.Spec.Finalizers) > 0 {
			return endPending
		}
	}
	graceful, left := false, int64(0)
	if pod, ok := want.(*corev1.Pod); ok {
		var pending bool
		if graceful, pending = shorten(pod, opts, now); pending {
			return endPending
		}
		if graceful {
			left = *pod.DeletionGracePeriodSeconds
		}
	}
	want.SetFinalizers(finalizersFor(row, want, opts))
	held := len(want.GetFinalizers()) > 0
	switch {
	case graceful && (held || left > 0):
		return endMarked
	case graceful:
		return endEnded
	case held:
		mark(want, now)
		return endMarked
	}
	return endRemoved
}

// shorten gives a pod its time to end, or less of it than it had. pending says that it has no more than that already.
func shorten(pod *corev1.Pod, opts *metav1.DeleteOptions, now time.Time) (graceful, pending bool) {
	if pod.DeletionTimestamp == nil {
		grace := graceOf(pod, opts)
		t := metav1.NewTime(now.Add(seconds(grace))).Rfc3339Copy()
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &t, &grace
		if pod.Generation > 0 {
			pod.Generation++
		}
		return true, false
	}
	old := pod.DeletionGracePeriodSeconds
	if old == nil || *old <= 0 { // its time is over: somebody was kept from removing it after marking it
		return false, false
	}
	if opts.GracePeriodSeconds == nil || positive(*opts.GracePeriodSeconds) >= *old {
		return false, true
	}
	grace := positive(*opts.GracePeriodSeconds)
	t := metav1.NewTime(pod.DeletionTimestamp.Add(seconds(grace - *old)))
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &t, &grace
	return true, false
}

func (d *Door) deleteFailed(c *Call, err error) error {
	var conflict *store.ConflictError
	if errors.As(err, &conflict) {
		return err
	}
	return d.failed(c, "delete", c.Name, err)
}

// mark sets the deletion mark of an object that only its finalizers keep.
func mark(o Object, now time.Time) {
	if o.GetDeletionGracePeriodSeconds() == nil && o.GetGeneration() > 0 {
		o.SetGeneration(o.GetGeneration() + 1)
	}
	if t := o.GetDeletionTimestamp(); t == nil || t.After(now) {
		t := metav1.NewTime(now).Rfc3339Copy()
		o.SetDeletionTimestamp(&t)
	}
	zero := int64(0)
	o.SetDeletionGracePeriodSeconds(&zero)
}

// remove takes the record out of the store and returns its object as watchers are told of it: as it last was, under the
// revision of its end.
func (d *Door) remove(ctx context.Context, c *Call, row *api.Row, rec *store.Record) (Object, error) {
	last := shallow(ObjectOf(rec))
	_, err := d.store.Commit(ctx, store.Write{Key: rec.Key, Expect: rec.Revision, Attach: func(revision uint64) any {
		last.SetResourceVersion(format(revision))
		return last
	}})
	if err != nil {
		return nil, d.deleteFailed(c, err)
	}
	if h := d.hooks[row.GR()]; h != nil {
		h.Release(last)
	}
	return last, nil
}

// shallow copies the struct itself, so that its own fields can be set; all below it stays shared.
func shallow(o Object) Object {
	c := reflect.New(reflect.TypeOf(o).Elem())
	c.Elem().Set(reflect.ValueOf(o).Elem())
	return c.Interface().(Object)
}

func precondition(c *Call, p *metav1.Preconditions, current Object) error {
	if p == nil {
		return nil
	}
	kind := schema.GroupResource{Group: c.Row.Hub().Group, Resource: c.Row.Hub().Kind}
	if p.UID != nil && *p.UID != current.GetUID() {
		return apierrors.NewConflict(kind, c.Name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, current.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != current.GetResourceVersion() {
		return apierrors.NewConflict(kind, c.Name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, current.GetResourceVersion()))
	}
	return nil
}

// graceOf returns the seconds a pod is given to end: none unless a node has it and it still runs.
func graceOf(pod *corev1.Pod, opts *metav1.DeleteOptions) int64 {
	if pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return 0
	}
	switch {
	case opts.GracePeriodSeconds != nil:
		return positive(*opts.GracePeriodSeconds)
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return positive(*pod.Spec.TerminationGracePeriodSeconds)
	}
	return 0
}

// positive reads a grace period: a negative one counts as the shortest there is.
func positive(seconds int64) int64 {
	if seconds < 0 {
		return 1
	}
	return seconds
}

// finalizersFor adds or takes the finalizers that a propagation policy stands for.
func finalizersFor(row *api.Row, o Object, opts *metav1.DeleteOptions) []string {
	orphan, foreground := slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents), slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents)
	switch {
	case opts.OrphanDependents != nil: //nolint:staticcheck // old clients still send it
		orphan, foreground = *opts.OrphanDependents, false
	case opts.PropagationPolicy != nil:
		orphan = *opts.PropagationPolicy == metav1.DeletePropagationOrphan
		foreground = *opts.PropagationPolicy == metav1.DeletePropagationForeground
	case !orphan && !foreground && row.OrphansByDefault:
		orphan = true
	}
	var out []string
	for _, f := range o.GetFinalizers() {
		if f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents {
			out = append(out, f)
		}
	}
	if orphan {
		out = append(out, metav1.FinalizerOrphanDependents)
	}
	if foreground {
		out = append(out, metav1.FinalizerDeleteDependents)
	}
	return out
}

// DeleteCollection deletes every object that opts select and returns the list of them as they last were.
func (d *Door) DeleteCollection(ctx context.Context, c *Call, opts *metav1.DeleteOptions, list *metav1.ListOptions) (*Page, error) {
	all := *list
	all.Watch = false
	page, err := d.List(ctx, c, &all)
	if err != nil {
		return nil, err
	}
	for _, r := range page.Records {
		one := *c
		o := ObjectOf(r)
		if o == nil {
			continue
		}
		one.Namespace, one.Name = o.GetNamespace(), o.GetName()
		if _, err := d.Delete(ctx, &one, opts.DeepCopy()); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return page, nil
}
