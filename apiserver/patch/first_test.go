package patch

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"karve/api"
)

// fill puts random values into v, or leaves it as it is.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	switch x := v.Addr().Interface().(type) {
	case *resource.Quantity:
		*x = resource.MustParse(fmt.Sprint(r.IntN(5)))
		return
	case *intstr.IntOrString:
		*x = intstr.FromInt32(r.Int32N(3))
		return
	case *metav1.Time:
		*x = metav1.Unix(r.Int64N(3)*1e9, 0)
		return
	case *metav1.MicroTime:
		*x = metav1.NewMicroTime(time.Unix(r.Int64N(3)*1e9, 0))
		return
	case *runtime.RawExtension, *metav1.FieldsV1:
		return
	}
	if r.IntN(3) == 0 || depth > 9 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type().Field(i).Name != "ManagedFields" {
				fill(r, v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(3), 3))
		for i := range v.Len() {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(3) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(r, k, depth)
			fill(r, e, depth+1)
			v.SetMapIndex(k, e)
		}
	case reflect.String:
		v.SetString([...]string{"", "a", "b", "c/d", `"x`, "é"}[r.IntN(6)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int32, reflect.Int64, reflect.Int:
		v.SetInt(r.Int64N(4))
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Uint8:
		v.SetUint(7)
	}
}

func TestFirstDoesWhatTheLibraryDoes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	m := NewManagers()
	planned, own, all := 0, 0, 0
	for _, row := range api.Rows() {
		if row.New == nil {
			continue
		}
		if _, err := meta.Accessor(row.New()); err != nil {
			continue
		}
		for _, reset := range [][]string{nil, {"status"}, {"metadata.labels", "spec"}} {
			fm, err := m.of(row, "", reset)
			delete(m.all, managerKey{row.GVK(), ""})
			if err != nil {
				t.Fatal(err)
			}
			if fm.plan == nil {
				continue
			}
			planned++
			for range 15 {
				obj := row.New()
				fill(r, reflect.ValueOf(obj).Elem(), 0)
				a, _ := meta.Accessor(obj)
				a.SetManagedFields(nil)
				obj.GetObjectKind().SetGroupVersionKind(row.GVK())
				none := row.New()
				none.GetObjectKind().SetGroupVersionKind(row.GVK())
				got, want := obj.DeepCopyObject(), obj.DeepCopyObject()
				all++
				if !m.first(fm.plan, row, got, "m", time.Now()) {
					continue
				}
				own++
				out, err := fm.Update(none, want, "m")
				if err != nil && reset != nil {
					continue // for something in what is left out
				}
				if err != nil {
					t.Errorf("%s: the library refuses %v: %v", row.Resource, obj, err)
					continue
				}
				if g, w := entries(got), entries(out); g != w {
					t.Fatalf("%s, left out %v:\n got %s\nwant %s\nfor  %#v", row.Resource, reset, g, w, obj)
				}
			}
		}
	}
	t.Logf("%d plans, %d of %d objects written by them", planned, own, all)
	if own*4 < all {
		t.Errorf("only %d of %d objects were not left to the library", own, all)
	}
}

func entries(o runtime.Object) string {
	a, err := meta.Accessor(o)
	if err != nil {
		return err.Error()
	}
	return timeless(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{ManagedFields: a.GetManagedFields()}})
}

func TestEveryKindHasAPlan(t *testing.T) {
	m := NewManagers()
	for _, row := range api.Rows() {
		if row.New == nil {
			continue
		}
		if p, err := m.types.Of(row.GVK()); err != nil || p == nil {
			continue
		} else if _, err := planOf(reflect.TypeOf(row.New()).Elem(), p, unownedPaths); err != nil {
			t.Errorf("%s: %v", row.Resource, err)
		}
	}
}

// BenchmarkFirst is the record of a create.
func BenchmarkFirst(b *testing.B) {
	row := api.ByKind(schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	m := NewManagers()
	pod := measured(row)
	b.ReportAllocs()
	for range b.N {
		pod.ManagedFields = nil
		m.Update(row, "", []string{"status"}, nil, pod, "creator", time.Now())
	}
}
