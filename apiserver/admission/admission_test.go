package admission

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	certv1 "k8s.io/api/certificates/v1"
	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"karve/api"
	"karve/apiserver/authn"
	"karve/client"
)

func ptr[T any](v T) *T { return &v }

func om(ns, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name, UID: "uid-" + "1"}
}

func namespace(name string, labels map[string]string) *corev1.Namespace {
	m := om("", name)
	m.Labels = labels
	return &corev1.Namespace{ObjectMeta: m, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}}
}

func account(name string, change ...func(*corev1.ServiceAccount)) *corev1.ServiceAccount {
	sa := &corev1.ServiceAccount{ObjectMeta: om("ns", name)}
	for _, c := range change {
		c(sa)
	}
	return sa
}

// parse reads an object from YAML, with no defaults.
func parse[T runtime.Object](t *testing.T, o T, text string) T {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), o); err != nil {
		t.Fatal(err)
	}
	return o
}

func attrs(op Operation, sub string, obj, old client.Object) *Attributes {
	a := &Attributes{Operation: op, Subresource: sub, User: &authn.User{Name: "admin", Groups: []string{"system:masters"}}}
	if obj != nil {
		a.Object, a.Row, a.Namespace, a.Name = obj, api.Of(obj), obj.GetNamespace(), obj.GetName()
	}
	if old != nil {
		a.Old, a.Row, a.Namespace, a.Name = old, api.Of(old), old.GetNamespace(), old.GetName()
	}
	return a
}

func run(c Chain, a *Attributes) error {
	if err := c.Admit(context.Background(), a); err != nil {
		return err
	}
	return c.Validate(context.Background(), a)
}

