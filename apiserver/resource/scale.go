package resource

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	asv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// scalable shows the replica fields of the kinds that have a scale subresource.
func scalable(o Object) (spec **int32, status int32, selector string) {
	switch t := o.(type) {
	case *appsv1.Deployment:
		return &t.Spec.Replicas, t.Status.Replicas, selectorText(t.Spec.Selector)
	case *appsv1.ReplicaSet:
		return &t.Spec.Replicas, t.Status.Replicas, selectorText(t.Spec.Selector)
	case *appsv1.StatefulSet:
		return &t.Spec.Replicas, t.Status.Replicas, selectorText(t.Spec.Selector)
	case *corev1.ReplicationController:
		return &t.Spec.Replicas, t.Status.Replicas, labels.Set(t.Spec.Selector).String()
	}
	return nil, 0, ""
}

func selectorText(s *metav1.LabelSelector) string {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return ""
	}
	return sel.String()
}

// ScaleOf returns an object's Scale.
func ScaleOf(o Object) *asv1.Scale {
	spec, status, selector := scalable(o)
	s := &asv1.Scale{
		TypeMeta: metav1.TypeMeta{Kind: "Scale", APIVersion: "autoscaling/v1"},
		ObjectMeta: metav1.ObjectMeta{Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(),
			CreationTimestamp: o.GetCreationTimestamp()},
		Status: asv1.ScaleStatus{Replicas: status, Selector: selector},
	}
	if spec != nil && *spec != nil {
		s.Spec.Replicas = **spec
	}
	return s
}

// Rescale changes an object through its Scale: want makes the new Scale from the current one.
func (d *Door) Rescale(ctx context.Context, c *Call, tries int, want func(*asv1.Scale) (*asv1.Scale, error)) (*asv1.Scale, error) {
	row := c.Row.Hub()
	main := *c
	main.Sub = ""
	r, err := d.write(ctx, &main, tries, func(current Object) (Object, error) {
		s, err := want(ScaleOf(current))
		if err != nil {
			return nil, err
		}
		if s.Name != c.Name && s.Name != "" {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", s.Name, c.Name))
		}
		if s.Spec.Replicas < 0 {
			return nil, apierrors.NewInvalid(asv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), c.Name, field.ErrorList{
				field.Invalid(field.NewPath("spec", "replicas"), s.Spec.Replicas, "must be greater than or equal to 0").WithOrigin("minimum")})
		}
		out := current.DeepCopyObject().(Object)
		if s.ResourceVersion != "" {
			out.SetResourceVersion(s.ResourceVersion)
		}
		if s.UID != "" {
			out.SetUID(s.UID)
		}
		n := s.Spec.Replicas
		spec, _, _ := scalable(out)
		*spec = &n
		return d.managers.Update(row, "scale", nil, current, out, c.Manager).(Object), nil
	})
	if err != nil {
		return nil, err
	}
	return ScaleOf(r.Object), nil
}
