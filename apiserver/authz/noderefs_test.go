package authz

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestVolumeSecrets checks that the Secret of every sort of volume is found: a node has to read it, and no other may.
func TestVolumeSecrets(t *testing.T) {
	local := &corev1.LocalObjectReference{Name: "s"}
	for name, v := range map[string]corev1.VolumeSource{
		"secret":    {Secret: &corev1.SecretVolumeSource{SecretName: "s"}},
		"csi":       {CSI: &corev1.CSIVolumeSource{NodePublishSecretRef: local}},
		"iscsi":     {ISCSI: &corev1.ISCSIVolumeSource{SecretRef: local}},
		"cephfs":    {CephFS: &corev1.CephFSVolumeSource{SecretRef: local}},
		"rbd":       {RBD: &corev1.RBDVolumeSource{SecretRef: local}},
		"cinder":    {Cinder: &corev1.CinderVolumeSource{SecretRef: local}},
		"flex":      {FlexVolume: &corev1.FlexVolumeSource{SecretRef: local}},
		"scaleio":   {ScaleIO: &corev1.ScaleIOVolumeSource{SecretRef: local}},
		"storageos": {StorageOS: &corev1.StorageOSVolumeSource{SecretRef: local}},
		"azure":     {AzureFile: &corev1.AzureFileVolumeSource{SecretName: "s"}},
		"projected": {Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{}}, {Secret: &corev1.SecretProjection{LocalObjectReference: *local}}}}},
	} {
		if got := VolumeSecrets(&corev1.Volume{VolumeSource: v}); !slices.Equal(got, []string{"s"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
	for name, v := range map[string]corev1.VolumeSource{
		"csi without": {CSI: &corev1.CSIVolumeSource{}}, "rbd without": {RBD: &corev1.RBDVolumeSource{}}, "empty": {EmptyDir: &corev1.EmptyDirVolumeSource{}},
	} {
		if got := VolumeSecrets(&corev1.Volume{VolumeSource: v}); len(got) != 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestVolumeUsesSecret does the same for persistent volumes, whose Secrets lie in a namespace they name, or in their claim's.
func TestVolumeUsesSecret(t *testing.T) {
	at := &corev1.SecretReference{Name: "s", Namespace: "vault"}
	here := &corev1.SecretReference{Name: "s"}
	for _, c := range []struct {
		name   string
		source corev1.PersistentVolumeSource
		ns     string
	}{
		{"csi publish", corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{NodePublishSecretRef: at}}, "vault"},
		{"csi stage", corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{NodeStageSecretRef: at}}, "vault"},
		{"csi expand", corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{NodeExpandSecretRef: at}}, "vault"},
		{"iscsi", corev1.PersistentVolumeSource{ISCSI: &corev1.ISCSIPersistentVolumeSource{SecretRef: at}}, "vault"},
		{"cephfs", corev1.PersistentVolumeSource{CephFS: &corev1.CephFSPersistentVolumeSource{SecretRef: here}}, "claims"},
		{"rbd", corev1.PersistentVolumeSource{RBD: &corev1.RBDPersistentVolumeSource{SecretRef: here}}, "claims"},
		{"cinder", corev1.PersistentVolumeSource{Cinder: &corev1.CinderPersistentVolumeSource{SecretRef: at}}, "vault"},
		{"flex", corev1.PersistentVolumeSource{FlexVolume: &corev1.FlexPersistentVolumeSource{SecretRef: at}}, "vault"},
		{"scaleio", corev1.PersistentVolumeSource{ScaleIO: &corev1.ScaleIOPersistentVolumeSource{SecretRef: at}}, "vault"},
		{"azure", corev1.PersistentVolumeSource{AzureFile: &corev1.AzureFilePersistentVolumeSource{SecretName: "s", SecretNamespace: ptr("vault")}}, "vault"},
		{"azure, the claim's", corev1.PersistentVolumeSource{AzureFile: &corev1.AzureFilePersistentVolumeSource{SecretName: "s"}}, "claims"},
	} {
		v := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: c.source, ClaimRef: &corev1.ObjectReference{Namespace: "claims", Name: "c"}}}
		for _, ns := range []string{"vault", "claims", "other"} {
			if got := volumeUsesSecret(v, ns, "s"); got != (ns == c.ns) {
				t.Errorf("%s: a Secret in %s: %v", c.name, ns, got)
			}
		}
		if volumeUsesSecret(v, c.ns, "t") {
			t.Errorf("%s: another Secret", c.name)
		}
	}
	if volumeUsesSecret(&corev1.PersistentVolume{}, "ns", "s") {
		t.Error("a volume of no sort has a Secret")
	}
}

// TestNodeAndDevices checks that a node reads the device claims of its pods, wherever the pod names them.
func TestNodeAndDevices(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: meta("ns", "p"), Spec: corev1.PodSpec{NodeName: "n1", ResourceClaims: []corev1.PodResourceClaim{{Name: "a", ResourceClaimName: ptr("by-spec")}, {Name: "b", ResourceClaimTemplateName: ptr("t")}}}}
	pod.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "b", ResourceClaimName: ptr("by-template")}, {Name: "c"}}
	pod.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "by-request"}
	other := &corev1.Pod{ObjectMeta: meta("ns", "q"), Spec: corev1.PodSpec{NodeName: "n2", ResourceClaims: []corev1.PodResourceClaim{{Name: "a", ResourceClaimName: ptr("others")}}}}
	n, _, _ := serve(t, NewNode, pod, other)
	for name, want := range map[string]bool{"by-spec": true, "by-template": true, "by-request": true, "others": false, "t": false, "": false} {
		a := ask("get", "ns", "resource.k8s.io", "resourceclaims", "", name)
		a.User = user("system:node:n1", "system:nodes")
		if d, _, err := n.Authorize(t.Context(), a); (d == Allow) != want || err != nil {
			t.Errorf("%q: %v %v", name, d, err)
		}
	}
}
