package validation

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// legacySources are the in-tree network volumes; their fields are shared with PersistentVolume.
func legacySources(v *corev1.VolumeSource, volumeName string) []source {
	return []source{
		{v.GCEPersistentDisk != nil, "persistentDisk", func(p *field.Path) errors { return gcePD(v.GCEPersistentDisk, p) }},
		{v.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(p *field.Path) errors { return awsEBS(v.AWSElasticBlockStore, p) }},
		{v.NFS != nil, "nfs", func(p *field.Path) errors { return nfs(v.NFS, p) }},
		{v.ISCSI != nil, "iscsi", func(p *field.Path) errors {
			i := v.ISCSI
			errs := iscsi(i.TargetPortal, i.IQN, i.Lun, i.SessionCHAPAuth || i.DiscoveryCHAPAuth, i.SecretRef != nil, i.InitiatorName, p)
			if i.InitiatorName != nil && len(volumeName+":"+i.TargetPortal) > 64 {
				errs = append(errs, tooLongPortal(p, volumeName))
			}
			return errs
		}},
		{v.Glusterfs != nil, "glusterfs", func(p *field.Path) errors {
			return append(need(p.Child("endpoints"), v.Glusterfs.EndpointsName, ""), need(p.Child("path"), v.Glusterfs.Path, "")...)
		}},
		{v.Flocker != nil, "flocker", func(p *field.Path) errors { return flocker(v.Flocker, p) }},
		{v.RBD != nil, "rbd", func(p *field.Path) errors { return rbd(v.RBD.CephMonitors, v.RBD.RBDImage, p) }},
		{v.Cinder != nil, "cinder", func(p *field.Path) errors {
			errs := need(p.Child("volumeID"), v.Cinder.VolumeID, "")
			if v.Cinder.SecretRef != nil {
				errs = append(errs, need(p.Child("secretRef", "name"), v.Cinder.SecretRef.Name, "")...)
			}
			return errs
		}},
		{v.CephFS != nil, "cephfs", func(p *field.Path) errors { return monitors(v.CephFS.Monitors, p) }},
		{v.Quobyte != nil, "quobyte", func(p *field.Path) errors { return quobyte(v.Quobyte, p) }},
		{v.FlexVolume != nil, "flexVolume", func(p *field.Path) errors { return flex(v.FlexVolume.Driver, v.FlexVolume.Options, p) }},
		{v.FC != nil, "fc", func(p *field.Path) errors { return fc(v.FC, p) }},
		{v.AzureFile != nil, "azureFile", func(p *field.Path) errors {
			return append(need(p.Child("secretName"), v.AzureFile.SecretName, ""), need(p.Child("shareName"), v.AzureFile.ShareName, "")...)
		}},
		{v.VsphereVolume != nil, "vsphereVolume", func(p *field.Path) errors { return need(p.Child("volumePath"), v.VsphereVolume.VolumePath, "") }},
		{v.AzureDisk != nil, "azureDisk", func(p *field.Path) errors { return azureDisk(v.AzureDisk, p) }},
		{v.PhotonPersistentDisk != nil, "photonPersistentDisk", func(p *field.Path) errors { return need(p.Child("pdID"), v.PhotonPersistentDisk.PdID, "") }},
		{v.PortworxVolume != nil, "portworxVolume", func(p *field.Path) errors { return need(p.Child("volumeID"), v.PortworxVolume.VolumeID, "") }},
		{v.ScaleIO != nil, "scaleIO", func(p *field.Path) errors {
			return scaleIO(v.ScaleIO.Gateway, v.ScaleIO.System, v.ScaleIO.VolumeName, p)
		}},
		{v.StorageOS != nil, "storageos", func(p *field.Path) errors {
			s := v.StorageOS
			errs := storageOS(s.VolumeName, s.VolumeNamespace, p)
			if s.SecretRef != nil {
				errs = append(errs, need(p.Child("secretRef", "name"), s.SecretRef.Name, "")...)
			}
			return errs
		}},
	}
}

