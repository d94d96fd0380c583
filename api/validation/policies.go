package validation

import (
	"fmt"
	"regexp"
	"strings"

	admregv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api/validation/expression"
)

func addPolicies(t table) {
	rule(t, admissionGroup, "v1", "ValidatingAdmissionPolicy", false, subdomain, validatingPolicy, nil)
	rule(t, admissionGroup, "v1", "MutatingAdmissionPolicy", false, subdomain, mutatingPolicy, nil)
	rule(t, admissionGroup, "v1", "ValidatingAdmissionPolicyBinding", false, subdomain, func(o *admregv1.ValidatingAdmissionPolicyBinding) errors {
		p, s := field.NewPath("spec"), &o.Spec
		errs := bindingSpec(s.PolicyName, s.ParamRef, s.MatchResources, false, p)
		return append(errs, validationActions(s.ValidationActions, p.Child("validationActions"))...)
	}, nil)
	rule(t, admissionGroup, "v1", "MutatingAdmissionPolicyBinding", false, subdomain, func(o *admregv1.MutatingAdmissionPolicyBinding) errors {
		return bindingSpec(o.Spec.PolicyName, o.Spec.ParamRef, o.Spec.MatchResources, true, field.NewPath("spec"))
	}, nil)
}

func bindingSpec(policy string, ref *admregv1.ParamRef, match *admregv1.MatchResources, mutating bool, p *field.Path) errors {
	var errs errors
	if policy == "" {
		errs = append(errs, field.Required(p.Child("policyName"), ""))
	} else {
		errs = append(errs, invalid(p.Child("policyName"), policy, subdomain(policy, false))...)
	}
	errs = append(errs, paramRef(ref, p.Child("paramRef"))...)
	if match != nil {
		errs = append(errs, matchResources(match, p.Child("matchResources"))...)
		if mutating {
			errs = append(errs, mutableOperations(match.ResourceRules, p.Child("matchResources", "resourceRules"))...)
		}
	}
	return errs
}

func paramRef(r *admregv1.ParamRef, p *field.Path) errors {
	if r == nil {
		return nil
	}
	var errs errors
	if r.Name != "" {
		errs = append(errs, invalid(p.Child("name"), r.Name, segment(r.Name, false))...)
		if r.Selector != nil {
			errs = append(errs, field.Forbidden(p.Child("name"), "name and selector are mutually exclusive"))
		}
	}
	if r.Selector != nil {
		errs = append(errs, labelSelector(p.Child("selector"), r.Selector)...)
	}
	if r.Name == "" && r.Selector == nil {
		errs = append(errs, field.Required(p, "one of name or selector must be specified"))
	}
	if a := deref(r.ParameterNotFoundAction, ""); a == "" {
		errs = append(errs, field.Required(p.Child("parameterNotFoundAction"), ""))
	} else {
		errs = append(errs, oneOf(p.Child("parameterNotFoundAction"), a, admregv1.DenyAction, admregv1.AllowAction)...)
	}
	return errs
}

