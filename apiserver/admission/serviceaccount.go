package admission

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/util/rand"

	"karve/apiserver/authn"
	"karve/apiserver/authz"
)

const (
	defaultAccount    = "default"
	tokenMountPath    = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenVolumePrefix = "kube-api-access-"
	rootCAConfigMap   = "kube-root-ca.crt"
	enforceMountable  = "kubernetes.io/enforce-mountable-secrets"
)

// accounts gives every pod a service account, the account's image pull secrets, and its token as a mounted volume.
type accounts struct {
	all source[*corev1.ServiceAccount]
}

func serviceAccount(d Deps) Plugin {
	s := &accounts{from[*corev1.ServiceAccount](d.Caches)}
	return Plugin{Name: "ServiceAccount", Mutate: when(creates, s.admit, "", pods), Validate: when(writes, s.validate, "*", pods)}
}

func (s *accounts) admit(ctx context.Context, a *Attributes) error {
	pod, err := object[*corev1.Pod](a.Object, "pod")
	if err != nil {
		return err
	}
	if isMirror(pod) {
		return s.validate(ctx, a)
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = pod.Spec.DeprecatedServiceAccount // the older name of the same field
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = defaultAccount
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	sa, err := s.find(ctx, a, pod.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	if automount(sa, pod) {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = append([]corev1.LocalObjectReference(nil), sa.ImagePullSecrets...)
	}
	return s.check(a, pod, sa)
}

func (s *accounts) validate(ctx context.Context, a *Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Subresource != "" && a.Subresource != "ephemeralcontainers" {
		return nil
	}
	if isMirror(pod) {
		if a.Operation != Create {
			return nil
		}
		if pod.Spec.ServiceAccountName != "" {
			return a.forbidden("a mirror pod may not reference service accounts")
		}
		if usesAnySecret(pod) {
			return a.forbidden("a mirror pod may not reference secrets")
		}
		for i := range pod.Spec.Volumes {
			if p := pod.Spec.Volumes[i].Projected; p != nil {
				for j := range p.Sources {
					if p.Sources[j].ServiceAccountToken != nil {
						return a.forbidden("a mirror pod may not use ServiceAccountToken volume projections")
					}
				}
			}
		}
		return nil
	}
	if a.Operation == Update && a.Subresource == "" {
		return nil // what could matter cannot be changed
	}
	if pod.Spec.ServiceAccountName == "" {
		return a.forbidden("no service account specified for pod %s/%s", a.Namespace, pod.Name)
	}
	sa, err := s.find(ctx, a, pod.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	return s.check(a, pod, sa)
}

func (s *accounts) find(ctx context.Context, a *Attributes, name string) (*corev1.ServiceAccount, error) {
	if bad := path.IsValidPathSegmentName(name); len(bad) > 0 {
		return nil, a.forbidden("error looking up service account %s/%s: invalid resource name %q: %v", a.Namespace, name, name, bad)
	}
	sa, err := s.all.get(ctx, a.Namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, a.forbidden("error looking up service account %s/%s: %w", a.Namespace, name, apierrors.NewNotFound(core("serviceaccount"), name))
	}
	if err != nil {
		return nil, a.forbidden("error looking up service account %s/%s: %w", a.Namespace, name, err)
	}
	return sa, nil
}

func automount(sa *corev1.ServiceAccount, pod *corev1.Pod) bool {
	if v := pod.Spec.AutomountServiceAccountToken; v != nil {
		return *v
	}
	v := sa.AutomountServiceAccountToken
	return v == nil || *v
}

// mountToken mounts the token into every container that has nothing mounted at its place.
func mountToken(pod *corev1.Pod) {
	name := ""
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Projected != nil && strings.HasPrefix(v.Name, tokenVolumePrefix) {
			name = v.Name
			break
		}
	}
	have := name != ""
	if !have {
		name = tokenVolumePrefix + rand.String(5)
	}
	needed := false
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
	next:
		for i := range list {
			for j := range list[i].VolumeMounts {
				if list[i].VolumeMounts[j].MountPath == tokenMountPath {
					continue next
				}
			}
			list[i].VolumeMounts = append(list[i].VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenMountPath})
			needed = true
		}
	}
	if needed && !have {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: tokenVolume()}})
	}
}

func tokenVolume() *corev1.ProjectedVolumeSource {
	mode, seconds := int32(0o644), int64(authn.MountedTokenSeconds)
	return &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: &seconds, Path: "token"}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: rootCAConfigMap},
			Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}}}}},
	}}
}

// usesAnySecret reports whether a pod refers to any Secret at all.
func usesAnySecret(p *corev1.Pod) bool {
	found := false
	eachSecret(p, func(string, string) { found = true })
	return found
}

// eachSecret calls fn for the Secrets a pod refers to: the name, and the place in words ("" for volumes of other kinds
// than secret).
func eachSecret(p *corev1.Pod, fn func(name, where string)) {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		for _, s := range authz.VolumeSecrets(v) {
			where := ""
			if v.Secret != nil {
				where = "volume with"
			}
			fn(s, where)
		}
	}
	container := func(kind, name string, env []corev1.EnvVar, from []corev1.EnvFromSource) {
		for i := range env {
			if f := env[i].ValueFrom; f != nil && f.SecretKeyRef != nil {
				fn(f.SecretKeyRef.Name, kind+" "+name+" with envVar "+env[i].Name+" referencing")
			}
		}
		for i := range from {
			if from[i].SecretRef != nil {
				fn(from[i].SecretRef.Name, kind+" "+name+" with envFrom referencing")
			}
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		container("init container", c.Name, c.Env, c.EnvFrom)
	}
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		container("container", c.Name, c.Env, c.EnvFrom)
	}
	for i := range p.Spec.EphemeralContainers {
		c := &p.Spec.EphemeralContainers[i]
		container("ephemeral container", c.Name, c.Env, c.EnvFrom)
	}
	for i := range p.Spec.ImagePullSecrets {
		fn(p.Spec.ImagePullSecrets[i].Name, "imagePullSecrets")
	}
}

// check holds a pod to the Secrets its account lists, where the account demands that.
func (s *accounts) check(a *Attributes, pod *corev1.Pod, sa *corev1.ServiceAccount) error {
	if sa.Annotations[enforceMountable] != "true" {
		return nil
	}
	allowed, pull := map[string]bool{}, map[string]bool{}
	for i := range sa.Secrets {
		allowed[sa.Secrets[i].Name] = true
	}
	for i := range sa.ImagePullSecrets {
		pull[sa.ImagePullSecrets[i].Name] = true
	}
	var refused error
	n := -1
	eachSecret(pod, func(name, where string) {
		if where == "imagePullSecrets" {
			n++
			if !pull[name] && refused == nil {
				refused = a.forbidden("imagePullSecrets[%d].name=\"%s\" is not allowed because service account %s does not reference that imagePullSecret", n, name, sa.Name)
			}
			return
		}
		if where != "" && !allowed[name] && refused == nil {
			refused = a.forbidden("%s secret.secretName=\"%s\" is not allowed because service account %s does not reference that secret", where, name, sa.Name)
		}
	})
	return refused
}
