package defaults

import (
	admregv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func addAdmission(t table) {
	const g = "admissionregistration.k8s.io"
	set(t, g, "v1", "ValidatingWebhookConfiguration", func(o *admregv1.ValidatingWebhookConfiguration) {
		for i := range o.Webhooks {
			w := &o.Webhooks[i]
			unset(&w.FailurePolicy, admregv1.Fail)
			webhook(&w.ClientConfig, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector, &w.TimeoutSeconds)
			rules(w.Rules)
		}
	})
	set(t, g, "v1", "MutatingWebhookConfiguration", func(o *admregv1.MutatingWebhookConfiguration) {
		for i := range o.Webhooks {
			w := &o.Webhooks[i]
			unset(&w.FailurePolicy, admregv1.Fail)
			webhook(&w.ClientConfig, &w.MatchPolicy, &w.NamespaceSelector, &w.ObjectSelector, &w.TimeoutSeconds)
			unset(&w.ReinvocationPolicy, admregv1.NeverReinvocationPolicy)
			rules(w.Rules)
		}
	})
	set(t, g, "v1", "ValidatingAdmissionPolicy", func(o *admregv1.ValidatingAdmissionPolicy) {
		unset(&o.Spec.FailurePolicy, admregv1.Fail)
		matchResources(o.Spec.MatchConstraints)
	})
	set(t, g, "v1", "ValidatingAdmissionPolicyBinding", func(o *admregv1.ValidatingAdmissionPolicyBinding) {
		matchResources(o.Spec.MatchResources)
	})
	set(t, g, "v1", "MutatingAdmissionPolicy", func(o *admregv1.MutatingAdmissionPolicy) {
		unset(&o.Spec.FailurePolicy, admregv1.Fail)
		matchResources(o.Spec.MatchConstraints)
	})
	set(t, g, "v1", "MutatingAdmissionPolicyBinding", func(o *admregv1.MutatingAdmissionPolicyBinding) {
		matchResources(o.Spec.MatchResources)
	})
}

func webhook(c *admregv1.WebhookClientConfig, match **admregv1.MatchPolicyType, ns, obj **metav1.LabelSelector, timeout **int32) {
	if c.Service != nil {
		unset(&c.Service.Port, int32(443))
	}
	unset(match, admregv1.Equivalent)
	unset(ns, metav1.LabelSelector{})
	unset(obj, metav1.LabelSelector{})
	unset(timeout, int32(10))
}

func rules(list []admregv1.RuleWithOperations) {
	for i := range list {
		unset(&list[i].Scope, admregv1.AllScopes)
	}
}

func namedRules(list []admregv1.NamedRuleWithOperations) {
	for i := range list {
		unset(&list[i].Scope, admregv1.AllScopes)
	}
}

func matchResources(m *admregv1.MatchResources) {
	if m == nil {
		return
	}
	unset(&m.MatchPolicy, admregv1.Equivalent)
	unset(&m.NamespaceSelector, metav1.LabelSelector{})
	unset(&m.ObjectSelector, metav1.LabelSelector{})
	namedRules(m.ResourceRules)
	namedRules(m.ExcludeResourceRules)
}
