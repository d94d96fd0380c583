package validation

import (
	"fmt"
	"math"
	"strings"

	flowv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addFlow(t table) {
	const g = "flowcontrol.apiserver.k8s.io"
	rule(t, g, "v1", "FlowSchema", false, subdomain, flowSchema, nil)
	rule(t, g, "v1", "PriorityLevelConfiguration", false, subdomain, priorityLevel, nil)
}

var flowVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}

func flowSchema(o *flowv1.FlowSchema) errors {
	p, s := field.NewPath("spec"), &o.Spec
	var errs errors
	if s.MatchingPrecedence <= 0 {
		errs = append(errs, field.Invalid(p.Child("matchingPrecedence"), s.MatchingPrecedence, "must be a positive value"))
	}
	if s.MatchingPrecedence > 10000 {
		errs = append(errs, field.Invalid(p.Child("matchingPrecedence"), s.MatchingPrecedence, "must not be greater than 10000"))
	}
	if s.MatchingPrecedence == 1 && o.Name != "exempt" {
		errs = append(errs, field.Invalid(p.Child("matchingPrecedence"), s.MatchingPrecedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	if m := s.DistinguisherMethod; m != nil {
		errs = append(errs, oneOf(p.Child("distinguisherMethod", "type"), m.Type, flowv1.FlowDistinguisherMethodByNamespaceType, flowv1.FlowDistinguisherMethodByUserType)...)
	}
	at := p.Child("priorityLevelConfiguration", "name")
	if n := s.PriorityLevelConfiguration.Name; n != "" {
		errs = append(errs, invalid(at, n, subdomain(n, false))...)
	} else {
		errs = append(errs, field.Required(at, "must reference a priority level"))
	}
	for i := range s.Rules {
		errs = append(errs, flowRule(&s.Rules[i], p.Child("rules").Index(i))...)
	}
	return errs
}

func flowRule(r *flowv1.PolicyRulesWithSubjects, p *field.Path) errors {
	var errs errors
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(p.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, flowSubject(&r.Subjects[i], p.Child("subjects").Index(i))...)
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(p, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range r.ResourceRules {
		c, at := &r.ResourceRules[i], p.Child("resourceRules").Index(i)
		errs = append(errs, verbList(c.Verbs, at.Child("verbs"))...)
		errs = append(errs, starAlone(c.APIGroups, at.Child("apiGroups"), "resource rules must supply at least one api group", "api groups")...)
		errs = append(errs, starAlone(c.Resources, at.Child("resources"), "resource rules must supply at least one resource", "resources")...)
		if len(c.Namespaces) == 0 && !c.ClusterScope {
			errs = append(errs, field.Required(at.Child("namespaces"), "resource rules that are not cluster scoped must supply at least one namespace"))
		}
		if contains(c.Namespaces, "*") && len(c.Namespaces) > 1 {
			errs = append(errs, field.Invalid(at.Child("namespaces"), c.Namespaces, "if '*' is present, must not specify other namespaces"))
		}
		for j, n := range c.Namespaces {
			if n == "*" {
				continue
			}
			for _, m := range validation.IsDNS1123Label(n) {
				errs = append(errs, field.Invalid(at.Child("namespaces").Index(j), n, "each member of this list must be '*' or a DNS-1123 label; "+m))
			}
		}
	}
	for i := range r.NonResourceRules {
		c, at := &r.NonResourceRules[i], p.Child("nonResourceRules").Index(i)
		errs = append(errs, verbList(c.Verbs, at.Child("verbs"))...)
		if len(c.NonResourceURLs) == 0 {
			errs = append(errs, field.Required(at.Child("nonResourceURLs"), "nonResourceURLs must contain at least one value"))
		}
		for j, u := range c.NonResourceURLs {
			errs = append(errs, nonResourceURL(u, at.Child("nonResourceURLs").Index(j))...)
		}
	}
	return errs
}

func verbList(list []string, p *field.Path) errors {
	if len(list) == 0 {
		return errors{field.Required(p, "verbs must contain at least one value")}
	}
	if contains(list, "*") {
		if len(list) > 1 {
			return errors{field.Invalid(p, list, "if '*' is present, must not specify other verbs")}
		}
		return nil
	}
	for _, v := range list {
		if !contains(flowVerbs, v) {
			return errors{field.NotSupported(p, list, flowVerbs)}
		}
	}
	return nil
}

func starAlone(list []string, p *field.Path, missing, what string) errors {
	if len(list) == 0 {
		return errors{field.Required(p, missing)}
	}
	if contains(list, "*") && len(list) > 1 {
		return errors{field.Invalid(p, list, "if '*' is present, must not specify other "+what)}
	}
	return nil
}

func nonResourceURL(u string, p *field.Path) errors {
	switch {
	case u == "":
		return errors{field.Invalid(p, u, "must not be empty")}
	case u == "*", u == "/":
		return nil
	case !strings.HasPrefix(u, "/"):
		return errors{field.Invalid(p, u, "must start with slash")}
	case strings.Contains(u, " "):
		return errors{field.Invalid(p, u, "must not contain white-space")}
	case strings.Contains(u, "//"):
		return errors{field.Invalid(p, u, "must not contain double slash")}
	case strings.ContainsRune(strings.TrimSuffix(u, "*"), '*') || strings.HasSuffix(u, "*") && !strings.HasSuffix(u, "/*"):
		return errors{field.Invalid(p, u, "wildcard can only do suffix matching")}
	}
	return nil
}

func flowSubject(s *flowv1.Subject, p *field.Path) errors {
	missing := func(name string) errors {
		return errors{field.Required(p.Child(name), fmt.Sprintf("%s is required when subject kind is '%s'", name, s.Kind))}
	}
	var errs errors
	switch s.Kind {
	case flowv1.SubjectKindServiceAccount:
		if s.ServiceAccount == nil {
			return missing("serviceAccount")
		}
		at := p.Child("serviceAccount")
		if n := s.ServiceAccount.Name; n == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else if n != "*" {
			errs = append(errs, invalid(at.Child("name"), n, subdomain(n, false))...)
		}
		if n := s.ServiceAccount.Namespace; n == "" {
			errs = append(errs, field.Required(at.Child("namespace"), "must specify namespace for service account"))
		} else {
			errs = append(errs, dnsLabel(at.Child("namespace"), n)...)
		}
	case flowv1.SubjectKindUser:
		if s.User == nil {
			return missing("user")
		}
		errs = append(errs, need(p.Child("user", "name"), s.User.Name, "")...)
	case flowv1.SubjectKindGroup:
		if s.Group == nil {
			return missing("group")
		}
		errs = append(errs, need(p.Child("group", "name"), s.Group.Name, "")...)
	default:
		errs = append(errs, oneOf(p.Child("kind"), s.Kind, flowv1.SubjectKindGroup, flowv1.SubjectKindServiceAccount, flowv1.SubjectKindUser)...)
	}
	return errs
}

func priorityLevel(o *flowv1.PriorityLevelConfiguration) errors {
	p, s := field.NewPath("spec"), &o.Spec
	var errs errors
	switch s.Type {
	case flowv1.PriorityLevelEnablementExempt:
		if s.Limited != nil {
			errs = append(errs, field.Forbidden(p.Child("limited"), "must be nil if the type is not Limited"))
		}
		if s.Exempt == nil {
			errs = append(errs, field.Required(p.Child("exempt"), "must not be empty when type is Exempt"))
		}
	case flowv1.PriorityLevelEnablementLimited:
		if s.Exempt != nil {
			errs = append(errs, field.Forbidden(p.Child("exempt"), "must be nil if the type is Limited"))
		}
		if s.Limited == nil {
			errs = append(errs, field.Required(p.Child("limited"), "must not be empty when type is Limited"))
		} else {
			errs = append(errs, limited(s.Limited, p.Child("limited"))...)
		}
	default:
		errs = append(errs, oneOf(p.Child("type"), s.Type, flowv1.PriorityLevelEnablementExempt, flowv1.PriorityLevelEnablementLimited)...)
	}
	return errs
}

func limited(l *flowv1.LimitedPriorityLevelConfiguration, p *field.Path) errors {
	var errs errors
	if n := deref(l.NominalConcurrencyShares, 0); n < 0 {
		errs = append(errs, field.Invalid(p.Child("nominalConcurrencyShares"), n, "must be a non-negative integer"))
	}
	at := p.Child("limitResponse")
	switch l.LimitResponse.Type {
	case flowv1.LimitResponseTypeReject:
		if l.LimitResponse.Queuing != nil {
			errs = append(errs, field.Forbidden(at.Child("queuing"), "must be nil if limited.limitResponse.type is not Limited"))
		}
	case flowv1.LimitResponseTypeQueue:
		if l.LimitResponse.Queuing == nil {
			errs = append(errs, field.Required(at.Child("queuing"), "must not be empty if limited.limitResponse.type is Limited"))
		} else {
			errs = append(errs, queuing(l.LimitResponse.Queuing, at.Child("queuing"))...)
		}
	default:
		errs = append(errs, oneOf(at.Child("type"), l.LimitResponse.Type, flowv1.LimitResponseTypeQueue, flowv1.LimitResponseTypeReject)...)
	}
	if n := l.LendablePercent; n != nil && (*n < 0 || *n > 100) {
		errs = append(errs, field.Invalid(p.Child("lendablePercent"), *n, validation.InclusiveRangeError(0, 100)))
	}
	if n := l.BorrowingLimitPercent; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(p.Child("borrowingLimitPercent"), *n, "if specified, must be a non-negative integer"))
	}
	return errs
}

func queuing(q *flowv1.QueuingConfiguration, p *field.Path) errors {
	var errs errors
	positive := func(name string, n int32) {
		if n <= 0 {
			errs = append(errs, field.Invalid(p.Child(name), n, "must be positive"))
		}
	}
	positive("queueLengthLimit", q.QueueLengthLimit)
	positive("queues", q.Queues)
	if q.Queues > 10*1000*1000 {
		errs = append(errs, field.Invalid(p.Child("queues"), q.Queues, "must not be greater than 10000000"))
	}
	positive("handSize", q.HandSize)
	if q.HandSize > q.Queues {
		errs = append(errs, field.Invalid(p.Child("handSize"), q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
	} else if entropy := entropyBits(q.Queues, q.HandSize); entropy > 60 {
		errs = append(errs, field.Invalid(p.Child("handSize"), q.HandSize, fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than 60", q.Queues, q.HandSize)))
	}
	return errs
}

// entropyBits is how many random bits dealing a hand takes.
func entropyBits(queues, hand int32) int {
	v := 1.0
	for i := range hand {
		v *= float64(queues - i)
	}
	return int(math.Ceil(math.Log2(v)))
}
