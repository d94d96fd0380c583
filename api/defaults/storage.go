package defaults

import (
	corev1 "k8s.io/api/core/v1"
	schedv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
)

func addStorage(t table) {
	set(t, "storage.k8s.io", "v1", "StorageClass", func(o *storagev1.StorageClass) {
		unset(&o.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
		unset(&o.VolumeBindingMode, storagev1.VolumeBindingImmediate)
	})
	set(t, "storage.k8s.io", "v1", "CSIDriver", csiDriver)
	set(t, "scheduling.k8s.io", "v1", "PriorityClass", func(o *schedv1.PriorityClass) {
		unset(&o.PreemptionPolicy, corev1.PreemptLowerPriority)
	})
}

func csiDriver(o *storagev1.CSIDriver) {
	s := &o.Spec
	unset(&s.AttachRequired, true)
	unset(&s.PodInfoOnMount, false)
	unset(&s.StorageCapacity, false)
	unset(&s.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
	unset(&s.RequiresRepublish, false)
	unset(&s.SELinuxMount, false)
}
