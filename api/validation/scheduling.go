package validation

import (
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func affinity(a *corev1.Affinity, p *field.Path) errors {
	if a == nil {
		return nil
	}
	var errs errors
	if n := a.NodeAffinity; n != nil {
		at := p.Child("nodeAffinity")
		if n.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			errs = append(errs, nodeSelector(n.RequiredDuringSchedulingIgnoredDuringExecution, at.Child("requiredDuringSchedulingIgnoredDuringExecution"))...)
		}
		for i := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			t, q := &n.PreferredDuringSchedulingIgnoredDuringExecution[i], at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
			errs = append(errs, weight(t.Weight, q)...)
			errs = append(errs, nodeTerm(&t.Preference, false, q.Child("preference"))...)
		}
	}
	if f := a.PodAffinity; f != nil {
		errs = append(errs, podTerms(f.RequiredDuringSchedulingIgnoredDuringExecution, f.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAffinity"))...)
	}
	if f := a.PodAntiAffinity; f != nil {
		errs = append(errs, podTerms(f.RequiredDuringSchedulingIgnoredDuringExecution, f.PreferredDuringSchedulingIgnoredDuringExecution, p.Child("podAntiAffinity"))...)
	}
	return errs
}

func weight(w int32, p *field.Path) errors {
	if w <= 0 || w > 100 {
		return errors{field.Invalid(p.Child("weight"), w, "must be in the range 1-100")}
	}
	return nil
}

// nodeSelector checks the terms that are or-ed together.
func nodeSelector(s *corev1.NodeSelector, p *field.Path) errors {
	at := p.Child("nodeSelectorTerms")
	if len(s.NodeSelectorTerms) == 0 {
		return errors{field.Required(at, "must have at least one node selector term")}
	}
	var errs errors
	for i := range s.NodeSelectorTerms {
		errs = append(errs, nodeTerm(&s.NodeSelectorTerms[i], true, at.Index(i))...)
	}
	return errs
}

// nodeTerm checks one term. A term that is only preferred may name values that no label can have: it prefers nothing then.
func nodeTerm(t *corev1.NodeSelectorTerm, required bool, p *field.Path) errors {
	var errs errors
	for i := range t.MatchExpressions {
		errs = append(errs, nodeRequirement(&t.MatchExpressions[i], required, p.Child("matchExpressions").Index(i))...)
	}
	for i := range t.MatchFields {
		errs = append(errs, nodeField(&t.MatchFields[i], p.Child("matchFields").Index(i))...)
	}
	return errs
}

func nodeRequirement(r *corev1.NodeSelectorRequirement, values bool, p *field.Path) errors {
	var errs errors
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			errs = append(errs, field.Required(p.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'"))
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			errs = append(errs, field.Forbidden(p.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(p.Child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'"))
		}
	default:
		errs = append(errs, field.Invalid(p.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	errs = append(errs, labelName(p.Child("key"), r.Key)...)
	for i := 0; values && i < len(r.Values); i++ {
		errs = append(errs, invalid(p.Child("values").Index(i), r.Values[i], validation.IsValidLabelValue(r.Values[i]))...)
	}
	return errs
}

func nodeField(r *corev1.NodeSelectorRequirement, p *field.Path) errors {
	var errs errors
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(p.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
		}
	default:
		errs = append(errs, field.Invalid(p.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	if r.Key != metav1.ObjectNameField {
		return append(errs, field.Invalid(p.Child("key"), r.Key, "not a valid field selector key"))
	}
	for i, v := range r.Values {
		errs = append(errs, invalid(p.Child("values").Index(i), v, subdomain(v, false))...)
	}
	return errs
}

func podTerms(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, p *field.Path) errors {
	var errs errors
	for i := range required {
		errs = append(errs, podTerm(&required[i], p.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i))...)
	}
	for i := range preferred {
		at := p.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
		errs = append(errs, weight(preferred[i].Weight, at)...)
		errs = append(errs, podTerm(&preferred[i].PodAffinityTerm, at.Child("podAffinityTerm"))...)
	}
	return errs
}

func podTerm(t *corev1.PodAffinityTerm, p *field.Path) errors {
	errs := labelSelector(p.Child("labelSelector"), t.LabelSelector)
	errs = append(errs, labelSelector(p.Child("namespaceSelector"), t.NamespaceSelector)...)
	for _, n := range t.Namespaces {
		errs = append(errs, invalid(p.Child("namespace"), n, label(n, false))...)
	}
	errs = append(errs, labelKeys(t, p)...)
	if t.TopologyKey == "" {
		errs = append(errs, field.Required(p.Child("topologyKey"), "can not be empty"))
	}
	return append(errs, labelName(p.Child("topologyKey"), t.TopologyKey)...)
}

// labelKeys checks matchLabelKeys and mismatchLabelKeys, against each other and the selector.
func labelKeys(t *corev1.PodAffinityTerm, p *field.Path) errors {
	match := p.Child("matchLabelKeys")
	errs := keys(t.MatchLabelKeys, t.LabelSelector, match)
	errs = append(errs, keys(t.MismatchLabelKeys, t.LabelSelector, p.Child("mismatchLabelKeys"))...)
	errs = append(errs, repeated(t.MatchLabelKeys, t.LabelSelector, p)...)
	for i, k := range t.MatchLabelKeys {
		if slices.Contains(t.MismatchLabelKeys, k) {
			errs = append(errs, field.Invalid(match.Index(i), k, "exists in both matchLabelKeys and mismatchLabelKeys"))
		}
	}
	return errs
}

func keys(list []string, s *metav1.LabelSelector, p *field.Path) errors {
	if len(list) == 0 {
		return nil
	}
	if s == nil {
		return errors{field.Forbidden(p, "must not be specified when labelSelector is not set")}
	}
	var errs errors
	for i, k := range list {
		errs = append(errs, labelName(p.Index(i), k)...)
	}
	return errs
}

// repeated refuses a key of matchLabelKeys that the selector names by itself too: once is what the key itself was turned
// into. It is reported under the term, by the last place the key has in its list.
func repeated(list []string, s *metav1.LabelSelector, p *field.Path) errors {
	if s == nil {
		return nil
	}
	places := map[string]int{}
	for i, k := range list {
		places[k] = i
	}
	var errs errors
	named := map[string]bool{}
	for k := range s.MatchLabels {
		named[k] = true
	}
	for _, e := range s.MatchExpressions {
		if i, ok := places[e.Key]; ok && named[e.Key] {
			errs = append(errs, field.Invalid(p.Index(i), e.Key, "exists in both matchLabelKeys and labelSelector"))
		}
		named[e.Key] = true
	}
	return errs
}

func tolerations(list []corev1.Toleration, p *field.Path) errors {
	var errs errors
	for i := range list {
		t, at := &list[i], p.Index(i)
		if t.Key != "" {
			errs = append(errs, labelName(at.Child("key"), t.Key)...)
		}
		if t.Key == "" && t.Operator != corev1.TolerationOpExists {
			errs = append(errs, field.Invalid(at.Child("operator"), t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			errs = append(errs, field.Invalid(at.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			errs = append(errs, labelValue(at.Child("operator"), t.Value)...)
		case corev1.TolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(at.Child("operator"), t.Value, "value must be empty when `operator` is 'Exists'"))
			}
		default:
			errs = append(errs, oneOf(at.Child("operator"), t.Operator, corev1.TolerationOpEqual, corev1.TolerationOpExists)...)
		}
		if t.Effect != "" {
			errs = append(errs, oneOf(at.Child("effect"), t.Effect, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)...)
		}
	}
	return errs
}

func spread(list []corev1.TopologySpreadConstraint, p *field.Path) errors {
	var errs errors
	for i := range list {
		c, at := &list[i], p.Index(i)
		if c.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(at.Child("maxSkew"), c.MaxSkew, "must be greater than zero"))
		}
		if c.TopologyKey == "" {
			errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
		}
		errs = append(errs, oneOf(at.Child("whenUnsatisfiable"), c.WhenUnsatisfiable, corev1.DoNotSchedule, corev1.ScheduleAnyway)...)
		pair := fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable)
		if slices.ContainsFunc(list[i+1:], func(o corev1.TopologySpreadConstraint) bool {
			return o.TopologyKey == c.TopologyKey && o.WhenUnsatisfiable == c.WhenUnsatisfiable
		}) {
			errs = append(errs, field.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), pair))
		}
		if n := c.MinDomains; n != nil {
			if *n <= 0 {
				errs = append(errs, field.Invalid(at.Child("minDomains"), *n, "must be greater than zero"))
			}
			if c.WhenUnsatisfiable != corev1.DoNotSchedule {
				errs = append(errs, field.Invalid(at.Child("minDomains"), *n, fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, c.WhenUnsatisfiable)))
			}
		}
		if c.NodeAffinityPolicy != nil {
			errs = append(errs, oneOf(at.Child("nodeAffinityPolicy"), *c.NodeAffinityPolicy, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)...)
		}
		if c.NodeTaintsPolicy != nil {
			errs = append(errs, oneOf(at.Child("nodeTaintsPolicy"), *c.NodeTaintsPolicy, corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)...)
		}
		errs = append(errs, keys(c.MatchLabelKeys, c.LabelSelector, at.Child("matchLabelKeys"))...)
		errs = append(errs, repeated(c.MatchLabelKeys, c.LabelSelector, at)...)
		errs = append(errs, labelSelector(at.Child("labelSelector"), c.LabelSelector)...)
	}
	return errs
}

// labelValue refuses a value with all that is wrong with it as one cause.
func labelValue(p *field.Path, v string) errors {
	if m := validation.IsValidLabelValue(v); len(m) > 0 {
		return errors{field.Invalid(p, v, strings.Join(m, ";"))}
	}
	return nil
}

const maxInt32 = math.MaxInt32
