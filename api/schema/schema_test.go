package schema

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
)

func TestEveryKindHasADefinitionAndAMergeSchema(t *testing.T) {
	defs := map[string]bool{}
	if err := Walk(func(d *Definition) bool {
		defs[d.Name] = true
		if !json.Valid(d.V3) {
			t.Errorf("%s: not JSON", d.Name)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	types := NewTypes()
	for _, r := range api.Rows() {
		if name := Name(r.GVK()); !defs[name] {
			t.Errorf("%s: no definition %q", r.GVK(), name)
		}
		o := r.New()
		o.GetObjectKind().SetGroupVersionKind(r.GVK())
		v, err := types.ObjectToTyped(o)
		if err != nil {
			t.Errorf("%s: %v", r.GVK(), err)
			continue
		}
		back, err := types.TypedToObject(v)
		if err != nil || back.GetObjectKind().GroupVersionKind() != r.GVK() {
			t.Errorf("%s came back as %v, %v", r.GVK(), back, err)
		}
	}
	for name := range defs {
		if _, ok := lookup(name); !ok {
			t.Errorf("%s: no merge schema", name)
		}
	}
}

func TestWalkStops(t *testing.T) {
	n := 0
	if err := Walk(func(*Definition) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Fatalf("%d definitions, %v; want 3", n, err)
	}
}

func TestRefsAreDefined(t *testing.T) {
	defs, refs := map[string]bool{}, map[string]bool{}
	if err := Walk(func(d *Definition) bool {
		defs[d.Name] = true
		for _, r := range Refs(d.V3) {
			refs[r] = true
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if len(refs) < 300 {
		t.Fatalf("only %d references", len(refs))
	}
	for r := range refs {
		if !defs[r] {
			t.Errorf("%s is referred to and not defined", r)
		}
	}
}

func TestLookup(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	for i, l := range lines {
		name, rest, _ := strings.Cut(l, "\t")
		if got, ok := lookup(name); !ok || got != rest {
			t.Errorf("lookup %s: %q, %v", name, got, ok)
		}
		if i > 0 && lines[i-1] >= l {
			t.Errorf("table is not sorted at %s", name)
		}
		if _, ok := lookup(name + "x"); ok {
			t.Errorf("%sx was found", name)
		}
	}
	for _, name := range []string{"", "zzz", "io.k8s"} {
		if _, ok := lookup(name); ok {
			t.Errorf("%q was found", name)
		}
	}
}

// Merging tells lists that are maps by key from lists that are replaced.
func TestMerge(t *testing.T) {
	deployment := func(containers ...corev1.Container) runtime.Object {
		d := &appsv1.Deployment{}
		d.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
		d.Spec.Template.Spec.Containers = containers
		return d
	}
	types := NewTypes()
	a, err := types.ObjectToTyped(deployment(corev1.Container{Name: "a", Image: "one", Args: []string{"x"}}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := types.ObjectToTyped(deployment(corev1.Container{Name: "a", Args: []string{"y"}}, corev1.Container{Name: "b", Image: "two"}))
	if err != nil {
		t.Fatal(err)
	}
	m, err := a.Merge(b)
	if err != nil {
		t.Fatal(err)
	}
	o, err := types.TypedToObject(m)
	if err != nil {
		t.Fatal(err)
	}
	list, _, _ := unstructured.NestedSlice(o.(*unstructured.Unstructured).Object, "spec", "template", "spec", "containers")
	got, _ := json.Marshal(list)
	want := `[{"args":["y"],"image":"one","name":"a","resources":{}},{"image":"two","name":"b","resources":{}}]`
	if string(got) != want {
		t.Errorf("merged to %s, want %s", got, want)
	}
}

func TestUnknownFieldAndKind(t *testing.T) {
	types := NewTypes()
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": map[string]any{"nope": true}}}
	if _, err := types.ObjectToTyped(u); err == nil || !strings.Contains(err.Error(), ".spec.nope") {
		t.Errorf("unknown field: %v", err)
	}
	u = &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Foo"}}
	if _, err := types.ObjectToTyped(u); err == nil || !strings.Contains(err.Error(), "no corresponding type") {
		t.Errorf("unknown kind: %v", err)
	}
}

// A definition's schema refers to itself: reading it ends, and a deep value is checked.
func TestRecursiveType(t *testing.T) {
	inner := apiextv1.JSONSchemaProps{Type: "string"}
	crd := &apiextv1.CustomResourceDefinition{}
	crd.SetGroupVersionKind(apiextv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	crd.Spec.Versions = []apiextv1.CustomResourceDefinitionVersion{{Name: "v1", Schema: &apiextv1.CustomResourceValidation{OpenAPIV3Schema: &apiextv1.JSONSchemaProps{
		Type: "object", Properties: map[string]apiextv1.JSONSchemaProps{"a": {Type: "array", Items: &apiextv1.JSONSchemaPropsOrArray{Schema: &inner}}}}}}}
	if _, err := NewTypes().ObjectToTyped(crd); err != nil {
		t.Fatal(err)
	}
}

func TestCustomName(t *testing.T) {
	if got := CustomName(schema.GroupVersionKind{Group: "stable.example.com", Version: "v1", Kind: "CronTab"}); got != "com.example.stable.v1.CronTab" {
		t.Error(got)
	}
}

func BenchmarkFirstKind(b *testing.B) {
	d := &appsv1.Deployment{}
	d.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	for b.Loop() {
		if _, err := NewTypes().ObjectToTyped(d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkObjectToTyped(b *testing.B) {
	var d appsv1.Deployment
	d.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "a", Image: "b", Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}
	types := NewTypes()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := types.ObjectToTyped(&d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWalk(b *testing.B) {
	for b.Loop() {
		var n bytes.Buffer
		if err := Walk(func(d *Definition) bool { n.WriteString(d.Name); return true }); err != nil {
			b.Fatal(err)
		}
	}
}
