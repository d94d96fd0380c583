package validation

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// updatable lists what an update of a pod may change.
const updatable = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

func podUpdate(o, old *corev1.Pod) errors {
	p := field.NewPath("spec")
	return podChange(o, old, p)
}

func podChange(o, old *corev1.Pod, p *field.Path) errors {
	var errs errors
	stop := false
	images := func(name string, a, b []corev1.Container) {
		at := p.Child(name)
		if len(a) != len(b) {
			errs = append(errs, field.Forbidden(at, "pod updates may not add or remove containers"))
			stop = true
			return
		}
		for i := range a {
			if a[i].Image == "" {
				errs = append(errs, field.Required(at.Index(i).Child("image"), ""))
			}
		}
	}
	images("containers", o.Spec.Containers, old.Spec.Containers)
	if stop {
		return errs
	}
	images("initContainers", o.Spec.InitContainers, old.Spec.InitContainers)
	if stop {
		return errs
	}
	errs = append(errs, deadline(o.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds, p.Child("activeDeadlineSeconds"))...)
	errs = append(errs, onlyAddedTolerations(o.Spec.Tolerations, old.Spec.Tolerations, p.Child("tolerations"))...)
	errs = append(errs, gateRemoval(o, old, p)...)

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

func deadline(v, old *int64, p *field.Path) errors {
	switch {
	case v != nil:
		if *v < 0 || *v > maxInt32 {
			return errors{field.Invalid(p, *v, validation.InclusiveRangeError(0, maxInt32))}
		}
		if old != nil && *old < *v {
			return errors{field.Invalid(p, *v, "must be less than or equal to previous value")}
		}
	case old != nil:
		return errors{field.Invalid(p, v, "must not update from a positive integer to nil value")}
	}
	return nil
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
	had := map[string]bool{}
	for _, g := range old.Spec.SchedulingGates {
		had[g.Name] = true
	}
	var added []string
	for _, g := range o.Spec.SchedulingGates {
		if !had[g.Name] {
			added = append(added, g.Name)
		}
	}
	if len(added) > 0 {
		return errors{field.Forbidden(p.Child("schedulingGates").Child("schedulingGates"), fmt.Sprintf("only deletion is allowed, but found new scheduling gates '%s'", added[0]))}
	}
	return nil
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
	case was == nil && old.Affinity == nil:
		spec.Affinity.NodeAffinity = nil
		if spec.Affinity.PodAffinity == nil && spec.Affinity.PodAntiAffinity == nil {
			spec.Affinity = nil
		}
	case spec.Affinity != nil:
		spec.Affinity.NodeAffinity = was
	}
}

func affinityNarrowed(is, was *corev1.NodeAffinity, p *field.Path) errors {
	if was == nil || was.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	at := p.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	if is == nil || is.RequiredDuringSchedulingIgnoredDuringExecution == nil ||
		len(is.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms) != len(was.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms) {
		return errors{field.Invalid(at, nil, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	var errs errors
	for i, t := range was.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		n := is.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[i]
		if len(n.MatchExpressions) < len(t.MatchExpressions) || !equality.Semantic.DeepEqual(t.MatchExpressions, n.MatchExpressions[:len(t.MatchExpressions)]) ||
			len(n.MatchFields) < len(t.MatchFields) || !equality.Semantic.DeepEqual(t.MatchFields, n.MatchFields[:len(t.MatchFields)]) {
			errs = append(errs, field.Invalid(at.Index(i), n, "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}
