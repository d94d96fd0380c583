package patch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	asv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"karve/api"
	"karve/api/convert"
	"karve/api/defaults"
)

const before = `
metadata: {name: p, labels: {a: "1", b: "2"}, finalizers: [x, z]}
spec:
  containers: [{name: one, image: i1, env: [{name: E, value: "1"}]}, {name: two, image: i2}]
  tolerations: [{key: t1}]
status: {podIP: 10.0.0.1}`

func podOf(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func show(p *corev1.Pod) string {
	var parts []string
	for _, k := range slices.Sorted(func(yield func(string) bool) {
		for k := range p.Labels {
			if !yield(k) {
				return
			}
		}
	}) {
		parts = append(parts, k+"="+p.Labels[k])
	}
	for _, c := range p.Spec.Containers {
		parts = append(parts, c.Name+":"+c.Image)
		for _, e := range c.Env {
			parts = append(parts, e.Name+"="+e.Value)
		}
	}
	for _, x := range p.Spec.Tolerations {
		parts = append(parts, x.Key)
	}
	return strings.Join(append(append(parts, p.Finalizers...), p.Status.PodIP), " ")
}

func TestApply(t *testing.T) {
	const j, m, s = types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType
	const same = "a=1 b=2 one:i1 E=1 two:i2 t1 x z 10.0.0.1"
	for _, c := range []struct {
		name  string
		kind  types.PatchType
		patch string
		want  string // what becomes of it, or "code: message"
		warns string
	}{
		{"JSON", j, `[{"op":"test","path":"/metadata/name","value":"p"},{"op":"replace","path":"/spec/containers/0/image","value":"i3"},{"op":"remove","path":"/metadata/labels/b"},{"op":"add","path":"/spec/tolerations/-","value":{"key":"t2"}}]`, "a=1 one:i3 E=1 two:i2 t1 t2 x z 10.0.0.1", ""},
		{"JSON, a test fails", j, `[{"op":"test","path":"/metadata/name","value":"q"}]`, "422: the server rejected our request due to an error in our request", ""},
		{"JSON, nothing there", j, `[{"op":"remove","path":"/metadata/labels/c"}]`, "422: *", ""},
		{"JSON, all replaced by nothing", j, `[{"op":"replace","path":""}]`, "422: *", ""},
		{"JSON, not a list", j, `{"op":"remove"}`, "400: *", ""},
		{"JSON, too long", j, "[" + strings.Repeat(`{"op":"test","path":"/metadata/name","value":"p"},`, maxOperations) + `{"op":"test","path":"/metadata/name","value":"p"}]`, "413: Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001", ""},
		{"JSON, a wrong type", j, `[{"op":"replace","path":"/spec/containers","value":"x"}]`, `422:  "" is invalid: patch: Invalid value: *`, ""},
		{"merge, a wrong type", m, `{"spec":{"containers":3}}`, `422:  "" is invalid: patch: Invalid value: *`, ""},
		{"JSON, an unknown field", j, `[{"op":"add","path":"/spec/containres","value":[]}]`, same, `unknown field "spec.containres"`},
		{"merge", m, `{"metadata":{"labels":{"a":null,"c":"3"}},"spec":{"tolerations":null}}`, "b=2 c=3 one:i1 E=1 two:i2 x z 10.0.0.1", ""},
		{"merge replaces lists", m, `{"spec":{"containers":[{"name":"three","image":"i3"}]}}`, "a=1 b=2 three:i3 t1 x z 10.0.0.1", ""},
		{"merge, twice the same", m, `{"metadata":{"labels":{"a":"1","a":"1"}}}`, same, `duplicate field "metadata.labels.a"`},
		{"merge, no JSON", m, `{`, "400: *", ""},
		{"strategic merges lists by key", s, `{"spec":{"containers":[{"name":"two","image":"i9"},{"name":"three","image":"i3"}]}}`, "a=1 b=2 one:i1 E=1 two:i9 three:i3 t1 x z 10.0.0.1", ""},
		{"strategic deletes by key", s, `{"spec":{"containers":[{"$patch":"delete","name":"two"}]}}`, "a=1 b=2 one:i1 E=1 t1 x z 10.0.0.1", ""},
		{"strategic replaces", s, `{"spec":{"containers":[{"name":"one","env":[{"$patch":"replace"},{"name":"F","value":"2"}]}]}}`, "a=1 b=2 one:i1 F=2 two:i2 t1 x z 10.0.0.1", ""},
		{"strategic, atomic lists", s, `{"spec":{"tolerations":[{"key":"t2"}]}}`, "a=1 b=2 one:i1 E=1 two:i2 t2 x z 10.0.0.1", ""},
		{"strategic, sets of words", s, `{"metadata":{"finalizers":["y"],"$deleteFromPrimitiveList/finalizers":["x"]}}`, "a=1 b=2 one:i1 E=1 two:i2 t1 y z 10.0.0.1", ""},
		{"strategic, an unknown field", s, `{"spec":{"containres":[]}}`, same, `unknown field "spec.containres"`},
		{"strategic, a wrong type", s, `{"spec":{"containers":"x"}}`, `422:  "" is invalid: patch: Invalid value: "map[spec:map[containers:x]]": *`, ""},
		{"strategic, no JSON", s, `nothing`, "400: *", ""},
	} {
		pod := podOf(t, before)
		result, strict, err := Apply(pod, c.kind, []byte(c.patch))
		var got string
		if err != nil {
			st, ok := errors.AsType[*apierrors.StatusError](err)
			if !ok {
				t.Errorf("%s: %v is no API status", c.name, err)
				continue
			}
			got = fmt.Sprintf("%d: %s", st.ErrStatus.Code, st.ErrStatus.Message)
			if prefix, any := strings.CutSuffix(c.want, "*"); any && strings.HasPrefix(got, prefix) {
				got = c.want
			}
		} else {
			got = show(result.(*corev1.Pod))
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		warns := ""
		if len(strict) > 0 {
			warns = strings.TrimPrefix(StrictMessage(append(strict, strict...)), "strict decoding error: ")
		}
		if warns != c.warns {
			t.Errorf("%s: warns %q, want %q", c.name, warns, c.warns)
		}
		if show(pod) != same {
			t.Errorf("%s: the object itself became %s", c.name, show(pod))
		}
	}
	if _, _, err := Apply(podOf(t, before), "application/x", nil); err == nil {
		t.Error("a patch of no known type was applied")
	}
}

// owners lists who owns what, as "manager operation subresource: fields".
func owners(o metav1.Object) string {
	var out []string
	for _, e := range o.GetManagedFields() {
		out = append(out, fmt.Sprintf("%s %s %s: %s", e.Manager, e.Operation, e.Subresource, e.FieldsV1.Raw))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func TestManagers(t *testing.T) {
	m := NewManagers()
	row := api.Of(&corev1.ConfigMap{})
	intent := func(data map[string]any) runtime.Object {
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "c", "namespace": "ns"}, "data": data}}
	}
	empty := func() runtime.Object {
		o := row.New()
		o.GetObjectKind().SetGroupVersionKind(row.GVK())
		return o
	}
	apply := func(live runtime.Object, manager string, force bool, data map[string]any) (*corev1.ConfigMap, error) {
		got, err := m.Apply(row, "", nil, live, intent(data), manager, force)
		if err != nil {
			return nil, err
		}
		return got.(*corev1.ConfigMap), nil
	}
	one, err := apply(empty(), "one", false, map[string]any{"a": "1", "b": "1"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := owners(one), `one Apply : {"f:data":{"f:a":{},"f:b":{}}}`; got != want || one.Data["a"] != "1" {
		t.Errorf("applied %v, owned\n%s\nwant\n%s", one.Data, got, want)
	}
	both, err := apply(one, "two", false, map[string]any{"b": "1", "c": "2"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := owners(both), `one Apply : {"f:data":{"f:a":{},"f:b":{}}}`+"\n"+`two Apply : {"f:data":{"f:b":{},"f:c":{}}}`; got != want {
		t.Errorf("shared\n%s\nwant\n%s", got, want)
	}
	_, err = apply(both, "two", false, map[string]any{"b": "2"})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "one": .data.b`) {
		t.Errorf("two changes what one owns: %v", err)
	}
	forced, err := apply(both, "two", true, map[string]any{"b": "2"})
	if err != nil {
		t.Fatal(err)
	}
	// What two no longer wants goes; what it took, one has no more.
	if got, want := owners(forced), `one Apply : {"f:data":{"f:a":{}}}`+"\n"+`two Apply : {"f:data":{"f:b":{}}}`; got != want || fmt.Sprint(forced.Data) != "map[a:1 b:2]" {
		t.Errorf("forced %v, owned\n%s\nwant\n%s", forced.Data, got, want)
	}
	changed := forced.DeepCopy()
	changed.Data["a"] = "3"
	updated := m.Update(row, "", nil, forced, changed, "hand", time.Now()).(*corev1.ConfigMap)
	if got, want := owners(updated), `hand Update : {"f:data":{"f:a":{}}}`+"\n"+`two Apply : {"f:data":{"f:b":{}}}`; got != want {
		t.Errorf("updated\n%s\nwant\n%s", got, want)
	}
	if len(forced.ManagedFields) != 2 {
		t.Error("the live object was changed")
	}
}

// A write through status owns status alone: the rest is reset and not recorded.
func TestManagersOfSubresources(t *testing.T) {
	m := NewManagers()
	pod := podOf(t, before)
	row := api.Of(pod)
	pod.GetObjectKind().SetGroupVersionKind(row.GVK())
	defaults.For(row.GVK())(pod)
	live := pod.DeepCopy()
	pod.Status.PodIP = "10.0.0.2"
	got := m.Update(row, "status", []string{"spec", "metadata.finalizers"}, live, pod, "kubelet", time.Now()).(*corev1.Pod)
	if o, want := owners(got), `kubelet Update status: {"f:status":{"f:podIP":{}}}`; o != want {
		t.Errorf("owned\n%s\nwant\n%s", o, want)
	}
	created := m.Update(row, "", []string{"status"}, nil, live.DeepCopy(), "kubectl", time.Now()).(*corev1.Pod)
	if o := owners(created); strings.Contains(o, "f:status") || !strings.Contains(o, `k:{\"name\":\"one\"}`) {
		t.Errorf("owned at create\n%s", o)
	}
}

func TestManagerOr(t *testing.T) {
	for _, c := range [][3]string{{"me", "kubectl/v1", "me"}, {"", "kubectl/v1.36 (linux)", "kubectl"}, {"", "", "unknown"}, {"", "a\x00b\x7f/", "a?b?"}, {"", strings.Repeat("x", 200) + "/1", strings.Repeat("x", 128)}} {
		if got := ManagerOr(c[0], c[1]); got != c[2] {
			t.Errorf("ManagerOr(%q, %q) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

// Fields that are owned in one version of a kind are lost to who changes them in another.
func TestManagersOfTwoVersions(t *testing.T) {
	m := NewManagers()
	row := func(version string) *api.Row {
		return api.ByResource(schema.GroupVersionResource{Group: "autoscaling", Version: version, Resource: "horizontalpodautoscalers"})
	}
	now := &asv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "h", Namespace: "n"}}
	use := func(percent int32) {
		now.Spec.Metrics = []asv2.MetricSpec{{Type: "Resource", Resource: &asv2.ResourceMetricSource{Name: "cpu", Target: asv2.MetricTarget{Type: "Utilization", AverageUtilization: &percent}}}}
	}
	use(50)
	now.Spec.MaxReplicas = 3
	now.SetGroupVersionKind(row("v2").GVK())
	live := m.Update(row("v2"), "", nil, nil, now.DeepCopy(), "first", time.Now()).(*asv2.HorizontalPodAutoscaler)
	if got := owners(live); !strings.Contains(got, "f:metrics") || !strings.Contains(got, "f:maxReplicas") {
		t.Fatalf("owners = %s", got)
	}
	use(60)
	now.ManagedFields = live.ManagedFields
	v1 := func(o runtime.Object) runtime.Object { return convert.To(o, row("v1").GVK()) }
	out := m.Update(row("v1"), "", nil, v1(live), v1(now), "second", time.Now()).(metav1.Object)
	for _, e := range out.GetManagedFields() {
		fields := string(e.FieldsV1.Raw)
		switch e.Manager {
		case "first":
			if e.APIVersion != "autoscaling/v2" || strings.Contains(fields, "f:metrics") || !strings.Contains(fields, "f:maxReplicas") {
				t.Errorf("first owns %s of %s", fields, e.APIVersion)
			}
		case "second":
			if e.APIVersion != "autoscaling/v1" || fields != `{"f:spec":{"f:targetCPUUtilizationPercentage":{}}}` {
				t.Errorf("second owns %s of %s", fields, e.APIVersion)
			}
		}
	}
	if n := len(out.GetManagedFields()); n != 2 {
		t.Errorf("%d owners", n)
	}
}

// What has no key cannot be tracked: the object is written all the same, without a record.
func TestManagersOfNamelessReferences(t *testing.T) {
	row := api.ByResource(schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"})
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n"}, Secrets: []corev1.ObjectReference{{Name: "x"}, {}}}
	a.SetGroupVersionKind(row.GVK())
	out := NewManagers().Update(row, "", nil, nil, a, "m", time.Now()).(*corev1.ServiceAccount)
	if len(out.Secrets) != 2 || len(out.ManagedFields) != 0 {
		t.Errorf("account = %+v", out)
	}
}
