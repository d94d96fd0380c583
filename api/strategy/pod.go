package strategy

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

func createPod(p *corev1.Pod) {
	p.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: QOS(&p.Spec)}
	if len(p.Spec.SchedulingGates) > 0 {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse,
			Reason: corev1.PodReasonSchedulingGated, Message: "Scheduling is blocked due to non-empty scheduling gates"}}
	}
	mutualAffinity(p)
}

// mutualAffinity writes the keys of matchLabelKeys and mismatchLabelKeys into the selectors they complete, from the pod's
// own labels: the scheduler then only has selectors to look at.
func mutualAffinity(p *corev1.Pod) {
	complete := func(t *corev1.PodAffinityTerm) {
		if t.LabelSelector == nil {
			return
		}
		t.LabelSelector.MatchExpressions = append(t.LabelSelector.MatchExpressions, requirements(p.Labels, t.MatchLabelKeys, "In")...)
		t.LabelSelector.MatchExpressions = append(t.LabelSelector.MatchExpressions, requirements(p.Labels, t.MismatchLabelKeys, "NotIn")...)
	}
	if a := p.Spec.Affinity; a != nil {
		if f := a.PodAffinity; f != nil {
			eachTerm(f.RequiredDuringSchedulingIgnoredDuringExecution, f.PreferredDuringSchedulingIgnoredDuringExecution, complete)
		}
		if f := a.PodAntiAffinity; f != nil {
			eachTerm(f.RequiredDuringSchedulingIgnoredDuringExecution, f.PreferredDuringSchedulingIgnoredDuringExecution, complete)
		}
	}
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		if c.LabelSelector != nil {
			c.LabelSelector.MatchExpressions = append(c.LabelSelector.MatchExpressions, requirements(p.Labels, c.MatchLabelKeys, "In")...)
		}
	}
}

func eachTerm(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, f func(*corev1.PodAffinityTerm)) {
	for i := range required {
		f(&required[i])
	}
	for i := range preferred {
		f(&preferred[i].PodAffinityTerm)
	}
}

func updatePod(p, old *corev1.Pod) {
	// a client that only asks for the end of the grace period does not touch the state
	p.Status = old.Status
}

func podStatus(p, old *corev1.Pod) {
	p.OwnerReferences = old.OwnerReferences
	p.DeletionTimestamp = nil
	if old.DeletionTimestamp != nil {
		p.DeletionTimestamp = old.DeletionTimestamp
	}
	if p.Status.QOSClass == "" {
		p.Status.QOSClass = old.Status.QOSClass
	}
	keepGenerations(&p.Status, &old.Status)
	keepResources(p, old)
}

// keepGenerations keeps which generation was observed, in the status and in its conditions, for a writer that leaves it out.
func keepGenerations(s, old *corev1.PodStatus) {
	if s.ObservedGeneration == 0 {
		s.ObservedGeneration = old.ObservedGeneration
	}
	was := map[corev1.PodConditionType][]int64{} // a type may be there more than once
	for _, c := range old.Conditions {
		was[c.Type] = append(was[c.Type], c.ObservedGeneration)
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if list := was[c.Type]; len(list) > 0 {
			if c.ObservedGeneration == 0 {
				c.ObservedGeneration = list[0]
			}
			was[c.Type] = list[1:]
		}
	}
}

// keepResources keeps what a kubelet that does not report container resources would otherwise wipe out.
func keepResources(p, old *corev1.Pod) {
	was := map[string]*corev1.ContainerStatus{}
	for i := range old.Status.ContainerStatuses {
		was[old.Status.ContainerStatuses[i].Name] = &old.Status.ContainerStatuses[i]
	}
	for i := range p.Status.ContainerStatuses {
		c := &p.Status.ContainerStatuses[i]
		if o := was[c.Name]; o != nil {
			if c.Resources == nil {
				c.Resources = o.Resources
			}
			if c.AllocatedResources == nil {
				c.AllocatedResources = o.AllocatedResources
			}
		}
	}
}

// podEphemeral lets nothing through but the ephemeral containers.
func podEphemeral(p, old *corev1.Pod) {
	added := p.Spec.EphemeralContainers
	generation := old.Generation
	meta := p.ObjectMeta
	*p = *old.DeepCopy()
	p.ResourceVersion, p.ManagedFields = meta.ResourceVersion, meta.ManagedFields
	p.Spec.EphemeralContainers = added
	if !equality.Semantic.DeepEqual(p.Spec, old.Spec) {
		p.Generation = generation + 1
	}
}

// podResize lets nothing through but the containers' resources and resize policy.
func podResize(p, old *corev1.Pod) {
	meta, spec := p.ObjectMeta, p.Spec
	*p = *old.DeepCopy()
	p.ResourceVersion, p.ManagedFields = meta.ResourceVersion, meta.ManagedFields
	resize := func(to, from []corev1.Container) []corev1.Container {
		if len(to) != len(from) {
			return from
		}
		for i := range to {
			if to[i].Name != from[i].Name {
				return from
			}
			to[i].Resources = from[i].Resources
			to[i].ResizePolicy = from[i].ResizePolicy
		}
		return to
	}
	p.Spec.Containers = resize(p.Spec.Containers, spec.Containers)
	p.Spec.InitContainers = resize(p.Spec.InitContainers, spec.InitContainers)
	p.Spec.Resources = spec.Resources
	if !equality.Semantic.DeepEqual(p.Spec, old.Spec) {
		p.Generation = old.Generation + 1
	}
}

// canonPod keeps the old and the new spelling of one fact in line.
func canonPod(p *corev1.Pod) {
	p.Spec.DeprecatedServiceAccount = p.Spec.ServiceAccountName
	s := &p.Status
	switch {
	case len(s.PodIPs) == 0 && s.PodIP != "":
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	case len(s.PodIPs) > 0 && s.PodIP != "" && s.PodIPs[0].IP != s.PodIP:
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	case len(s.PodIPs) > 0:
		s.PodIP = s.PodIPs[0].IP
	}
	switch {
	case len(s.HostIPs) > 0 && s.HostIP == "":
		s.HostIP = s.HostIPs[0].IP
	}
}
