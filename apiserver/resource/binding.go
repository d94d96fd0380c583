package resource

import (
	"context"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api"
)

func success() *metav1.Status {
	return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: 201}
}

var podRow = api.ByResource(corev1.SchemeGroupVersion.WithResource("pods"))

// Bind assigns a pod to the node that b names.
func (d *Door) Bind(ctx context.Context, c *Call, b *corev1.Binding) (*metav1.Status, error) {
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		return nil, invalidBinding(c, field.NotSupported(field.NewPath("target", "kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		return nil, invalidBinding(c, field.Required(field.NewPath("target", "name"), ""))
	}
	call := *c
	call.Row, call.Sub = podRow, "binding"
	_, err := d.write(ctx, &call, optimistic, func(current Object) (Object, error) {
		pod := current.DeepCopyObject().(*corev1.Pod)
		conflict := func(text string) error {
			return apierrors.NewConflict(corev1.Resource("pods/binding"), c.Name, errors.New(text))
		}
		switch {
		case b.UID != "" && b.UID != pod.UID:
			return nil, apierrors.NewConflict(corev1.Resource("pods/binding"), c.Name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, pod.UID))
		case b.ResourceVersion != "" && b.ResourceVersion != pod.ResourceVersion:
			return nil, conflict(fmt.Sprintf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", b.ResourceVersion, pod.ResourceVersion))
		case pod.DeletionTimestamp != nil:
			return nil, conflict(fmt.Sprintf("pod %s is being deleted, cannot be assigned to a host", pod.Name))
		case pod.Spec.NodeName != "":
			return nil, conflict(fmt.Sprintf("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName))
		case len(pod.Spec.SchedulingGates) != 0:
			return nil, conflict(fmt.Sprintf("pod %v has non-empty .spec.schedulingGates", pod.Name))
		}
		pod.Spec.NodeName = b.Target.Name
		if len(b.Annotations) > 0 {
			if pod.Annotations == nil {
				pod.Annotations = map[string]string{}
			}
			maps.Copy(pod.Annotations, b.Annotations)
		}
		setScheduled(pod, metav1.NewTime(d.now()))
		return pod, nil
	})
	if err != nil {
		return nil, err
	}
	return success(), nil
}

func invalidBinding(c *Call, e *field.Error) error {
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), c.Name, field.ErrorList{e})
}

func setScheduled(pod *corev1.Pod, now metav1.Time) {
	for i := range pod.Status.Conditions {
		if p := &pod.Status.Conditions[i]; p.Type == corev1.PodScheduled {
			*p = corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now, ObservedGeneration: p.ObservedGeneration}
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now})
}

// Evict deletes a pod if its disruption budgets allow one more disruption.
func (d *Door) Evict(ctx context.Context, c *Call, e *policyv1.Eviction) (*metav1.Status, error) {
	if e.Name != "" && e.Name != c.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	call := *c
	call.Row, call.Sub = podRow, ""
	opts := &metav1.DeleteOptions{}
	if e.DeleteOptions != nil {
		opts = e.DeleteOptions.DeepCopy()
	}
	call.DryRun = call.DryRun || len(opts.DryRun) > 0
	rec, err := d.Get(ctx, &call, "")
	if err != nil {
		return nil, err
	}
	pod := ObjectOf(rec).(*corev1.Pod)
	if !needsBudget(pod) {
		_, err := d.Delete(ctx, &call, opts)
		return success(), err
	}
	pdb, err := d.budgetOf(ctx, &call, pod)
	if err != nil {
		return nil, err
	}
	if pdb != nil {
		if err := d.spend(ctx, &call, pdb, pod); err != nil {
			return nil, err
		}
	}
	if _, err := d.Delete(ctx, &call, opts); err != nil {
		return nil, err
	}
	return success(), nil
}

// needsBudget is false for pods whose going disrupts nothing: finished, pending or already going.
func needsBudget(pod *corev1.Pod) bool {
	return pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed && pod.Status.Phase != corev1.PodPending && pod.DeletionTimestamp == nil
}

var pdbRow = api.ByResource(policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets"))

func (d *Door) budgetOf(ctx context.Context, c *Call, pod *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	page, err := d.List(ctx, &Call{Row: pdbRow, Namespace: c.Namespace}, &metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var found []*policyv1.PodDisruptionBudget
	for _, r := range page.Records {
		p := ObjectOf(r).(*policyv1.PodDisruptionBudget)
		sel, err := metav1.LabelSelectorAsSelector(p.Spec.Selector)
		if err == nil && sel.Matches(labels.Set(pod.Labels)) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return nil, apierrors.NewInternalError(errors.New("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."))
}

// spend takes one allowed disruption from a budget, or answers 429.
func (d *Door) spend(ctx context.Context, c *Call, pdb *policyv1.PodDisruptionBudget, pod *corev1.Pod) error {
	ready := false
	for _, x := range pod.Status.Conditions {
		ready = ready || x.Type == corev1.PodReady && x.Status == corev1.ConditionTrue
	}
	always := pdb.Spec.UnhealthyPodEvictionPolicy != nil && *pdb.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow
	if !ready && (always || pdb.Status.CurrentHealthy >= pdb.Status.DesiredHealthy && pdb.Status.DesiredHealthy > 0) {
		return nil
	}
	refuse := func(message string) error {
		e := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
		e.ErrStatus.Details.Causes = append(e.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: message})
		return e
	}
	if pdb.Status.ObservedGeneration < pdb.Generation {
		e := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 10)
		e.ErrStatus.Details.Causes = append(e.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf("The disruption budget %s is still being processed by the server.", pdb.Name)})
		return e
	}
	if pdb.Status.DisruptionsAllowed <= 0 {
		return refuse(fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", pdb.Name, pdb.Status.DesiredHealthy, pdb.Status.CurrentHealthy))
	}
	if c.DryRun {
		return nil
	}
	call := &Call{Row: pdbRow, Sub: "status", Namespace: pdb.Namespace, Name: pdb.Name, User: c.User, Manager: c.Manager}
	_, err := d.write(ctx, call, optimistic, func(current Object) (Object, error) {
		p := current.DeepCopyObject().(*policyv1.PodDisruptionBudget)
		if p.Status.DisruptionsAllowed <= 0 {
			return nil, refuse(fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", p.Name, p.Status.DesiredHealthy, p.Status.CurrentHealthy))
		}
		p.Status.DisruptionsAllowed--
		if p.Status.DisruptedPods == nil {
			p.Status.DisruptedPods = map[string]metav1.Time{}
		}
		p.Status.DisruptedPods[pod.Name] = metav1.NewTime(d.now())
		return p, nil
	})
	return err
}
