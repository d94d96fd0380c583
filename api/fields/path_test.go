package fields

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"karve/api"
	"karve/api/codec"
)

// fill gives every string below v a value, or now and then none.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	switch v.Addr().Interface().(type) {
	case *resource.Quantity, *intstr.IntOrString, *metav1.Time, *metav1.MicroTime, *runtime.RawExtension, *metav1.FieldsV1:
		return
	}
	if depth > 6 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(r, v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(2), 2))
		for i := range v.Len() {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.String:
		v.SetString([...]string{"", "a", "b", "a longer text"}[r.IntN(4)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	}
}

// TestPathReadsWhatForReads holds the fields read from bytes against those read from objects, for every kind and label.
func TestPathReadsWhatForReads(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	read := 0
	for _, row := range api.Rows() {
		if row.New == nil || row.Prefix == "" {
			continue
		}
		for range 20 {
			o := row.New()
			fill(r, reflect.ValueOf(o).Elem(), 0)
			b, err := codec.Body(o)
			if err != nil {
				continue
			}
			value := codec.Envelope(row.GVK(), b)
			want := For(row.GVK())(o)
			for label := range paths()[row.GVK()] {
				read++
				if got := codec.Text(value, Path(row.GVK(), label)...); got != want.Get(label) {
					t.Fatalf("%s %s: %q from the bytes, %q from the object", row.Resource, label, got, want.Get(label))
				}
			}
		}
	}
	if read < 1000 {
		t.Errorf("only %d fields were read", read)
	}
	for _, label := range []string{"spec.nodeName", "status.phase", "spec.schedulerName"} {
		if Path(pods, label) == nil {
			t.Errorf("%s of a pod needs the object", label)
		}
	}
	if Path(schema.GroupVersionKind{Version: "v1", Kind: "Node"}, "spec.unschedulable") != nil {
		t.Error("a bool is no string")
	}
}
