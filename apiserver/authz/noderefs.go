package authz

import (
	corev1 "k8s.io/api/core/v1"
)

// ofNode calls fn with the pods bound to a node whose references count, until it returns true. Mirror pods count for
// nothing: a node makes them itself, so that they could claim anything.
func (n *Node) ofNode(node string, fn func(*corev1.Pod) bool) bool {
	for _, p := range n.pods.ByIndex(podsByNode, node) {
		if _, mirror := p.Annotations[mirrorPodMarker]; !mirror && fn(p) {
			return true
		}
	}
	return false
}

func (n *Node) inNamespace(node, ns string, fn func(*corev1.Pod) bool) bool {
	return n.ofNode(node, func(p *corev1.Pod) bool { return p.Namespace == ns && fn(p) })
}

func (n *Node) usesServiceAccount(node, ns, name string) bool {
	return n.inNamespace(node, ns, func(p *corev1.Pod) bool { return p.Spec.ServiceAccountName == name })
}

func (n *Node) usesClaim(node, ns, name string) bool {
	return n.inNamespace(node, ns, func(p *corev1.Pod) bool { return anyClaim(p, func(c string) bool { return c == name }) })
}

// anyClaim calls fn with the names of the claims a pod's volumes are, until it returns true.
func anyClaim(p *corev1.Pod, fn func(name string) bool) bool {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.PersistentVolumeClaim != nil && fn(v.PersistentVolumeClaim.ClaimName) || v.Ephemeral != nil && fn(p.Name+"-"+v.Name) {
			return true
		}
	}
	return false
}

// anyVolume calls fn with the volumes bound to the claims of a node's pods, until it returns true.
func (n *Node) anyVolume(node string, fn func(*corev1.PersistentVolume) bool) bool {
	return n.ofNode(node, func(p *corev1.Pod) bool {
		return anyClaim(p, func(name string) bool {
			c, ok := n.claims.Get(p.Namespace, name)
			if !ok || c.Spec.VolumeName == "" {
				return false
			}
			v, ok := n.volumes.Get("", c.Spec.VolumeName)
			// The volume has to name the claim too: a claim may name any volume.
			return ok && v.Spec.ClaimRef != nil && v.Spec.ClaimRef.Namespace == p.Namespace && v.Spec.ClaimRef.Name == name && fn(v)
		})
	})
}

func (n *Node) usesVolume(node, _, name string) bool {
	return n.anyVolume(node, func(v *corev1.PersistentVolume) bool { return v.Name == name })
}

func (n *Node) usesResourceClaim(node, ns, name string) bool {
	return n.inNamespace(node, ns, func(p *corev1.Pod) bool {
		for i := range p.Spec.ResourceClaims {
			if c := p.Spec.ResourceClaims[i].ResourceClaimName; c != nil && *c == name {
				return true
			}
		}
		for i := range p.Status.ResourceClaimStatuses {
			if c := p.Status.ResourceClaimStatuses[i].ResourceClaimName; c != nil && *c == name {
				return true
			}
		}
		x := p.Status.ExtendedResourceClaimStatus
		return x != nil && x.ResourceClaimName == name
	})
}

func (n *Node) usesConfigMap(node, ns, name string) bool {
	return n.inNamespace(node, ns, func(p *corev1.Pod) bool { return podUsesConfigMap(p, name) })
}

func podUsesConfigMap(p *corev1.Pod, name string) bool {
	if anyEnv(p, func(e corev1.EnvVarSource) bool { return e.ConfigMapKeyRef != nil && e.ConfigMapKeyRef.Name == name },
		func(e corev1.EnvFromSource) bool { return e.ConfigMapRef != nil && e.ConfigMapRef.Name == name }) {
		return true
	}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.ConfigMap != nil && v.ConfigMap.Name == name {
			return true
		}
		if v.Projected == nil {
			continue
		}
		for j := range v.Projected.Sources {
			if c := v.Projected.Sources[j].ConfigMap; c != nil && c.Name == name {
				return true
			}
		}
	}
	return false
}

