package authz

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"

	"karve/client"
)

func ptr[T any](v T) *T { return &v }

func nodeObjects() []client.Object {
	local := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	pod := &corev1.Pod{ObjectMeta: meta("ns", "p"), Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "sa",
		ImagePullSecrets: []corev1.LocalObjectReference{local("pull")},
		Containers: []corev1.Container{{Name: "c",
			Env:     []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("env-secret")}}}},
			EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: local("env-cm")}}}}},
		ResourceClaims: []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: ptr("gpu-claim")}},
		Volumes: []corev1.Volume{
			{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "vol-secret"}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}},
			{Name: "liar", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "liar"}}},
			{Name: "e", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
			{Name: "pr", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: local("kube-root-ca.crt")}},
				{Secret: &corev1.SecretProjection{LocalObjectReference: local("projected")}}}}}},
		}}}
	mirror := &corev1.Pod{ObjectMeta: meta("ns", "static"), Spec: corev1.PodSpec{NodeName: "n1", ImagePullSecrets: []corev1.LocalObjectReference{local("stolen")}}}
	mirror.Annotations = map[string]string{mirrorPodMarker: "x"}
	elsewhere := &corev1.Pod{ObjectMeta: meta("ns", "q"), Spec: corev1.PodSpec{NodeName: "n2", ServiceAccountName: "other"}}
	pv := func(name, claim string) *corev1.PersistentVolume {
		v := &corev1.PersistentVolume{ObjectMeta: meta("", name)}
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "ns", Name: claim}
		v.Spec.CSI = &corev1.CSIPersistentVolumeSource{NodeStageSecretRef: &corev1.SecretReference{Namespace: "csi", Name: "stage-" + name}}
		return v
	}
	pvc := func(name, volume string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: meta("ns", name), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: volume}}
	}
	return []client.Object{pod, mirror, elsewhere, pv("pv1", "claim"), pv("pv2", "somebody-elses"), pvc("claim", "pv1"), pvc("liar", "pv2"),
		&storagev1.VolumeAttachment{ObjectMeta: meta("", "va1"), Spec: storagev1.VolumeAttachmentSpec{NodeName: "n1"}},
		&storagev1.VolumeAttachment{ObjectMeta: meta("", "va2"), Spec: storagev1.VolumeAttachmentSpec{NodeName: "n2"}},
		&resourcev1.ResourceSlice{ObjectMeta: meta("", "slice1"), Spec: resourcev1.ResourceSliceSpec{NodeName: ptr("n1")}},
	}
}

