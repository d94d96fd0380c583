package defaults

import (
	resourcev1 "k8s.io/api/resource/v1"
)

func addResource(t table) {
	const g = "resource.k8s.io"
	set(t, g, "v1", "ResourceClaim", func(o *resourcev1.ResourceClaim) {
		claimRequests(&o.Spec)
		if a := o.Status.Allocation; a != nil {
			for i := range a.Devices.Results {
				tolerations(a.Devices.Results[i].Tolerations)
			}
		}
	})
	set(t, g, "v1", "ResourceClaimTemplate", func(o *resourcev1.ResourceClaimTemplate) { claimRequests(&o.Spec.Spec) })
}

func claimRequests(s *resourcev1.ResourceClaimSpec) {
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if e := r.Exactly; e != nil {
			zero(&e.AllocationMode, resourcev1.DeviceAllocationModeExactCount)
			if e.AllocationMode == resourcev1.DeviceAllocationModeExactCount {
				zero(&e.Count, 1)
			}
			tolerations(e.Tolerations)
		}
		for j := range r.FirstAvailable {
			f := &r.FirstAvailable[j]
			zero(&f.AllocationMode, resourcev1.DeviceAllocationModeExactCount)
			if f.AllocationMode == resourcev1.DeviceAllocationModeExactCount {
				zero(&f.Count, 1)
			}
			tolerations(f.Tolerations)
		}
	}
}

func tolerations(list []resourcev1.DeviceToleration) {
	for i := range list {
		zero(&list[i].Operator, resourcev1.DeviceTolerationOpEqual)
	}
}