// anyEnv calls var and from with what the environment of each of a pod's containers is taken from, until one is true.
func anyEnv(p *corev1.Pod, one func(corev1.EnvVarSource) bool, from func(corev1.EnvFromSource) bool) bool {
	container := func(env []corev1.EnvVar, envFrom []corev1.EnvFromSource) bool {
		for i := range env {
			if env[i].ValueFrom != nil && one(*env[i].ValueFrom) {
				return true
			}
		}
		for i := range envFrom {
			if from(envFrom[i]) {
				return true
			}
		}
		return false
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if container(list[i].Env, list[i].EnvFrom) {
				return true
			}
		}
	}
	for i := range p.Spec.EphemeralContainers {
		if container(p.Spec.EphemeralContainers[i].Env, p.Spec.EphemeralContainers[i].EnvFrom) {
			return true
		}
	}
	return false
}

func (n *Node) usesSecret(node, ns, name string) bool {
	if n.inNamespace(node, ns, func(p *corev1.Pod) bool { return PodUsesSecret(p, name) }) {
		return true
	}
	return n.anyVolume(node, func(v *corev1.PersistentVolume) bool { return volumeUsesSecret(v, ns, name) })
}

// PodUsesSecret reports whether a pod refers to a Secret of its namespace: for pulling images, in an environment, or in a
// volume.
func PodUsesSecret(p *corev1.Pod, name string) bool {
	for i := range p.Spec.ImagePullSecrets {
		if p.Spec.ImagePullSecrets[i].Name == name {
			return true
		}
	}
	if anyEnv(p, func(e corev1.EnvVarSource) bool { return e.SecretKeyRef != nil && e.SecretKeyRef.Name == name },
		func(e corev1.EnvFromSource) bool { return e.SecretRef != nil && e.SecretRef.Name == name }) {
		return true
	}
	for i := range p.Spec.Volumes {
		for _, s := range VolumeSecrets(&p.Spec.Volumes[i]) {
			if s == name {
				return true
			}
		}
	}
	return false
}

// VolumeSecrets returns the names of the Secrets a pod's volume refers to.
func VolumeSecrets(v *corev1.Volume) []string {
	var out []string
	local := func(r *corev1.LocalObjectReference) {
		if r != nil {
			out = append(out, r.Name)
		}
	}
	switch {
	case v.Secret != nil:
		out = append(out, v.Secret.SecretName)
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			if s := v.Projected.Sources[i].Secret; s != nil {
				out = append(out, s.Name)
			}
		}
	case v.CSI != nil:
		local(v.CSI.NodePublishSecretRef)
	case v.ISCSI != nil:
		local(v.ISCSI.SecretRef)
	case v.CephFS != nil:
		local(v.CephFS.SecretRef)
	case v.RBD != nil:
		local(v.RBD.SecretRef)
	case v.Cinder != nil:
		local(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		local(v.FlexVolume.SecretRef)
	case v.ScaleIO != nil:
		local(v.ScaleIO.SecretRef)
	case v.StorageOS != nil:
		local(v.StorageOS.SecretRef)
	case v.AzureFile != nil:
		out = append(out, v.AzureFile.SecretName)
	}
	return out
}

func volumeUsesSecret(v *corev1.PersistentVolume, ns, name string) bool {
	is := func(r *corev1.SecretReference) bool {
		if r == nil || r.Name != name {
			return false
		}
		return r.Namespace == ns || r.Namespace == "" && v.Spec.ClaimRef.Namespace == ns
	}
	s := &v.Spec.PersistentVolumeSource
	switch {
	case s.CSI != nil:
		return is(s.CSI.NodePublishSecretRef) || is(s.CSI.NodeStageSecretRef) || is(s.CSI.NodeExpandSecretRef)
	case s.ISCSI != nil:
		return is(s.ISCSI.SecretRef)
	case s.CephFS != nil:
		return is(s.CephFS.SecretRef)
	case s.RBD != nil:
		return is(s.RBD.SecretRef)
	case s.Cinder != nil:
		return is(s.Cinder.SecretRef)
	case s.FlexVolume != nil:
		return is(s.FlexVolume.SecretRef)
	case s.ScaleIO != nil:
		return is(s.ScaleIO.SecretRef)
	case s.AzureFile != nil:
		r := &corev1.SecretReference{Name: s.AzureFile.SecretName}
		if s.AzureFile.SecretNamespace != nil {
			r.Namespace = *s.AzureFile.SecretNamespace
		}
		return is(r)
	}
	return false
}
