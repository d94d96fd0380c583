package validation

import (
	"context"
	"fmt"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// addExtensions takes the rules of CustomResourceDefinition from the library that knows structural schemas and CEL.
func addExtensions(t table) {
	// the library judges metadata as well
	rule(t, "apiextensions.k8s.io", "v1", "CustomResourceDefinition", false, anyName, func(o *apiextv1.CustomResourceDefinition) errors {
		in, err := internal(o)
		if err != nil {
			return errors{field.InternalError(field.NewPath(""), err)}
		}
		errs := unselectable(&in.Spec)
		return append(errs, guarded(func() errors { return crdvalidation.ValidateCustomResourceDefinition(context.Background(), in) })...)
	}, nil, bare, ownUpdate(func(o, old *apiextv1.CustomResourceDefinition) errors {
		return compareCRD(o, old, func(in, was *apiextensions.CustomResourceDefinition) errors {
			return crdvalidation.ValidateCustomResourceDefinitionUpdate(context.Background(), in, was)
		})
	}), onSub("status", func(o, old *apiextv1.CustomResourceDefinition) errors {
		return compareCRD(o, old, crdvalidation.ValidateUpdateCustomResourceDefinitionStatus)
	}))
}

// guarded turns a panic of the library into a cause: it does not expect every schema that can be decoded.
func guarded(f func() errors) (errs errors) {
	defer func() {
		if r := recover(); r != nil {
			errs = errors{field.InternalError(field.NewPath("spec"), fmt.Errorf("schema cannot be judged: %v", r))}
		}
	}()
	return f()
}

func internal(o *apiextv1.CustomResourceDefinition) (*apiextensions.CustomResourceDefinition, error) {
	in := &apiextensions.CustomResourceDefinition{}
	// the conversion may write to what it reads
	err := apiextv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(o.DeepCopy(), in, nil)
	return in, err
}

func compareCRD(o, old *apiextv1.CustomResourceDefinition, f func(in, was *apiextensions.CustomResourceDefinition) errors) errors {
	in, err := internal(o)
	if err != nil {
		return errors{field.InternalError(field.NewPath(""), err)}
	}
	was, err := internal(old)
	if err != nil {
		return errors{field.InternalError(field.NewPath(""), err)}
	}
	errs := unselectable(&in.Spec)
	unselectable(&was.Spec)
	return append(errs, guarded(func() errors { return f(in, was) })...)
}

// unselectable takes away the selectable fields of a version whose schema is not structural, and says so: the library looks
// for the fields in the structural schema without asking whether there is one.
func unselectable(s *apiextensions.CustomResourceDefinitionSpec) errors {
	var errs errors
	drop := func(fields *[]apiextensions.SelectableField, v *apiextensions.CustomResourceValidation, p *field.Path) {
		if len(*fields) == 0 || v == nil || v.OpenAPIV3Schema == nil {
			return
		}
		if _, err := structural.NewStructural(v.OpenAPIV3Schema); err != nil {
			*fields = nil
			errs = append(errs, field.Invalid(p.Child("schema.openAPIV3Schema"), "", err.Error()))
		}
	}
	p := field.NewPath("spec")
	drop(&s.SelectableFields, s.Validation, p)
	for i := range s.Versions {
		drop(&s.Versions[i].SelectableFields, s.Versions[i].Schema, p.Child("versions").Index(i))
	}
	return errs
}
