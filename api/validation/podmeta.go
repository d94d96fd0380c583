package validation

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const appArmorPrefix = "container.apparmor.security.beta.kubernetes.io/"

// eachContainer visits the containers of every sort, in the order they are reported in.
func eachContainer(s *corev1.PodSpec, p *field.Path, visit func(c *corev1.Container, p *field.Path)) {
	for i := range s.InitContainers {
		visit(&s.InitContainers[i], p.Child("initContainers").Index(i))
	}
	for i := range s.Containers {
		visit(&s.Containers[i], p.Child("containers").Index(i))
	}
	for i := range s.EphemeralContainers {
		visit((*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon), p.Child("ephemeralContainers").Index(i))
	}
}

// podAnnotations checks the annotations that mean something to pods.
func podAnnotations(a map[string]string, s *corev1.PodSpec, p *field.Path) errors {
	var errs errors
	if v, ok := a[corev1.MirrorPodAnnotationKey]; ok && s.NodeName == "" {
		errs = append(errs, field.Invalid(p.Key(corev1.MirrorPodAnnotationKey), v, "must set spec.nodeName if mirror pod annotation is set"))
	}
	if v, ok := a[corev1.PodDeletionCost]; ok && !deletionCost(v) {
		errs = append(errs, field.Invalid(p.Key(corev1.PodDeletionCost), v, "must be a 32bit integer"))
	}
	if v, ok := a[corev1.SeccompPodAnnotationKey]; ok {
		errs = append(errs, seccompName(v, p.Child(corev1.SeccompPodAnnotationKey))...)
	}
	for _, k := range sortedKeys(a) {
		if strings.HasPrefix(k, corev1.SeccompContainerAnnotationKeyPrefix) {
			errs = append(errs, seccompName(a[k], p.Child(k))...)
		}
	}
	for _, k := range sortedKeys(a) {
		name, ok := strings.CutPrefix(k, appArmorPrefix)
		if !ok {
			continue
		}
		found := false
		eachContainer(s, field.NewPath("spec"), func(c *corev1.Container, _ *field.Path) { found = found || c.Name == name })
		if !found {
			errs = append(errs, field.Invalid(p.Key(k), name, "container not found"))
		}
		if v := a[k]; v != "" && v != "runtime/default" && v != "unconfined" && !strings.HasPrefix(v, "localhost/") {
			errs = append(errs, field.Invalid(p.Key(k), v, fmt.Sprintf("invalid AppArmor profile name: %q", v)))
		}
	}
	return errs
}

// deletionCost says whether a text is a number as it must be written: no plus sign and no leading zero.
func deletionCost(v string) bool {
	if v == "" || v[0] != '-' && v != "0" && (v[0] < '1' || v[0] > '9') {
		return false
	}
	_, err := strconv.ParseInt(v, 10, 32)
	return err == nil
}

func seccompName(v string, p *field.Path) errors {
	switch v {
	case corev1.SeccompProfileRuntimeDefault, corev1.DeprecatedSeccompProfileDockerDefault, corev1.SeccompProfileNameUnconfined:
		return nil
	}
	if file, ok := strings.CutPrefix(v, corev1.SeccompLocalhostProfileNamePrefix); ok {
		return descending(p, file)
	}
	return errors{field.Invalid(p, v, "must be a valid seccomp profile")}
}

