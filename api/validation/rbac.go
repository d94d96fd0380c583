package validation

import (
	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addRBAC(t table) {
	const g = rbacv1.GroupName
	rule(t, g, "v1", "Role", true, segment, func(o *rbacv1.Role) errors { return policyRules(o.Rules, true) }, nil)
	rule(t, g, "v1", "ClusterRole", false, segment, clusterRole, nil)
	rule(t, g, "v1", "RoleBinding", true, segment, func(o *rbacv1.RoleBinding) errors {
		return roleBinding(&o.RoleRef, o.Subjects, "Role", "ClusterRole")
	}, func(o, old *rbacv1.RoleBinding) errors { return roleRefChange(o.RoleRef, old.RoleRef) })
	rule(t, g, "v1", "ClusterRoleBinding", false, segment, func(o *rbacv1.ClusterRoleBinding) errors {
		return roleBinding(&o.RoleRef, o.Subjects, "ClusterRole")
	}, func(o, old *rbacv1.ClusterRoleBinding) errors { return roleRefChange(o.RoleRef, old.RoleRef) })
}

func roleRefChange(r, old rbacv1.RoleRef) errors {
	if r != old {
		return errors{field.Invalid(field.NewPath("roleRef"), r, "cannot change roleRef")}
	}
	return nil
}

func policyRules(list []rbacv1.PolicyRule, namespaced bool) errors {
	var errs errors
	for i := range list {
		r, p := &list[i], field.NewPath("rules").Index(i)
		if len(r.Verbs) == 0 {
			errs = append(errs, field.Required(p.Child("verbs"), "verbs must contain at least one value"))
		}
		if len(r.NonResourceURLs) > 0 {
			if namespaced {
				errs = append(errs, field.Invalid(p.Child("nonResourceURLs"), r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
			}
			if len(r.APIGroups)+len(r.Resources)+len(r.ResourceNames) > 0 {
				errs = append(errs, field.Invalid(p.Child("nonResourceURLs"), r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
			}
			continue
		}
		if len(r.APIGroups) == 0 {
			errs = append(errs, field.Required(p.Child("apiGroups"), "resource rules must supply at least one api group"))
		}
		if len(r.Resources) == 0 {
			errs = append(errs, field.Required(p.Child("resources"), "resource rules must supply at least one resource"))
		}
	}
	return errs
}

func clusterRole(o *rbacv1.ClusterRole) errors {
	errs := policyRules(o.Rules, false)
	if o.AggregationRule == nil {
		return errs
	}
	p := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(o.AggregationRule.ClusterRoleSelectors) == 0 {
		errs = append(errs, field.Required(p, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
	}
	for i := range o.AggregationRule.ClusterRoleSelectors {
		s := &o.AggregationRule.ClusterRoleSelectors[i]
		errs = append(errs, labelSelector(p.Index(i), s)...)
		if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
			errs = append(errs, field.Invalid(p.Index(i), s, "invalid label selector."))
		}
	}
	return errs
}

func roleBinding(ref *rbacv1.RoleRef, subjects []rbacv1.Subject, kinds ...string) errors {
	var errs errors
	p := field.NewPath("roleRef")
	if ref.APIGroup != rbacv1.GroupName {
		errs = append(errs, field.NotSupported(p.Child("apiGroup"), ref.APIGroup, []string{rbacv1.GroupName}))
	}
	if !contains(kinds, ref.Kind) {
		errs = append(errs, field.NotSupported(p.Child("kind"), ref.Kind, kinds))
	}
	errs = append(errs, plainSegment(p.Child("name"), ref.Name, "")...)
	for i := range subjects {
		errs = append(errs, subject(&subjects[i], len(kinds) > 1, field.NewPath("subjects").Index(i))...)
	}
	return errs
}

// subject checks one subject; in a namespaced binding an account's namespace may be left out.
func subject(s *rbacv1.Subject, namespaced bool, p *field.Path) errors {
	var errs errors
	if s.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), ""))
	}
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		if s.Name != "" {
			errs = append(errs, invalid(p.Child("name"), s.Name, subdomain(s.Name, false))...)
		}
		if s.APIGroup != "" {
			errs = append(errs, field.NotSupported(p.Child("apiGroup"), s.APIGroup, []string{""}))
		}
		if !namespaced && s.Namespace == "" {
			errs = append(errs, field.Required(p.Child("namespace"), ""))
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		if s.APIGroup != rbacv1.GroupName {
			errs = append(errs, field.NotSupported(p.Child("apiGroup"), s.APIGroup, []string{rbacv1.GroupName}))
		}
	default:
		errs = append(errs, field.NotSupported(p.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
	}
	return errs
}

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
