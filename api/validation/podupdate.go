package validation

import (
	"fmt"
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

// mirrors reports whether a pod only shows what a node runs by itself.
func mirrors(o *corev1.Pod) bool {
	_, ok := o.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// podEphemeral judges an update of the ephemeral containers, which come and never change or go.
func podEphemeral(o, old *corev1.Pod) errors {
	errs := pod(o)
	if mirrors(o) {
		return append(errs, field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers"))
	}
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
	errs := pod(o)
	p := field.NewPath("spec")
	if mirrors(old) {
		return append(errs, field.Forbidden(field.NewPath(""), "static pods cannot be resized"))
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		return append(errs, field.Forbidden(field.NewPath(""), "windows pods cannot be resized"))
	}
	if len(o.Spec.Containers) != len(old.Spec.Containers) || len(o.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return append(errs, field.Forbidden(p, "containers may not be added or removed by a resize"))
	}
	if q := strategy.QOS(&o.Spec); q != strategy.QOS(&old.Spec) {
		errs = append(errs, field.Invalid(p, q, "Pod QOS Class may not change as a result of resizing"))
	}
	munged := o.Spec.DeepCopy()
	lists := []struct {
		name    string
		is, was []corev1.Container
	}{{"containers", munged.Containers, old.Spec.Containers}, {"initContainers", munged.InitContainers, old.Spec.InitContainers}}
	for _, l := range lists {
		for i := range l.is {
			is, was, at := &l.is[i].Resources, &l.was[i].Resources, p.Child(l.name).Index(i).Child("resources")
			if l.name == "initContainers" && !alwaysRestarts(&l.was[i]) {
				if !equality.Semantic.DeepEqual(is, was) {
					errs = append(errs, field.Forbidden(at, "resources for non-sidecar init containers are immutable"))
				}
				*is = *was
				continue
			}
			errs = append(errs, lostResources(is.Limits, was.Limits, at.Child("limits"), "resource limits cannot be removed")...)
			errs = append(errs, lostResources(is.Requests, was.Requests, at.Child("requests"), "resource requests cannot be removed")...)
			resizable(&is.Limits, was.Limits)
			resizable(&is.Requests, was.Requests)
		}
	}
	if !equality.Semantic.DeepEqual(*munged, old.Spec) {
		errs = append(errs, field.Forbidden(p, "only cpu and memory resources are mutable"))
	}
	return errs
}

func lostResources(is, was corev1.ResourceList, p *field.Path, detail string) errors {
	for n := range was {
		if _, ok := is[n]; !ok {
			return errors{field.Forbidden(p, detail)}
		}
	}
	return nil
}

// resizable makes the resources that a resize may change what they were.
func resizable(is *corev1.ResourceList, was corev1.ResourceList) {
	for _, n := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		delete(*is, n)
		if q, ok := was[n]; ok {
			if *is == nil {
				*is = corev1.ResourceList{}
			}
			(*is)[n] = q
		}
	}
}

// podStatus judges what a kubelet reports: addresses, and containers that ended for good.
func podStatus(o, old *corev1.Pod) errors {
	p := field.NewPath("status")
	var errs errors
	if n := o.Status.NominatedNodeName; n != "" {
		errs = append(errs, invalid(p.Child("nominatedNodeName"), n, subdomain(n, false))...)
	}
	errs = append(errs, stayTerminated(o.Status.ContainerStatuses, old.Status.ContainerStatuses, old.Spec.RestartPolicy, p.Child("containerStatuses"))...)
	errs = append(errs, stayTerminated(o.Status.EphemeralContainerStatuses, old.Status.EphemeralContainerStatuses, corev1.RestartPolicyNever, p.Child("ephemeralContainerStatuses"))...)
	pods := make([]string, len(o.Status.PodIPs))
	for i := range pods {
		pods[i] = o.Status.PodIPs[i].IP
	}
	errs = append(errs, statusIPs(pods, o.Status.PodIPs, p.Child("podIPs"))...)
	hosts := make([]string, len(o.Status.HostIPs))
	for i := range hosts {
		hosts[i] = o.Status.HostIPs[i].IP
	}
	if len(hosts) > 0 && o.Status.HostIP != hosts[0] {
		errs = append(errs, field.Invalid(p.Child("hostIPs").Index(0).Child("ip"), hosts[0], "must be equal to `hostIP`"))
	}
	return append(errs, statusIPs(hosts, o.Status.HostIPs, p.Child("hostIPs"))...)
}

// statusIPs checks a list of addresses: two at most, one of each family.
func statusIPs(list []string, value any, p *field.Path) errors {
	var errs errors
	for i, ip := range list {
		errs = append(errs, validation.IsValidIPForLegacyField(p.Index(i), ip, false, nil)...)
	}
	if len(errs) > 0 || len(list) < 2 {
		return errs
	}
	if len(list) > 2 || sameFamily(list) {
		errs = append(errs, field.Invalid(p, value, "may specify no more than one IP for each IP family"))
	}
	for i, ip := range list {
		if slices.Contains(list[:i], ip) {
			errs = append(errs, field.Duplicate(p.Index(i), value))
		}
	}
	return errs
}

// stayTerminated refuses to bring a container back to life that its pod will not start again.
func stayTerminated(list, was []corev1.ContainerStatus, restart corev1.RestartPolicy, p *field.Path) errors {
	if restart == corev1.RestartPolicyAlways {
		return nil
	}
	var errs errors
	for i := range was {
		t := was[i].State.Terminated
		if t == nil || t.ExitCode != 0 && restart == corev1.RestartPolicyOnFailure {
			continue
		}
		for j := range list {
			if list[j].Name == was[i].Name && list[j].State.Terminated == nil {
				errs = append(errs, field.Forbidden(p.Index(j).Child("state"), "may not be transitioned to non-terminated state"))
			}
		}
	}
	return errs
}
