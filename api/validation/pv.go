package validation

import (
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// volumeSpec checks what a PersistentVolume is made of; inline is the spec an attachment carries for a pod's own volume.
func volumeSpec(s *corev1.PersistentVolumeSpec, name string, inline bool, p *field.Path) errors {
	var errs errors
	if inline {
		for _, f := range []struct {
			set    bool
			name   string
			detail string
		}{
			{s.ClaimRef != nil, "claimRef", "may not be specified in the context of inline volumes"},
			{len(s.Capacity) > 0, "capacity", "may not be specified in the context of inline volumes"},
			{s.PersistentVolumeReclaimPolicy != "" && s.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain, "persistentVolumeReclaimPolicy", "may only be Retain in the context of inline volumes"},
			{s.NodeAffinity != nil, "nodeAffinity", "may not be specified in the context of inline volumes"},
			{s.VolumeMode != nil && *s.VolumeMode != corev1.PersistentVolumeFilesystem, "volumeMode", "may not specify volumeMode other than Filesystem in the context of inline volumes"},
			{s.StorageClassName != "", "storageClassName", "may not be specified in the context of inline volumes"},
		} {
			if f.set {
				errs = append(errs, field.Forbidden(p.Child(f.name), f.detail))
			}
		}
		if s.CSI == nil {
			errs = append(errs, field.Required(p.Child("csi"), "has to be specified in the context of inline volumes"))
		}
	}
	if len(s.AccessModes) == 0 {
		errs = append(errs, field.Required(p.Child("accessModes"), ""))
	} else {
		errs = append(errs, accessModes(s.AccessModes, p.Child("accessModes"))...)
	}
	if !inline {
		if len(s.Capacity) == 0 {
			errs = append(errs, field.Required(p.Child("capacity"), ""))
		}
		size, ok := s.Capacity[corev1.ResourceStorage]
		if !ok || len(s.Capacity) > 1 {
			errs = append(errs, field.NotSupported(p.Child("capacity"), s.Capacity, []string{string(corev1.ResourceStorage)}))
		} else if size.Sign() <= 0 {
			errs = append(errs, field.Invalid(p.Child("capacity").Key("storage"), size.String(), "must be greater than zero"))
		}
		if s.PersistentVolumeReclaimPolicy == "" {
			errs = append(errs, field.Required(p.Child("persistentVolumeReclaimPolicy"), ""))
		} else {
			errs = append(errs, oneOf(p.Child("persistentVolumeReclaimPolicy"), s.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)...)
		}
	}
	pinned := s.NodeAffinity != nil
	if a := s.NodeAffinity; a != nil {
		at := p.Child("nodeAffinity")
		if a.Required == nil {
			errs = append(errs, field.Required(at.Child("required"), "must specify required node constraints"))
		} else {
			errs = append(errs, nodeSelector(a.Required, at.Child("required"))...)
		}
	}
	errs = append(errs, volumeSources(s, name, pinned, p)...)
	if s.StorageClassName != "" {
		errs = append(errs, invalid(p.Child("storageClassName"), s.StorageClassName, subdomain(s.StorageClassName, false))...)
	}
	if s.VolumeMode != nil && !inline {
		errs = append(errs, oneOf(p.Child("volumeMode"), *s.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	if c := s.VolumeAttributesClassName; c != nil {
		if *c == "" {
			errs = append(errs, field.Required(p.Child("volumeAttributesClassName"), "an empty string is disallowed"))
		} else {
			errs = append(errs, invalid(p.Child("volumeAttributesClassName"), *c, subdomain(*c, false))...)
		}
		if s.CSI == nil {
			errs = append(errs, field.Required(p.Child("csi"), "has to be specified when using volumeAttributesClassName"))
		}
	}
	return errs
}

// volumeSources checks the one source of a PersistentVolume.
func volumeSources(s *corev1.PersistentVolumeSpec, name string, pinned bool, p *field.Path) errors {
	var errs errors
	count := 0
	for _, c := range persistentSources(s, name, pinned) {
		if !c.set {
			continue
		}
		if count++; count > 1 {
			errs = append(errs, field.Forbidden(p.Child(c.name), "may not specify more than 1 volume type"))
			continue
		}
		errs = append(errs, c.check(p.Child(c.name))...)
	}
	if count == 0 {
		errs = append(errs, field.Required(p, "must specify a volume type"))
	}
	if s.HostPath != nil && path.Clean(s.HostPath.Path) == "/" && s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(p.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"))
	}
	return errs
}

func persistentSources(s *corev1.PersistentVolumeSpec, name string, pinned bool) []source {
	secret := func(r *corev1.SecretReference, p *field.Path) errors { return secretRef(r, p) }
	return []source{
		{s.HostPath != nil, "hostPath", func(p *field.Path) errors { return hostPath(s.HostPath, p) }},
		{s.GCEPersistentDisk != nil, "persistentDisk", func(p *field.Path) errors { return gcePD(s.GCEPersistentDisk, p) }},
		{s.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(p *field.Path) errors { return awsEBS(s.AWSElasticBlockStore, p) }},
		{s.Glusterfs != nil, "glusterfs", func(p *field.Path) errors {
			errs := append(need(p.Child("endpoints"), s.Glusterfs.EndpointsName, ""), need(p.Child("path"), s.Glusterfs.Path, "")...)
			if n := s.Glusterfs.EndpointsNamespace; n != nil && *n != "" {
				errs = append(errs, dnsLabel(p.Child("endpointsNamespace"), *n)...)
			}
			return errs
		}},
		{s.Flocker != nil, "flocker", func(p *field.Path) errors { return flocker(s.Flocker, p) }},
		{s.NFS != nil, "nfs", func(p *field.Path) errors { return nfs(s.NFS, p) }},
		{s.RBD != nil, "rbd", func(p *field.Path) errors { return rbd(s.RBD.CephMonitors, s.RBD.RBDImage, p) }},
		{s.Quobyte != nil, "quobyte", func(p *field.Path) errors { return quobyte(s.Quobyte, p) }},
		{s.CephFS != nil, "cephfs", func(p *field.Path) errors { return monitors(s.CephFS.Monitors, p) }},
		{s.ISCSI != nil, "iscsi", func(p *field.Path) errors {
			i := s.ISCSI
			errs := iscsi(i.TargetPortal, i.IQN, i.Lun, i.SessionCHAPAuth || i.DiscoveryCHAPAuth, i.SecretRef != nil, i.InitiatorName, p)
			for _, e := range errs {
				if e.Detail == iscsiName {
					e.Detail = "must be valid format"
				}
			}
			if i.SecretRef != nil {
				errs = append(errs, need(p.Child("secretRef", "name"), i.SecretRef.Name, "")...)
			}
			if i.InitiatorName != nil && len(name+":"+i.TargetPortal) > 64 {
				errs = append(errs, tooLongPortal(p, name))
			}
			return errs
		}},
		{s.Cinder != nil, "cinder", func(p *field.Path) errors {
			errs := need(p.Child("volumeID"), s.Cinder.VolumeID, "")
			if r := s.Cinder.SecretRef; r != nil {
				errs = append(errs, need(p.Child("secretRef", "name"), r.Name, "")...)
				errs = append(errs, need(p.Child("secretRef", "namespace"), r.Namespace, "")...)
			}
			return errs
		}},
		{s.FC != nil, "fc", func(p *field.Path) errors { return fc(s.FC, p) }},
		{s.FlexVolume != nil, "flexVolume", func(p *field.Path) errors { return flex(s.FlexVolume.Driver, s.FlexVolume.Options, p) }},
		{s.AzureFile != nil, "azureFile", func(p *field.Path) errors {
			errs := append(need(p.Child("secretName"), s.AzureFile.SecretName, ""), need(p.Child("shareName"), s.AzureFile.ShareName, "")...)
			if n := s.AzureFile.SecretNamespace; n != nil && *n == "" {
				errs = append(errs, field.Invalid(p.Child("secretNamespace"), *n, "secretNamespace can't be empty"))
			}
			return errs
		}},
		{s.VsphereVolume != nil, "vsphereVolume", func(p *field.Path) errors { return need(p.Child("volumePath"), s.VsphereVolume.VolumePath, "") }},
		{s.PhotonPersistentDisk != nil, "photonPersistentDisk", func(p *field.Path) errors { return need(p.Child("pdID"), s.PhotonPersistentDisk.PdID, "") }},
		{s.PortworxVolume != nil, "portworxVolume", func(p *field.Path) errors { return need(p.Child("volumeID"), s.PortworxVolume.VolumeID, "") }},
		{s.AzureDisk != nil, "azureDisk", func(p *field.Path) errors { return azureDisk(s.AzureDisk, p) }},
		{s.ScaleIO != nil, "scaleIO", func(p *field.Path) errors {
			return scaleIO(s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName, p)
		}},
		{s.Local != nil, "local", func(p *field.Path) errors {
			if s.Local.Path == "" {
				return append(errors{field.Required(p.Child("path"), "")}, localPinned(pinned)...)
			}
			return append(noBacksteps(p.Child("path"), s.Local.Path), localPinned(pinned)...)
		}},
		{s.StorageOS != nil, "storageos", func(p *field.Path) errors {
			errs := storageOS(s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace, p)
			if r := s.StorageOS.SecretRef; r != nil {
				errs = append(errs, need(p.Child("secretRef", "name"), r.Name, "")...)
				errs = append(errs, need(p.Child("secretRef", "namespace"), r.Namespace, "")...)
			}
			return errs
		}},
		{s.CSI != nil, "csi", func(p *field.Path) errors {
			c := s.CSI
			errs := csiDriverName(c.Driver, p.Child("driver"))
			errs = append(errs, need(p.Child("volumeHandle"), c.VolumeHandle, "")...)
			errs = append(errs, secret(c.ControllerPublishSecretRef, p.Child("controllerPublishSecretRef"))...)
			errs = append(errs, secret(c.ControllerExpandSecretRef, p.Child("controllerExpandSecretRef"))...)
			errs = append(errs, secret(c.NodePublishSecretRef, p.Child("nodePublishSecretRef"))...)
			return append(errs, secret(c.NodeExpandSecretRef, p.Child("nodeExpandSecretRef"))...)
		}},
	}
}

func localPinned(pinned bool) errors {
	if pinned {
		return nil
	}
	return errors{field.Required(field.NewPath("spec", "nodeAffinity"), "Local volume requires node affinity")}
}

func secretRef(r *corev1.SecretReference, p *field.Path) errors {
	if r == nil {
		return nil
	}
	var errs errors
	if r.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), ""))
	} else {
		errs = append(errs, dnsSubdomain(p.Child("name"), r.Name)...)
	}
	if r.Namespace == "" {
		return append(errs, field.Required(p.Child("namespace"), ""))
	}
	return append(errs, dnsLabel(p.Child("namespace"), r.Namespace)...)
}