func refused(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestPodMadeWhole(t *testing.T) {
	c := chain(t, nil, namespace("ns", nil), account("default"))
	pod := parse(t, &corev1.Pod{}, `
metadata: {namespace: ns, name: p}
spec:
  initContainers: [{name: i, volumeMounts: [{name: own, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]}]
  containers: [{name: c}]`)
	if err := run(c, attrs(Create, "", pod, nil)); err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.Volumes) != 1 {
		t.Fatalf("volumes %+v", pod.Spec.Volumes)
	}
	name := pod.Spec.Volumes[0].Name
	if !regexp.MustCompile(`^kube-api-access-[a-z0-9]{5}$`).MatchString(name) {
		t.Errorf("volume %q", name)
	}
	got, err := yaml.Marshal(pod.Spec)
	if err != nil {
		t.Fatal(err)
	}
	want := `containers:
- name: c
  resources: {}
  volumeMounts:
  - mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    name: VOLUME
    readOnly: true
initContainers:
- name: i
  resources: {}
  volumeMounts:
  - mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    name: own
preemptionPolicy: PreemptLowerPriority
priority: 0
serviceAccount: default
serviceAccountName: default
tolerations:
- effect: NoExecute
  key: node.kubernetes.io/not-ready
  operator: Exists
  tolerationSeconds: 300
- effect: NoExecute
  key: node.kubernetes.io/unreachable
  operator: Exists
  tolerationSeconds: 300
volumes:
- name: VOLUME
  projected:
    defaultMode: 420
    sources:
    - serviceAccountToken:
        expirationSeconds: 3607
        path: token
    - configMap:
        items:
        - key: ca.crt
          path: ca.crt
        name: kube-root-ca.crt
    - downwardAPI:
        items:
        - fieldRef:
            apiVersion: v1
            fieldPath: metadata.namespace
          path: namespace
`
	if s := strings.ReplaceAll(string(got), name, "VOLUME"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	again := pod.DeepCopy()
	if err := run(c, attrs(Update, "", again, pod)); err != nil || !reflect.DeepEqual(again, pod) {
		t.Errorf("an update changes the pod (%v)", err)
	}
}

func TestServiceAccount(t *testing.T) {
	off := func(sa *corev1.ServiceAccount) { sa.AutomountServiceAccountToken = ptr(false) }
	c := chain(t, []client.Object{account("fresh", off)}, namespace("ns", nil), account("default"),
		account("quiet", off, func(sa *corev1.ServiceAccount) {
			sa.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "regcred"}}
		}),
		account("strict", off, func(sa *corev1.ServiceAccount) {
			sa.Annotations = map[string]string{enforceMountable: "true"}
			sa.Secrets = []corev1.ObjectReference{{Name: "allowed"}}
		}))
	for name, tc := range map[string]struct {
		spec, annotations string
		want              string
		check             func(*corev1.Pod) bool
	}{
		"none there": {"serviceAccountName: none", "", `pods "p" is forbidden: error looking up service account ns/none: serviceaccount "none" not found`, nil},
		"no name":    {"serviceAccountName: Not_Valid/!", "", `pods "p" is forbidden: error looking up service account ns/Not_Valid/!: invalid resource name "Not_Valid/!": [may not contain '/']`, nil},
		"just made":  {"serviceAccountName: fresh", "", "", func(p *corev1.Pod) bool { return p.Spec.ServiceAccountName == "fresh" }},
		"no automount": {"serviceAccountName: quiet", "", "", func(p *corev1.Pod) bool {
			return len(p.Spec.Volumes) == 0 && p.Spec.ImagePullSecrets[0].Name == "regcred"
		}},
		"older field": {"serviceAccount: quiet", "", "", func(p *corev1.Pod) bool { return p.Spec.ServiceAccountName == "quiet" }},
		"own pull secrets": {"{serviceAccountName: quiet, imagePullSecrets: [{name: mine}]}", "", "", func(p *corev1.Pod) bool {
			return len(p.Spec.ImagePullSecrets) == 1 && p.Spec.ImagePullSecrets[0].Name == "mine"
		}},
		"pod says automount":  {"{serviceAccountName: quiet, automountServiceAccountToken: true, containers: [{name: c}]}", "", "", func(p *corev1.Pod) bool { return len(p.Spec.Volumes) == 1 }},
		"strict, other":       {`{serviceAccountName: strict, volumes: [{name: s, secret: {secretName: other}}]}`, "", `pods "p" is forbidden: volume with secret.secretName="other" is not allowed because service account strict does not reference that secret`, nil},
		"strict, environment": {`{serviceAccountName: strict, containers: [{name: c, env: [{name: E, valueFrom: {secretKeyRef: {name: other, key: k}}}]}]}`, "", `pods "p" is forbidden: container c with envVar E referencing secret.secretName="other" is not allowed because service account strict does not reference that secret`, nil},
		"strict, pull":        {`{serviceAccountName: strict, imagePullSecrets: [{name: x}]}`, "", `pods "p" is forbidden: imagePullSecrets[0].name="x" is not allowed because service account strict does not reference that imagePullSecret`, nil},
		"strict, allowed":     {`{serviceAccountName: strict, volumes: [{name: s, secret: {secretName: allowed}}]}`, "", "", func(*corev1.Pod) bool { return true }},
		"mirror":              {"nodeName: n", "{kubernetes.io/config.mirror: x}", "", func(p *corev1.Pod) bool { return p.Spec.ServiceAccountName == "" && len(p.Spec.Volumes) == 0 }},
		"mirror with account": {"serviceAccountName: quiet", "{kubernetes.io/config.mirror: x}", `pods "p" is forbidden: a mirror pod may not reference service accounts`, nil},
		"mirror with secret":  {"volumes: [{name: s, secret: {secretName: x}}]", "{kubernetes.io/config.mirror: x}", `pods "p" is forbidden: a mirror pod may not reference secrets`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: om("ns", "p")}
			if err := yaml.UnmarshalStrict([]byte(tc.spec), &pod.Spec); err != nil {
				t.Fatal(err)
			}
			if err := yaml.UnmarshalStrict([]byte(tc.annotations), &pod.Annotations); err != nil {
				t.Fatal(err)
			}
			refused(t, run(c, attrs(Create, "", pod, nil)), tc.want)
			if tc.check != nil && !tc.check(pod) {
				t.Errorf("%+v", pod.Spec)
			}
		})
	}
}

