package resource

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"karve/api"
)

var pdbRow = api.ByResource(policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets"))

const (
	// maxDisrupted is how many evictions of a budget may be waiting for its controller to see them.
	maxDisrupted = 2000
	// evictor is the manager under which evictions write budgets.
	evictor = "kube-apiserver"
	refused = "Cannot evict pod as it would violate the pod's disruption budget."
)

// Evict deletes a pod if its disruption budgets allow one more disruption.
func (d *Door) Evict(ctx context.Context, c *Call, e *policyv1.Eviction) (*metav1.Status, error) {
	if e.Name != c.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	call := *c
	call.Row, call.Sub = podRow, ""
	opts := &metav1.DeleteOptions{}
	if e.DeleteOptions != nil {
		opts = e.DeleteOptions.DeepCopy()
	}
	call.DryRun = call.DryRun || len(opts.DryRun) > 0
	pinned := opts.Preconditions != nil && opts.Preconditions.ResourceVersion != nil
	for {
		done, err := d.evictOnce(ctx, &call, opts, pinned)
		if !apierrors.IsConflict(err) || pinned || opts.Preconditions != nil && opts.Preconditions.UID != nil {
			return done, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// evictOnce judges the pod as it is now. It ends in a conflict when the pod changed before it was deleted.
func (d *Door) evictOnce(ctx context.Context, c *Call, opts *metav1.DeleteOptions, pinned bool) (*metav1.Status, error) {
	rec, err := d.Get(ctx, c, "")
	if err != nil {
		return nil, err
	}
	pod := ObjectOf(rec).(*corev1.Pod)
	this := opts.DeepCopy()
	pin := func() {
		if this.Preconditions == nil {
			this.Preconditions = &metav1.Preconditions{}
		}
		if !pinned {
			this.Preconditions.ResourceVersion = &pod.ResourceVersion
		}
	}
	over := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed || pod.DeletionTimestamp != nil
	if over || pod.Status.Phase == corev1.PodPending {
		if !over { // it may become ready meanwhile
			pin()
		}
		return d.evicted(ctx, c, this)
	}
	budgets, err := d.budgetsOf(ctx, c, pod)
	if err != nil {
		return nil, err
	}
	switch len(budgets) {
	case 0:
		return d.evicted(ctx, c, this)
	case 1:
	default:
		return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
			Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}, nil
	}
	pdb := budgets[0]
	if free(pdb, pod) {
		pin()
		done, err := d.evicted(ctx, c, this)
		if apierrors.IsConflict(err) && !pinned {
			err = stillProcessed(pdb) // the client will ask again
		}
		return done, err
	}
	if err := d.spend(ctx, c, pdb, pod); err != nil {
		return nil, err
	}
	return d.evicted(ctx, c, this)
}

func (d *Door) evicted(ctx context.Context, c *Call, opts *metav1.DeleteOptions) (*metav1.Status, error) {
	if _, err := d.Delete(ctx, c, opts); err != nil {
		return nil, err
	}
	return success(), nil
}

// budgetsOf lists the budgets that select a pod. One without a selector, or with an empty one, selects nothing.
func (d *Door) budgetsOf(ctx context.Context, c *Call, pod *corev1.Pod) ([]*policyv1.PodDisruptionBudget, error) {
	page, err := d.List(ctx, &Call{Row: pdbRow, Namespace: c.Namespace}, &metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var found []*policyv1.PodDisruptionBudget
	for _, r := range page.Records {
		p := ObjectOf(r).(*policyv1.PodDisruptionBudget)
		sel, err := metav1.LabelSelectorAsSelector(p.Spec.Selector)
		if err == nil && !sel.Empty() && sel.Matches(labels.Set(pod.Labels)) {
			found = append(found, p)
		}
	}
	return found, nil
}

// free reports whether a pod that is not ready may go without a disruption being spent.
func free(pdb *policyv1.PodDisruptionBudget, pod *corev1.Pod) bool {
	for _, x := range pod.Status.Conditions {
		if x.Type == corev1.PodReady && x.Status == corev1.ConditionTrue {
			return false
		}
	}
	if p := pdb.Spec.UnhealthyPodEvictionPolicy; p != nil && *p == policyv1.AlwaysAllow {
		return true
	}
	return pdb.Status.CurrentHealthy >= pdb.Status.DesiredHealthy && pdb.Status.DesiredHealthy > 0
}

func stillProcessed(pdb *policyv1.PodDisruptionBudget) error {
	return tooMany(10, fmt.Sprintf("The disruption budget %s is still being processed by the server.", pdb.Name))
}

func tooMany(retryAfter int, message string) error {
	e := apierrors.NewTooManyRequests(refused, retryAfter)
	e.ErrStatus.Details.Causes = append(e.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: message})
	return e
}

// allows says why a budget allows no disruption now, nil for that it does.
func allows(pdb *policyv1.PodDisruptionBudget) error {
	s := &pdb.Status
	forbid := func(text string) error {
		return apierrors.NewForbidden(policyv1.Resource("poddisruptionbudget"), pdb.Name, errors.New(text))
	}
	switch {
	case s.ObservedGeneration < pdb.Generation:
		return stillProcessed(pdb)
	case s.DisruptionsAllowed < 0:
		return forbid("pdb disruptions allowed is negative")
	case len(s.DisruptedPods) > maxDisrupted:
		return forbid("DisruptedPods map too big - too many evictions not confirmed by PDB controller")
	case s.DisruptionsAllowed > 0:
		return nil
	}
	x := meta.FindStatusCondition(s.Conditions, policyv1.DisruptionAllowedCondition)
	if s.CurrentHealthy > s.DesiredHealthy && x != nil && x.Status == metav1.ConditionFalse && x.Reason == policyv1.SyncFailedReason {
		return tooMany(0, fmt.Sprintf("The disruption budget %s does not allow evicting pods currently because it failed sync: %v", pdb.Name, x.Message))
	}
	return tooMany(0, fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", pdb.Name, s.DesiredHealthy, s.CurrentHealthy))
}

// spend takes one allowed disruption from a budget, or answers why there is none.
func (d *Door) spend(ctx context.Context, c *Call, pdb *policyv1.PodDisruptionBudget, pod *corev1.Pod) error {
	if err := allows(pdb); err != nil || c.DryRun {
		return err
	}
	call := &Call{Row: pdbRow, Sub: "status", Namespace: pdb.Namespace, Name: pdb.Name, User: c.User, Manager: evictor}
	_, err := d.write(ctx, call, optimistic, func(current Object) (Object, error) {
		p := current.DeepCopyObject().(*policyv1.PodDisruptionBudget)
		if err := allows(p); err != nil {
			return nil, err
		}
		if p.Status.DisruptionsAllowed--; p.Status.DisruptionsAllowed == 0 {
			meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse,
				Reason: policyv1.InsufficientPodsReason, ObservedGeneration: p.Status.ObservedGeneration, LastTransitionTime: metav1.NewTime(d.now())})
		}
		if p.Status.DisruptedPods == nil {
			p.Status.DisruptedPods = map[string]metav1.Time{}
		}
		p.Status.DisruptedPods[pod.Name] = metav1.NewTime(d.now())
		return d.track(call, current, p), nil
	})
	return err
}
