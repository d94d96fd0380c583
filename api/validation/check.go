package validation

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

type errors = field.ErrorList

// oneOf refuses a value that is not in the list, which is given in the order it is printed in.
func oneOf[T ~string](p *field.Path, v T, list ...T) errors {
	if slices.Contains(list, v) {
		return nil
	}
	return errors{field.NotSupported(p, v, list)}
}

// oneOfRequired is oneOf for a value that must be there.
func oneOfRequired[T ~string](p *field.Path, v T, list ...T) errors {
	if v == "" {
		return errors{field.Required(p, "")}
	}
	return oneOf(p, v, list...)
}

// need refuses an empty value.
func need(p *field.Path, v, detail string) errors {
	if v == "" {
		return errors{field.Required(p, detail)}
	}
	return nil
}

func invalid(p *field.Path, value any, list []string) errors { return msgs(nil, p, value, list) }

func nonNegative[T int | int32 | int64](p *field.Path, v T) errors {
	if v < 0 {
		return errors{field.Invalid(p, v, apivalidation.IsNegativeErrorMsg).WithOrigin("minimum")}
	}
	return nil
}

func nonNegativePtr[T int | int32 | int64](p *field.Path, v *T) errors {
	if v == nil {
		return nil
	}
	return nonNegative(p, *v)
}

func immutable(p *field.Path, v, old any) errors {
	return apivalidation.ValidateImmutableField(v, old, p)
}

func labels(p *field.Path, l map[string]string) errors { return metavalidation.ValidateLabels(l, p) }

func labelName(p *field.Path, name string) errors { return metavalidation.ValidateLabelName(name, p) }

func labelSelector(p *field.Path, s *metav1.LabelSelector) errors {
	return metavalidation.ValidateLabelSelector(s, metavalidation.LabelSelectorValidationOptions{}, p)
}

func dnsLabel(p *field.Path, v string) errors { return invalid(p, v, validation.IsDNS1123Label(v)) }

func dnsSubdomain(p *field.Path, v string) errors {
	return invalid(p, v, validation.IsDNS1123Subdomain(v))
}

func qualifiedName(p *field.Path, v string) errors {
	return invalid(p, v, validation.IsQualifiedName(v))
}

func portNumber(p *field.Path, v int32) errors {
	return invalid(p, v, validation.IsValidPortNum(int(v)))
}

func portNumOrName(p *field.Path, v intstr.IntOrString) errors {
	switch v.Type {
	case intstr.Int:
		return invalid(p, v.IntValue(), validation.IsValidPortNum(v.IntValue()))
	case intstr.String:
		return invalid(p, v.StrVal, validation.IsValidPortName(v.StrVal))
	}
	return errors{field.InternalError(p, fmt.Errorf("unknown type: %v", v.Type))}
}

// descending refuses a path that leaves the directory it starts in.
func descending(p *field.Path, path string) errors {
	var errs errors
	if filepath.IsAbs(path) {
		errs = append(errs, field.Invalid(p, path, "must be a relative path"))
	}
	return append(errs, noBacksteps(p, path)...)
}

func noBacksteps(p *field.Path, path string) errors {
	if slices.Contains(strings.Split(filepath.ToSlash(path), "/"), "..") {
		return errors{field.Invalid(p, path, "must not contain '..'")}
	}
	return nil
}

// projectedPath is descending, for a file that must not look like the volume's own bookkeeping.
func projectedPath(p *field.Path, path string) errors {
	errs := descending(p, path)
	if strings.HasPrefix(path, "..") && !strings.HasPrefix(path, "../") {
		errs = append(errs, field.Invalid(p, path, "must not start with '..'"))
	}
	return errs
}

func percentOrCount(p *field.Path, v intstr.IntOrString) errors {
	switch v.Type {
	case intstr.String:
		return invalid(p, v, validation.IsValidPercent(v.StrVal))
	case intstr.Int:
		return nonNegative(p, int64(v.IntValue()))
	}
	return errors{field.Invalid(p, v, "must be an integer or percentage (e.g '5%%')")}
}

// atMostHundred refuses more than 100 %.
func atMostHundred(p *field.Path, v intstr.IntOrString) errors {
	if n, ok := percent(v); ok && n > 100 {
		return errors{field.Invalid(p, v, "must not be greater than 100%")}
	}
	return nil
}

func percent(v intstr.IntOrString) (int, bool) {
	if v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) > 0 {
		return 0, false
	}
	n := 0
	fmt.Sscanf(strings.TrimSuffix(v.StrVal, "%"), "%d", &n)
	return n, true
}

func fraction(v intstr.IntOrString) int {
	if n, ok := percent(v); ok {
		return n
	}
	return v.IntValue()
}

func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func sortedKeys[K ~string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

var semverRE = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$`)

func semver(s string) bool { return semverRE.MatchString(s) }

// nameFunc returns what is wrong with a name; prefix tells that it is a generateName.
type nameFunc = func(name string, prefix bool) []string

var (
	subdomain nameFunc = apivalidation.NameIsDNSSubdomain
	label     nameFunc = apivalidation.NameIsDNSLabel
	segment   nameFunc = path.ValidatePathSegmentName
)

func anyName(string, bool) []string { return nil }

func serviceName(name string, prefix bool) []string { return label(name, prefix) }

// ObjectMeta checks the metadata of an object at create and update. name judges the name.
func ObjectMeta(m metav1.Object, namespaced bool, name func(name string, prefix bool) []string, path *field.Path) field.ErrorList {
	return apivalidation.ValidateObjectMetaAccessor(m, namespaced, name, path)
}

// ObjectMetaUpdate checks what an update may not change in the metadata.
func ObjectMetaUpdate(m, old metav1.Object, path *field.Path) field.ErrorList {
	return apivalidation.ValidateObjectMetaAccessorUpdate(m, old, path)
}

func msgs(errs field.ErrorList, p *field.Path, value any, list []string) field.ErrorList {
	for _, m := range list {
		errs = append(errs, field.Invalid(p, value, m))
	}
	return errs
}

func qualified(name string, p *field.Path) field.ErrorList {
	return msgs(nil, p, name, validation.IsQualifiedName(strings.ToLower(name)))
}
