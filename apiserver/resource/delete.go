package resource

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

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
	for {
		rec := d.store.Get(c.key())
		if rec == nil || ObjectOf(rec) == nil {
			return nil, c.NotFound()
		}
		current := ObjectOf(rec)
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
	grace := graceOf(row, current, opts)
	finalizers := finalizersFor(row, current, opts)
	changedFinalizers := !slices.Equal(finalizers, current.GetFinalizers())
	want.SetFinalizers(finalizers)
	already := current.GetDeletionTimestamp() != nil
	switch {
	case already && grace > 0:
		// A second delete can only shorten what is left.
		if left := current.GetDeletionGracePeriodSeconds(); left != nil && grace >= *left && !changedFinalizers {
			return &Deletion{Object: current}, nil
		} else if left != nil && grace < *left {
			d.mark(want, grace)
		}
	case already && grace == 0 && (len(finalizers) > 0 || heldBySpec(current)):
		if left := current.GetDeletionGracePeriodSeconds(); (left == nil || *left == 0) && !changedFinalizers {
			return &Deletion{Object: current}, nil
		}
		zero := int64(0)
		want.SetDeletionGracePeriodSeconds(&zero)
	case grace > 0 || len(finalizers) > 0 || heldBySpec(current):
		d.mark(want, grace)
		if want.GetGeneration() > 0 {
			want.SetGeneration(want.GetGeneration() + 1)
		}
		if ns, ok := want.(*corev1.Namespace); ok {
			ns.Status.Phase = corev1.NamespaceTerminating
		}
	}
	if grace == 0 && len(finalizers) == 0 && !heldBySpec(current) {
		if c.DryRun {
			return &Deletion{Object: want, Gone: true}, nil
		}
		r, err := d.remove(ctx, c, row, rec, want)
		if err != nil {
			return nil, err
		}
		return &Deletion{Object: r.Object, Gone: true}, nil
	}
	if c.DryRun {
		return &Deletion{Object: want}, nil
	}
	next, err := d.commit(ctx, row, rec.Key, rec.Revision, want)
	if err != nil {
		return nil, d.deleteFailed(c, err)
	}
	return &Deletion{Object: ObjectOf(next)}, nil
}

func (d *Door) deleteFailed(c *Call, err error) error {
	var conflict *store.ConflictError
	if errors.As(err, &conflict) {
		return err
	}
	return d.failed(c, "delete", c.Name, err)
}

// mark sets the deletion mark: gone by now plus grace.
func (d *Door) mark(o Object, grace int64) {
	t := metav1.NewTime(d.now().Add(seconds(grace))).Rfc3339Copy()
	o.SetDeletionTimestamp(&t)
	o.SetDeletionGracePeriodSeconds(&grace)
}

// remove takes the record out of the store; last is the object as it is told to watchers.
func (d *Door) remove(ctx context.Context, c *Call, row *api.Row, rec *store.Record, last Object) (*Result, error) {
	next, err := d.store.Commit(ctx, store.Write{Key: rec.Key, Expect: rec.Revision, Attach: func(revision uint64) any {
		last.SetResourceVersion(format(revision))
		return last
	}})
	if err != nil {
		return nil, d.deleteFailed(c, err)
	}
	if h := d.hooks[row.GR()]; h != nil {
		h.Release(last)
	}
	return stored(next), nil
}

func precondition(c *Call, p *metav1.Preconditions, current Object) error {
	if p == nil {
		return nil
	}
	if p.UID != nil && *p.UID != current.GetUID() {
		return apierrors.NewConflict(c.Row.GR(), c.Name, fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, current.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != current.GetResourceVersion() {
		return apierrors.NewConflict(c.Row.GR(), c.Name, fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, current.GetResourceVersion()))
	}
	return nil
}

// graceOf returns the seconds an object is given to end: only pods that a node has, and that still run, get any.
func graceOf(row *api.Row, o Object, opts *metav1.DeleteOptions) int64 {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return 0
	}
	grace := int64(corev1.DefaultTerminationGracePeriodSeconds)
	switch {
	case opts.GracePeriodSeconds != nil:
		grace = *opts.GracePeriodSeconds
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		grace = *pod.Spec.TerminationGracePeriodSeconds
	}
	if grace < 0 {
		grace = 1
	}
	if pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return 0
	}
	return grace
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

// heldBySpec reports whether the object has finalizers of its own kind: a namespace's content.
func heldBySpec(o Object) bool {
	ns, ok := o.(*corev1.Namespace)
	return ok && len(ns.Spec.Finalizers) > 0
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
		one.Namespace, one.Name = o.GetNamespace(), o.GetName()
		if _, err := d.Delete(ctx, &one, opts.DeepCopy()); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return page, nil
}
