package printcolumns

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

func addStorage(t table) {
	const g = "storage.k8s.io"
	add(t, "", "v1", "PersistentVolume", volumeRow, func() columns {
		s, st := corev1.PersistentVolumeSpec{}, corev1.PersistentVolumeStatus{}
		return columns{nameColumn(), text("Capacity", doc(s, "capacity")), text("Access Modes", doc(s, "accessModes")), text("Reclaim Policy", doc(s, "persistentVolumeReclaimPolicy")),
			text("Status", doc(st, "phase")), text("Claim", doc(s, "claimRef")), text("StorageClass", "StorageClass of the pv"),
			text("VolumeAttributesClass", "VolumeAttributesClass of the pv"), text("Reason", doc(st, "reason")), ageColumn(), wide(text("VolumeMode", doc(s, "volumeMode")))}
	})
	add(t, "", "v1", "PersistentVolumeClaim", claimRow, func() columns {
		s, st := corev1.PersistentVolumeClaimSpec{}, corev1.PersistentVolumeClaimStatus{}
		return columns{nameColumn(), text("Status", doc(st, "phase")), text("Volume", doc(s, "volumeName")), text("Capacity", doc(st, "capacity")), text("Access Modes", doc(st, "accessModes")),
			text("StorageClass", "StorageClass of the pvc"), text("VolumeAttributesClass", "VolumeAttributesClass of the pvc"), ageColumn(), wide(text("VolumeMode", doc(s, "volumeMode")))}
	})
	add(t, g, "v1", "StorageClass", func(o *storagev1.StorageClass, now time.Time) []any {
		name := o.Name
		for _, a := range []string{"storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"} {
			if o.Annotations[a] == "true" {
				name = o.Name + " (default)"
			}
		}
		reclaim, mode := string(corev1.PersistentVolumeReclaimDelete), "<unset>"
		if o.ReclaimPolicy != nil {
			reclaim = string(*o.ReclaimPolicy)
		}
		if o.VolumeBindingMode != nil {
			mode = string(*o.VolumeBindingMode)
		}
		return []any{name, o.Provisioner, reclaim, mode, o.AllowVolumeExpansion != nil && *o.AllowVolumeExpansion, age(o.CreationTimestamp, now)}
	}, func() columns {
		s := storagev1.StorageClass{}
		return columns{nameColumn(), text("Provisioner", doc(s, "provisioner")), text("ReclaimPolicy", doc(s, "reclaimPolicy")), text("VolumeBindingMode", doc(s, "volumeBindingMode")),
			text("AllowVolumeExpansion", doc(s, "allowVolumeExpansion")), ageColumn()}
	})
	add(t, g, "v1", "VolumeAttributesClass", func(o *storagev1.VolumeAttributesClass, now time.Time) []any {
		name := o.Name
		if o.Annotations["volumeattributesclass.alpha.kubernetes.io/is-default-class"] == "true" {
			name += " (default)"
		}
		return []any{name, o.DriverName, age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("DriverName", doc(storagev1.VolumeAttributesClass{}, "driverName")), ageColumn()}
	})
	add(t, g, "v1", "VolumeAttachment", func(o *storagev1.VolumeAttachment, now time.Time) []any {
		pv := ""
		if o.Spec.Source.PersistentVolumeName != nil {
			pv = *o.Spec.Source.PersistentVolumeName
		}
		return []any{o.Name, o.Spec.Attacher, pv, o.Spec.NodeName, o.Status.Attached, age(o.CreationTimestamp, now)}
	}, func() columns {
		s := storagev1.VolumeAttachmentSpec{}
		attacher := text("Attacher", doc(s, "attacher"))
		attacher.Format = "name"
		return columns{nameColumn(), attacher, text("PV", doc(storagev1.VolumeAttachmentSource{}, "persistentVolumeName")), text("Node", doc(s, "nodeName")),
			boolean("Attached", doc(storagev1.VolumeAttachmentStatus{}, "attached")), ageColumn()}
	})
	add(t, g, "v1", "CSINode", func(o *storagev1.CSINode, now time.Time) []any {
		return []any{o.Name, int64(len(o.Spec.Drivers)), age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), number("Drivers", "Drivers indicates the number of CSI drivers registered on the node"), ageColumn()}
	})
	add(t, g, "v1", "CSIDriver", driverRow, func() columns {
		s := storagev1.CSIDriverSpec{}
		return columns{nameColumn(), boolean("AttachRequired", doc(s, "attachRequired")), boolean("PodInfoOnMount", doc(s, "podInfoOnMount")), boolean("StorageCapacity", doc(s, "storageCapacity")),
			text("TokenRequests", doc(s, "tokenRequests")), boolean("RequiresRepublish", doc(s, "requiresRepublish")), text("Modes", doc(s, "volumeLifecycleModes")), ageColumn()}
	})
}

