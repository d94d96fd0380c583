package validation

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	admregv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api/validation/expression"
)

const admissionGroup = "admissionregistration.k8s.io"

func addAdmission(t table) {
	rule(t, admissionGroup, "v1", "ValidatingWebhookConfiguration", false, subdomain, func(o *admregv1.ValidatingWebhookConfiguration) errors {
		hooks := make([]webhook, len(o.Webhooks))
		for i := range o.Webhooks {
			w := &o.Webhooks[i]
			hooks[i] = webhook{w.Name, &w.ClientConfig, w.Rules, w.FailurePolicy, w.MatchPolicy, w.NamespaceSelector, w.ObjectSelector, w.SideEffects, w.TimeoutSeconds, w.AdmissionReviewVersions, nil, w.MatchConditions}
		}
		return webhooks(hooks)
	}, nil)
	rule(t, admissionGroup, "v1", "MutatingWebhookConfiguration", false, subdomain, func(o *admregv1.MutatingWebhookConfiguration) errors {
		hooks := make([]webhook, len(o.Webhooks))
		for i := range o.Webhooks {
			w := &o.Webhooks[i]
			hooks[i] = webhook{w.Name, &w.ClientConfig, w.Rules, w.FailurePolicy, w.MatchPolicy, w.NamespaceSelector, w.ObjectSelector, w.SideEffects, w.TimeoutSeconds, w.AdmissionReviewVersions, w.ReinvocationPolicy, w.MatchConditions}
		}
		return webhooks(hooks)
	}, nil)
	addPolicies(t)
}

// webhook is what the two kinds of webhooks have in common.
type webhook struct {
	name         string
	client       *admregv1.WebhookClientConfig
	rules        []admregv1.RuleWithOperations
	failure      *admregv1.FailurePolicyType
	match        *admregv1.MatchPolicyType
	ns, obj      *metav1.LabelSelector
	sideEffects  *admregv1.SideEffectClass
	timeout      *int32
	versions     []string
	reinvocation *admregv1.ReinvocationPolicyType
	conditions   []admregv1.MatchCondition
}

func webhooks(list []webhook) errors {
	var errs errors
	names := sets.New[string]()
	for i := range list {
		w, p := &list[i], field.NewPath("webhooks").Index(i)
		errs = append(errs, webhookRules(w, p)...)
		if names.Has(w.name) {
			errs = append(errs, field.Duplicate(p.Child("name"), w.name))
		}
		names.Insert(w.name)
	}
	return errs
}