func volumeUpdate(o, old *corev1.PersistentVolume) errors {
	var errs errors
	a, b := o.Spec.PersistentVolumeSource.DeepCopy(), old.Spec.PersistentVolumeSource.DeepCopy()
	// the secret an expansion needs may be added to a volume that came without
	if a.CSI != nil && b.CSI != nil && b.CSI.ControllerExpandSecretRef == nil {
		a.CSI.ControllerExpandSecretRef = nil
	}
	if !equality.Semantic.DeepEqual(a, b) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"), "spec.persistentvolumesource is immutable after creation"))
	}
	errs = append(errs, immutable(field.NewPath("volumeMode"), o.Spec.VolumeMode, old.Spec.VolumeMode)...)
	if old.Spec.NodeAffinity != nil && !sameAffinity(o.Spec.NodeAffinity, old.Spec.NodeAffinity) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), o.Spec.NodeAffinity, "field is immutable, except for updating from beta label to GA"))
	}
	if old.Spec.VolumeAttributesClassName != nil && o.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// stable is what the labels of nodes were called before.
var stable = map[string]string{corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	"beta.kubernetes.io/os": corev1.LabelOSStable, "beta.kubernetes.io/arch": corev1.LabelArchStable, corev1.LabelInstanceType: corev1.LabelInstanceTypeStable}