func driverRow(o *storagev1.CSIDriver, now time.Time) []any {
	attach := o.Spec.AttachRequired == nil || *o.Spec.AttachRequired
	yes := func(b *bool) bool { return b != nil && *b }
	modes := make([]string, len(o.Spec.VolumeLifecycleModes))
	for i, m := range o.Spec.VolumeLifecycleModes {
		modes[i] = string(m)
	}
	mode := strings.Join(modes, ",")
	if mode == "" {
		mode = "<none>"
	}
	tokens := "<unset>"
	if o.Spec.TokenRequests != nil {
		var audiences []string
		for _, r := range o.Spec.TokenRequests {
			audiences = append(audiences, r.Audience)
		}
		tokens = strings.Join(audiences, ",")
	}
	return []any{o.Name, attach, yes(o.Spec.PodInfoOnMount), yes(o.Spec.StorageCapacity), tokens, yes(o.Spec.RequiresRepublish), mode, age(o.CreationTimestamp, now)}
}

// accessModes abbreviates the modes, each once, in a fixed order.
func accessModes(list []corev1.PersistentVolumeAccessMode) string {
	var out []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"}} {
		for _, have := range list {
			if have == m.mode {
				out = append(out, m.short)
				break
			}
		}
	}
	return strings.Join(out, ",")
}

func unset(s *string) string {
	if s == nil {
		return "<unset>"
	}
	return *s
}

func volumeMode(m *corev1.PersistentVolumeMode) string {
	if m == nil {
		return "<unset>"
	}
	return string(*m)
}

func volumeRow(o *corev1.PersistentVolume, now time.Time) []any {
	claim := ""
	if r := o.Spec.ClaimRef; r != nil {
		claim = r.Namespace + "/" + r.Name
	}
	phase := string(o.Status.Phase)
	if o.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	class := o.Spec.StorageClassName
	if c, ok := o.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = c
	}
	size := o.Spec.Capacity[corev1.ResourceStorage]
	return []any{o.Name, size.String(), accessModes(o.Spec.AccessModes), string(o.Spec.PersistentVolumeReclaimPolicy), phase, claim, class,
		unset(o.Spec.VolumeAttributesClassName), o.Status.Reason, age(o.CreationTimestamp, now), volumeMode(o.Spec.VolumeMode)}
}

func claimRow(o *corev1.PersistentVolumeClaim, now time.Time) []any {
	phase := string(o.Status.Phase)
	if o.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	capacity, modes := "", ""
	if o.Spec.VolumeName != "" {
		modes = accessModes(o.Status.AccessModes)
		size := o.Status.Capacity[corev1.ResourceStorage]
		capacity = size.String()
	}
	class := ""
	if c, ok := o.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		class = c
	} else if o.Spec.StorageClassName != nil {
		class = *o.Spec.StorageClassName
	}
	return []any{o.Name, phase, o.Spec.VolumeName, capacity, modes, class, unset(o.Spec.VolumeAttributesClassName), age(o.CreationTimestamp, now), volumeMode(o.Spec.VolumeMode)}
}