func tooLongPortal(p *field.Path, volumeName string) *field.Error {
	return field.Invalid(siblingName(p), volumeName, "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.")
}

// siblingName is the name field beside the last element of p.
func siblingName(p *field.Path) *field.Path {
	s := p.String()
	return field.NewPath(s[:strings.LastIndexByte(s, '.')]).Child("name")
}

func partition(p *field.Path, n int32) errors {
	if n < 0 || n > 255 {
		return errors{field.Invalid(p, n, "must be between 1 and 255, inclusive")}
	}
	return nil
}

func gcePD(v *corev1.GCEPersistentDiskVolumeSource, p *field.Path) errors {
	return append(need(p.Child("pdName"), v.PDName, ""), partition(p.Child("partition"), v.Partition)...)
}

func awsEBS(v *corev1.AWSElasticBlockStoreVolumeSource, p *field.Path) errors {
	return append(need(p.Child("volumeID"), v.VolumeID, ""), partition(p.Child("partition"), v.Partition)...)
}

func nfs(v *corev1.NFSVolumeSource, p *field.Path) errors {
	errs := need(p.Child("server"), v.Server, "")
	errs = append(errs, need(p.Child("path"), v.Path, "")...)
	if !absolute(v.Path) {
		errs = append(errs, field.Invalid(p.Child("path"), v.Path, "must be an absolute path"))
	}
	return errs
}

const iscsiName = "must be valid format starting with iqn, eui, or naa"

