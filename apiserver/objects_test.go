package apiserver

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	asv1 "k8s.io/api/autoscaling/v1"
	asv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	pods        = "/api/v1/namespaces/default/pods"
	deployments = "/apis/apps/v1/namespaces/default/deployments"
	merge       = "Content-Type: application/merge-patch+json"
	apply       = "Content-Type: application/apply-patch+yaml"
)

func TestBootstrap(t *testing.T) {
	r := start(t)
	for _, ns := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		r.must(http.StatusOK, nil, "GET", "/api/v1/namespaces/"+ns, "")
	}
	var pc schedv1.PriorityClass
	r.must(http.StatusOK, &pc, "GET", "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical", "")
	if pc.Value != 2000001000 {
		t.Errorf("value %d", pc.Value)
	}
	var svc corev1.Service
	r.must(http.StatusOK, &svc, "GET", "/api/v1/namespaces/default/services/kubernetes", "")
	if svc.Spec.ClusterIP != "10.96.0.1" {
		t.Errorf("kubernetes Service at %s", svc.Spec.ClusterIP)
	}
	// The test's server is reached over loopback, which is no endpoint for a pod.
	r.must(http.StatusNotFound, nil, "GET", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes", "")
	r.must(http.StatusOK, nil, "GET", "/metrics/slis", "")
}

func deployment(replicas int) string {
	return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replicas":%d,"selector":{"matchLabels":{"app":"d"}},"template":{"metadata":{"labels":{"app":"d"}},"spec":{"containers":[{"name":"c","image":"registry.example/c:1"}]}}}}`, replicas)
}

func TestScale(t *testing.T) {
	r := start(t)
	scale := deployments + "/d/scale"
	r.must(http.StatusCreated, nil, "PATCH", deployments+"/d?fieldManager=owner", deployment(1), apply)
	var s asv1.Scale
	r.must(http.StatusOK, &s, "GET", scale, "")
	if s.Spec.Replicas != 1 || s.Status.Selector != "app=d" || s.Kind != "Scale" || len(s.ManagedFields) != 0 {
		t.Errorf("scale %+v", s)
	}
	body := `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d"},"spec":{"replicas":5}}`
	a := r.must(http.StatusConflict, nil, "PATCH", scale+"?fieldManager=scaler", body, apply)
	if c := a.status().Details.Causes; len(c) != 1 || c[0].Field != ".spec.replicas" {
		t.Errorf("causes %+v", c)
	}
	r.must(http.StatusOK, &s, "PATCH", scale+"?fieldManager=scaler&force=true", body, apply)
	var d appsv1.Deployment
	r.must(http.StatusOK, &d, "GET", deployments+"/d", "")
	i := slices.IndexFunc(d.ManagedFields, func(m metav1.ManagedFieldsEntry) bool { return m.Manager == "scaler" })
	if *d.Spec.Replicas != 5 || i < 0 || d.ManagedFields[i].Subresource != "scale" || d.ManagedFields[i].Operation != metav1.ManagedFieldsOperationApply ||
		string(d.ManagedFields[i].FieldsV1.Raw) != `{"f:spec":{"f:replicas":{}}}` {
		t.Errorf("replicas %d, fields %+v", *d.Spec.Replicas, d.ManagedFields)
	}
	r.must(http.StatusOK, &s, "PUT", scale, `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"d"},"spec":{"replicas":2}}`)
	if s.Spec.Replicas != 2 {
		t.Errorf("put answered %d", s.Spec.Replicas)
	}
	r.must(http.StatusUnprocessableEntity, nil, "PATCH", scale, `{"spec":{"replicas":-1}}`, merge)
	r.must(http.StatusConflict, nil, "PUT", scale, `{"metadata":{"name":"d","uid":"11111111-2222-3333-4444-555555555555"},"spec":{"replicas":2}}`)
	r.must(http.StatusOK, nil, "GET", scale, "", "Accept: application/json;as=Table;g=meta.k8s.io;v=v1")
	r.must(http.StatusNotFound, nil, "GET", "/api/v1/namespaces/default/configmaps/d/scale", "")
}

