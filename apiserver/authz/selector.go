package authz

import (
	"fmt"
	"slices"
	"strings"

	authzv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Reviews may carry the selectors of the request they ask about. An authorizer may allow less without them, so that what
// cannot be understood of one is left out, and the review's status says so.

// fieldTerms returns the text of a structured field selector, and what was wrong with it.
func fieldTerms(f *authzv1.FieldSelectorAttributes) (text, wrong string) {
	if f == nil {
		return "", ""
	}
	bad := 0
	var terms []fields.Selector
	if f.RawSelector != "" {
		s, err := fields.ParseSelector(f.RawSelector)
		if err != nil {
			return "", ignored("field", 1, 1)
		}
		return s.String(), ""
	}
	for _, r := range f.Requirements {
		switch {
		case r.Operator == metav1.FieldSelectorOpIn && len(r.Values) == 1:
			terms = append(terms, fields.OneTermEqualSelector(r.Key, r.Values[0]))
		case r.Operator == metav1.FieldSelectorOpNotIn && len(r.Values) == 1:
			terms = append(terms, fields.OneTermNotEqualSelector(r.Key, r.Values[0]))
		default:
			bad++
		}
	}
	return fields.AndSelectors(terms...).String(), ignored("field", bad, len(f.Requirements))
}

// labelTerms returns what is wrong with a structured label selector; no authorizer here reads one.
func labelTerms(l *authzv1.LabelSelectorAttributes) (wrong string) {
	if l == nil {
		return ""
	}
	if l.RawSelector != "" {
		if _, err := labels.Parse(l.RawSelector); err != nil {
			return ignored("label", 1, 1)
		}
		return ""
	}
	ops := map[metav1.LabelSelectorOperator]selection.Operator{metav1.LabelSelectorOpIn: selection.In, metav1.LabelSelectorOpNotIn: selection.NotIn,
		metav1.LabelSelectorOpExists: selection.Exists, metav1.LabelSelectorOpDoesNotExist: selection.DoesNotExist}
	bad := 0
	for _, r := range l.Requirements {
		op, ok := ops[r.Operator]
		if !ok {
			bad++
		} else if _, err := labels.NewRequirement(r.Key, op, r.Values); err != nil {
			bad++
		}
	}
	return ignored("label", bad, len(l.Requirements))
}

func ignored(kind string, bad, of int) string {
	switch {
	case bad == 0:
		return ""
	case bad < of:
		return "spec.resourceAttributes." + kind + "Selector partially ignored due to parse error"
	}
	return "spec.resourceAttributes." + kind + "Selector ignored due to parse error"
}

func validateSelectors(ra *authzv1.ResourceAttributes, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ra == nil {
		return nil
	}
	if f := ra.FieldSelector; f != nil {
		p := path.Child("fieldSelector")
		errs = append(errs, oneForm(f.RawSelector, len(f.Requirements), p)...)
		for i, r := range f.Requirements {
			p := p.Child("requirements").Index(i)
			if r.Key == "" {
				errs = append(errs, field.Required(p.Child("key"), "must be specified"))
			}
			errs = append(errs, validateValues(string(r.Operator), r.Values, p)...)
		}
	}
	if l := ra.LabelSelector; l != nil {
		p := path.Child("labelSelector")
		errs = append(errs, oneForm(l.RawSelector, len(l.Requirements), p)...)
		for i, r := range l.Requirements {
			p := p.Child("requirements").Index(i)
			errs = append(errs, validateValues(string(r.Operator), r.Values, p)...)
			errs = append(errs, metavalidation.ValidateLabelName(r.Key, p.Child("key"))...)
			for j, v := range r.Values {
				for _, msg := range validation.IsValidLabelValue(v) {
					errs = append(errs, field.Invalid(p.Child("values").Index(j), v, msg))
				}
			}
		}
	}
	return errs
}

func oneForm(raw string, requirements int, p *field.Path) field.ErrorList {
	switch {
	case raw != "" && requirements > 0:
		return field.ErrorList{field.Invalid(p.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(p.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", p))}
	}
	return nil
}

func validateValues(op string, values []string, p *field.Path) field.ErrorList {
	switch {
	case slices.Contains([]string{"In", "NotIn"}, op) && len(values) == 0:
		return field.ErrorList{field.Required(p.Child("values"), "must be specified when `operator` is 'In' or 'NotIn'")}
	case slices.Contains([]string{"Exists", "DoesNotExist"}, op) && len(values) > 0:
		return field.ErrorList{field.Forbidden(p.Child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")}
	}
	return nil
}

// joined writes the non-empty ones of msgs, several as a list.
func joined(msgs ...string) string {
	msgs = slices.DeleteFunc(msgs, func(s string) bool { return s == "" })
	if len(msgs) > 1 {
		return "[" + strings.Join(msgs, ", ") + "]"
	}
	return strings.Join(msgs, "")
}