func webhookRules(w *webhook, p *field.Path) errors {
	errs := reviewVersions(w.versions, p.Child("admissionReviewVersions"))
	errs = append(errs, validation.IsFullyQualifiedName(p.Child("name"), w.name)...)
	errs = append(errs, labelSelector(p.Child("namespaceSelector"), w.ns)...)
	errs = append(errs, labelSelector(p.Child("objectSelector"), w.obj)...)
	for i := range w.rules {
		errs = append(errs, admissionRule(&w.rules[i], p.Child("rules").Index(i))...)
	}
	if w.failure != nil {
		errs = append(errs, oneOf(p.Child("failurePolicy"), *w.failure, admregv1.Fail, admregv1.Ignore)...)
	}
	if w.match != nil {
		errs = append(errs, oneOf(p.Child("matchPolicy"), *w.match, admregv1.Equivalent, admregv1.Exact)...)
	}
	if w.sideEffects == nil {
		errs = append(errs, field.Required(p.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
	} else {
		errs = append(errs, oneOf(p.Child("sideEffects"), *w.sideEffects, admregv1.SideEffectClassNone, admregv1.SideEffectClassNoneOnDryRun)...)
	}
	if n := w.timeout; n != nil && (*n > 30 || *n < 1) {
		errs = append(errs, field.Invalid(p.Child("timeoutSeconds"), *n, "the timeout value must be between 1 and 30 seconds"))
	}
	errs = append(errs, clientConfig(w.client, p.Child("clientConfig"))...)
	if w.reinvocation != nil {
		errs = append(errs, oneOf(p.Child("reinvocationPolicy"), *w.reinvocation, admregv1.IfNeededReinvocationPolicy, admregv1.NeverReinvocationPolicy)...)
	}
	return append(errs, matchConditions(w.conditions, expression.Options{Authorizer: true}, nil, p.Child("matchConditions"))...)
}

func reviewVersions(list []string, p *field.Path) errors {
	if len(list) == 0 {
		return errors{field.Required(p, "must specify one of v1, v1beta1")}
	}
	var errs errors
	seen := sets.New[string]()
	known := false
	for i, v := range list {
		if seen.Has(v) {
			errs = append(errs, field.Invalid(p.Index(i), v, "duplicate version"))
			continue
		}
		seen.Insert(v)
		errs = append(errs, invalid(p.Index(i), v, validation.IsDNS1035Label(v))...)
		known = known || v == "v1" || v == "v1beta1"
	}
	if !known {
		errs = append(errs, field.Invalid(p, list, "must include at least one of v1, v1beta1"))
	}
	return errs
}

func clientConfig(c *admregv1.WebhookClientConfig, p *field.Path) errors {
	var errs errors
	switch {
	case (c.URL == nil) == (c.Service == nil):
		errs = append(errs, field.Required(p, "exactly one of url or service is required"))
	case c.URL != nil:
		errs = append(errs, webhookURL(*c.URL, p.Child("url"))...)
	default:
		at := p.Child("service")
		// upstream confuses the two: a missing name is reported at namespace, and the other way round
		errs = append(errs, need(at.Child("namespace"), c.Service.Name, "")...)
		errs = append(errs, need(at.Child("name"), c.Service.Namespace, "")...)
		if n := deref(c.Service.Port, 0); len(validation.IsValidPortNum(int(n))) > 0 {
			errs = append(errs, field.Invalid(at.Child("port"), n, "port is not valid: "+strings.Join(validation.IsValidPortNum(int(n)), ", ")))
		}
		if c.Service.Path != nil {
			errs = append(errs, webhookPath(*c.Service.Path, at.Child("path"))...)
		}
	}
	return errs
}

const urlForm = "; desired format: https://host[/path]"

func webhookURL(s string, p *field.Path) errors {
	u, err := url.Parse(s)
	if err != nil {
		return errors{field.Required(p, "url must be a valid URL: "+err.Error()+urlForm)}
	}
	var errs errors
	if u.Scheme != "https" {
		errs = append(errs, field.Invalid(p, u.Scheme, "'https' is the only allowed URL scheme"+urlForm))
	}
	if u.Host == "" {
		errs = append(errs, field.Invalid(p, u.Host, "host must be specified"+urlForm))
	}
	if u.User != nil {
		errs = append(errs, field.Invalid(p, u.User.String(), "user information is not permitted in the URL"))
	}
	if u.Fragment != "" {
		errs = append(errs, field.Invalid(p, u.Fragment, "fragments are not permitted in the URL"))
	}
	if u.RawQuery != "" {
		errs = append(errs, field.Invalid(p, u.RawQuery, "query parameters are not permitted in the URL"))
	}
	return errs
}

func webhookPath(s string, p *field.Path) errors {
	if s == "/" || s == "" {
		return nil
	}
	var errs errors
	if !strings.HasPrefix(s, "/") {
		errs = append(errs, field.Invalid(p, s, "must start with a '/'"))
	}
	for i, step := range strings.Split(strings.TrimSuffix(s[1:], "/"), "/") {
		if step == "" {
			errs = append(errs, field.Invalid(p, s, fmt.Sprintf("segment[%d] may not be empty", i)))
			continue
		}
		for _, m := range validation.IsDNS1123Subdomain(step) {
			errs = append(errs, field.Invalid(p, s, fmt.Sprintf("segment[%d]: %v", i, m)))
		}
	}
	return errs
}

var operations = []admregv1.OperationType{admregv1.OperationAll, admregv1.Connect, admregv1.Create, admregv1.Delete, admregv1.Update}

func admissionRule(r *admregv1.RuleWithOperations, p *field.Path) errors {
	var errs errors
	if len(r.Operations) == 0 {
		errs = append(errs, field.Required(p.Child("operations"), ""))
	}
	star := false
	for i, o := range r.Operations {
		errs = append(errs, oneOf(p.Child("operations").Index(i), o, operations...)...)
		star = star || o == admregv1.OperationAll
	}
	if star && len(r.Operations) > 1 {
		errs = append(errs, field.Invalid(p.Child("operations"), r.Operations, "if '*' is present, must not specify other operations"))
	}
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(p.Child("apiGroups"), ""))
	}
	if contains(r.APIGroups, "*") && len(r.APIGroups) > 1 {
		errs = append(errs, field.Invalid(p.Child("apiGroups"), r.APIGroups, "if '*' is present, must not specify other API groups"))
	}
	if len(r.APIVersions) == 0 {
		errs = append(errs, field.Required(p.Child("apiVersions"), ""))
	}
	if contains(r.APIVersions, "*") && len(r.APIVersions) > 1 {
		errs = append(errs, field.Invalid(p.Child("apiVersions"), r.APIVersions, "if '*' is present, must not specify other API versions"))
	}
	for i, v := range r.APIVersions {
		if v == "" {
			errs = append(errs, field.Required(p.Child("apiVersions").Index(i), ""))
		}
	}
	errs = append(errs, ruleResources(r.Resources, p.Child("resources"))...)
	if r.Scope != nil {
		errs = append(errs, oneOf(p.Child("scope"), *r.Scope, admregv1.AllScopes, admregv1.ClusterScope, admregv1.NamespacedScope)...)
	}
	return errs
}

