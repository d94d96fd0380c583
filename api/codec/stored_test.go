package codec

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
)

// metaOf is what every object has.
func metaOf(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: "n", UID: "u", Generation: 3, CreationTimestamp: metav1.Unix(1700000000, 0),
		Labels: map[string]string{"app": "web", "tier": ""}, Annotations: map[string]string{"a": strings.Repeat("x", 300)},
		Finalizers: []string{"f/x"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: metav1.NewFieldsV1("{}")}}}
}

func TestStoredIsWhatEncodingTheObjectGives(t *testing.T) {
	n := 0
	for _, row := range api.Rows() {
		if row.New == nil || row.Prefix == "" {
			continue
		}
		o := row.New()
		m, ok := o.(metav1.Object)
		if !ok {
			continue
		}
		if _, ok := o.(marshaler); !ok {
			continue
		}
		n++
		full := metaOf("x")
		for _, set := range []func(){func() {}, func() { m.SetName("x") }, func() {
			m.SetName(full.Name)
			m.SetNamespace(full.Namespace)
			m.SetUID(full.UID)
			m.SetGeneration(full.Generation)
			m.SetCreationTimestamp(full.CreationTimestamp)
			m.SetLabels(full.Labels)
			m.SetAnnotations(full.Annotations)
			m.SetFinalizers(full.Finalizers)
			m.SetManagedFields(full.ManagedFields)
		}} {
			set()
			m.SetResourceVersion("")
			b, err := Body(o)
			if err != nil {
				t.Fatal(err)
			}
			value := Envelope(row.GVK(), b)
			if whole, err := Encode(row.GVK(), o); err != nil || len(whole) != len(value) {
				t.Errorf("%s: encoded in one piece it has %d bytes, in two %d: %v", row.Resource, len(whole), len(value), err)
			}
			s, ok := Open(value)
			if !ok {
				t.Errorf("%s: not opened", row.Resource)
				continue
			}
			m.SetResourceVersion("12345")
			want, err := Body(o)
			if err != nil {
				t.Fatal(err)
			}
			got := s.Append(nil, "12345")
			if len(got) != s.Len("12345") {
				t.Errorf("%s: %d bytes, said %d", row.Resource, len(got), s.Len("12345"))
			}
			// Maps have no order in protobuf: what counts is that it reads as the same object.
			back, err := DecodeStored(row, Envelope(row.GVK(), got))
			if err != nil {
				t.Fatalf("%s: %v", row.Resource, err)
			}
			again, err := Body(back)
			if err != nil || len(again) != len(want) || back.(metav1.Object).GetResourceVersion() != "12345" || back.(metav1.Object).GetName() != m.GetName() {
				t.Errorf("%s: reads back as %v, %v", row.Resource, back, err)
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d kinds were looked at", n)
	}
}

func TestStoredLabels(t *testing.T) {
	d := &appsv1.Deployment{ObjectMeta: metaOf("d")}
	b, err := Body(d)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := Open(Envelope(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, b))
	if !ok {
		t.Fatal("not opened")
	}
	for _, text := range []string{"app=web", "app!=web", "tier", "!tier", "tier=", "none", "!none", "app in (a,web),tier notin (b)", "n<5"} {
		sel, err := labels.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := sel.Matches(s.Labels()), sel.Matches(labels.Set(d.Labels)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestText(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metaOf("p"), Spec: corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "c"}}}, Status: corev1.PodStatus{Phase: "Running"}}
	b, err := Body(p)
	if err != nil {
		t.Fatal(err)
	}
	value := Envelope(schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, b)
	for _, c := range []struct {
		path []int
		want string
	}{{[]int{2, 10}, "node"}, {[]int{3, 1}, "Running"}, {[]int{3, 3}, ""}, {[]int{9, 9}, ""}} {
		if got := Text(value, c.path...); got != c.want {
			t.Errorf("%v: %q, want %q", c.path, got, c.want)
		}
	}
	if got := Text([]byte("{}"), 2, 10); got != "" {
		t.Errorf("of JSON: %q", got)
	}
}

func FuzzOpen(f *testing.F) {
	b, err := Body(&corev1.Pod{ObjectMeta: metaOf("p")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(Envelope(schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, b))
	f.Add([]byte("k8s\x00"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, value []byte) {
		s, ok := Open(value)
		if !ok {
			return
		}
		if got := s.Append(nil, "7"); len(got) != s.Len("7") {
			t.Errorf("%d bytes, said %d", len(got), s.Len("7"))
		}
		s.Labels().Has("x")
		Text(value, 2, 10)
	})
}

// BenchmarkStored is what a reader of protobuf pays for one object.
func BenchmarkStored(b *testing.B) {
	body, err := Body(&corev1.Pod{ObjectMeta: metaOf("p")})
	if err != nil {
		b.Fatal(err)
	}
	value := Envelope(schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, body)
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for range b.N {
		s, ok := Open(value)
		if !ok {
			b.Fatal("not opened")
		}
		out = s.Append(out[:0], "12345")
	}
}
