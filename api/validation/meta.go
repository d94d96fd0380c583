package validation

import (
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// nameFunc returns what is wrong with a name; prefix tells that it is a generateName.
type nameFunc = func(name string, prefix bool) []string

var (
	subdomain nameFunc = apivalidation.NameIsDNSSubdomain
	label     nameFunc = apivalidation.NameIsDNSLabel
	label1035 nameFunc = apivalidation.NameIsDNS1035Label
	segment   nameFunc = path.ValidatePathSegmentName
)

func anyName(string, bool) []string { return nil }

func serviceName(name string, prefix bool) []string { return label1035(name, prefix) }

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