// ruleResources checks the resources of a rule: a wildcard must not cover what is named beside it.
func ruleResources(list []string, p *field.Path) errors {
	if len(list) == 0 {
		return errors{field.Required(p, "")}
	}
	var errs errors
	subsOf, resourcesOf := sets.New[string](), sets.New[string]()
	for i, r := range list {
		at := p.Index(i)
		if r == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		if r == "*/*" && len(list) > 1 && slices.Index(list, r) == i {
			errs = append(errs, field.Invalid(p, list, "if '*/*' is present, must not specify other resources"))
		}
		res, sub, found := strings.Cut(r, "/")
		if !found {
			if contains(list, "*") && res != "*" && len(list) > 1 {
				errs = append(errs, field.Invalid(at, r, "if '*' is present, must not specify other resources without subresources"))
			}
			continue
		}
		if resourcesOf.Has(res) {
			errs = append(errs, field.Invalid(at, r, fmt.Sprintf("if '%s/*' is present, must not specify %s", res, r)))
		}
		if subsOf.Has(sub) {
			errs = append(errs, field.Invalid(at, r, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, r)))
		}
		if sub == "*" {
			resourcesOf.Insert(res)
		}
		if res == "*" {
			subsOf.Insert(sub)
		}
	}
	return errs
}

// matchConditions checks names and expressions; compile is the policy's own compiler, if it has one.
func matchConditions(list []admregv1.MatchCondition, o expression.Options, compile *expression.Compiler, p *field.Path) errors {
	var errs errors
	if len(list) > 64 {
		errs = append(errs, field.TooMany(p, len(list), 64))
	}
	names := sets.New[string]()
	for i, c := range list {
		at := p.Index(i)
		if names.Has(c.Name) && c.Name != "" {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		names.Insert(c.Name)
		if text := strings.TrimSpace(c.Expression); text == "" {
			errs = append(errs, field.Required(at.Child("expression"), ""))
		} else {
			if compile == nil {
				compile = expression.New(o)
			}
			errs = append(errs, compile.Check(text, expression.Bool, at.Child("expression"))...)
		}
		if c.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, qualifiedName(at.Child("name"), c.Name)...)
		}
	}
	return errs
}

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