var (
	iqnRE = regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`)
	euiRE = regexp.MustCompile(`^eui.[[:alnum:]]{16}$`)
	naaRE = regexp.MustCompile(`^naa.[[:alnum:]]{32}$`)
)

func iscsiNamed(s string) bool {
	switch {
	case strings.HasPrefix(s, "iqn"):
		return iqnRE.MatchString(s)
	case strings.HasPrefix(s, "eui"):
		return euiRE.MatchString(s)
	case strings.HasPrefix(s, "naa"):
		return naaRE.MatchString(s)
	}
	return false
}

func iscsi(portal, iqn string, lun int32, chap, secret bool, initiator *string, p *field.Path) errors {
	errs := need(p.Child("targetPortal"), portal, "")
	if iqn == "" {
		errs = append(errs, field.Required(p.Child("iqn"), ""))
	} else if !iscsiNamed(iqn) {
		errs = append(errs, field.Invalid(p.Child("iqn"), iqn, iscsiName))
	}
	if lun < 0 || lun > 255 {
		errs = append(errs, field.Invalid(p.Child("lun"), lun, validation.InclusiveRangeError(0, 255)))
	}
	if chap && !secret {
		errs = append(errs, field.Required(p.Child("secretRef"), ""))
	}
	if initiator != nil && !iscsiNamed(*initiator) {
		errs = append(errs, field.Invalid(p.Child("initiatorname"), *initiator, iscsiName))
	}
	return errs
}

func flocker(v *corev1.FlockerVolumeSource, p *field.Path) errors {
	switch {
	case v.DatasetName == "" && v.DatasetUUID == "":
		return errors{field.Required(p, "one of datasetName and datasetUUID is required")}
	case v.DatasetName != "" && v.DatasetUUID != "":
		return errors{field.Invalid(p, "resource", "datasetName and datasetUUID can not be specified simultaneously")}
	}
	if strings.Contains(v.DatasetName, "/") {
		return errors{field.Invalid(p.Child("datasetName"), v.DatasetName, "must not contain '/'")}
	}
	return nil
}

func monitors(list []string, p *field.Path) errors {
	if len(list) == 0 {
		return errors{field.Required(p.Child("monitors"), "")}
	}
	return nil
}

func rbd(list []string, image string, p *field.Path) errors {
	return append(monitors(list, p), need(p.Child("image"), image, "")...)
}

func quobyte(v *corev1.QuobyteVolumeSource, p *field.Path) errors {
	const detail = "must be a host:port pair or multiple pairs separated by commas"
	var errs errors
	if v.Registry == "" {
		errs = append(errs, field.Required(p.Child("registry"), detail))
	} else if len(v.Tenant) >= 65 {
		errs = append(errs, field.Required(p.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
	} else {
		for _, pair := range strings.Split(v.Registry, ",") {
			if host, port, ok := strings.Cut(pair, ":"); !ok || host == "" || port == "" || strings.Contains(port, ":") {
				errs = append(errs, field.Invalid(p.Child("registry"), v.Registry, detail))
			}
		}
	}
	return append(errs, need(p.Child("volume"), v.Volume, "")...)
}

func flex(driver string, options map[string]string, p *field.Path) errors {
	errs := need(p.Child("driver"), driver, "")
	for k := range options {
		ns := k
		if i := strings.IndexByte(ns, '/'); i >= 0 {
			ns = ns[:i]
		}
		dotted := "." + ns
		if strings.HasSuffix(dotted, ".kubernetes.io") || strings.HasSuffix(dotted, ".k8s.io") {
			errs = append(errs, field.Invalid(p.Child("options").Key(k), k, "kubernetes.io and k8s.io namespaces are reserved"))
		}
	}
	return errs
}

func fc(v *corev1.FCVolumeSource, p *field.Path) errors {
	if len(v.TargetWWNs) < 1 && len(v.WWIDs) < 1 {
		return errors{field.Required(p.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both")}
	}
	if len(v.TargetWWNs) > 0 && len(v.WWIDs) > 0 {
		return errors{field.Invalid(p.Child("targetWWNs"), v.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")}
	}
	if len(v.TargetWWNs) > 0 {
		if v.Lun == nil {
			return errors{field.Required(p.Child("lun"), "lun is required if targetWWNs is specified")}
		}
		if *v.Lun < 0 || *v.Lun > 255 {
			return errors{field.Invalid(p.Child("lun"), v.Lun, validation.InclusiveRangeError(0, 255))}
		}
	}
	return nil
}

func azureDisk(v *corev1.AzureDiskVolumeSource, p *field.Path) errors {
	managed := v.Kind != nil && *v.Kind == corev1.AzureManagedDisk
	errs := need(p.Child("diskName"), v.DiskName, "")
	errs = append(errs, need(p.Child("diskURI"), v.DataDiskURI, "")...)
	if v.CachingMode != nil {
		errs = append(errs, oneOf(p.Child("cachingMode"), *v.CachingMode, corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)...)
	}
	if v.Kind != nil {
		errs = append(errs, oneOf(p.Child("kind"), *v.Kind, corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)...)
	}
	// the form of the URI tells a managed disk from a blob
	if managed && !strings.HasPrefix(v.DataDiskURI, "/subscriptions/") {
		errs = append(errs, field.NotSupported(p.Child("diskURI"), v.DataDiskURI, []string{"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"}))
	}
	if !managed && !strings.HasPrefix(v.DataDiskURI, "https://") {
		errs = append(errs, field.NotSupported(p.Child("diskURI"), v.DataDiskURI, []string{"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"}))
	}
	return errs
}

func scaleIO(gateway, system, volume string, p *field.Path) errors {
	errs := need(p.Child("gateway"), gateway, "")
	errs = append(errs, need(p.Child("system"), system, "")...)
	return append(errs, need(p.Child("volumeName"), volume, "")...)
}

func storageOS(name, namespace string, p *field.Path) errors {
	var errs errors
	if name == "" {
		errs = append(errs, field.Required(p.Child("volumeName"), ""))
	} else {
		errs = append(errs, dnsLabel(p.Child("volumeName"), name)...)
	}
	if namespace != "" {
		errs = append(errs, dnsLabel(p.Child("volumeNamespace"), namespace)...)
	}
	return errs
}
