package kubelet

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"karve/kubelet/podworker"
)

// facts is what pods ask about their node.
type facts Kubelet

// HostIPs implements podrun.Facts.
func (f *facts) HostIPs() []string {
	out := make([]string, len(f.opts.NodeIPs))
	for i, ip := range f.opts.NodeIPs {
		out[i] = ip.String()
	}
	return out
}

// Allocatable implements podrun.Facts.
func (f *facts) Allocatable() corev1.ResourceList {
	m := f.agent.Machine()
	return m.Allocatable(f.opts.MaxPods)
}

// Services implements podrun.Facts.
func (f *facts) Services(namespace string) []*corev1.Service {
	out := f.services.ByIndex("namespace", namespace)
	if namespace != "default" {
		if s, ok := f.services.Get("default", "kubernetes"); ok {
			out = append(out, s)
		}
	}
	return out
}

// Network implements podrun.Facts.
func (f *facts) Network() error { return f.agent.Network() }

// Admit implements podrun.Facts.
func (f *facts) Admit(pod *corev1.Pod) *podworker.Verdict {
	var others []*corev1.Pod
	for _, p := range f.pods.List() {
		if p.UID != pod.UID && p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded && p.Status.StartTime != nil {
			others = append(others, p)
		}
	}
	return admit(pod, others, f.Allocatable(), f.agent.Node())
}

// admit says why a node cannot take a pod besides others, or nil. It is pure.
func admit(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList, node *corev1.Node) *podworker.Verdict {
	if node != nil {
		if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err == nil && !ok {
			return &podworker.Verdict{Reason: "NodeAffinity", Message: "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}
		}
	}
	if max := allocatable.Pods().Value(); int64(len(others))+1 > max {
		return &podworker.Verdict{Reason: "OutOfpods", Message: fmt.Sprintf("Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: %d, capacity: %d", len(others), max)}
	}
	want := resource.PodRequests(pod, resource.PodResourcesOptions{})
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		value := func(l corev1.ResourceList) int64 {
			q := l[name]
			if name == corev1.ResourceCPU {
				return q.MilliValue()
			}
			return q.Value()
		}
		ask := value(want)
		if ask == 0 {
			continue
		}
		used := int64(0)
		for _, p := range others {
			used += value(resource.PodRequests(p, resource.PodResourcesOptions{}))
		}
		if capacity := value(allocatable); used+ask > capacity {
			return &podworker.Verdict{Reason: "OutOf" + string(name), Message: fmt.Sprintf("Pod was rejected: Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, ask, used, capacity)}
		}
	}
	for i := range pod.Spec.Containers {
		for _, p := range pod.Spec.Containers[i].Ports {
			if p.HostPort > 0 && taken(others, &p) {
				return &podworker.Verdict{Reason: "NodePorts", Message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
			}
		}
	}
	return nil
}

func taken(others []*corev1.Pod, p *corev1.ContainerPort) bool {
	any := func(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }
	for _, o := range others {
		for i := range o.Spec.Containers {
			for _, q := range o.Spec.Containers[i].Ports {
				if q.HostPort == p.HostPort && q.Protocol == p.Protocol && (any(q.HostIP) || any(p.HostIP) || q.HostIP == p.HostIP) {
					return true
				}
			}
		}
	}
	return false
}