func TestNamespaceLifecycle(t *testing.T) {
	going := namespace("going", nil)
	going.DeletionTimestamp, going.Status.Phase = ptr(metav1.Now()), corev1.NamespaceTerminating
	soon := namespace("soon", nil)
	soonGoing := going.DeepCopy()
	soonGoing.Name = "soon"
	c := chain(t, []client.Object{namespace("fresh", nil), soonGoing}, namespace("ns", nil), going, soon)
	cm := func(ns string) *corev1.ConfigMap { return &corev1.ConfigMap{ObjectMeta: om(ns, "b")} }
	term := func(ns string) string {
		return `configmaps "b" is forbidden: unable to create new content in namespace ` + ns + ` because it is being terminated`
	}
	for _, tc := range []struct {
		name string
		a    *Attributes
		want string
	}{
		{"there", attrs(Create, "", cm("ns"), nil), ""},
		{"just made", attrs(Create, "", cm("fresh"), nil), ""},
		{"not there", attrs(Create, "", cm("none"), nil), `namespaces "none" not found`},
		{"update where not there", attrs(Update, "", cm("none"), cm("none")), `namespaces "none" not found`},
		{"going", attrs(Create, "", cm("going"), nil), term("going")},
		{"update in going", attrs(Update, "", cm("going"), cm("going")), ""},
		{"delete in going", attrs(Delete, "", nil, cm("going")), ""},
		{"delete default", attrs(Delete, "", nil, namespace("default", nil)), `namespaces "default" is forbidden: this namespace may not be deleted`},
		{"before its deletion", attrs(Create, "", cm("soon"), nil), ""},
		{"its deletion", attrs(Delete, "", nil, soon), ""},
		{"after its deletion, cache unaware", attrs(Create, "", cm("soon"), nil), term("soon")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := run(c, tc.a)
			refused(t, err, tc.want)
			if strings.Contains(tc.want, "terminated") && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				t.Error("the cause is missing")
			}
		})
	}
}

func TestPriorityRuntimeAndTolerations(t *testing.T) {
	never := corev1.PreemptNever
	fixed := &nodev1.Overhead{PodFixed: corev1.ResourceList{"cpu": resource.MustParse("250m")}}
	c := chain(t, nil, namespace("ns", nil), account("default"),
		&schedv1.PriorityClass{ObjectMeta: om("", "high"), Value: 1000, PreemptionPolicy: &never},
		&schedv1.PriorityClass{ObjectMeta: om("", "usual"), Value: 7, GlobalDefault: true},
		&nodev1.RuntimeClass{ObjectMeta: om("", "gvisor"), Overhead: fixed, Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{"runtime": "gvisor"},
			Tolerations: []corev1.Toleration{{Key: "gvisor", Operator: "Exists"}}}})
	tolerations := func(p *corev1.Pod) int { return len(p.Spec.Tolerations) }
	for name, tc := range map[string]struct {
		spec, want string
		check      func(*corev1.Pod) bool
	}{
		"default class": {"{}", "", func(p *corev1.Pod) bool { return *p.Spec.Priority == 7 && p.Spec.PriorityClassName == "usual" }},
		"class":         {"priorityClassName: high", "", func(p *corev1.Pod) bool { return *p.Spec.Priority == 1000 && *p.Spec.PreemptionPolicy == never }},
		"system class":  {"priorityClassName: system-node-critical", "", func(p *corev1.Pod) bool { return *p.Spec.Priority == 2000001000 }},
		"no such class": {"priorityClassName: nope", `pods "p" is forbidden: no PriorityClass with name nope was found`, nil},
		"own number":    {"{priorityClassName: high, priority: 5}", `pods "p" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 1000 from the given PriorityClass name`, nil},
		"same number":   {"{priorityClassName: high, priority: 1000}", "", func(*corev1.Pod) bool { return true }},
		"own policy":    {"{priorityClassName: usual, preemptionPolicy: Never}", `pods "p" is forbidden: the string value of PreemptionPolicy (Never) must not be provided in pod spec; priority admission controller computed PreemptLowerPriority from the given PriorityClass name`, nil},
		"runtime": {"runtimeClassName: gvisor", "", func(p *corev1.Pod) bool {
			return p.Spec.Overhead.Cpu().MilliValue() == 250 && p.Spec.NodeSelector["runtime"] == "gvisor" && tolerations(p) == 3
		}},
		"same overhead":     {"{runtimeClassName: gvisor, overhead: {cpu: 250m}}", "", func(*corev1.Pod) bool { return true }},
		"other overhead":    {"{runtimeClassName: gvisor, overhead: {cpu: 1}}", `pods "p" is forbidden: pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead`, nil},
		"overhead alone":    {"overhead: {cpu: 1}", `pods "p" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead`, nil},
		"no runtime":        {"runtimeClassName: nope", `pods "p" is forbidden: pod rejected: RuntimeClass "nope" not found`, nil},
		"selector conflict": {"{runtimeClassName: gvisor, nodeSelector: {runtime: kata}}", `pods "p" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[runtime] = gvisor; pod.spec.nodeSelector[runtime] = kata`, nil},
		"own toleration":    {"tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]", "", func(p *corev1.Pod) bool { return tolerations(p) == 2 && *p.Spec.Tolerations[0].TolerationSeconds == 5 }},
		"tolerates all":     {"tolerations: [{operator: Exists}]", "", func(p *corev1.Pod) bool { return tolerations(p) == 1 }},
		"another effect":    {"tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoSchedule}]", "", func(p *corev1.Pod) bool { return tolerations(p) == 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: om("ns", "p")}
			if err := yaml.UnmarshalStrict([]byte(tc.spec), &pod.Spec); err != nil {
				t.Fatal(err)
			}
			refused(t, run(c, attrs(Create, "", pod, nil)), tc.want)
			if tc.check != nil && !tc.check(pod) {
				t.Errorf("%+v", pod.Spec)
			}
		})
	}
	second := &schedv1.PriorityClass{ObjectMeta: om("", "another"), GlobalDefault: true}
	refused(t, run(c, attrs(Create, "", second, nil)), `priorityclasses.scheduling.k8s.io "another" is forbidden: PriorityClass usual is already marked as default. Only one default can exist`)
}