func TestBindingAndGrace(t *testing.T) {
	r := start(t)
	r.serviceAccount()
	var p corev1.Pod
	r.must(http.StatusCreated, &p, "POST", pods, pod("p", ""))
	bind := `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"p"},"target":{"kind":"Node","name":"n1"}}`
	r.must(http.StatusCreated, nil, "POST", pods+"/p/binding", bind)
	r.must(http.StatusConflict, nil, "POST", "/api/v1/namespaces/default/bindings", bind)
	r.must(http.StatusOK, &p, "DELETE", pods+"/p", "")
	if p.Spec.NodeName != "n1" || p.DeletionTimestamp == nil || *p.DeletionGracePeriodSeconds != 30 || p.Generation != 2 {
		t.Errorf("deleted pod %+v", p.ObjectMeta)
	}
	first := p.ResourceVersion
	r.must(http.StatusOK, &p, "DELETE", pods+"/p?gracePeriodSeconds=0", "")
	if p.DeletionTimestamp == nil || *p.DeletionGracePeriodSeconds != 0 {
		t.Errorf("pod deleted at once %+v", p.ObjectMeta)
	}
	r.must(http.StatusNotFound, nil, "GET", pods+"/p", "")
	var kinds []any
	for _, f := range r.frames(pods+"?watch=1&resourceVersion="+first, 2) {
		kinds = append(kinds, f["type"])
	}
	if fmt.Sprint(kinds) != "[MODIFIED DELETED]" {
		t.Errorf("watchers saw %v", kinds)
	}
	var never corev1.Pod // a pod that no node has is gone at once, and says so
	r.must(http.StatusCreated, nil, "POST", pods, pod("q", ""))
	r.must(http.StatusOK, &never, "DELETE", pods+"/q", "")
	if never.DeletionTimestamp == nil || *never.DeletionGracePeriodSeconds != 0 {
		t.Errorf("unbound pod %+v", never.ObjectMeta)
	}
	var ns corev1.Namespace
	r.must(http.StatusCreated, nil, "POST", "/api/v1/namespaces", `{"metadata":{"name":"gone"}}`)
	r.must(http.StatusOK, &ns, "DELETE", "/api/v1/namespaces/gone", "")
	if ns.DeletionTimestamp == nil || ns.DeletionGracePeriodSeconds != nil || ns.Status.Phase != corev1.NamespaceTerminating {
		t.Errorf("namespace %+v", ns)
	}
}

func TestEviction(t *testing.T) {
	r := start(t)
	r.serviceAccount()
	const budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
	r.must(http.StatusCreated, nil, "POST", budgets, `{"metadata":{"name":"b"},"spec":{"minAvailable":1,"selector":{"matchLabels":{"app":"x"}}}}`)
	for _, n := range []string{"one", "two"} {
		r.must(http.StatusCreated, nil, "POST", pods, pod(n, `"app":"x"`))
		r.must(http.StatusOK, nil, "PATCH", pods+"/"+n+"/status", `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`, merge)
	}
	evict := func(status int, pod, version string) answer {
		t.Helper()
		return r.must(status, nil, "POST", pods+"/"+pod+"/eviction", fmt.Sprintf(`{"apiVersion":"policy/%s","kind":"Eviction","metadata":{"name":%q}}`, version, pod))
	}
	allow := func(n int) {
		t.Helper()
		r.must(http.StatusOK, nil, "PATCH", budgets+"/b/status", fmt.Sprintf(`{"status":{"observedGeneration":1,"disruptionsAllowed":%d,"currentHealthy":2,"desiredHealthy":1,"expectedPods":2}}`, n), merge)
	}
	allow(0)
	a := evict(http.StatusTooManyRequests, "one", "v1")
	if st := a.status(); st.Details == nil || len(st.Details.Causes) != 1 || st.Details.Causes[0].Type != policyv1.DisruptionBudgetCause {
		t.Errorf("refusal %+v", st)
	}
	allow(1)
	evict(http.StatusCreated, "one", "v1")
	r.must(http.StatusNotFound, nil, "GET", pods+"/one", "")
	var b policyv1.PodDisruptionBudget
	r.must(http.StatusOK, &b, "GET", budgets+"/b", "")
	if _, told := b.Status.DisruptedPods["one"]; b.Status.DisruptionsAllowed != 0 || !told {
		t.Errorf("budget after an eviction: %+v", b.Status)
	}
	evict(http.StatusTooManyRequests, "two", "v1")
	r.must(http.StatusOK, nil, "DELETE", budgets+"/b", "")
	evict(http.StatusCreated, "two", "v1beta1")
	evict(http.StatusNotFound, "two", "v1")
	if a := r.must(http.StatusBadRequest, nil, "POST", pods+"/one/eviction", `{"metadata":{"name":"other"}}`); a.status().Message != "name in URL does not match name in Eviction object" {
		t.Errorf("message %q", a.status().Message)
	}
}