func validationActions(list []admregv1.ValidationAction, p *field.Path) errors {
	var errs errors
	seen := sets.New[admregv1.ValidationAction]()
	for i, a := range list {
		errs = append(errs, oneOf(p.Index(i), a, admregv1.Audit, admregv1.Deny, admregv1.Warn)...)
		if seen.Has(a) {
			errs = append(errs, field.Duplicate(p.Index(i), a))
		}
		seen.Insert(a)
	}
	if seen.HasAll(admregv1.Deny, admregv1.Warn) {
		errs = append(errs, field.Invalid(p, list, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	if len(list) == 0 {
		errs = append(errs, field.Required(p, "at least one validation action is required"))
	}
	return errs
}

func matchResources(m *admregv1.MatchResources, p *field.Path) errors {
	var errs errors
	if m.MatchPolicy == nil {
		errs = append(errs, field.Required(p.Child("matchPolicy"), ""))
	} else {
		errs = append(errs, oneOf(p.Child("matchPolicy"), *m.MatchPolicy, admregv1.Equivalent, admregv1.Exact)...)
	}
	selector := func(name string, s *metav1.LabelSelector) {
		if s == nil {
			errs = append(errs, field.Required(p.Child(name), ""))
		} else {
			errs = append(errs, labelSelector(p.Child(name), s)...)
		}
	}
	selector("namespaceSelector", m.NamespaceSelector)
	selector("objectSelector", m.ObjectSelector)
	for i := range m.ResourceRules {
		errs = append(errs, namedRule(&m.ResourceRules[i], p.Child("resourceRules").Index(i))...)
	}
	for i := range m.ExcludeResourceRules {
		errs = append(errs, namedRule(&m.ExcludeResourceRules[i], p.Child("excludeResourceRules").Index(i))...)
	}
	return errs
}

func namedRule(r *admregv1.NamedRuleWithOperations, p *field.Path) errors {
	var errs errors
	seen := sets.New[string]()
	for i, n := range r.ResourceNames {
		at := p.Child("resourceNames").Index(i)
		errs = append(errs, invalid(at, n, segment(n, false))...)
		if seen.Has(n) {
			errs = append(errs, field.Duplicate(at, n))
		}
		seen.Insert(n)
	}
	return append(errs, admissionRule(&r.RuleWithOperations, p)...)
}

// mutableOperations refuses what a mutation cannot change.
func mutableOperations(list []admregv1.NamedRuleWithOperations, p *field.Path) errors {
	var errs errors
	for i := range list {
		for _, o := range list[i].Operations {
			errs = append(errs, oneOf(p.Child("operations"), o, admregv1.OperationAll, admregv1.Connect, admregv1.Create, admregv1.Update)...)
		}
	}
	return errs
}

// policyParts is what validating and mutating policies have in common.
type policyParts struct {
	failure    *admregv1.FailurePolicyType
	kind       *admregv1.ParamKind
	match      *admregv1.MatchResources
	conditions []admregv1.MatchCondition
	variables  []admregv1.Variable
	mutating   bool
}

// policy checks the common parts and returns a compiler that knows the policy's variables.
func policy(s *policyParts, p *field.Path) (*expression.Compiler, errors) {
	var errs errors
	if s.failure == nil {
		errs = append(errs, field.Required(p.Child("failurePolicy"), ""))
	} else {
		errs = append(errs, oneOf(p.Child("failurePolicy"), *s.failure, admregv1.Fail, admregv1.Ignore)...)
	}
	o := expression.Options{Params: s.kind != nil, Authorizer: true, Patch: s.mutating}
	if s.kind != nil {
		errs = append(errs, paramKind(s.kind, p.Child("paramKind"))...)
	}
	at := p.Child("matchConstraints")
	if s.match == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, matchResources(s.match, at)...)
		if s.mutating {
			errs = append(errs, mutableOperations(s.match.ResourceRules, at.Child("resourceRules"))...)
		}
		if len(s.match.ResourceRules) == 0 {
			errs = append(errs, field.Required(at.Child("resourceRules"), ""))
		}
	}
	errs = append(errs, matchConditions(s.conditions, expression.Options{Params: s.kind != nil, Authorizer: true}, nil, p.Child("matchConditions"))...)
	c, err := expression.NewComposed(o)
	if err != nil {
		return nil, append(errs, field.InternalError(p, err))
	}
	for i, v := range s.variables {
		errs = append(errs, variable(&v, c, p.Child("variables").Index(i))...)
	}
	return c, errs
}

var celIdentifier = regexp.MustCompile(`^[_a-zA-Z][_a-zA-Z0-9]*$`)

func variable(v *admregv1.Variable, c *expression.Compiler, p *field.Path) errors {
	var errs errors
	switch name := strings.TrimSpace(v.Name); {
	case name == "":
		errs = append(errs, field.Required(p.Child("name"), "name is not specified"))
	case !celIdentifier.MatchString(v.Name):
		errs = append(errs, field.Invalid(p.Child("name"), v.Name, "must be a valid CEL identifier"))
	}
	if text := strings.TrimSpace(v.Expression); text == "" {
		errs = append(errs, field.Required(p.Child("expression"), "expression is not specified"))
	} else {
		errs = append(errs, c.Variable(v.Name, v.Expression, p.Child("expression"))...)
	}
	return errs
}

func paramKind(k *admregv1.ParamKind, p *field.Path) errors {
	var errs errors
	if k.APIVersion == "" {
		errs = append(errs, field.Required(p.Child("apiVersion"), ""))
	} else if gv, err := schema.ParseGroupVersion(k.APIVersion); err != nil {
		errs = append(errs, field.Invalid(p.Child("apiVersion"), k.APIVersion, err.Error()))
	} else {
		if gv.Group != "" {
			errs = append(errs, invalid(p.Child("apiVersion"), k.APIVersion, validation.IsDNS1123Subdomain(gv.Group))...)
		}
		errs = append(errs, invalid(p.Child("apiVersion"), k.APIVersion, validation.IsDNS1035Label(gv.Version))...)
	}
	if k.Kind == "" {
		errs = append(errs, field.Required(p.Child("kind"), ""))
	} else if m := validation.IsDNS1035Label(strings.ToLower(k.Kind)); len(m) > 0 {
		errs = append(errs, field.Invalid(p.Child("kind"), k.Kind, "may have mixed case, but should otherwise match: "+strings.Join(m, ",")))
	}
	return errs
}

func validatingPolicy(o *admregv1.ValidatingAdmissionPolicy) errors {
	p, s := field.NewPath("spec"), &o.Spec
	c, errs := policy(&policyParts{s.FailurePolicy, s.ParamKind, s.MatchConstraints, s.MatchConditions, s.Variables, false}, p)
	if c == nil {
		return errs
	}
	const either = "validations or auditAnnotations must contain at least one item"
	if len(s.Validations) == 0 && len(s.AuditAnnotations) == 0 {
		return append(errs, field.Required(p.Child("validations"), either), field.Required(p.Child("auditAnnotations"), either))
	}
	for i := range s.Validations {
		errs = append(errs, policyValidation(&s.Validations[i], c, p.Child("validations").Index(i))...)
	}
	if len(s.AuditAnnotations) > 20 {
		errs = append(errs, field.Invalid(p.Child("auditAnnotations"), s.AuditAnnotations, "must not have more than 20 auditAnnotations"))
	}
	keys := sets.New[string]()
	for i := range s.AuditAnnotations {
		a, at := &s.AuditAnnotations[i], p.Child("auditAnnotations").Index(i)
		errs = append(errs, auditAnnotation(a, o.Name, c, at)...)
		if keys.Has(a.Key) {
			errs = append(errs, field.Duplicate(at.Child("key"), a.Key))
		}
		keys.Insert(a.Key)
	}
	return errs
}

func policyValidation(v *admregv1.Validation, c *expression.Compiler, p *field.Path) errors {
	var errs errors
	text, message := strings.TrimSpace(v.Expression), strings.TrimSpace(v.Message)
	if text == "" {
		errs = append(errs, field.Required(p.Child("expression"), "expression is not specified"))
	} else {
		errs = append(errs, c.Check(v.Expression, expression.Bool, p.Child("expression"))...)
	}
	if m := strings.TrimSpace(v.MessageExpression); v.MessageExpression != "" && m == "" {
		errs = append(errs, field.Invalid(p.Child("messageExpression"), v.MessageExpression, "must be non-empty if specified"))
	} else if m != "" {
		errs = append(errs, c.Check(v.MessageExpression, expression.String, p.Child("messageExpression"))...)
	}
	switch {
	case v.Message != "" && message == "":
		errs = append(errs, field.Invalid(p.Child("message"), v.Message, "message must be non-empty if specified"))
	case strings.Contains(message, "\n"):
		errs = append(errs, field.Invalid(p.Child("message"), v.Message, "message must not contain line breaks"))
	case message == "" && strings.Contains(text, "\n"):
		errs = append(errs, field.Required(p.Child("message"), "message must be specified if expression contains line breaks"))
	}
	if v.Reason != nil {
		errs = append(errs, oneOf(p.Child("reason"), *v.Reason, metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge)...)
	}
	return errs
}

func auditAnnotation(a *admregv1.AuditAnnotation, name string, c *expression.Compiler, p *field.Path) errors {
	var errs errors
	if name != "" {
		full := name + "/" + a.Key
		for _, m := range validation.IsQualifiedName(full) {
			errs = append(errs, field.Invalid(p.Child("key"), a.Key, m))
		}
	} else {
		errs = append(errs, field.Invalid(p.Child("key"), a.Key, "requires metadata.name be non-empty"))
	}
	switch text := strings.TrimSpace(a.ValueExpression); {
	case text == "":
		errs = append(errs, field.Required(p.Child("valueExpression"), "valueExpression is not specified"))
	case len(text) > 5*1024:
		errs = append(errs, field.Required(p.Child("valueExpression"), "must not exceed 5kiB in length"))
	default:
		errs = append(errs, c.Check(a.ValueExpression, expression.StringOrNull, p.Child("valueExpression"))...)
	}
	return errs
}

func mutatingPolicy(o *admregv1.MutatingAdmissionPolicy) errors {
	p, s := field.NewPath("spec"), &o.Spec
	c, errs := policy(&policyParts{s.FailurePolicy, s.ParamKind, s.MatchConstraints, s.MatchConditions, s.Variables, true}, p)
	if c == nil {
		return errs
	}
	if len(s.Mutations) == 0 {
		errs = append(errs, field.Required(p.Child("mutations"), "mutations must contain at least one item"))
	}
	for i := range s.Mutations {
		errs = append(errs, mutation(&s.Mutations[i], c, p.Child("mutations").Index(i))...)
	}
	at := p.Child("reinvocationPolicy")
	if s.ReinvocationPolicy == "" {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, oneOf(at, s.ReinvocationPolicy, admregv1.IfNeededReinvocationPolicy, admregv1.NeverReinvocationPolicy)...)
	}
	return errs
}

