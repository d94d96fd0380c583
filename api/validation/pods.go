package validation

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addPods(t table) {
	rule(t, "", "v1", "Pod", true, subdomain, pod, podUpdate)
	rule(t, "", "v1", "PodTemplate", true, subdomain, func(o *corev1.PodTemplate) errors { return podTemplate(&o.Template, field.NewPath("template")) }, nil)
}
