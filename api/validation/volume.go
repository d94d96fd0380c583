package validation

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const fileModeDetail = "must be a number between 0 and 0777 (octal), both inclusive"

// volumes checks the volumes of a pod and returns them by name; one that failed is not among them.
func volumes(list []corev1.Volume, podName string, p *field.Path) (map[string]corev1.VolumeSource, errors) {
	var errs errors
	byName := map[string]corev1.VolumeSource{}
	seen := sets.New[string]()
	claims, owned := sets.New[string](), sets.New[string]()
	for i := range list {
		v, at := &list[i], p.Index(i)
		name := at.Child("name")
		sub := volumeSource(&v.VolumeSource, v.Name, at)
		switch {
		case v.Name == "":
			sub = append(sub, field.Required(name, ""))
		default:
			sub = append(sub, dnsLabel(name, v.Name)...)
		}
		if seen.Has(v.Name) {
			sub = append(sub, field.Duplicate(name, v.Name))
		}
		if len(sub) > 0 {
			errs = append(errs, sub...)
		} else {
			seen.Insert(v.Name)
			byName[v.Name] = v.VolumeSource
		}
		if v.PersistentVolumeClaim != nil {
			claims.Insert(v.PersistentVolumeClaim.ClaimName)
		}
		if v.Ephemeral != nil && podName != "" {
			claim := podName + "-" + v.Name
			owned.Insert(claim)
			for _, m := range claimName(v.Name, claim) {
				errs = append(errs, field.Invalid(name, v.Name, fmt.Sprintf("PVC name %q: %s", claim, m)))
			}
		}
	}
	for i := range list {
		v := &list[i]
		if v.Ephemeral != nil && claims.Has(podName+"-"+v.Name) && podName != "" {
			errs = append(errs, field.Invalid(p.Index(i).Child("name"), v.Name, "conflicting PVC names"))
		}
	}
	return byName, errs
}

// claimName says what is wrong with the name of the claim made for a volume.
func claimName(volume, claim string) []string {
	if volume == "" {
		return nil
	}
	return subdomain(claim, false)
}

// source is one way to fill a volume: check runs where the field is set.
type source struct {
	set   bool
	name  string
	check func(p *field.Path) errors
}

func volumeSource(v *corev1.VolumeSource, volumeName string, p *field.Path) errors {
	var errs errors
	count := 0
	for _, s := range append(plainSources(v, volumeName), legacySources(v, volumeName)...) {
		if !s.set {
			continue
		}
		at := p.Child(s.name)
		if count > 0 {
			errs = append(errs, field.Forbidden(at, "may not specify more than 1 volume type"))
			continue
		}
		count++
		errs = append(errs, s.check(at)...)
	}
	return errs
}

