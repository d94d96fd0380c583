package admission

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authnv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/apiserver/authn"
	"karve/client"
)

func asNode(a *Attributes) *Attributes {
	a.User = &authn.User{Name: "system:node:n1", Groups: []string{"system:nodes"}}
	return a
}

// TestMirrorPodsReachNothing tries every way in which a pod that a node makes for itself could get at what the node may not
// read: the node would then be let at it, as its pods need it.
func TestMirrorPodsReachNothing(t *testing.T) {
	node := &corev1.Node{ObjectMeta: om("", "n1")}
	c := chain(t, nil, namespace("ns", nil), account("default"), node)
	volume := func(s corev1.VolumeSource) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: s}} }
	}
	projected := func(s corev1.VolumeProjection) func(*corev1.Pod) {
		return volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{s}}})
	}
	env := func(s *corev1.EnvVarSource) []corev1.EnvVar { return []corev1.EnvVar{{Name: "E", ValueFrom: s}} }
	const secrets, configmaps = "a mirror pod may not reference secrets", "can not create pods that reference configmaps"
	const claims, tokens = "can not create pods that reference persistentvolumeclaims", "can not create pods that reference tokens, trust bundles or pod certificates"
	for _, tc := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
	}{
		{"nothing", func(*corev1.Pod) {}, ""},
		{"what lies on the node", volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc"}}), ""},
		{"two owners", func(p *corev1.Pod) { p.OwnerReferences = append(p.OwnerReferences, p.OwnerReferences[0]) }, "can only create pods with a single owner reference set to itself"},
		{"another owner", func(p *corev1.Pod) { p.OwnerReferences[0].Name = "n2" }, "can only create pods with an owner reference set to itself"},
		{"an owner that is no controller", func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil }, "can only create pods with a controller owner reference set to itself"},
		{"an owner that cannot go", func(p *corev1.Pod) { p.OwnerReferences[0].BlockOwnerDeletion = ptr(true) }, "must not set blockOwnerDeletion on an owner reference"},
		{"an account", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "default" }, "a mirror pod may not reference service accounts"},
		{"a secret to pull with", func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}} }, secrets},
		{"a secret volume", volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}), secrets},
		{"a projected secret", projected(corev1.VolumeProjection{Secret: &corev1.SecretProjection{}}), secrets},
		{"a driver's secret", volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "d", NodePublishSecretRef: &corev1.LocalObjectReference{Name: "s"}}}), secrets},
		{"a secret in a variable", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Env: env(&corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{}})}}
		}, secrets},
		{"a secret of an ephemeral container", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{}}}}}}
		}, secrets},
		{"a configmap volume", volume(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}), configmaps},
		{"a projected configmap", projected(corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{}}), configmaps},
		{"a configmap in a variable", func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{Env: env(&corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{}})}}
		}, configmaps},
		{"a configmap of an ephemeral container", func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Env: env(&corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{}})}}}
		}, configmaps},
		{"a claim", volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}), claims},
		{"a claim of its own", volume(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), claims},
		{"a token", projected(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}), "a mirror pod may not use ServiceAccountToken volume projections"},
		{"a trust bundle", projected(corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}}), tokens},
		{"a certificate", projected(corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{}}), tokens},
		{"a device", func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}} }, "can not create pods that reference resourceclaims"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &corev1.Pod{ObjectMeta: om("ns", "m"), Spec: corev1.PodSpec{NodeName: "n1"}}
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "uid-1", Controller: ptr(true)}}
			tc.change(p)
			err := run(c, asNode(attrs(Create, "", p, nil)))
			if tc.want == "" {
				refused(t, err, "")
			} else if err == nil || !strings.HasPrefix(err.Error(), `pods "m" is forbidden: `) || !strings.HasSuffix(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// TestNodeChangesLittleOfAClaim checks what a node may write when it has made a volume larger, and nothing else.
func TestNodeChangesLittleOfAClaim(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: om("ns", "c"), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "v"}}
	claim.Status.Phase = corev1.ClaimBound
	c := chain(t, nil, namespace("ns", nil), claim)
	changed := func(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		n := claim.DeepCopy()
		change(n)
		return n
	}
	const only = `persistentvolumeclaims "c" is forbidden: node "n1" may not update fields other than status.capacity and status.conditions`
	for name, tc := range map[string]struct {
		a    *Attributes
		want string
	}{
		"size": {attrs(Update, "status", changed(func(c *corev1.PersistentVolumeClaim) {
			c.Status.Capacity = corev1.ResourceList{"storage": resource.MustParse("2Gi")}
			c.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: corev1.PersistentVolumeClaimResizing}}
		}), claim), ""},
		"phase":      {attrs(Update, "status", changed(func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimLost }), claim), only},
		"annotation": {attrs(Update, "status", changed(func(c *corev1.PersistentVolumeClaim) { c.Annotations = map[string]string{"a": "b"} }), claim), only},
		"volume":     {attrs(Update, "status", changed(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "w" }), claim), only},
		"the claim":  {attrs(Update, "", claim, claim), `persistentvolumeclaims "c" is forbidden: may only update PVC status`},
	} {
		t.Run(name, func(t *testing.T) { refused(t, run(c, asNode(tc.a)), tc.want) })
	}
}

