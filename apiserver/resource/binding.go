package resource

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api"
)

func success() *metav1.Status {
	return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: 201}
}

var podRow = api.ByResource(corev1.SchemeGroupVersion.WithResource("pods"))

// Bind assigns a pod to the node that b names.
func (d *Door) Bind(ctx context.Context, c *Call, b *corev1.Binding) (*metav1.Status, error) {
	if b.Name != "" && b.Name != c.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
	}
	var errs field.ErrorList
	if b.Target.Kind != "" && b.Target.Kind != "Node" {
		errs = append(errs, field.NotSupported(field.NewPath("target", "kind"), b.Target.Kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(field.NewPath("target", "name"), ""))
	}
	if len(errs) > 0 { // upstream answers this as a fault of its own
		return nil, &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: errs.ToAggregate().Error()}}
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
		for k, v := range b.Labels { // a label the pod has already is its own
			if _, own := pod.Labels[k]; own {
				continue
			}
			if pod.Labels == nil {
				pod.Labels = map[string]string{}
			}
			pod.Labels[k] = v
		}
		setScheduled(pod, metav1.NewTime(d.now()))
		return pod, nil
	})
	if err != nil {
		return nil, err
	}
	return success(), nil
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
