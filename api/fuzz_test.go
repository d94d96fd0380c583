package api_test

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api"
	"karve/api/codec"
	"karve/api/defaults"
	"karve/api/printcolumns"
	"karve/api/strategy"
	"karve/api/validation"
)

// words are what random fields say: some of it is right for some fields.
var words = []string{"", "a", "b", "a", "web-1", "example.com/x", "example.com", "10.0.0.1", "10.0.0.0/24", "fd00::1", "fd00::/64", "TCP", "UDP", "Always", "Never", "IfNotPresent", "ClusterIP",
	"NodePort", "ExternalName", "IPv4", "IPv6", "RollingUpdate", "OnDelete", "Recreate", "Allow", "Forbid", "Delete", "Retain", "Exists", "In", "Equal", "NoSchedule", "NoExecute", "Local", "Cluster",
	"Pod", "Node", "Service", "v1", "apps/v1", "apps", "rbac.authorization.k8s.io", "Role", "ClusterRole", "User", "Group", "ServiceAccount", "get", "*", "/etc/x", "../x", "-1", "0", "80", "http",
	"HTTP", "Gi", "1Gi", "*/5 * * * *", "True", "False", "Filesystem", "Block", "ReadWriteOnce", "ReadWriteMany", "kubernetes.io/hostname", "Queue", "Limited", "Exempt", "é", "A B", "with.dots", "under_score",
	"cpu", "memory", "pods", "default", "system:masters", "Utilization", "AverageValue", "Resource", "Percent", "Max", "Container", "Background", "object.spec.x == 1", "Ready", "Running", "Opaque"}

var quantities = []string{"0", "1", "100m", "1Gi", "-1", "1.5"}

// random fills v with what its field may hold, or leaves it as it is.
func random(r *rand.Rand, v reflect.Value, depth int) {
	switch x := v.Addr().Interface().(type) {
	case *resource.Quantity:
		*x = resource.MustParse(quantities[r.IntN(len(quantities))])
		return
	case *intstr.IntOrString:
		if *x = intstr.FromInt32(r.Int32N(100)); r.IntN(3) == 0 {
			*x = intstr.FromString([...]string{"50%", "http", "", "150%"}[r.IntN(4)])
		}
		return
	case *metav1.Time:
		*x = metav1.Unix(r.Int64N(3)*1e9, 0)
		return
	case *metav1.MicroTime:
		*x = metav1.NewMicroTime(time.Unix(r.Int64N(3)*1e9, 0))
		return
	case *runtime.RawExtension:
		x.Raw = []byte([...]string{`{}`, `{"a":1}`, `[]`}[r.IntN(3)])
		return
	case *metav1.FieldsV1, *metav1.TypeMeta, *[]metav1.ManagedFieldsEntry:
		return
	}
	if depth > 14 || r.IntN(4) == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if r.IntN(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			random(r, v.Elem(), depth+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				random(r, v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		n := r.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			random(r, v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(3) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			random(r, k, 0)
			random(r, e, depth+1)
			v.SetMapIndex(k, e)
		}
	case reflect.String:
		v.SetString(words[r.IntN(len(words))])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int32, reflect.Int64, reflect.Int:
		v.SetInt([...]int64{-1, 0, 1, 2, 80, 100, 30000, 1 << 20}[r.IntN(8)])
	case reflect.Uint8:
		v.SetUint(uint64(r.IntN(256)))
	}
}

func object(r *rand.Rand, row *api.Row) runtime.Object {
	o := row.New()
	random(r, reflect.ValueOf(o).Elem(), 0)
	o.GetObjectKind().SetGroupVersionKind(row.GVK())
	return o
}

func same(t *testing.T, what string, a, b runtime.Object) {
	t.Helper()
	if !equality.Semantic.DeepEqual(a, b) {
		t.Fatalf("%s: the %s is another:\n%s", what, a.GetObjectKind().GroupVersionKind().Kind, diff.Diff(a, b))
	}
}

// FuzzKinds takes random objects of every kind through what a write does to them: nothing breaks, defaults are complete the
// first time, whoever judges or shows changes nothing, and what was stored comes back.
func FuzzKinds(f *testing.F) {
	rows := api.Rows()
	for i := range rows {
		for seed := range uint64(12) {
			f.Add(seed, uint16(i))
		}
	}
	f.Fuzz(func(t *testing.T, seed uint64, which uint16) {
		row := rows[int(which)%len(rows)]
		gvk := row.GVK()
		r := rand.New(rand.NewPCG(seed, uint64(which)))
		o, next := object(r, row), object(r, row)
		if row.Hub() == row {
			if set := defaults.For(gvk); set != nil {
				set(o)
				set(next)
				once := o.DeepCopyObject()
				set(o)
				same(t, "defaults, twice", once, o)
			}
		}
		plan, rules := strategy.For(gvk), validation.For(gvk)
		plan.PrepareCreate(o)
		plan.Canonicalize(o)
		was := o.DeepCopyObject()
		wrong := rules.Create(o)
		judged(t, wrong)
		same(t, "judged", was, o)
		if row.Prefix != "" {
			kept(t, row, o)
			if len(wrong) == 0 {
				if errs := rules.Update(o.DeepCopyObject(), o); len(errs) > 0 && !strings.Contains(errs.ToAggregate().Error(), "resourceVersion") {
					t.Fatalf("it can be made, but not be written again as it is: %v", errs)
				}
			}
			before := next.DeepCopyObject()
			plan.PrepareUpdate(next, o)
			same(t, "prepared for an update", was, o)
			judged(t, rules.Update(next, o))
			same(t, "judged for an update", was, o)
			for name, prepare := range plan.Sub {
				through := before.DeepCopyObject()
				prepare(through, o)
				same(t, "prepared for "+name, was, o)
				if judge := rules.Sub[name]; judge != nil {
					judged(t, judge(through, o))
					same(t, "judged for "+name, was, o)
				}
			}
		}
		cols := printcolumns.For(gvk)
		// upstream shows the age of an IPAddress without a column for it
		if cells := cols.Row(o, time.Unix(2e9, 0)); len(cells) != len(cols.Defs) && row.Kind != "IPAddress" {
			t.Fatalf("a %s has %d cells in %d columns", row.Kind, len(cells), len(cols.Defs))
		}
		same(t, "shown", was, o)
	})
}

// kept checks that an object comes back from what the store holds of it.
func kept(t *testing.T, row *api.Row, o runtime.Object) {
	t.Helper()
	body, err := codec.Body(o)
	if err != nil {
		return // stored as JSON alone
	}
	back, err := codec.DecodeStored(row, codec.Envelope(row.GVK(), body))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "stored", o, back)
}

// judged checks that each cause can be told.
func judged(t *testing.T, errs field.ErrorList) {
	t.Helper()
	for _, e := range errs {
		if e == nil || e.Type == "" || e.Error() == "" {
			t.Fatalf("a cause that says nothing: %#v", e)
		}
	}
}
