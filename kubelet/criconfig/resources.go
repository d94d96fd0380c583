package criconfig

import (
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	cpuPeriod   = 100000
	minQuota    = 1000
	minShares   = 2
	maxShares   = 262144
	adjBest     = 1000
	adjGuarded  = -997
	nodeCritial = 2000001000
)

// QOS returns the pod's quality of service class: the API's word when it has one, else what the spec says.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	any, same := false, true
	check := func(c *corev1.Container) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			req, lim := c.Resources.Requests[name], c.Resources.Limits[name]
			if !req.IsZero() || !lim.IsZero() {
				any = true
			}
			if lim.IsZero() || !req.IsZero() && req.Cmp(lim) != 0 {
				same = false
			}
		}
	}
	for i := range pod.Spec.InitContainers {
		check(&pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		check(&pod.Spec.Containers[i])
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case same:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// CgroupParent returns the pod's cgroup below the root, in cgroupfs style.
func CgroupParent(root string, pod *corev1.Pod) string {
	dir := path.Join("/", root, "kubepods")
	switch QOS(pod) {
	case corev1.PodQOSBestEffort:
		dir = path.Join(dir, "besteffort")
	case corev1.PodQOSBurstable:
		dir = path.Join(dir, "burstable")
	}
	return path.Join(dir, "pod"+string(pod.UID))
}

// Shares converts milli-CPUs to CPU shares.
func Shares(milli int64) int64 {
	if milli <= 0 {
		return minShares
	}
	return min(max(milli*1024/1000, minShares), maxShares)
}

// Quota converts milli-CPUs to microseconds per period of 100 ms; 0 means no limit.
func Quota(milli int64) int64 {
	if milli <= 0 {
		return 0
	}
	return max(milli*cpuPeriod/1000, minQuota)
}

// PodResources returns the limits of the pod's own cgroup. Memory or quota are 0 where any container has no limit.
func PodResources(pod *corev1.Pod) *runtimeapi.LinuxContainerResources {
	reqs := resource.PodRequests(pod, resource.PodResourcesOptions{})
	cpuLimited, memLimited := true, true
	look := func(c *corev1.Container) {
		if q := c.Resources.Limits[corev1.ResourceCPU]; q.IsZero() {
			cpuLimited = false
		}
		if q := c.Resources.Limits[corev1.ResourceMemory]; q.IsZero() {
			memLimited = false
		}
	}
	for i := range pod.Spec.Containers {
		look(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		look(&pod.Spec.InitContainers[i])
	}
	if pod.Spec.Resources != nil {
		if q := pod.Spec.Resources.Limits[corev1.ResourceCPU]; !q.IsZero() {
			cpuLimited = true
		}
		if q := pod.Spec.Resources.Limits[corev1.ResourceMemory]; !q.IsZero() {
			memLimited = true
		}
	}
	limits := resource.PodLimits(pod, resource.PodResourcesOptions{})
	out := &runtimeapi.LinuxContainerResources{CpuShares: Shares(reqs.Cpu().MilliValue()), CpuPeriod: cpuPeriod}
	if cpuLimited {
		out.CpuQuota = Quota(limits.Cpu().MilliValue())
	}
	if memLimited {
		out.MemoryLimitInBytes = limits.Memory().Value()
	}
	return out
}

// ContainerResources returns the limits of one container. memory is the node's capacity in bytes.
func ContainerResources(pod *corev1.Pod, c *corev1.Container, memory int64) *runtimeapi.LinuxContainerResources {
	req, lim := c.Resources.Requests, c.Resources.Limits
	milli := req.Cpu().MilliValue()
	if _, set := req[corev1.ResourceCPU]; !set {
		milli = lim.Cpu().MilliValue()
	}
	out := &runtimeapi.LinuxContainerResources{CpuShares: Shares(milli), CpuPeriod: cpuPeriod, CpuQuota: Quota(lim.Cpu().MilliValue()),
		MemoryLimitInBytes: lim.Memory().Value(), OomScoreAdj: oomScore(pod, c, memory)}
	return out
}

func oomScore(pod *corev1.Pod, c *corev1.Container, memory int64) int64 {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= nodeCritial {
		return adjGuarded
	}
	switch QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return adjGuarded
	case corev1.PodQOSBestEffort:
		return adjBest
	}
	if memory <= 0 {
		return adjBest - 1
	}
	adj := 1000 - 1000*c.Resources.Requests.Memory().Value()/memory
	if adj < 1000+adjGuarded {
		return 1000 + adjGuarded
	}
	return min(adj, adjBest-1)
}