func TestApply(t *testing.T) {
	r := start(t)
	var cm corev1.ConfigMap
	r.must(http.StatusCreated, &cm, "PATCH", cms+"/a?fieldManager=m1", "kind: ConfigMap\napiVersion: v1\nmetadata:\n  name: a\n  resourceVersion: \"7\"\ndata:\n  k: v\n", apply)
	if len(cm.ManagedFields) != 1 || cm.ManagedFields[0].Operation != metav1.ManagedFieldsOperationApply {
		t.Errorf("fields %+v", cm.ManagedFields)
	}
	cm = corev1.ConfigMap{}
	r.must(http.StatusOK, &cm, "PATCH", cms+"/a?fieldManager=m1", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"n":"w"}}`, apply)
	if fmt.Sprint(cm.Data) != "map[n:w]" {
		t.Errorf("what a manager stops meaning goes: %v", cm.Data)
	}
	for _, c := range []struct {
		code       int
		path, body string
		message    string
	}{
		{400, "a?fieldManager=m1", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"z"}}`, "the name of the object (z) does not match the name on the URL (a)"},
		{400, "b?fieldManager=m1", `{"apiVersion":"v1","kind":"ConfigMap"}`, "the name of the object (b based on URL) was undeterminable: name must be provided"},
		{500, "a?fieldManager=m1", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"dota":{}}`, "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .dota: field not declared in schema"},
		{400, "a?fieldManager=m1&fieldValidation=Strict", "apiVersion: v1\nkind: ConfigMap\nkind: ConfigMap\nmetadata:\n  name: a\n", "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 3: key \"kind\" already set in map"},
	} {
		if a := r.do("PATCH", cms+"/"+c.path, c.body, apply); a.StatusCode != c.code || !strings.HasPrefix(a.status().Message+"; ", c.message+"; ") {
			t.Errorf("%s: %d %q\nwant %d %q", c.body, a.StatusCode, a.status().Message, c.code, c.message)
		}
	}
}

// TestVersions checks a kind with two served versions: what each sees, and that a manager owns fields in its version.
func TestVersions(t *testing.T) {
	r := start(t)
	const one, two = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
	var v1 asv1.HorizontalPodAutoscaler
	r.must(http.StatusCreated, &v1, "POST", one, `{"metadata":{"name":"h"},"spec":{"maxReplicas":3,"targetCPUUtilizationPercentage":80,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"}}}`)
	if len(v1.ManagedFields) != 1 || v1.ManagedFields[0].APIVersion != "autoscaling/v1" {
		t.Errorf("fields %+v", v1.ManagedFields)
	}
	var v2 asv2.HorizontalPodAutoscaler
	r.must(http.StatusOK, &v2, "GET", two+"/h", "")
	if len(v2.Spec.Metrics) != 1 || *v2.Spec.Metrics[0].Resource.Target.AverageUtilization != 80 || v2.ManagedFields[0].APIVersion != "autoscaling/v1" {
		t.Errorf("v2 %+v", v2)
	}
	r.must(http.StatusOK, &v1, "PATCH", one+"/h", `{"spec":{"targetCPUUtilizationPercentage":50}}`, merge)
	if *v1.Spec.TargetCPUUtilizationPercentage != 50 || v1.APIVersion != "autoscaling/v1" {
		t.Errorf("patched %+v", v1.Spec)
	}
	r.must(http.StatusOK, &v1, "PATCH", one+"/h?fieldManager=m&force=1", `{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","metadata":{"name":"h"},"spec":{"maxReplicas":9}}`, apply)
	if v1.Spec.MaxReplicas != 9 {
		t.Errorf("applied %+v", v1.Spec)
	}
}

func TestReviews(t *testing.T) {
	r := start(t)
	a := r.must(http.StatusCreated, nil, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}`)
	contains(t, a.body, `"managedFields"`)
	contains(t, a.body, `"allowed":true`)
	a = r.must(http.StatusCreated, nil, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `{"metadata":{"name":"x"}}`)
	contains(t, a.body, `"username":"test-admin"`)
	if bytes.Contains(a.body, []byte(`"name":"x"`)) {
		t.Errorf("the metadata of the question is in the answer: %s", a.body)
	}
	r.must(http.StatusBadRequest, nil, "GET", pods+"/..", "")
}

func TestWarningsAndEmpties(t *testing.T) {
	r := start(t)
	a := r.must(http.StatusCreated, nil, "POST", cms, `{"metadata":{"name":"a","ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"u"},{"apiVersion":"v1","kind":"Pod","name":"p","uid":"u"}]},"more":1}`)
	if w := a.Header.Values("Warning"); len(w) != 2 || !strings.HasPrefix(w[0], `299 - "unknown field \"more\"`) {
		t.Errorf("warnings %q", w)
	}
	var cm corev1.ConfigMap
	r.must(http.StatusOK, &cm, "GET", cms+"/a", "")
	if len(cm.OwnerReferences) != 1 {
		t.Errorf("owners %v", cm.OwnerReferences)
	}
	// An empty list is stored as none, so the answer to its creation already shows none.
	a = r.must(http.StatusCreated, nil, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", `{"metadata":{"name":"r"},"rules":[]}`)
	contains(t, a.body, `"rules":null`)
}
