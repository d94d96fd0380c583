package authz

import (
	"context"
	"slices"
	"strings"

	authzv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/apiserver/authn"
)

// Review fills in the status of a SubjectAccessReview. Errors are API status errors.
func Review(ctx context.Context, z Authorizer, r *authzv1.SubjectAccessReview) error {
	errs := validateSpec(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	errs = append(errs, validateSubject(&r.Spec)...)
	if err := invalid(append(errs, validateMeta(r.ObjectMeta)...)); err != nil {
		return err
	}
	r.Status = status(ctx, z, specUser(&r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return nil
}

// SelfReview fills in the status of a SelfSubjectAccessReview by u.
func SelfReview(ctx context.Context, z Authorizer, u *authn.User, r *authzv1.SelfSubjectAccessReview) error {
	errs := validateSpec(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	if err := invalid(append(errs, validateMeta(r.ObjectMeta)...)); err != nil {
		return err
	}
	r.Status = status(ctx, z, u, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return nil
}

// LocalReview fills in the status of a LocalSubjectAccessReview posted to namespace.
func LocalReview(ctx context.Context, z Authorizer, namespace string, r *authzv1.LocalSubjectAccessReview) error {
	if r.Namespace == "" {
		r.Namespace = namespace
	}
	errs := validateSpec(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	errs = append(errs, validateSubject(&r.Spec)...)
	m := r.ObjectMeta
	m.Namespace = ""
	errs = append(errs, validateMeta(m)...)
	if ra := r.Spec.ResourceAttributes; ra != nil && ra.Namespace != r.Namespace {
		errs = append(errs, field.Invalid(field.NewPath("spec.resourceAttributes.namespace"), ra.Namespace, "must match metadata.namespace"))
	}
	if nra := r.Spec.NonResourceAttributes; nra != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec.nonResourceAttributes"), struct{ Path, Verb string }{nra.Path, nra.Verb}, "disallowed on this kind of request"))
	}
	if err := invalid(errs); err != nil {
		return err
	}
	if namespace == "" {
		return apierrors.NewBadRequest("namespace is required on this type: ")
	}
	if namespace != r.Namespace {
		return apierrors.NewBadRequest("spec.resourceAttributes.namespace must match namespace: " + namespace)
	}
	r.Status = status(ctx, z, specUser(&r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return nil
}

// SelfRules answers a SelfSubjectRulesReview by u: the status alone is left of it, as clients know it.
func (r *RBAC) SelfRules(u *authn.User, sr *authzv1.SelfSubjectRulesReview) error {
	if sr.Spec.Namespace == "" {
		return apierrors.NewBadRequest("no namespace on request")
	}
	rules, err := r.RulesFor(u, sr.Spec.Namespace)
	*sr = authzv1.SelfSubjectRulesReview{TypeMeta: sr.TypeMeta, Status: authzv1.SubjectRulesReviewStatus{
		ResourceRules: []authzv1.ResourceRule{}, NonResourceRules: []authzv1.NonResourceRule{}}}
	for i := range rules {
		p := &rules[i]
		if len(p.Resources) > 0 {
			sr.Status.ResourceRules = append(sr.Status.ResourceRules, authzv1.ResourceRule{Verbs: p.Verbs, APIGroups: p.APIGroups, Resources: p.Resources, ResourceNames: p.ResourceNames})
		}
		if len(p.NonResourceURLs) > 0 {
			sr.Status.NonResourceRules = append(sr.Status.NonResourceRules, authzv1.NonResourceRule{Verbs: p.Verbs, NonResourceURLs: p.NonResourceURLs})
		}
	}
	var wrong []string
	if _, node := NodeName(u); node { // what a node may do depends on its pods, which no rule can say
		wrong = append(wrong, "node authorizer does not support user rule resolution")
	}
	if err != nil {
		wrong = append(wrong, err.Error())
	}
	sr.Status.Incomplete, sr.Status.EvaluationError = len(wrong) > 0, strings.Join(wrong, ", ")
	return nil
}

func status(ctx context.Context, z Authorizer, u *authn.User, ra *authzv1.ResourceAttributes, nra *authzv1.NonResourceAttributes) authzv1.SubjectAccessReviewStatus {
	a := &Attributes{User: u}
	wrong := ""
	if ra != nil {
		text, bad := fieldTerms(ra.FieldSelector)
		wrong = joined(bad, labelTerms(ra.LabelSelector))
		*a = Attributes{User: u, ResourceRequest: true, Verb: ra.Verb, Namespace: ra.Namespace, Group: ra.Group, Version: ra.Version,
			Resource: ra.Resource, Subresource: ra.Subresource, Name: ra.Name, FieldSelector: text}
	} else {
		a.Verb, a.Path = nra.Verb, nra.Path
	}
	d, reason, err := z.Authorize(ctx, a)
	s := authzv1.SubjectAccessReviewStatus{Allowed: d == Allow, Denied: d == Deny, Reason: reason}
	if err != nil {
		wrong = joined(wrong, err.Error())
	}
	s.EvaluationError = wrong
	return s
}

func specUser(s *authzv1.SubjectAccessReviewSpec) *authn.User {
	u := &authn.User{Name: s.User, UID: s.UID, Groups: slices.Clone(s.Groups)}
	if len(s.Extra) > 0 {
		u.Extra = make(map[string][]string, len(s.Extra))
		for k, v := range s.Extra {
			u.Extra[strings.ToLower(k)] = v
		}
	}
	return u
}

func validateSpec(ra *authzv1.ResourceAttributes, nra *authzv1.NonResourceAttributes) field.ErrorList {
	spec := field.NewPath("spec")
	switch {
	case ra != nil && nra != nil:
		v := struct{ Path, Verb string }{nra.Path, nra.Verb}
		return field.ErrorList{field.Invalid(spec.Child("nonResourceAttributes"), v, "cannot be specified in combination with resourceAttributes")}
	case ra == nil && nra == nil:
		return field.ErrorList{field.Invalid(spec.Child("resourceAttributes"), ra, "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	}
	return validateSelectors(ra, spec.Child("resourceAttributes"))
}

func validateSubject(s *authzv1.SubjectAccessReviewSpec) field.ErrorList {
	if s.User == "" && len(s.Groups) == 0 {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "user"), s.User, "at least one of user or group must be specified")}
	}
	return nil
}

func validateMeta(m metav1.ObjectMeta) field.ErrorList {
	bare := m
	bare.ManagedFields = nil
	if !equality.Semantic.DeepEqual(bare, metav1.ObjectMeta{}) {
		return field.ErrorList{field.Invalid(field.NewPath("metadata"), m, "must be empty")}
	}
	return nil
}

func invalid(errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: authzv1.GroupName}, "", errs)
}