// TestTokensForDrivers checks that a node gets a token for the audience that the driver of a pod's volume asks for, however the
// pod comes to the volume, and for no other.
func TestTokensForDrivers(t *testing.T) {
	pv := func(name, driver string) *corev1.PersistentVolume {
		v := &corev1.PersistentVolume{ObjectMeta: om("", name)}
		if driver != "" {
			v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver}
		}
		return v
	}
	pvc := func(name, volume string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: om("ns", name), Spec: corev1.PersistentVolumeClaimSpec{VolumeName: volume}}
	}
	driver := func(name, audience string) *storagev1.CSIDriver {
		return &storagev1.CSIDriver{ObjectMeta: om("", name), Spec: storagev1.CSIDriverSpec{TokenRequests: []storagev1.TokenRequest{{Audience: audience}}}}
	}
	pod := &corev1.Pod{ObjectMeta: om("ns", "p"), Spec: corev1.PodSpec{NodeName: "n1", Volumes: []corev1.Volume{
		{Name: "inline", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "inline.example"}}},
		{Name: "claimed", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}},
		{Name: "own", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
		{Name: "unbound", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "unbound"}}},
		{Name: "lost", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "lost"}}},
		{Name: "plain", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "plain"}}},
	}}}
	objs := []client.Object{namespace("ns", nil), account("default"), pod, driver("inline.example", "inline"), driver("claimed.example", "claimed"), driver("own.example", "own"), driver("idle.example", "idle"),
		pv("v", "claimed.example"), pv("w", "own.example"), pv("x", ""), pvc("claim", "v"), pvc("p-own", "w"), pvc("unbound", ""), pvc("lost", "gone"), pvc("plain", "x"), pvc("other", "y"), pv("y", "idle.example")}
	c := chain(t, nil, objs...)
	ask := func(audiences ...string) error {
		a := asNode(attrs(Create, "token", account("default"), nil))
		a.Object = &authnv1.TokenRequest{Spec: authnv1.TokenRequestSpec{Audiences: audiences, BoundObjectRef: &authnv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "uid-1"}}}
		return run(c, a)
	}
	for _, audience := range []string{"inline", "claimed", "own"} {
		refused(t, ask(audience), "")
	}
	if err := ask("idle"); err == nil || !strings.Contains(err.Error(), `audience "idle" not found in pod spec volume`) {
		t.Errorf("a driver that no volume of the pod has: %v", err)
	}
	if err := ask("inline", "own"); err == nil || !strings.Contains(err.Error(), "node may only request 0 or 1 audiences") {
		t.Errorf("two audiences: %v", err)
	}
}

func TestNodeDeletesItsOwnSlices(t *testing.T) {
	slice := func(on *string) *resourcev1.ResourceSlice {
		return &resourcev1.ResourceSlice{ObjectMeta: om("", "s"), Spec: resourcev1.ResourceSliceSpec{NodeName: on}}
	}
	mine, others, all := slice(ptr("n1")), slice(ptr("n2")), slice(nil)
	c := chain(t, nil, mine)
	const not = `resourceslices.resource.k8s.io "s" is forbidden: can only delete ResourceSlice with the same NodeName as the requesting node`
	refused(t, run(c, asNode(attrs(Delete, "", nil, mine))), "")
	refused(t, run(c, asNode(attrs(Delete, "", nil, others))), not)
	refused(t, run(c, asNode(attrs(Delete, "", nil, all))), not)
}

// TestPodSecurityOfTemplates checks that whoever makes pods of a template is warned when they would be refused, whatever
// the kind of the template, and not refused: the pods will be.
func TestPodSecurityOfTemplates(t *testing.T) {
	c := chain(t, nil, namespace("strict", map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}))
	loose := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	m := om("strict", "x")
	for _, o := range []client.Object{
		&corev1.PodTemplate{ObjectMeta: m, Template: loose},
		&corev1.ReplicationController{ObjectMeta: m, Spec: corev1.ReplicationControllerSpec{Template: &loose}},
		&appsv1.Deployment{ObjectMeta: m, Spec: appsv1.DeploymentSpec{Template: loose}},
		&appsv1.ReplicaSet{ObjectMeta: m, Spec: appsv1.ReplicaSetSpec{Template: loose}},
		&appsv1.StatefulSet{ObjectMeta: m, Spec: appsv1.StatefulSetSpec{Template: loose}},
		&appsv1.DaemonSet{ObjectMeta: m, Spec: appsv1.DaemonSetSpec{Template: loose}},
		&batchv1.Job{ObjectMeta: m, Spec: batchv1.JobSpec{Template: loose}},
		&batchv1.CronJob{ObjectMeta: m, Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: loose}}}},
	} {
		var warnings []string
		a := attrs(Create, "", o, nil)
		a.Warn = func(w string) { warnings = append(warnings, w) }
		refused(t, run(c, a), "")
		if len(warnings) != 1 || warnings[0] != `would violate PodSecurity "restricted:latest": `+restrictedDetail {
			t.Errorf("%T: %q", o, warnings)
		}
	}
	a := attrs(Create, "", &corev1.ReplicationController{ObjectMeta: m}, nil) // has no template yet
	a.Warn = func(w string) { t.Errorf("warned of nothing: %q", w) }
	refused(t, run(c, a), "")
}