func TestStorageAndIngress(t *testing.T) {
	class := func(name string, age time.Duration, grow bool) *storagev1.StorageClass {
		m := om("", name)
		m.CreationTimestamp = metav1.NewTime(time.Unix(1e9, 0).Add(-age))
		m.Annotations = map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}
		return &storagev1.StorageClass{ObjectMeta: m, AllowVolumeExpansion: &grow}
	}
	ic := &netv1.IngressClass{ObjectMeta: om("", "web")}
	ic.Annotations = map[string]string{netv1.AnnotationIsDefaultIngressClass: "true"}
	c := chain(t, nil, namespace("ns", nil), class("old", time.Hour, false), class("new", 0, true), ic)
	claim := func(class *string, size string, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
		p := &corev1.PersistentVolumeClaim{ObjectMeta: om("ns", "v"), Status: corev1.PersistentVolumeClaimStatus{Phase: phase}}
		p.Spec.StorageClassName, p.Spec.Resources.Requests = class, corev1.ResourceList{"storage": resource.MustParse(size)}
		return p
	}
	p := claim(nil, "1Gi", "")
	refused(t, run(c, attrs(Create, "", p, nil)), "")
	if p.Spec.StorageClassName == nil || *p.Spec.StorageClassName != "new" || !reflect.DeepEqual(p.Finalizers, []string{"kubernetes.io/pvc-protection"}) {
		t.Errorf("claim %+v %v", p.Spec, p.Finalizers)
	}
	p = claim(ptr(""), "1Gi", "")
	refused(t, run(c, attrs(Create, "", p, nil)), "")
	if *p.Spec.StorageClassName != "" {
		t.Error("no class, on purpose, became one")
	}
	pv := &corev1.PersistentVolume{ObjectMeta: om("", "pv")}
	pv.Finalizers = []string{"example.com/x"}
	refused(t, run(c, attrs(Create, "", pv, nil)), "")
	if !reflect.DeepEqual(pv.Finalizers, []string{"example.com/x", "kubernetes.io/pv-protection"}) {
		t.Errorf("volume %v", pv.Finalizers)
	}
	const fixed = `persistentvolumeclaims "v" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize`
	refused(t, run(c, attrs(Update, "", claim(ptr("new"), "2Gi", "Bound"), claim(ptr("new"), "1Gi", "Bound"))), "")
	refused(t, run(c, attrs(Update, "", claim(ptr("old"), "2Gi", "Bound"), claim(ptr("old"), "1Gi", "Bound"))), fixed)
	refused(t, run(c, attrs(Update, "", claim(nil, "2Gi", "Bound"), claim(nil, "1Gi", "Bound"))), fixed)
	refused(t, run(c, attrs(Update, "", claim(ptr("old"), "1Gi", "Bound"), claim(ptr("old"), "1Gi", "Bound"))), "")
	ing := &netv1.Ingress{ObjectMeta: om("ns", "i")}
	refused(t, run(c, attrs(Create, "", ing, nil)), "")
	if ing.Spec.IngressClassName == nil || *ing.Spec.IngressClassName != "web" {
		t.Errorf("ingress %+v", ing.Spec)
	}
	node := &corev1.Node{ObjectMeta: om("", "n")}
	for range 2 {
		refused(t, run(c, attrs(Create, "", node, nil)), "")
		if !reflect.DeepEqual(node.Spec.Taints, []corev1.Taint{{Key: "node.kubernetes.io/not-ready", Effect: "NoSchedule"}}) {
			t.Errorf("node %+v", node.Spec.Taints)
		}
	}
}

