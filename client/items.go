package client

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// List is what an in-process transport answers a list with: the shared decoded objects, not copied into a typed list.
type List struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []runtime.Object
}

// DeepCopyObject makes List a runtime.Object; the items stay shared, as they are never changed.
func (l *List) DeepCopyObject() runtime.Object {
	c := *l
	c.Items = append([]runtime.Object(nil), l.Items...)
	return &c
}

func items[T Object](obj runtime.Object) ([]T, string, error) {
	if l, ok := obj.(*List); ok {
		out := make([]T, len(l.Items))
		for i, o := range l.Items {
			t, ok := o.(T)
			if !ok {
				return nil, "", fmt.Errorf("read list: item %d is a %T", i, o)
			}
			out[i] = t
		}
		return out, l.ResourceVersion, nil
	}
	m, err := meta.ListAccessor(obj)
	if err != nil {
		return nil, "", fmt.Errorf("read list: %w", err)
	}
	out := make([]T, 0, meta.LenList(obj))
	err = meta.EachListItem(obj, func(o runtime.Object) error {
		t, ok := o.(T)
		if !ok {
			return fmt.Errorf("read list: an item is a %T", o)
		}
		out = append(out, t)
		return nil
	})
	return out, m.GetResourceVersion(), err
}
