package validation

import (
	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// addReviews adds the kinds that are asked and never stored.
func addReviews(t table) {
	const g = "authorization.k8s.io"
	rule(t, "authentication.k8s.io", "v1", "SelfSubjectReview", false, anyName, (func(*authnv1.SelfSubjectReview) errors)(nil), nil, bare)
	rule(t, "authentication.k8s.io", "v1", "TokenReview", false, anyName, (func(*authnv1.TokenReview) errors)(nil), nil, bare)
	rule(t, g, "v1", "SelfSubjectRulesReview", false, anyName, (func(*authzv1.SelfSubjectRulesReview) errors)(nil), nil, bare)
	rule(t, g, "v1", "SelfSubjectAccessReview", false, anyName, func(o *authzv1.SelfSubjectAccessReview) errors {
		return access(o.Spec.ResourceAttributes, o.Spec.NonResourceAttributes)
	}, nil, bare)
	rule(t, g, "v1", "SubjectAccessReview", false, anyName, func(o *authzv1.SubjectAccessReview) errors {
		return subjectAccess(&o.Spec)
	}, nil, bare)
	rule(t, g, "v1", "LocalSubjectAccessReview", true, anyName, func(o *authzv1.LocalSubjectAccessReview) errors {
		errs := subjectAccess(&o.Spec)
		p := field.NewPath("spec")
		if o.Spec.ResourceAttributes != nil && o.Spec.ResourceAttributes.Namespace != o.Namespace {
			errs = append(errs, field.Invalid(p.Child("resourceAttributes", "namespace"), o.Spec.ResourceAttributes.Namespace, "must match metadata.namespace"))
		}
		if o.Spec.NonResourceAttributes != nil {
			errs = append(errs, field.Invalid(p.Child("nonResourceAttributes"), o.Spec.NonResourceAttributes, "disallowed on this kind of request"))
		}
		return errs
	}, nil, bare)
}

func access(r *authzv1.ResourceAttributes, n *authzv1.NonResourceAttributes) errors {
	p := field.NewPath("spec")
	var errs errors
	if r != nil && n != nil {
		errs = append(errs, field.Invalid(p.Child("nonResourceAttributes"), n, "cannot be specified in combination with resourceAttributes"))
	}
	if r == nil && n == nil {
		errs = append(errs, field.Invalid(p.Child("resourceAttributes"), r, "exactly one of nonResourceAttributes or resourceAttributes must be specified"))
	}
	return append(errs, selectorAttributes(r, p.Child("resourceAttributes"))...)
}

func subjectAccess(s *authzv1.SubjectAccessReviewSpec) errors {
	errs := access(s.ResourceAttributes, s.NonResourceAttributes)
	if s.User == "" && len(s.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "user"), s.User, "at least one of user or group must be specified"))
	}
	return errs
}

// selectorAttributes checks the selectors a request may be narrowed by: raw, or spelled out, not both.
func selectorAttributes(r *authzv1.ResourceAttributes, p *field.Path) errors {
	if r == nil {
		return nil
	}
	var errs errors
	if f := r.FieldSelector; f != nil {
		at := p.Child("fieldSelector")
		errs = append(errs, rawOrRequirements(f.RawSelector, len(f.Requirements), at)...)
	}
	if l := r.LabelSelector; l != nil {
		at := p.Child("labelSelector")
		errs = append(errs, rawOrRequirements(l.RawSelector, len(l.Requirements), at)...)
	}
	return errs
}

func rawOrRequirements(raw string, requirements int, p *field.Path) errors {
	switch {
	case raw != "" && requirements > 0:
		return errors{field.Invalid(p.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return errors{field.Required(p.Child("requirements"), "when "+p.String()+" is specified, requirements or rawSelector is required")}
	}
	return nil
}
