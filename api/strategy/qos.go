package strategy

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// QOS returns the class a pod's resources put it in: Guaranteed when every container limits cpu and memory to what it
// requests, BestEffort when none says anything, Burstable otherwise. Pod-level resources, where given, decide alone.
func QOS(s *corev1.PodSpec) corev1.PodQOSClass {
	if s.Resources != nil {
		return classify([]corev1.ResourceRequirements{*s.Resources})
	}
	var all []corev1.ResourceRequirements
	for i := range s.Containers {
		all = append(all, s.Containers[i].Resources)
	}
	for i := range s.InitContainers {
		all = append(all, s.InitContainers[i].Resources)
	}
	return classify(all)
}

func classify(list []corev1.ResourceRequirements) corev1.PodQOSClass {
	guaranteed, any := true, false
	for _, r := range list {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, request := r.Limits[name], r.Requests[name]
			if limit.Sign() > 0 || request.Sign() > 0 {
				any = true
			}
			if limit.Sign() <= 0 || !request.IsZero() && request.Cmp(limit) != 0 {
				guaranteed = false
			}
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

func requirements(labels map[string]string, keys []string, op metav1.LabelSelectorOperator) []metav1.LabelSelectorRequirement {
	var out []metav1.LabelSelectorRequirement
	for _, k := range keys {
		if v, ok := labels[k]; ok {
			out = append(out, metav1.LabelSelectorRequirement{Key: k, Operator: op, Values: []string{v}})
		}
	}
	return out
}
