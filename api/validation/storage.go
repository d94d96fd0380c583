package validation

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addStorage(t table) {
	const g = "storage.k8s.io"
	rule(t, g, "v1", "StorageClass", false, subdomain, storageClass, storageClassUpdate)
	rule(t, g, "v1", "VolumeAttributesClass", false, subdomain, func(o *storagev1.VolumeAttributesClass) errors {
		errs := provisioner(field.NewPath("driverName"), o.DriverName)
		return append(errs, parameters(o.Parameters, false)...)
	}, func(o, old *storagev1.VolumeAttributesClass) errors {
		var errs errors
		if o.DriverName != old.DriverName {
			errs = append(errs, field.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden."))
		}
		if !equality.Semantic.DeepEqual(o.Parameters, old.Parameters) {
			errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
		}
		return errs
	})
	rule(t, g, "v1", "CSIDriver", false, subdomain, csiDriver, nil, ownUpdate(csiDriverUpdate))
	rule(t, g, "v1", "CSINode", false, subdomain, csiNode, nil, ownUpdate(csiNodeUpdate))
	rule(t, g, "v1", "CSIStorageCapacity", true, subdomain, storageCapacity, func(o, old *storagev1.CSIStorageCapacity) errors {
		return append(immutable(field.NewPath("nodeTopology"), o.NodeTopology, old.NodeTopology), immutable(field.NewPath("storageClassName"), o.StorageClassName, old.StorageClassName)...)
	})
	rule(t, g, "v1", "VolumeAttachment", false, subdomain, volumeAttachment, func(o, old *storagev1.VolumeAttachment) errors {
		return immutable(field.NewPath("spec"), o.Spec, old.Spec)
	})
	rule(t, "", "v1", "PersistentVolumeClaim", true, subdomain, func(o *corev1.PersistentVolumeClaim) errors {
		return append(claimSpec(&o.Spec, field.NewPath("spec")), sourcesMatch(&o.Spec, field.NewPath("spec"))...)
	}, claimUpdate, onSub("status", claimStatus))
	rule(t, "", "v1", "PersistentVolume", false, subdomain, func(o *corev1.PersistentVolume) errors {
		return volumeSpec(&o.Spec, o.Name, false, field.NewPath("spec"))
	}, volumeUpdate, twice)
}

func provisioner(p *field.Path, name string) errors {
	if name == "" {
		return errors{field.Required(p, name)}
	}
	return qualified(name, p)
}

func parameters(m map[string]string, emptyAllowed bool) errors {
	p := field.NewPath("parameters")
	if len(m) > 512 {
		return errors{field.TooLong(p, "Provisioner Parameters exceeded max allowed", 512)}
	}
	var errs errors
	size := 0
	for k, v := range m {
		if k == "" {
			errs = append(errs, field.Invalid(p, k, "field can not be empty."))
		}
		size += len(k) + len(v)
	}
	if size > 256*1024 {
		errs = append(errs, field.TooLong(p, "", 256*1024))
	}
	if !emptyAllowed && len(m) == 0 {
		errs = append(errs, field.Required(p, "must contain at least one key/value pair"))
	}
	return errs
}

func storageClass(o *storagev1.StorageClass) errors {
	errs := provisioner(field.NewPath("provisioner"), o.Provisioner)
	errs = append(errs, parameters(o.Parameters, true)...)
	if r := o.ReclaimPolicy; r != nil && *r != "" {
		errs = append(errs, oneOf(field.NewPath("reclaimPolicy"), *r, corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	if m := o.VolumeBindingMode; m == nil {
		errs = append(errs, field.Required(field.NewPath("volumeBindingMode"), ""))
	} else {
		errs = append(errs, oneOf(field.NewPath("volumeBindingMode"), *m, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	return append(errs, topologies(o.AllowedTopologies, field.NewPath("allowedTopologies"))...)
}

func topologies(list []corev1.TopologySelectorTerm, p *field.Path) errors {
	var errs errors
	// a term that asks for nothing equals the places that the terms are yet to take, as many as there are
	seen := make([]map[string]sets.Set[string], len(list))
	for i := range list {
		at := p.Index(i).Child("matchLabelExpressions")
		term := map[string]sets.Set[string]{}
		for j, r := range list[i].MatchLabelExpressions {
			q := at.Index(j)
			values := sets.New[string]()
			if len(r.Values) == 0 {
				errs = append(errs, field.Required(q.Child("values"), ""))
			}
			for k, v := range r.Values {
				if values.Has(v) {
					errs = append(errs, field.Duplicate(q.Child("values").Index(k), v))
				}
				values.Insert(v)
			}
			errs = append(errs, labelName(q.Child("key"), r.Key)...)
			if _, ok := term[r.Key]; ok {
				errs = append(errs, field.Duplicate(q.Child("key"), r.Key))
			}
			term[r.Key] = values
		}
		for _, other := range seen {
			if equality.Semantic.DeepEqual(term, other) {
				errs = append(errs, field.Duplicate(at, ""))
			}
		}
		seen = append(seen, term)
	}
	return errs
}

func storageClassUpdate(o, old *storagev1.StorageClass) errors {
	var errs errors
	for _, f := range []struct {
		name   string
		v, old any
	}{{"parameters", o.Parameters, old.Parameters}, {"provisioner", o.Provisioner, old.Provisioner}, {"reclaimPolicy", o.ReclaimPolicy, old.ReclaimPolicy}, {"volumeBindingMode", o.VolumeBindingMode, old.VolumeBindingMode}} {
		errs = append(errs, immutable(field.NewPath(f.name), f.v, f.old)...)
	}
	return errs
}

func csiDriver(o *storagev1.CSIDriver) errors {
	var errs errors
	if o.Name != "" {
		errs = append(errs, csiDriverName(o.Name, field.NewPath("name"))...)
	}
	p, s := field.NewPath("spec"), &o.Spec
	for _, f := range []struct {
		name string
		set  bool
	}{{"attachedRequired", s.AttachRequired != nil}, {"podInfoOnMount", s.PodInfoOnMount != nil}, {"storageCapacity", s.StorageCapacity != nil}} {
		if !f.set {
			errs = append(errs, field.Required(p.Child(f.name), ""))
		}
	}
	return append(errs, csiDriverSpec(s, p)...)
}

func csiDriverSpec(s *storagev1.CSIDriverSpec, p *field.Path) errors {
	var errs errors
	if s.FSGroupPolicy == nil {
		errs = append(errs, field.Required(p.Child("fsGroupPolicy"), ""))
	} else {
		errs = append(errs, oneOf(p.Child("fsGroupPolicy"), *s.FSGroupPolicy, storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	}
	seen := sets.New[string]()
	for i, r := range s.TokenRequests {
		at := p.Child("tokenRequests").Index(i)
		if seen.Has(r.Audience) {
			errs = append(errs, field.Duplicate(at.Child("audience"), r.Audience))
			continue
		}
		seen.Insert(r.Audience)
		if n := r.ExpirationSeconds; n != nil {
			if *n < 600 {
				errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *n, "may not specify a duration less than 10 minutes"))
			}
			if *n > 1<<32 {
				errs = append(errs, field.Invalid(at.Child("expirationSeconds"), *n, "may not specify a duration larger than 2^32 seconds"))
			}
		}
	}
	for _, m := range s.VolumeLifecycleModes {
		errs = append(errs, oneOf(p.Child("volumeLifecycleModes"), m, storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)...)
	}
	if s.SELinuxMount == nil {
		errs = append(errs, field.Required(p.Child("seLinuxMount"), ""))
	}
	if n := s.NodeAllocatableUpdatePeriodSeconds; n != nil && *n < 10 {
		errs = append(errs, field.Invalid(p.Child("nodeAllocatableUpdatePeriodSeconds"), *n, "must be greater than or equal to 10 seconds"))
	}
	if s.ServiceAccountTokenInSecrets != nil && len(s.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(p.Child("serviceAccountTokenInSecrets"), *s.ServiceAccountTokenInSecrets, "serviceAccountTokenInSecrets is set but no tokenRequests are specified"))
	}
	return errs
}

func csiDriverUpdate(o, old *storagev1.CSIDriver) errors {
	p := field.NewPath("spec")
	errs := csiDriverSpec(&o.Spec, p)
	errs = append(errs, immutable(p.Child("attachedRequired"), o.Spec.AttachRequired, old.Spec.AttachRequired)...)
	return append(errs, immutable(p.Child("volumeLifecycleModes"), o.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes)...)
}

func csiNode(o *storagev1.CSINode) errors {
	var errs errors
	names := sets.New[string]()
	p := field.NewPath("spec", "drivers")
	for i := range o.Spec.Drivers {
		d, at := &o.Spec.Drivers[i], p.Index(i)
		errs = append(errs, csiNodeDriver(d, names, at)...)
	}
	return errs
}

func csiNodeDriver(d *storagev1.CSINodeDriver, names sets.Set[string], p *field.Path) errors {
	errs := csiDriverName(d.Name, p.Child("name"))
	if names.Has(d.Name) {
		errs = append(errs, field.Duplicate(p.Child("name"), d.Name))
	}
	names.Insert(d.Name)
	switch {
	case d.NodeID == "":
		errs = append(errs, field.Required(p.Child("nodeID"), d.NodeID))
	case len(d.NodeID) > 256:
		errs = append(errs, field.Invalid(p.Child("nodeID"), d.NodeID, "must be 256 characters or less"))
	}
	if d.Allocatable != nil && d.Allocatable.Count != nil {
		errs = append(errs, nonNegative(p.Child("allocatable", "count"), *d.Allocatable.Count)...)
	}
	keys := sets.New[string]()
	for _, k := range d.TopologyKeys {
		if keys.Has(k) {
			errs = append(errs, field.Duplicate(p, k))
		}
		keys.Insert(k)
		errs = append(errs, qualifiedName(p, k)...)
	}
	return errs
}

// csiNodeUpdate lets drivers come and go, but not change.
func csiNodeUpdate(o, old *storagev1.CSINode) errors {
	errs := csiNode(o)
	for i := range old.Spec.Drivers {
		for j := range o.Spec.Drivers {
			a, b := o.Spec.Drivers[j], old.Spec.Drivers[i]
			a.Allocatable = b.Allocatable
			if a.Name == b.Name && !equality.Semantic.DeepEqual(a, b) {
				errs = append(errs, field.Invalid(field.NewPath("spec", "drivers"), a, "field is immutable"))
			}
		}
	}
	return errs
}

func storageCapacity(o *storagev1.CSIStorageCapacity) errors {
	errs := labelSelector(field.NewPath("nodeTopology"), o.NodeTopology)
	errs = append(errs, invalid(field.NewPath("storageClassName"), o.StorageClassName, subdomain(o.StorageClassName, false))...)
	if o.Capacity != nil {
		errs = append(errs, nonNegativeQuantity(*o.Capacity, field.NewPath("capacity"))...)
	}
	if o.MaximumVolumeSize != nil {
		errs = append(errs, nonNegativeQuantity(*o.MaximumVolumeSize, field.NewPath("maximumVolumeSize"))...)
	}
	return errs
}

func volumeAttachment(o *storagev1.VolumeAttachment) errors {
	p, s := field.NewPath("spec"), &o.Spec
	errs := csiDriverName(s.Attacher, p.Child("attacher"))
	at := p.Child("source")
	inline, name := s.Source.InlineVolumeSpec, s.Source.PersistentVolumeName
	switch {
	case inline == nil && name == nil:
		errs = append(errs, field.Required(at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case inline != nil && name != nil:
		errs = append(errs, field.Forbidden(at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
	case name != nil && *name == "":
		errs = append(errs, field.Required(at.Child("persistentVolumeName"), "must specify non empty persistentVolumeName"))
	case name != nil:
		errs = append(errs, invalid(at.Child("persistentVolumeName"), *name, subdomain(*name, false))...)
	default:
		errs = append(errs, volumeSpec(inline, "", true, at.Child("inlineVolumeSpec"))...)
	}
	return append(errs, invalid(p.Child("nodeName"), s.NodeName, subdomain(s.NodeName, false))...)
}

func sourcesMatch(s *corev1.PersistentVolumeClaimSpec, p *field.Path) errors {
	if s.DataSource == nil || s.DataSourceRef == nil {
		return nil
	}
	if deref(s.DataSourceRef.Namespace, "") != "" {
		return errors{field.Invalid(p, p.Child("dataSource"), "may not be specified when dataSourceRef.namespace is specified")}
	}
	a, b := s.DataSource, s.DataSourceRef
	if a.Kind != b.Kind || a.Name != b.Name || deref(a.APIGroup, "") != deref(b.APIGroup, "") || (a.APIGroup == nil) != (b.APIGroup == nil) {
		return errors{field.Invalid(p, p.Child("dataSource"), "must match dataSourceRef")}
	}
	return nil
}

const (
	claimImmutable = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
	belowCapacity  = "field can not be less than status.capacity"
)

func claimUpdate(o, old *corev1.PersistentVolumeClaim) errors {
	var errs errors
	p := field.NewPath("spec")
	n, b := o.Spec.DeepCopy(), old.Spec.DeepCopy()
	// the volume a claim is bound to is written once, by the controller
	if b.VolumeName == "" {
		b.VolumeName = n.VolumeName
	}
	const beta = corev1.BetaStorageClassAnnotation
	was, annotated := old.Annotations[beta]
	is, kept := o.Annotations[beta]
	if annotated && b.StorageClassName == nil && n.StorageClassName != nil && *n.StorageClassName == was && (!kept || is == was) {
		n.StorageClassName = nil // the class moves from the annotation to the field
	} else {
		if is != was {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "annotations").Key(beta), is, "field is immutable"))
		}
		if b.StorageClassName == nil && n.StorageClassName != nil && (!annotated || *n.StorageClassName == was) {
			n.StorageClassName = nil
		}
	}
	bound := o.Status.Phase == corev1.ClaimBound
	if bound && n.Resources.Requests != nil {
		n.Resources.Requests[corev1.ResourceStorage] = old.Spec.Resources.Requests[corev1.ResourceStorage]
	}
	if bound && n.VolumeAttributesClassName != nil {
		n.VolumeAttributesClassName = b.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(n, b) {
		errs = append(errs, field.Forbidden(p, claimImmutable))
	}
	size, before, held := o.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage], old.Status.Capacity[corev1.ResourceStorage]
	// a size may shrink after an expansion that failed, down to what there is
	if size.Cmp(before) < 0 && size.Cmp(held) <= 0 {
		errs = append(errs, field.Forbidden(p.Child("resources", "requests", "storage"), belowCapacity))
	}
	errs = append(errs, immutable(field.NewPath("volumeMode"), o.Spec.VolumeMode, old.Spec.VolumeMode)...)
	// a class may be taken back as long as no volume has taken it
	if old.Spec.VolumeAttributesClassName != nil && deref(o.Spec.VolumeAttributesClassName, "") == "" && deref(old.Status.CurrentVolumeAttributesClassName, "") != "" {
		detail := "update from non-nil value to nil is forbidden"
		if o.Spec.VolumeAttributesClassName != nil {
			detail = "update from non-nil value to an empty string is forbidden"
		}
		errs = append(errs, field.Forbidden(p.Child("volumeAttributesClassName"), detail))
	}
	return errs
}

// claimStatus judges what the controllers report of a claim and its expansion.
func claimStatus(o, _ *corev1.PersistentVolumeClaim) errors {
	var errs errors
	if len(o.Spec.AccessModes) == 0 {
		errs = append(errs, field.Required(field.NewPath("Spec", "accessModes"), ""))
	}
	p := field.NewPath("status")
	basic := func(q resource.Quantity, p *field.Path) errors {
		if q.Value() < 0 {
			return errors{field.Invalid(p, q.Value(), "must be a valid resource quantity")}
		}
		return nil
	}
	for _, n := range sortedNames(o.Status.Capacity) {
		errs = append(errs, basic(o.Status.Capacity[n], p.Child("capacity").Key(string(n)))...)
	}
	at := p.Child("allocatedResourceStatus")
	for _, n := range sortedKeys(o.Status.AllocatedResourceStatuses) {
		errs = append(errs, claimResource(n, at)...)
		if s := o.Status.AllocatedResourceStatuses[n]; !slices.Contains(resizeStatuses, s) {
			errs = append(errs, field.NotSupported(at, n, resizeStatuses))
		}
	}
	at = p.Child("allocatedResources")
	for _, n := range sortedNames(o.Status.AllocatedResources) {
		if wrong := claimResource(n, at); len(wrong) > 0 {
			errs = append(errs, wrong...)
			continue
		}
		q := o.Status.AllocatedResources[n]
		if wrong := basic(q, at.Key(string(n))); len(wrong) > 0 {
			errs = append(errs, wrong...)
		} else {
			errs = append(errs, quantity(corev1.ResourceStorage, q, at.Key(string(n)))...)
		}
	}
	return errs
}

var resizeStatuses = []corev1.ClaimResourceStatus{corev1.PersistentVolumeClaimControllerResizeInfeasible, corev1.PersistentVolumeClaimControllerResizeInProgress,
	corev1.PersistentVolumeClaimNodeResizeInfeasible, corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizePending}

// claimResource checks a resource of a claim: of those that are Kubernetes' own, only storage.
func claimResource(n corev1.ResourceName, p *field.Path) errors {
	if errs := invalid(p, string(n), validation.IsQualifiedName(string(n))); len(errs) > 0 {
		return errs
	}
	if native(n) && n != corev1.ResourceStorage {
		return errors{field.NotSupported(p, string(n), []corev1.ResourceName{corev1.ResourceStorage})}
	}
	return nil
}