func mutation(m *admregv1.Mutation, c *expression.Compiler, p *field.Path) errors {
	var errs errors
	part := func(name, text string, set bool, result expression.Result, belongs bool) {
		switch {
		case belongs && !set:
			errs = append(errs, field.Required(p.Child(name), fmt.Sprintf("must be specified when patchType is %s", m.PatchType)))
		case !belongs && set:
			errs = append(errs, field.Forbidden(p.Child(name), fmt.Sprintf("must not be specified when patchType is %s", m.PatchType)))
		case set && strings.TrimSpace(text) == "":
			errs = append(errs, field.Required(p.Child(name, "expression"), ""))
		case set:
			errs = append(errs, c.Check(text, result, p.Child(name, "expression"))...)
		}
	}
	text := func(a *admregv1.ApplyConfiguration, j *admregv1.JSONPatch) (string, string) {
		x, y := "", ""
		if a != nil {
			x = a.Expression
		}
		if j != nil {
			y = j.Expression
		}
		return x, y
	}
	apply, patch := text(m.ApplyConfiguration, m.JSONPatch)
	switch m.PatchType {
	case "":
		errs = append(errs, field.Required(p.Child("patchType"), ""))
	case admregv1.PatchTypeApplyConfiguration, admregv1.PatchTypeJSONPatch:
		isApply := m.PatchType == admregv1.PatchTypeApplyConfiguration
		part("applyConfiguration", apply, m.ApplyConfiguration != nil, expression.Object, isApply)
		part("jsonPatch", patch, m.JSONPatch != nil, expression.Patches, !isApply)
	default:
		errs = append(errs, oneOf(p.Child("patchType"), m.PatchType, admregv1.PatchTypeApplyConfiguration, admregv1.PatchTypeJSONPatch)...)
	}
	return errs
}
