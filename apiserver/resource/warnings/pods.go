package warnings

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func podTemplate(at *field.Path, t *corev1.PodTemplateSpec) []string {
	return pod(at, &t.Annotations, &t.Spec)
}

// below appends to a path that may be the root.
func below(at *field.Path, name string) *field.Path {
	if at == nil {
		return field.NewPath(name)
	}
	return at.Child(name)
}

func pod(at *field.Path, annotations *map[string]string, s *corev1.PodSpec) []string {
	var out []string
	say := func(p *field.Path, format string, args ...any) {
		out = append(out, p.String()+": "+fmt.Sprintf(format, args...))
	}
	spec := below(at, "spec")
	selectors(spec, s, say)
	if _, set := (*annotations)[corev1.SeccompPodAnnotationKey]; set {
		say(below(at, "metadata").Child("annotations").Key(corev1.SeccompPodAnnotationKey), `non-functional in v1.27+; use the "seccompProfile" field instead`)
	}
	hosts := map[string]bool{}
	for i, h := range s.HostAliases {
		if hosts[h.IP] {
			say(spec.Child("hostAliases").Index(i).Child("ip"), "duplicate ip %q", h.IP)
		}
		hosts[h.IP] = true
	}
	for i := range s.Volumes {
		out = append(out, volume(spec.Child("volumes").Index(i), &s.Volumes[i])...)
	}
	pulls := map[string]bool{}
	for i, p := range s.ImagePullSecrets {
		name := spec.Child("imagePullSecrets").Index(i).Child("name")
		switch {
		case p.Name == "":
			say(name, "invalid empty name %q", "")
		case pulls[p.Name]:
			say(name, "duplicate name %q", p.Name)
		}
		pulls[p.Name] = true
	}
	for i := range s.InitContainers {
		container(spec.Child("initContainers").Index(i), &s.InitContainers[i], say)
	}
	for i := range s.Containers {
		container(spec.Child("containers").Index(i), &s.Containers[i], say)
	}
	if n := s.TerminationGracePeriodSeconds; n != nil && *n < 0 {
		say(spec.Child("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	return out
}

type sayer = func(p *field.Path, format string, args ...any)

// selectors tells of terms that can never match anything.
func selectors(spec *field.Path, s *corev1.PodSpec, say sayer) {
	nothing := func(p *field.Path, sel *metav1.LabelSelector) {
		if sel == nil {
			say(p.Child("labelSelector"), "a null labelSelector results in matching no pod")
		}
	}
	for i := range s.TopologySpreadConstraints {
		nothing(spec.Child("topologySpreadConstraints").Index(i), s.TopologySpreadConstraints[i].LabelSelector)
	}
	a := s.Affinity
	if a == nil {
		return
	}
	at := spec.Child("affinity")
	if a.NodeAffinity != nil {
		for i, t := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			expr := at.Child("nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference", "matchExpressions")
			for j, e := range t.Preference.MatchExpressions {
				for k, v := range e.Values {
					for _, why := range validation.IsValidLabelValue(v) {
						say(expr.Index(j).Child("values").Index(k), "%s is invalid, %s", v, why)
					}
				}
			}
		}
	}
	terms := func(p *field.Path, required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			nothing(p.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i), required[i].LabelSelector)
		}
		for i := range preferred {
			nothing(p.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("podAffinityTerm"), preferred[i].PodAffinityTerm.LabelSelector)
		}
	}
	if x := a.PodAffinity; x != nil {
		terms(at.Child("podAffinity"), x.RequiredDuringSchedulingIgnoredDuringExecution, x.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if x := a.PodAntiAffinity; x != nil {
		terms(at.Child("podAntiAffinity"), x.RequiredDuringSchedulingIgnoredDuringExecution, x.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

func container(at *field.Path, c *corev1.Container, say sayer) {
	names := map[string]bool{}
	for i, e := range c.Env {
		// A value that refers to the one before it is meant to come after it.
		if names[e.Name] && !strings.Contains(e.Value, "$("+e.Name+")") {
			say(at.Child("env").Index(i), "hides previous definition of %q, which may be dropped when using apply", e.Name)
		}
		names[e.Name] = true
	}
	type key struct {
		container, host int32
		ip              string
		protocol        corev1.Protocol
	}
	ports := map[key]int{}
	for i, p := range c.Ports {
		k := key{p.ContainerPort, p.HostPort, p.HostIP, p.Protocol}
		if first, again := ports[k]; again {
			say(at.Child("ports").Index(i), "duplicate port definition with %s", at.Child("ports").Index(first))
		} else {
			ports[k] = i
		}
		if p.HostIP != "" && p.HostPort == 0 {
			say(at.Child("ports").Index(i), "hostIP set without hostPort: %+v", p)
		}
	}
}

// dead lists the volumes that no node mounts any more.
var dead = []struct {
	name, text string
	set        func(*corev1.VolumeSource) bool
}{
	{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+", func(v *corev1.VolumeSource) bool { return v.PhotonPersistentDisk != nil }},
	{"gitRepo", "deprecated in v1.11, and disabled by default in v1.33+", func(v *corev1.VolumeSource) bool { return v.GitRepo != nil }},
	{"scaleIO", "deprecated in v1.16, non-functional in v1.22+", func(v *corev1.VolumeSource) bool { return v.ScaleIO != nil }},
	{"flocker", "deprecated in v1.22, non-functional in v1.25+", func(v *corev1.VolumeSource) bool { return v.Flocker != nil }},
	{"storageOS", "deprecated in v1.22, non-functional in v1.25+", func(v *corev1.VolumeSource) bool { return v.StorageOS != nil }},
	{"quobyte", "deprecated in v1.22, non-functional in v1.25+", func(v *corev1.VolumeSource) bool { return v.Quobyte != nil }},
	{"glusterfs", "deprecated in v1.25, non-functional in v1.26+", func(v *corev1.VolumeSource) bool { return v.Glusterfs != nil }},
	{"cephfs", "deprecated in v1.28, non-functional in v1.31+", func(v *corev1.VolumeSource) bool { return v.CephFS != nil }},
	{"rbd", "deprecated in v1.28, non-functional in v1.31+", func(v *corev1.VolumeSource) bool { return v.RBD != nil }},
}

func volume(at *field.Path, v *corev1.Volume) []string {
	var out []string
	for _, d := range dead {
		if d.set(&v.VolumeSource) {
			out = append(out, at.Child(d.name).String()+": "+d.text)
		}
	}
	if v.Projected != nil && len(v.Projected.Sources) == 0 {
		out = append(out, fmt.Sprintf("volume %q (Projected) has no sources provided", v.Name))
	}
	items := func(from string, list []corev1.KeyToPath) {
		paths := make([]string, len(list))
		for i := range list {
			paths[i] = list[i].Path
		}
		out = append(out, overlaps(v.Name, from, paths)...)
	}
	switch {
	case v.ConfigMap != nil:
		items(fmt.Sprintf("ConfigMap %q", v.ConfigMap.Name), v.ConfigMap.Items)
	case v.Secret != nil:
		items(fmt.Sprintf("Secret %q", v.Secret.SecretName), v.Secret.Items)
	case v.DownwardAPI != nil:
		paths := make([]string, len(v.DownwardAPI.Items))
		for i := range v.DownwardAPI.Items {
			paths[i] = v.DownwardAPI.Items[i].Path
		}
		out = append(out, overlaps(v.Name, "DownwardAPI", paths)...)
	}
	return out
}

// overlaps tells of files of a volume that hide each other.
func overlaps(name, from string, paths []string) []string {
	var hits []string
	for i, p := range paths {
		for _, q := range paths[:i] {
			a, b := path.Clean(p), path.Clean(q)
			if a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") {
				hits = append(hits, fmt.Sprintf("%q with %q", p, q))
			}
		}
	}
	if len(hits) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("volume %q (%s): overlapping paths: %s", name, from, strings.Join(hits, ", "))}
}
