package printcolumns

import (
	"time"

	admregv1 "k8s.io/api/admissionregistration/v1"
)

func addAdmission(t table) {
	const g = "admissionregistration.k8s.io"
	const inConfig = " defined in this configuration"
	const paramKindDoc = "ParamKind specifies the kind of resources used to parameterize this policy"
	hooks := func() columns {
		return columns{nameColumn(), number("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"), ageColumn()}
	}
	add(t, g, "v1", "ValidatingWebhookConfiguration", func(o *admregv1.ValidatingWebhookConfiguration, now time.Time) []any {
		return []any{o.Name, int64(len(o.Webhooks)), age(o.CreationTimestamp, now)}
	}, hooks)
	add(t, g, "v1", "MutatingWebhookConfiguration", func(o *admregv1.MutatingWebhookConfiguration, now time.Time) []any {
		return []any{o.Name, int64(len(o.Webhooks)), age(o.CreationTimestamp, now)}
	}, hooks)
	add(t, g, "v1", "ValidatingAdmissionPolicy", func(o *admregv1.ValidatingAdmissionPolicy, now time.Time) []any {
		return []any{o.Name, int64(len(o.Spec.Validations)), paramKind(o.Spec.ParamKind), age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), number("Validations", "Validations indicates the number of validation rules"+inConfig), text("ParamKind", paramKindDoc), ageColumn()}
	})
	add(t, g, "v1", "MutatingAdmissionPolicy", func(o *admregv1.MutatingAdmissionPolicy, now time.Time) []any {
		return []any{o.Name, int64(len(o.Spec.Mutations)), paramKind(o.Spec.ParamKind), age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), number("Mutations", "Mutation indicates the number of mutations rules"+inConfig), text("ParamKind", paramKindDoc), ageColumn()}
	})
	bindings := func() columns {
		return columns{nameColumn(), text("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
			text("ParamRef", "ParamRef indicates the param resource which sets the configuration param"), ageColumn()}
	}
	add(t, g, "v1", "ValidatingAdmissionPolicyBinding", func(o *admregv1.ValidatingAdmissionPolicyBinding, now time.Time) []any {
		return []any{o.Name, o.Spec.PolicyName, paramRef(o.Spec.ParamRef), age(o.CreationTimestamp, now)}
	}, bindings)
	add(t, g, "v1", "MutatingAdmissionPolicyBinding", func(o *admregv1.MutatingAdmissionPolicyBinding, now time.Time) []any {
		return []any{o.Name, o.Spec.PolicyName, paramRef(o.Spec.ParamRef), age(o.CreationTimestamp, now)}
	}, bindings)
}

func paramKind(k *admregv1.ParamKind) string {
	if k == nil {
		return "<unset>"
	}
	return k.APIVersion + "/" + k.Kind
}

func paramRef(r *admregv1.ParamRef) string {
	switch {
	case r == nil:
		return "<unset>"
	case r.Namespace != "":
		return r.Namespace + "/" + r.Name
	case r.Name != "":
		return "*/" + r.Name
	}
	return r.Selector.String()
}