// sameAffinity compares two affinities, where a label may be called by its newer name. A key may also be emptied, because
// it has no newer name: that is refused elsewhere.
func sameAffinity(a, b *corev1.VolumeNodeAffinity) bool {
	if a == nil || a.Required == nil || b.Required == nil {
		return equality.Semantic.DeepEqual(a, b)
	}
	renamed := b.DeepCopy()
	rename := func(is, was []corev1.NodeSelectorRequirement) {
		for i := range was {
			if i < len(is) && stable[was[i].Key] == is[i].Key {
				was[i].Key = is[i].Key
			}
		}
	}
	for i := range renamed.Required.NodeSelectorTerms {
		if i < len(a.Required.NodeSelectorTerms) {
			is, was := &a.Required.NodeSelectorTerms[i], &renamed.Required.NodeSelectorTerms[i]
			rename(is.MatchExpressions, was.MatchExpressions)
			rename(is.MatchFields, was.MatchFields)
		}
	}
	return equality.Semantic.DeepEqual(a, renamed)
}

func accessModes(list []corev1.PersistentVolumeAccessMode, p *field.Path) errors {
	if len(list) == 0 {
		return errors{field.Required(p, "at least 1 access mode is required")}
	}
	var errs errors
	once, other := false, false
	for _, m := range list {
		wrong := oneOf(p, m, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
		errs = append(errs, wrong...)
		once = once || m == corev1.ReadWriteOncePod
		other = other || m != corev1.ReadWriteOncePod && len(wrong) == 0
	}
	if once && other {
		errs = append(errs, field.Forbidden(p, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

func claimSpec(s *corev1.PersistentVolumeClaimSpec, p *field.Path) errors {
	errs := accessModes(s.AccessModes, p.Child("accessModes"))
	if s.Selector != nil {
		errs = append(errs, labelSelector(p.Child("selector"), s.Selector)...)
	}
	size, ok := s.Resources.Requests[corev1.ResourceStorage]
	at := p.Child("resources").Key(string(corev1.ResourceStorage))
	if !ok {
		errs = append(errs, field.Required(at, ""))
	} else if size.Sign() <= 0 {
		errs = append(errs, field.Invalid(at, size.String(), "must be greater than zero"))
	}
	if c := s.StorageClassName; c != nil && *c != "" {
		errs = append(errs, invalid(p.Child("storageClassName"), *c, subdomain(*c, false))...)
	}
	if s.VolumeMode != nil {
		errs = append(errs, oneOf(p.Child("volumeMode"), *s.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	if d := s.DataSource; d != nil {
		errs = append(errs, dataSource(d.APIGroup, d.Kind, d.Name, p.Child("dataSource"))...)
	}
	if d := s.DataSourceRef; d != nil {
		errs = append(errs, dataSource(d.APIGroup, d.Kind, d.Name, p.Child("dataSourceRef"))...)
		if n := deref(d.Namespace, ""); n != "" {
			errs = append(errs, invalid(p.Child("dataSourceRef", "namespace"), n, label(n, false))...)
		}
	}
	if c := s.VolumeAttributesClassName; c != nil && *c != "" {
		errs = append(errs, invalid(p.Child("volumeAttributesClassName"), *c, subdomain(*c, false))...)
	}
	return errs
}

func dataSource(group *string, kind, name string, p *field.Path) errors {
	errs := need(p.Child("name"), name, "")
	errs = append(errs, need(p.Child("kind"), kind, "")...)
	g := deref(group, "")
	if g == "" && kind != "PersistentVolumeClaim" {
		errs = append(errs, field.Invalid(p, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
	}
	if g != "" {
		errs = append(errs, dnsSubdomain(p.Child("apiGroup"), g)...)
	}
	return errs
}