// profilesAgree refuses a field and the annotation that came before it when they say different things.
func profilesAgree(a map[string]string, s *corev1.PodSpec, p *field.Path) errors {
	var errs errors
	if c := s.SecurityContext; c != nil && c.SeccompProfile != nil {
		if v, ok := a[corev1.SeccompPodAnnotationKey]; ok {
			errs = append(errs, seccompAgrees(v, c.SeccompProfile, p.Child("securityContext", "seccompProfile"))...)
		}
	}
	eachContainer(s, p, func(c *corev1.Container, p *field.Path) {
		if c.SecurityContext == nil || c.SecurityContext.SeccompProfile == nil {
			return
		}
		if v, ok := a[corev1.SeccompContainerAnnotationKeyPrefix+c.Name]; ok {
			errs = append(errs, seccompAgrees(v, c.SecurityContext.SeccompProfile, p.Child("securityContext", "seccompProfile"))...)
		}
	})
	if s.OS != nil && s.OS.Name == corev1.Windows {
		return errs
	}
	eachContainer(s, p, func(c *corev1.Container, p *field.Path) {
		var f *corev1.AppArmorProfile
		if s.SecurityContext != nil {
			f = s.SecurityContext.AppArmorProfile
		}
		if c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			f = c.SecurityContext.AppArmorProfile
		}
		if v, ok := a[appArmorPrefix+c.Name]; ok && f != nil {
			errs = append(errs, appArmorAgrees(v, f, p.Child("securityContext", "appArmorProfile"))...)
		}
	})
	return errs
}

func seccompAgrees(v string, f *corev1.SeccompProfile, p *field.Path) errors {
	disagree := errors{field.Forbidden(p.Child("type"), "seccomp type in annotation and field must match")}
	switch f.Type {
	case corev1.SeccompProfileTypeUnconfined:
		if v != corev1.SeccompProfileNameUnconfined {
			return disagree
		}
	case corev1.SeccompProfileTypeRuntimeDefault:
		if v != corev1.SeccompProfileRuntimeDefault && v != corev1.DeprecatedSeccompProfileDockerDefault {
			return disagree
		}
	case corev1.SeccompProfileTypeLocalhost:
		file, ok := strings.CutPrefix(v, corev1.SeccompLocalhostProfileNamePrefix)
		if !ok {
			return disagree
		}
		if f.LocalhostProfile == nil || *f.LocalhostProfile != file {
			return errors{field.Forbidden(p.Child("localhostProfile"), "seccomp profile in annotation and field must match")}
		}
	}
	return nil
}

func appArmorAgrees(v string, f *corev1.AppArmorProfile, p *field.Path) errors {
	disagree := errors{field.Forbidden(p.Child("type"), "apparmor type in annotation and field must match")}
	switch f.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		if v != "unconfined" {
			return disagree
		}
	case corev1.AppArmorProfileTypeRuntimeDefault:
		if v != "runtime/default" {
			return disagree
		}
	case corev1.AppArmorProfileTypeLocalhost:
		file, ok := strings.CutPrefix(v, "localhost/")
		if !ok {
			return disagree
		}
		if f.LocalhostProfile == nil || *f.LocalhostProfile != file {
			return errors{field.Forbidden(p.Child("localhostProfile"), "apparmor profile in annotation and field must match")}
		}
	}
	return nil
}

// annotationChanges refuses changes of annotations that a pod keeps for life.
func annotationChanges(o, old *corev1.Pod, p *field.Path) errors {
	var errs errors
	for _, k := range sortedKeys(old.Annotations) {
		if v, ok := o.Annotations[k]; ok && v == old.Annotations[k] {
			continue
		}
		switch {
		case strings.HasPrefix(k, appArmorPrefix):
			errs = append(errs, field.Forbidden(p.Key(k), "may not remove or update AppArmor annotations"))
		case k == corev1.MirrorPodAnnotationKey:
			errs = append(errs, field.Forbidden(p.Key(k), "may not remove or update mirror pod annotation"))
		}
	}
	for _, k := range sortedKeys(o.Annotations) {
		if _, ok := old.Annotations[k]; ok {
			continue
		}
		switch {
		case strings.HasPrefix(k, appArmorPrefix):
			errs = append(errs, field.Forbidden(p.Key(k), "may not add AppArmor annotations"))
		case k == corev1.MirrorPodAnnotationKey:
			errs = append(errs, field.Forbidden(p.Key(k), "may not add mirror pod annotation"))
		}
	}
	return append(errs, podAnnotations(o.Annotations, &o.Spec, p)...)
}
