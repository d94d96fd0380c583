package validation

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func accessModes(list []corev1.PersistentVolumeAccessMode, p *field.Path) errors {
	if len(list) == 0 {
		return errors{field.Required(p, "at least 1 access mode is required")}
	}
	var errs errors
	once, other := false, false
	for _, m := range list {
		errs = append(errs, oneOf(p, m, corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)...)
		if m == corev1.ReadWriteOncePod {
			once = true
		} else {
			other = true
		}
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
