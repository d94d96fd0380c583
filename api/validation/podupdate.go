package validation

import (
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api/strategy"
)

// updatable lists what an update of a pod may change.
const updatable = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

func podUpdate(o, old *corev1.Pod) errors {
	errs := annotationChanges(o, old, field.NewPath("metadata", "annotations"))
	return append(errs, podChange(o, old, field.NewPath("spec"))...)
}

func podChange(o, old *corev1.Pod, p *field.Path) errors {
	if reflect.DeepEqual(&o.Spec, &old.Spec) { // as after most updates: far cheaper than finding out by making them alike
		return nil
	}
	errs, stop := imageChanges(o.Spec.Containers, old.Spec.Containers, p.Child("containers"))
	if stop {
		return errs
	}
	more, stop := imageChanges(o.Spec.InitContainers, old.Spec.InitContainers, p.Child("initContainers"))
	if errs = append(errs, more...); stop {
		return errs
	}
	more, stop = deadline(o.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds, p.Child("activeDeadlineSeconds"))
	if errs = append(errs, more...); stop {
		return errs
	}
	errs = append(errs, onlyAddedTolerations(o.Spec.Tolerations, old.Spec.Tolerations, p.Child("tolerations"))...)
	errs = append(errs, gateRemoval(o, old, p.Child("schedulingGates"))...)

	// make everything that may change alike; what then still differs may not
	munged := o.Spec.DeepCopy()
	for i := range munged.Containers {
		munged.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range munged.InitContainers {
		munged.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	munged.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	munged.Tolerations = old.Spec.Tolerations
	munged.SchedulingGates = old.Spec.SchedulingGates
	if g := old.Spec.TerminationGracePeriodSeconds; g != nil && *g < 0 && deref(munged.TerminationGracePeriodSeconds, 0) == 1 {
		munged.TerminationGracePeriodSeconds = g
	}
	if len(old.Spec.SchedulingGates) > 0 {
		mungeGated(munged, &old.Spec, p, &errs)
	}
	munged.DeprecatedServiceAccount = old.Spec.DeprecatedServiceAccount
	if !equality.Semantic.DeepEqual(*munged, old.Spec) {
		errs = append(errs, field.Forbidden(p, updatable))
	}
	return errs
}

// imageChanges checks the images; stop says that the lists cannot be compared.
func imageChanges(a, b []corev1.Container, p *field.Path) (errs errors, stop bool) {
	if len(a) != len(b) {
		return errors{field.Forbidden(p, "pod updates may not add or remove containers")}, true
	}
	for i := range a {
		at := p.Index(i).Child("image")
		if a[i].Image == "" {
			errs = append(errs, field.Required(at, ""))
		}
		errs = append(errs, unpadded(a[i].Image, at)...)
	}
	return errs, false
}

func deadline(v, old *int64, p *field.Path) (errs errors, stop bool) {
	switch {
	case v != nil && (*v < 0 || *v > maxInt32):
		return errors{field.Invalid(p, *v, validation.InclusiveRangeError(0, maxInt32))}, true
	case v != nil && old != nil && *old < *v:
		return errors{field.Invalid(p, *v, "must be less than or equal to previous value")}, true
	case v == nil && old != nil:
		return errors{field.Invalid(p, v, "must not update from a positive integer to nil value")}, false
	}
	return nil, false
}

func onlyAddedTolerations(list, old []corev1.Toleration, p *field.Path) errors {
	for _, was := range old {
		found := false
		for _, t := range list {
			was.TolerationSeconds = t.TolerationSeconds
			if equality.Semantic.DeepEqual(was, t) {
				found = true
				break
			}
		}
		if !found {
			return errors{field.Forbidden(p, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return tolerations(list, p)
}

func gateRemoval(o, old *corev1.Pod, p *field.Path) errors {
	var errs errors
	for i, g := range o.Spec.SchedulingGates {
		if !slices.Contains(old.Spec.SchedulingGates, g) {
			errs = append(errs, field.Forbidden(p.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
		}
	}
	return errs
}

// mungeGated lets a pod that is still gated have its node selector and required node affinity narrowed.
func mungeGated(spec, old *corev1.PodSpec, p *field.Path, errs *errors) {
	for k, v := range old.NodeSelector {
		if w, ok := spec.NodeSelector[k]; !ok || w != v {
			*errs = append(*errs, field.Invalid(p.Child("nodeSelector"), spec.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)"))
			break
		}
	}
	spec.NodeSelector = old.NodeSelector
	var was, is *corev1.NodeAffinity
	if old.Affinity != nil {
		was = old.Affinity.NodeAffinity
	}
	if spec.Affinity != nil {
		is = spec.Affinity.NodeAffinity
	}
	if equality.Semantic.DeepEqual(was, is) {
		return
	}
	*errs = append(*errs, affinityNarrowed(is, was, p.Child("affinity", "nodeAffinity"))...)
	switch {
	case spec.Affinity == nil && was != nil:
		spec.Affinity = &corev1.Affinity{NodeAffinity: was}
	case spec.Affinity != nil && old.Affinity == nil && spec.Affinity.PodAffinity == nil && spec.Affinity.PodAntiAffinity == nil:
		spec.Affinity = nil
	case spec.Affinity != nil:
		spec.Affinity.NodeAffinity = was
	}
}

func affinityNarrowed(is, was *corev1.NodeAffinity, p *field.Path) errors {
	if was == nil || was.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	at := p.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	before := was.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	var after []corev1.NodeSelectorTerm
	if is != nil && is.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		after = is.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	if len(before) > 0 && len(before) != len(after) {
		return errors{field.Invalid(at, after, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	var errs errors
	for i := range before {
		if !onlyAdded(&after[i], &before[i]) {
			errs = append(errs, field.Invalid(at.Index(i), after[i], "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}

// onlyAdded reports whether a term asks for more than before and drops nothing. A term without any requirement matches no
// node, so that to add one would widen it.
func onlyAdded(is, was *corev1.NodeSelectorTerm) bool {
	if len(was.MatchExpressions)+len(was.MatchFields) == 0 {
		return len(is.MatchExpressions)+len(is.MatchFields) == 0
	}
	starts := func(is, was []corev1.NodeSelectorRequirement) bool {
		return len(is) >= len(was) && (len(was) == 0 || equality.Semantic.DeepEqual(is[:len(was)], was))
	}
	return starts(is.MatchExpressions, was.MatchExpressions) && starts(is.MatchFields, was.MatchFields)
}

// mirrors reports whether a pod only shows what a node runs by itself.
func mirrors(o *corev1.Pod) bool {
	_, ok := o.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// podEphemeral judges an update of the ephemeral containers, which come and never change or go.
func podEphemeral(o, old *corev1.Pod) errors {
	if mirrors(old) {
		return errors{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	errs := append(pod(o), annotationChanges(o, old, field.NewPath("metadata", "annotations"))...)
	p := field.NewPath("spec", "ephemeralContainers")
	is := map[string]*corev1.EphemeralContainer{}
	for i := range o.Spec.EphemeralContainers {
		is[o.Spec.EphemeralContainers[i].Name] = &o.Spec.EphemeralContainers[i]
	}
	for i := range old.Spec.EphemeralContainers {
		was := &old.Spec.EphemeralContainers[i]
		if now := is[was.Name]; now == nil {
			errs = append(errs, field.Forbidden(p, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name)))
		} else if !equality.Semantic.DeepEqual(now, was) {
			errs = append(errs, field.Forbidden(p, fmt.Sprintf("existing ephemeral containers %q may not be changed\n", was.Name)))
		}
	}
	return errs
}

// podResize judges an update of the resources of a pod's containers.
func podResize(o, old *corev1.Pod) errors {
	if mirrors(old) {
		return errors{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		return errors{field.Forbidden(field.NewPath(""), "windows pods cannot be resized")}
	}
	errs := pod(o)
	p := field.NewPath("spec")
	if len(o.Spec.Containers) != len(old.Spec.Containers) || len(o.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return append(errs, field.Forbidden(p, "pod resize may not add or remove containers"))
	}
	was := old.Status.QOSClass
	if was == "" {
		was = strategy.QOS(&old.Spec)
	}
	if strategy.QOS(&o.Spec) != was {
		errs = append(errs, field.Invalid(p, o.Status.QOSClass, "Pod QOS Class may not change as a result of resizing"))
	}
	for _, c := range old.Status.ContainerStatuses {
		if c.State.Running != nil {
			if c.Resources == nil {
				errs = append(errs, field.Forbidden(p, "Pod running on node without support for resize"))
			}
			break
		}
	}
	munged := o.Spec.DeepCopy()
	if munged.Resources != nil && old.Spec.Resources != nil {
		at := p.Child("resources")
		errs = append(errs, lostResources(munged.Resources, old.Spec.Resources, at)...)
		resizable(munged.Resources, old.Spec.Resources)
	}
	for i := range munged.InitContainers {
		is, was, at := &munged.InitContainers[i], &old.Spec.InitContainers[i], p.Child("initContainers").Index(i).Child("resources")
		if !alwaysRestarts(was) {
			if !equality.Semantic.DeepEqual(is, was) {
				errs = append(errs, field.Forbidden(p, "resources for non-sidecar init containers are immutable"))
			}
			continue
		}
		errs = append(errs, resized(is, was, p, at, "only cpu and memory resources for sidecar containers are mutable")...)
	}
	for i := range munged.Containers {
		at := p.Child("containers").Index(i).Child("resources")
		errs = append(errs, resized(&munged.Containers[i], &old.Spec.Containers[i], p, at, "only cpu and memory resources are mutable")...)
	}
	if len(errs) == 0 && !equality.Semantic.DeepEqual(*munged, old.Spec) {
		errs = append(errs, field.Forbidden(p, "only cpu and memory resources are mutable"))
	}
	return errs
}

// resized checks one container that may be resized, and makes what may change what it was.
func resized(is, was *corev1.Container, p, at *field.Path, refusal string) errors {
	errs := lostResources(&is.Resources, &was.Resources, at)
	resizable(&is.Resources, &was.Resources)
	if !equality.Semantic.DeepEqual(is, was) {
		errs = append(errs, field.Forbidden(p, refusal))
	}
	return errs
}

func lostResources(is, was *corev1.ResourceRequirements, p *field.Path) errors {
	lost := func(is, was corev1.ResourceList) bool {
		for n := range was {
			if _, ok := is[n]; !ok {
				return true
			}
		}
		return false
	}
	var errs errors
	if lost(is.Requests, was.Requests) {
		errs = append(errs, field.Forbidden(p.Child("requests"), "resource requests cannot be removed"))
	}
	if lost(is.Limits, was.Limits) {
		errs = append(errs, field.Forbidden(p.Child("limits"), "resource limits cannot be removed"))
	}
	return errs
}

// resizable makes the resources that a resize may change what they were. What had no limits or requests at all may get
// them: their presence is judged by the pod's class.
func resizable(is, was *corev1.ResourceRequirements) {
	list := func(is, was corev1.ResourceList) corev1.ResourceList {
		if was == nil {
			return nil
		}
		out := is.DeepCopy()
		if out == nil {
			out = corev1.ResourceList{}
		}
		for _, n := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			delete(out, n)
			if q, ok := was[n]; ok {
				out[n] = q
			}
		}
		return out
	}
	is.Limits, is.Requests = list(is.Limits, was.Limits), list(is.Requests, was.Requests)
}
