package patch

import (
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

func (c converter) ObjectToTyped(o runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	v, err := c.known.ObjectToTyped(o, opts...)
	if err != nil && !hasSchema(o) {
		return c.deduced.ObjectToTyped(o, opts...)
	}
	return v, err
}

func (c converter) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	return c.known.TypedToObject(v)
}

// hasSchema says whether a kind has a merge schema: all do but the two that live outside k8s.io/api.
func hasSchema(o runtime.Object) bool {
	switch o.GetObjectKind().GroupVersionKind().Group {
	case "apiextensions.k8s.io", "apiregistration.k8s.io":
		return false
	}
	return true
}
