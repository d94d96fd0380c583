package resource

import (
	"context"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	asv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"karve/api"
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

// scaleRow is the row of a Scale, which is served below others only.
var scaleRow = sync.OnceValue(func() *api.Row {
	return &api.Row{Group: asv1.GroupName, Version: "v1", Resource: "scales", Kind: "Scale", Namespaced: true,
		New: func() runtime.Object { return &asv1.Scale{} }}
})

// scaleFields turns an object's managed fields into those of its Scale and back.
func scaleFields(row *api.Row, o Object) *managedfields.ScaleHandler {
	gv := row.GVK().GroupVersion()
	return managedfields.NewScaleHandler(o.GetManagedFields(), gv, managedfields.ResourcePathMappings{gv.String(): fieldpath.MakePathOrDie("spec", "replicas")})
}

// ScaleOf returns an object's Scale. It tells of no managed fields: those are the object's.
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
	return d.rescale(ctx, c, tries, func(live *asv1.Scale) (*asv1.Scale, error) {
		s, err := want(live)
		if err != nil {
			return nil, err
		}
		s.SetGroupVersionKind(scaleRow().GVK())
		return d.managers.Update(scaleRow(), "scale", nil, live, s, c.Manager, d.now()).(*asv1.Scale), nil
	})
}

// ApplyScale merges a manager's intent for the Scale of an object into it.
func (d *Door) ApplyScale(ctx context.Context, c *Call, intent Object, force bool) (*asv1.Scale, error) {
	return d.rescale(ctx, c, optimistic, func(live *asv1.Scale) (*asv1.Scale, error) {
		s, err := d.managers.Apply(scaleRow(), "scale", nil, live, intent.DeepCopyObject(), c.Manager, force)
		if err != nil {
			return nil, err
		}
		return s.(*asv1.Scale), nil
	})
}

func (d *Door) rescale(ctx context.Context, c *Call, tries int, want func(*asv1.Scale) (*asv1.Scale, error)) (*asv1.Scale, error) {
	row := c.Row.Hub()
	main := *c
	main.Sub = ""
	r, err := d.write(ctx, &main, tries, func(current Object) (Object, error) {
		var err error
		live := ScaleOf(current)
		if live.ManagedFields, err = scaleFields(row, current).ToSubresource(); err != nil {
			return nil, err
		}
		s, err := want(live.DeepCopy())
		if err != nil {
			return nil, err
		}
		if err := c.scaled(s, current); err != nil {
			return nil, err
		}
		out := current.DeepCopyObject().(Object)
		if s.ResourceVersion != "" {
			out.SetResourceVersion(s.ResourceVersion)
		}
		n := s.Spec.Replicas
		spec, _, _ := scalable(out)
		*spec = &n
		fields, err := scaleFields(row, current).ToParent(s.ManagedFields)
		if err != nil {
			return nil, err
		}
		out.SetManagedFields(fields)
		return out, nil
	})
	if err != nil {
		return nil, err
	}
	return ScaleOf(r.Get()), nil
}

// scaled judges a Scale that a client sent for current.
func (c *Call) scaled(s *asv1.Scale, current Object) error {
	if s.Name != "" {
		if err := c.named(s); err != nil {
			return err
		}
	}
	if s.UID != "" && s.UID != current.GetUID() {
		return c.otherUID(s.UID, current.GetUID())
	}
	if s.Spec.Replicas < 0 {
		return apierrors.NewInvalid(asv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), c.Name, field.ErrorList{
			field.Invalid(field.NewPath("spec", "replicas"), s.Spec.Replicas, "must be greater than or equal to 0").WithOrigin("minimum")})
	}
	return nil
}