func TestPodTopologyLabels(t *testing.T) {
	n := &corev1.Node{ObjectMeta: om("", "n")}
	n.Labels = map[string]string{corev1.LabelTopologyZone: "z", "other": "x"}
	c := chain(t, nil, namespace("ns", nil), n)
	b := &corev1.Binding{ObjectMeta: om("ns", "p"), Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	a := attrs(Create, "binding", &corev1.Pod{ObjectMeta: om("ns", "p")}, nil)
	a.Object = b
	refused(t, run(c, a), "")
	if !reflect.DeepEqual(b.Labels, map[string]string{corev1.LabelTopologyZone: "z"}) {
		t.Errorf("%v", b.Labels)
	}
}

const restrictedDetail = `allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")`

func TestPodSecurity(t *testing.T) {
	enforce, warn := "pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/warn"
	loose := &corev1.Pod{ObjectMeta: om("free", "a"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	off := func(ns string) *corev1.ServiceAccount {
		return &corev1.ServiceAccount{ObjectMeta: om(ns, "default"), AutomountServiceAccountToken: ptr(false)}
	}
	c := chain(t, nil, namespace("strict", map[string]string{enforce: "restricted"}), namespace("warned", map[string]string{warn: "restricted"}), namespace("free", nil),
		off("strict"), off("warned"), off("free"), loose)
	var warnings []string
	do := func(a *Attributes) error {
		warnings = nil
		a.Warn = func(w string) { warnings = append(warnings, w) }
		return run(c, a)
	}
	pod := func(ns string) *corev1.Pod { p := loose.DeepCopy(); p.Namespace = ns; return p }
	refused(t, do(attrs(Create, "", pod("strict"), nil)), `pods "a" is forbidden: violates PodSecurity "restricted:latest": `+restrictedDetail)
	good := pod("strict")
	good.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr(true), SeccompProfile: &corev1.SeccompProfile{Type: "RuntimeDefault"}}
	good.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: ptr(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	refused(t, do(attrs(Create, "", good, nil)), "")
	refused(t, do(attrs(Create, "", pod("free"), nil)), "")
	refused(t, do(attrs(Create, "", pod("warned"), nil)), "")
	if len(warnings) != 1 || warnings[0] != `would violate PodSecurity "restricted:latest": `+restrictedDetail {
		t.Errorf("%q", warnings)
	}
	relabelled := pod("warned")
	relabelled.Labels = map[string]string{"a": "b"}
	refused(t, do(attrs(Update, "", relabelled, pod("warned"))), "")
	if len(warnings) != 0 {
		t.Errorf("%q", warnings)
	}
	refused(t, do(attrs(Update, "", namespace("free", map[string]string{enforce: "restricted"}), namespace("free", nil))), "")
	want := []string{`existing pods in namespace "free" violate the new PodSecurity enforce level "restricted:latest"`, "a: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"}
	if !reflect.DeepEqual(warnings, want) {
		t.Errorf("%q", warnings)
	}
	refused(t, do(attrs(Update, "", namespace("free", map[string]string{enforce: "strict"}), namespace("free", nil))),
		`Namespace "free" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of privileged, baseline, restricted`)
}

func csrFor(t *testing.T, signer, cn string, orgs ...string) *certv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn, Organization: orgs}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certv1.CertificateSigningRequest{ObjectMeta: om("", "r"), Spec: certv1.CertificateSigningRequestSpec{SignerName: signer,
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}}
}

func TestCertificatesAndEscalation(t *testing.T) {
	c := chain(t, nil, namespace("ns", nil), &rbacv1.ClusterRole{ObjectMeta: om("", "approver"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{"certificates.k8s.io"},
		Resources: []string{"signers"}, ResourceNames: []string{"kubernetes.io/*"}, Verbs: []string{"approve"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: om("", "approver"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "approver"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "ann"}}})
	as := func(name string, a *Attributes) *Attributes { a.User = &authn.User{Name: name}; return a }
	const client = "kubernetes.io/kube-apiserver-client"
	refused(t, run(c, attrs(Create, "", csrFor(t, client, "root", "system:masters"), nil)), `certificatesigningrequests.certificates.k8s.io "r" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed`)
	req := csrFor(t, client, "jane", "devs")
	refused(t, run(c, attrs(Create, "", req, nil)), "")
	forged := req.DeepCopy()
	forged.Spec.Username, forged.Spec.Groups, forged.Spec.Extra = "root", []string{"system:masters"}, map[string]certv1.ExtraValue{"k": {"v"}}
	refused(t, run(c, as("bob", attrs(Create, "", forged, nil))), "")
	if s := forged.Spec; s.Username != "bob" || s.Groups != nil || s.Extra != nil {
		t.Errorf("a request says it is from %q %v %v", s.Username, s.Groups, s.Extra)
	}
	refused(t, run(c, as("ann", attrs(Update, "approval", req, req))), "")
	refused(t, run(c, as("bob", attrs(Update, "approval", req, req))), `certificatesigningrequests.certificates.k8s.io "r" is forbidden: user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"`)
	signed := req.DeepCopy()
	signed.Status.Certificate = []byte("x")
	refused(t, run(c, as("ann", attrs(Update, "status", signed, req))), `certificatesigningrequests.certificates.k8s.io "r" is forbidden: user not permitted to sign requests with signerName "kubernetes.io/kube-apiserver-client"`)
	role := &rbacv1.Role{ObjectMeta: om("ns", "r"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}}}}
	if err := run(c, as("ann", attrs(Create, "", role, nil))); err == nil || !strings.Contains(err.Error(), "attempting to grant RBAC permissions not currently held") {
		t.Errorf("%v", err)
	}
	refused(t, run(c, attrs(Create, "", role, nil)), "")
}