func TestNode(t *testing.T) {
	n, _, _ := serve(t, NewNode, nodeObjects()...)
	const none = "no relationship found between node 'n1' and this object"
	sel := func(a *Attributes, s string) *Attributes { a.FieldSelector = s; return a }
	for _, c := range []struct {
		name   string
		a      *Attributes
		reason string // "ok" to allow
	}{
		{"volume's secret", ask("get", "ns", "", "secrets", "", "vol-secret"), "ok"},
		{"watch it", ask("watch", "ns", "", "secrets", "", "vol-secret"), "ok"},
		{"write it", ask("update", "ns", "", "secrets", "", "vol-secret"), "can only read resources of this type"},
		{"environment's secret", ask("get", "ns", "", "secrets", "", "env-secret"), "ok"},
		{"pull secret", ask("get", "ns", "", "secrets", "", "pull"), "ok"},
		{"projected secret", ask("get", "ns", "", "secrets", "", "projected"), "ok"},
		{"secret of a volume's driver", ask("get", "csi", "", "secrets", "", "stage-pv1"), "ok"},
		{"secret of a volume a claim merely names", ask("get", "csi", "", "secrets", "", "stage-pv2"), none},
		{"other secret", ask("get", "ns", "", "secrets", "", "other"), none},
		{"secret of that name elsewhere", ask("get", "default", "", "secrets", "", "vol-secret"), none},
		{"secret only a mirror pod names", ask("get", "ns", "", "secrets", "", "stolen"), none},
		{"all secrets", ask("list", "ns", "", "secrets", "", ""), "No Object name found"},
		{"secrets everywhere", ask("list", "", "", "secrets", "", ""), "can only read namespaced object of this type"},
		{"root CA", ask("get", "ns", "", "configmaps", "", "kube-root-ca.crt"), "ok"},
		{"environment's configmap", ask("list", "ns", "", "configmaps", "", "env-cm"), "ok"},
		{"other configmap", ask("get", "ns", "", "configmaps", "", "x"), none},
		{"claim", ask("get", "ns", "", "persistentvolumeclaims", "", "claim"), "ok"},
		{"ephemeral claim", ask("get", "ns", "", "persistentvolumeclaims", "", "p-e"), "ok"},
		{"claim's status", ask("patch", "ns", "", "persistentvolumeclaims", "status", "claim"), "ok"},
		{"change claim", ask("update", "ns", "", "persistentvolumeclaims", "", "claim"), "can only get individual resources of this type"},
		{"volume", ask("get", "", "", "persistentvolumes", "", "pv1"), "ok"},
		{"other volume", ask("get", "", "", "persistentvolumes", "", "pv2"), none},
		{"resource claim", ask("get", "ns", "resource.k8s.io", "resourceclaims", "", "gpu-claim"), "ok"},
		{"attachment", ask("get", "", "storage.k8s.io", "volumeattachments", "", "va1"), "ok"},
		{"other attachment", ask("get", "", "storage.k8s.io", "volumeattachments", "", "va2"), none},
		{"token", ask("create", "ns", "", "serviceaccounts", "token", "sa"), "ok"},
		{"other token", ask("create", "ns", "", "serviceaccounts", "token", "other"), none},
		{"delete account", ask("delete", "ns", "", "serviceaccounts", "", "sa"), "can only get individual resources of this type"},
		{"own lease", ask("update", "kube-node-lease", "coordination.k8s.io", "leases", "", "n1"), "ok"},
		{"new lease", ask("create", "kube-node-lease", "coordination.k8s.io", "leases", "", ""), "ok"},
		{"other lease", ask("get", "kube-node-lease", "coordination.k8s.io", "leases", "", "n2"), "can only access node lease with the same name as the requesting node"},
		{"lease elsewhere", ask("get", "kube-system", "coordination.k8s.io", "leases", "", "n1"), `can only access leases in the "kube-node-lease" system namespace`},
		{"own node", ask("get", "", "", "nodes", "", "n1"), "ok"},
		{"watch own node", sel(ask("watch", "", "", "nodes", "", ""), "metadata.name=n1"), "ok"},
		{"own node's status", ask("patch", "", "", "nodes", "status", "n1"), "ok"},
		{"other node", ask("get", "", "", "nodes", "", "n2"), "node 'n1' cannot read 'n2', only its own Node object"},
		{"all nodes", ask("list", "", "", "nodes", "", ""), "node 'n1' cannot read all nodes, only its own Node object"},
		{"delete node", ask("delete", "", "", "nodes", "", "n1"), ""},
		{"own pods", sel(ask("list", "", "", "pods", "", ""), "spec.nodeName=n1"), "ok"},
		{"others' pods", sel(ask("watch", "", "", "pods", "", ""), "spec.nodeName=n2"), "can only list/watch pods with spec.nodeName field selector"},
		{"all but", sel(ask("list", "", "", "pods", "", ""), "spec.nodeName!=n1"), "can only list/watch pods with spec.nodeName field selector"},
		{"all pods", ask("list", "", "", "pods", "", ""), "can only list/watch pods with spec.nodeName field selector"},
		{"own pod", ask("get", "ns", "", "pods", "", "p"), "ok"},
		{"other pod", ask("get", "ns", "", "pods", "", "q"), none},
		{"pod status", ask("patch", "ns", "", "pods", "status", "q"), "ok"}, // admission looks further
		{"exec", ask("create", "ns", "", "pods", "exec", "p"), ""},
		{"csinode", ask("update", "", "storage.k8s.io", "csinodes", "", "n1"), "ok"},
		{"other csinode", ask("get", "", "storage.k8s.io", "csinodes", "", "n2"), "can only access CSINode with the same name as the requesting node"},
		{"slice", ask("update", "", "resource.k8s.io", "resourceslices", "", "slice1"), "ok"},
		{"other slice", ask("delete", "", "resource.k8s.io", "resourceslices", "", "slice2"), none},
		{"own slices", sel(ask("deletecollection", "", "resource.k8s.io", "resourceslices", "", ""), "spec.nodeName=n1"), "ok"},
		{"all slices", ask("list", "", "resource.k8s.io", "resourceslices", "", ""), "can only list/watch/deletecollection resourceslices with spec.nodeName field selector"},
		{"services", ask("list", "", "", "services", "", ""), "ok"},
		{"event", ask("create", "ns", "", "events", "", ""), "ok"},
		{"deployments", ask("list", "", "apps", "deployments", "", ""), ""},
		{"path", &Attributes{Verb: "get", Path: "/metrics"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := *c.a
			a.User = user("system:node:n1", "system:nodes")
			d, reason, err := n.Authorize(context.Background(), &a)
			if c.reason == "ok" {
				if d != Allow || err != nil {
					t.Errorf("got %v %q %v", d, reason, err)
				}
				return
			}
			if d != NoOpinion || reason != c.reason || err != nil {
				t.Errorf("got %v %q %v, want %q", d, reason, err, c.reason)
			}
			a.User = user("system:node:n1") // not in the group: not a node
			if d, reason, _ := n.Authorize(context.Background(), &a); d != NoOpinion || reason != "" {
				t.Errorf("no node, yet %v %q", d, reason)
			}
		})
	}
}