func plainSources(v *corev1.VolumeSource, volumeName string) []source {
	return []source{
		{v.EmptyDir != nil, "emptyDir", func(p *field.Path) errors {
			var errs errors
			if v.EmptyDir.SizeLimit != nil && v.EmptyDir.SizeLimit.Sign() < 0 {
				errs = append(errs, field.Forbidden(p.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity"))
			}
			return errs
		}},
		{v.HostPath != nil, "hostPath", func(p *field.Path) errors { return hostPath(v.HostPath, p) }},
		{v.GitRepo != nil, "gitRepo", func(p *field.Path) errors {
			errs := need(p.Child("repository"), v.GitRepo.Repository, "")
			return append(errs, descending(p.Child("directory"), v.GitRepo.Directory)...)
		}},
		{v.Secret != nil, "secret", func(p *field.Path) errors {
			errs := need(p.Child("secretName"), v.Secret.SecretName, "")
			errs = append(errs, fileMode(p.Child("defaultMode"), v.Secret.DefaultMode)...)
			return append(errs, keyItems(v.Secret.Items, p.Child("items"))...)
		}},
		{v.PersistentVolumeClaim != nil, "persistentVolumeClaim", func(p *field.Path) errors {
			return need(p.Child("claimName"), v.PersistentVolumeClaim.ClaimName, "")
		}},
		{v.DownwardAPI != nil, "downwardAPI", func(p *field.Path) errors {
			errs := fileMode(p.Child("defaultMode"), v.DownwardAPI.DefaultMode)
			for i := range v.DownwardAPI.Items {
				errs = append(errs, downwardFile(&v.DownwardAPI.Items[i], p)...)
			}
			return errs
		}},
		{v.ConfigMap != nil, "configMap", func(p *field.Path) errors {
			errs := need(p.Child("name"), v.ConfigMap.Name, "")
			errs = append(errs, fileMode(p.Child("defaultMode"), v.ConfigMap.DefaultMode)...)
			return append(errs, keyItems(v.ConfigMap.Items, p.Child("items"))...)
		}},
		{v.Projected != nil, "projected", func(p *field.Path) errors {
			errs := fileMode(p.Child("defaultMode"), v.Projected.DefaultMode)
			return append(errs, projections(v.Projected, p)...)
		}},
		{v.CSI != nil, "csi", func(p *field.Path) errors {
			errs := csiDriverName(v.CSI.Driver, p.Child("driver"))
			if r := v.CSI.NodePublishSecretRef; r != nil {
				if r.Name == "" {
					errs = append(errs, field.Required(p.Child("nodePublishSecretRef", "name"), ""))
				} else {
					errs = append(errs, invalid(p.Child("name"), r.Name, validation.IsDNS1123Subdomain(r.Name))...)
				}
			}
			return errs
		}},
		{v.Ephemeral != nil, "ephemeral", func(p *field.Path) errors {
			t := v.Ephemeral.VolumeClaimTemplate
			if t == nil {
				return errors{field.Required(p.Child("volumeClaimTemplate"), "")}
			}
			at := p.Child("volumeClaimTemplate")
			errs := claimTemplateMeta(t, at.Child("metadata"))
			return append(errs, claimSpec(&t.Spec, at.Child("spec"))...)
		}},
		{v.Image != nil, "image", func(p *field.Path) errors {
			var errs errors
			if v.Image.Reference == "" {
				errs = append(errs, field.Required(p.Child("reference"), ""))
			}
			if v.Image.PullPolicy != "" {
				errs = append(errs, oneOf(p.Child("pullPolicy"), v.Image.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
			}
			return errs
		}},
	}
}

func claimTemplateMeta(t *corev1.PersistentVolumeClaimTemplate, p *field.Path) errors {
	errs := annotations(p.Child("annotations"), t.Annotations)
	errs = append(errs, labels(p.Child("labels"), t.Labels)...)
	// nothing else of the metadata is taken over, so nothing else may be set
	if t.Name != "" {
		errs = append(errs, field.Forbidden(p.Child("name"), "cannot be set for an embedded metadata object"))
	}
	return errs
}

func hostPath(h *corev1.HostPathVolumeSource, p *field.Path) errors {
	if h.Path == "" {
		return errors{field.Required(p.Child("path"), "")}
	}
	errs := noBacksteps(p.Child("path"), h.Path)
	return append(errs, hostPathType(h.Type, p.Child("type"))...)
}

func hostPathType(t *corev1.HostPathType, p *field.Path) errors {
	if t == nil {
		return nil
	}
	return oneOf(p, *t, corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev, corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate,
		corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)
}

func fileMode(p *field.Path, mode *int32) errors {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		return errors{field.Invalid(p, *mode, fileModeDetail)}
	}
	return nil
}

func keyItems(items []corev1.KeyToPath, p *field.Path) errors {
	var errs errors
	for i := range items {
		errs = append(errs, keyItem(&items[i], p.Index(i))...)
	}
	return errs
}

func keyItem(k *corev1.KeyToPath, p *field.Path) errors {
	errs := need(p.Child("key"), k.Key, "")
	errs = append(errs, need(p.Child("path"), k.Path, "")...)
	errs = append(errs, projectedPath(p.Child("path"), k.Path)...)
	return append(errs, fileMode(p.Child("mode"), k.Mode)...)
}

// downwardFile checks one file; its causes name the volume, not the item.
func downwardFile(f *corev1.DownwardAPIVolumeFile, p *field.Path) errors {
	errs := need(p.Child("path"), f.Path, "")
	errs = append(errs, projectedPath(p.Child("path"), f.Path)...)
	switch {
	case f.FieldRef != nil:
		errs = append(errs, objectField(f.FieldRef, volumeFields, p.Child("fieldRef"))...)
		if f.ResourceFieldRef != nil {
			errs = append(errs, field.Invalid(p, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		}
	case f.ResourceFieldRef != nil:
		errs = append(errs, resourceField(f.ResourceFieldRef, p.Child("resourceFieldRef"), true)...)
	default:
		errs = append(errs, field.Required(p, "one of fieldRef and resourceFieldRef is required"))
	}
	return append(errs, fileMode(p.Child("mode"), f.Mode)...)
}

func projections(v *corev1.ProjectedVolumeSource, p *field.Path) errors {
	var errs errors
	paths := sets.New[string]()
	claim := func(file string) {
		if file == "" {
			return
		}
		if paths.Has(file) {
			errs = append(errs, field.Invalid(p, file, "conflicting duplicate paths"))
		}
		paths.Insert(file)
	}
	for i := range v.Sources {
		s := &v.Sources[i]
		at := p.Child("sources").Index(i)
		count := 0
		begin := func(name string) *field.Path {
			if count++; count > 1 {
				errs = append(errs, field.Forbidden(at.Child(name), "may not specify more than 1 volume type per source"))
				return nil
			}
			return at.Child(name)
		}
		if s.Secret != nil {
			if q := begin("secret"); q != nil {
				errs = append(errs, need(q.Child("name"), s.Secret.Name, "")...)
				for j := range s.Secret.Items {
					errs = append(errs, keyItem(&s.Secret.Items[j], q.Child("items").Index(j))...)
					claim(s.Secret.Items[j].Path)
				}
			}
		}
		if s.ConfigMap != nil {
			if q := begin("configMap"); q != nil {
				errs = append(errs, need(q.Child("name"), s.ConfigMap.Name, "")...)
				for j := range s.ConfigMap.Items {
					errs = append(errs, keyItem(&s.ConfigMap.Items[j], q.Child("items").Index(j))...)
					claim(s.ConfigMap.Items[j].Path)
				}
			}
		}
		if s.DownwardAPI != nil {
			if q := begin("downwardAPI"); q != nil {
				for j := range s.DownwardAPI.Items {
					errs = append(errs, downwardFile(&s.DownwardAPI.Items[j], q)...)
					claim(s.DownwardAPI.Items[j].Path)
				}
			}
		}
		if s.ServiceAccountToken != nil {
			if q := begin("serviceAccountToken"); q != nil {
				errs = append(errs, tokenProjection(s.ServiceAccountToken, p, q)...)
				claim(s.ServiceAccountToken.Path)
			}
		}
		if s.ClusterTrustBundle != nil {
			if q := begin("clusterTrustBundle"); q != nil {
				errs = append(errs, trustBundle(s.ClusterTrustBundle, q)...)
				claim(s.ClusterTrustBundle.Path)
			}
		}
		if s.PodCertificate != nil {
			if q := begin("podCertificate"); q != nil {
				for _, f := range []string{s.PodCertificate.CredentialBundlePath, s.PodCertificate.KeyPath, s.PodCertificate.CertificateChainPath} {
					claim(f)
				}
			}
		}
	}
	return errs
}

func tokenProjection(t *corev1.ServiceAccountTokenProjection, volume, p *field.Path) errors {
	var errs errors
	if n := t.ExpirationSeconds; n != nil {
		if *n < 10*60 {
			errs = append(errs, field.Invalid(p.Child("expirationSeconds"), *n, "may not specify a duration less than 10 minutes"))
		}
		if *n > 1<<32 {
			errs = append(errs, field.Invalid(p.Child("expirationSeconds"), *n, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	// the path of a token is reported at the volume
	if t.Path == "" {
		return append(errs, field.Required(volume.Child("path"), ""))
	}
	return append(errs, projectedPath(volume.Child("path"), t.Path)...)
}

func trustBundle(t *corev1.ClusterTrustBundleProjection, p *field.Path) errors {
	var errs errors
	switch {
	case t.Name != nil && t.SignerName != nil, t.Name == nil && t.SignerName == nil:
		errs = append(errs, field.Invalid(p, t, "either name or signerName must be specified, but not both"))
	case t.Name != nil && t.LabelSelector != nil:
		errs = append(errs, field.Invalid(p.Child("labelSelector"), t.LabelSelector, "labelSelector must be unset if name is specified"))
	}
	errs = append(errs, need(p.Child("path"), t.Path, "")...)
	return append(errs, projectedPath(p.Child("path"), t.Path)...)
}

var volumeFields = []string{"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}

var envFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
	"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}

// podFields are the labels a downward reference may name at all.
var podFields = sets.New("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.restartPolicy",
	"spec.serviceAccountName", "spec.schedulerName", "status.phase", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")

// convertField translates a field path; subscripted tells that it had a ['key'].
func convertField(version, label string) (name, subscript string, subscripted bool, err error) {
	if version != "v1" {
		return "", "", false, fmt.Errorf("unsupported pod version: %s", version)
	}
	if rest, ok := strings.CutSuffix(label, "']"); ok {
		if name, key, found := strings.Cut(rest, "['"); found && name != "" {
			if name == "metadata.annotations" || name == "metadata.labels" {
				return name, key, true, nil
			}
			return "", "", true, fmt.Errorf("field label does not support subscript: %s", label)
		}
	}
	if label == "spec.host" {
		return "spec.nodeName", "", false, nil
	}
	if !podFields.Has(label) {
		return "", "", false, fmt.Errorf("field label not supported: %s", label)
	}
	return label, "", false, nil
}

func objectField(f *corev1.ObjectFieldSelector, supported []string, p *field.Path) errors {
	if f.APIVersion == "" {
		return errors{field.Required(p.Child("apiVersion"), "")}
	}
	if f.FieldPath == "" {
		return errors{field.Required(p.Child("fieldPath"), "")}
	}
	at := p.Child("fieldPath")
	name, key, subscripted, err := convertField(f.APIVersion, f.FieldPath)
	if err != nil {
		return errors{field.Invalid(at, f.FieldPath, fmt.Sprintf("error converting fieldPath: %v", err))}
	}
	if subscripted {
		if name == "metadata.annotations" {
			key = strings.ToLower(key)
		}
		return invalid(p, key, validation.IsQualifiedName(key))
	}
	for _, s := range supported {
		if s == name {
			return nil
		}
	}
	return errors{field.NotSupported(at, f.FieldPath, supported)}
}

var resourceFields = []string{"limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"}

func resourceField(r *corev1.ResourceFieldSelector, p *field.Path, volume bool) errors {
	if volume && r.ContainerName == "" {
		return errors{field.Required(p.Child("containerName"), "")}
	}
	if r.Resource == "" {
		return errors{field.Required(p.Child("resource"), "")}
	}
	if !contains(resourceFields, r.Resource) && !strings.HasPrefix(r.Resource, "requests.hugepages-") && !strings.HasPrefix(r.Resource, "limits.hugepages-") {
		return errors{field.NotSupported(p.Child("resource"), r.Resource, resourceFields)}
	}
	return divisor(r, p)
}

func divisor(r *corev1.ResourceFieldSelector, p *field.Path) errors {
	if r.Divisor.IsZero() {
		return nil
	}
	sizes := []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
	kind, allowed := "", sizes
	switch _, name, _ := strings.Cut(r.Resource, "."); {
	case name == "cpu":
		kind, allowed = "cpu", []string{"1m", "1"}
	case name == "memory":
		kind = "memory"
	case name == "ephemeral-storage":
		kind = "local ephemeral storage"
	default:
		kind = "hugepages"
	}
	if contains(allowed, r.Divisor.String()) {
		return nil
	}
	return errors{field.Invalid(p.Child("divisor"), kind, fmt.Sprintf("only divisor's values %s are supported with the %s resource", strings.Join(allowed, ", "), kind))}
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func csiDriverName(name string, p *field.Path) errors {
	if name == "" {
		return errors{field.Required(p, "")}
	}
	var errs errors
	if len(name) > 63 {
		errs = append(errs, field.TooLong(p, name, 63))
	}
	return append(errs, dnsSubdomain(p, strings.ToLower(name))...)
}

func absolute(v string) bool { return path.IsAbs(v) }