func TestNodeRestriction(t *testing.T) {
	node := func(change func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: om("", "n1")}
		n.Labels = map[string]string{"kubernetes.io/hostname": "n1"}
		change(n)
		return n
	}
	same := func(*corev1.Node) {}
	pod := func(name, on string, change ...func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: om("ns", name), Spec: corev1.PodSpec{NodeName: on, ServiceAccountName: "default",
			Volumes: []corev1.Volume{{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault"}}}}}}}}}
		for _, c := range change {
			c(p)
		}
		return p
	}
	mirror := func(change ...func(*corev1.Pod)) *corev1.Pod {
		p := pod("m", "n1", func(p *corev1.Pod) {
			p.Spec.ServiceAccountName, p.Spec.Volumes = "", nil
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n1", UID: "uid-1", Controller: ptr(true)}}
		})
		for _, c := range change {
			c(p)
		}
		return p
	}
	mine, others := pod("mine", "n1"), pod("others", "n2")
	c := chain(t, nil, namespace("ns", nil), namespace("kube-node-lease", nil), account("default"), node(same), mine, others)
	lease := func(ns, name string) *coordv1.Lease { return &coordv1.Lease{ObjectMeta: om(ns, name)} }
	slice := func(on string) *resourcev1.ResourceSlice {
		return &resourcev1.ResourceSlice{ObjectMeta: om("", "s"), Spec: resourcev1.ResourceSliceSpec{NodeName: &on}}
	}
	token := func(pod, uid string, audiences ...string) *Attributes {
		a := attrs(Create, "token", account("default"), nil)
		tr := &authnv1.TokenRequest{Spec: authnv1.TokenRequestSpec{Audiences: audiences}}
		if pod != "" {
			tr.Spec.BoundObjectRef = &authnv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod, UID: "uid-1"}
			if uid != "uid-1" {
				tr.Spec.BoundObjectRef.UID = ""
			}
		}
		a.Object = tr
		return a
	}
	eviction := func(p *corev1.Pod) *Attributes { a := attrs(Create, "eviction", p, nil); a.Object = nil; return a }
	status := func(p *corev1.Pod, change func(*corev1.Pod)) *Attributes {
		n := p.DeepCopy()
		change(n)
		return attrs(Update, "status", n, p)
	}
	sa := func(name string) string { return `serviceaccounts "default" is forbidden: ` + name }
	for _, tc := range []struct {
		name string
		a    *Attributes
		want string
	}{
		{"ordinary pod", attrs(Create, "", pod("q", "n1"), nil), `pods "q" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods`},
		{"mirror", attrs(Create, "", mirror(), nil), ""},
		{"mirror elsewhere", attrs(Create, "", mirror(func(p *corev1.Pod) { p.Spec.NodeName = "n2" }), nil), `pods "m" is forbidden: node "n1" can only create pods with spec.nodeName set to itself`},
		{"mirror of nobody", attrs(Create, "", mirror(func(p *corev1.Pod) { p.OwnerReferences = nil }), nil), `pods "m" is forbidden: node "n1" can only create pods with an owner reference set to itself`},
		{"mirror of an earlier node", attrs(Create, "", mirror(func(p *corev1.Pod) { p.OwnerReferences[0].UID = "old" }), nil), `pods "m" is forbidden: node n1 UID mismatch: expected old got uid-1`},
		{"mirror with a configmap", attrs(Create, "", mirror(func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{}}}}}
		}), nil), `pods "m" is forbidden: node "n1" can not create pods that reference configmaps`},
		{"delete own pod", attrs(Delete, "", nil, mine), ""},
		{"delete other pod", attrs(Delete, "", nil, others), `pods "others" is forbidden: node "n1" can only delete pods with spec.nodeName set to itself`},
		{"change pod", attrs(Update, "", mine, mine), `pods "mine" is forbidden: unexpected operation "UPDATE", node "n1" can only create and delete mirror pods`},
		{"own status", status(mine, func(p *corev1.Pod) { p.Status.Phase = "Running" }), ""},
		{"labels by status", status(mine, func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }), `pods "mine" is forbidden: node "n1" cannot update labels through pod status`},
		{"other status", status(others, func(p *corev1.Pod) {}), `pods "others" is forbidden: node "n1" can only update pod status for pods with spec.nodeName set to itself`},
		{"evict own", eviction(mine), ""},
		{"evict other", eviction(others), `pods "others" is forbidden: node n1 can only evict pods with spec.nodeName set to itself`},
		{"bind", attrs(Create, "binding", mine, nil), `pods "mine" is forbidden: unexpected pod subresource "binding", only 'status' and 'eviction' are allowed`},
		{"itself", attrs(Create, "", node(same), nil), ""},
		{"another", attrs(Create, "", node(func(n *corev1.Node) { n.Name = "n2" }), nil), `nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"`},
		{"reserved label", attrs(Create, "", node(func(n *corev1.Node) { n.Labels["node-restriction.kubernetes.io/x"] = "y" }), nil), `nodes "n1" is forbidden: node "n1" is not allowed to set the following labels: node-restriction.kubernetes.io/x`},
		{"role label", attrs(Update, "", node(func(n *corev1.Node) { n.Labels["node-role.kubernetes.io/x"] = "y" }), node(same)), `nodes "n1" is forbidden: is not allowed to modify labels: node-role.kubernetes.io/x`},
		{"own labels", attrs(Update, "", node(func(n *corev1.Node) {
			n.Labels["example.com/x"], n.Labels["topology.kubernetes.io/zone"], n.Labels["node.kubernetes.io/y"] = "1", "2", "3"
		}), node(same)), ""},
		{"taints", attrs(Update, "", node(same), node(func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "x"}} })), `nodes "n1" is forbidden: node "n1" is not allowed to modify taints`},
		{"owner of itself", attrs(Create, "", node(func(n *corev1.Node) {
			n.OwnerReferences = []metav1.OwnerReference{{APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Name: "n1", UID: "u"}}
		}), nil), `nodes "n1" is forbidden: node "n1" is not allowed to modify ownerReferences`},
		{"owner added later", attrs(Update, "", node(func(n *corev1.Node) {
			n.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "x", UID: "u"}}
		}), node(same)), `nodes "n1" is forbidden: node "n1" is not allowed to modify ownerReferences`},
		{"own lease", attrs(Create, "", lease("kube-node-lease", "n1"), nil), ""},
		{"other lease", attrs(Create, "", lease("kube-node-lease", "n2"), nil), `leases.coordination.k8s.io "n2" is forbidden: can only access node lease with the same name as the requesting node`},
		{"lease elsewhere", attrs(Create, "", lease("ns", "n1"), nil), `leases.coordination.k8s.io "n1" is forbidden: can only access leases in the "kube-node-lease" system namespace`},
		{"other csinode", attrs(Create, "", &storagev1.CSINode{ObjectMeta: om("", "n2")}, nil), `csinodes.storage.k8s.io "n2" is forbidden: can only access CSINode with the same name as the requesting node`},
		{"own slice", attrs(Create, "", slice("n1"), nil), ""},
		{"other slice", attrs(Create, "", slice("n2"), nil), `resourceslices.resource.k8s.io "s" is forbidden: can only create or update ResourceSlice with the same NodeName as the requesting node`},
		{"token of its pod", token("mine", "uid-1"), ""},
		{"token for a volume's audience", token("mine", "uid-1", "vault"), ""},
		{"token for another audience", token("mine", "uid-1", "bank"), sa(`audience "bank" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience`)},
		{"token of another's pod", token("others", "uid-1"), sa("node requested token bound to a pod scheduled on a different node")},
		{"token of no pod", token("", ""), sa("node requested token not bound to a pod")},
		{"token of some pod", token("mine", ""), sa("node requested token with a pod binding without a uid")},
		{"own certificate", attrs(Create, "", csrFor(t, certv1.KubeletServingSignerName, "system:node:n1", "system:nodes"), nil), ""},
		{"other's certificate", attrs(Create, "", csrFor(t, certv1.KubeletServingSignerName, "system:node:n2", "system:nodes"), nil), `certificatesigningrequests.certificates.k8s.io "r" is forbidden: can only create a node CSR with CN=system:node:n1`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.a.User = &authn.User{Name: "system:node:n1", Groups: []string{"system:nodes"}}
			refused(t, run(c, tc.a), tc.want)
		})
	}
}

func TestDeviceTaintsGetATime(t *testing.T) {
	at := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC))
	c := Chain{deviceTaintTime(Deps{Now: func() time.Time { return at.Time }})}
	own := metav1.NewTime(at.Add(-time.Hour))
	s := &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{Devices: []resourcev1.Device{{Name: "d",
		Taints: []resourcev1.DeviceTaint{{Key: "new", Effect: "NoSchedule"}, {Key: "old", Effect: "NoSchedule", TimeAdded: &own}}}}}}
	for _, op := range []Operation{Create, Update} {
		got := s.DeepCopy()
		if err := c.Admit(t.Context(), &Attributes{Operation: op, Row: api.Of(got), Object: got}); err != nil {
			t.Fatal(err)
		}
		taints := got.Spec.Devices[0].Taints
		if w := taints[0].TimeAdded; w == nil || !w.Time.Equal(at.Truncate(time.Second)) {
			t.Errorf("%s: the taint without a time has %v", op, w)
		}
		if !taints[1].TimeAdded.Time.Equal(own.Time) {
			t.Errorf("%s: the taint with a time has another: %v", op, taints[1].TimeAdded)
		}
	}
}
