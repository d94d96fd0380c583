package patch

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"karve/api"
)

// fuzzed are kinds with lists and maps of every sort.
var fuzzed = []schema.GroupVersionKind{
	corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("ConfigMap"), corev1.SchemeGroupVersion.WithKind("Service"),
	appsv1.SchemeGroupVersion.WithKind("Deployment"), corev1.SchemeGroupVersion.WithKind("Node"), rbacv1.SchemeGroupVersion.WithKind("ClusterRole"),
}

// objectOf reads an object of one of the fuzzed kinds; nil if the text is none.
func objectOf(which uint8, text []byte) (*api.Row, runtime.Object) {
	row := api.ByKind(fuzzed[int(which)%len(fuzzed)])
	o := row.New()
	if len(text) > 8<<10 || kjson.UnmarshalCaseSensitivePreserveInts(text, o) != nil {
		return nil, nil
	}
	o.GetObjectKind().SetGroupVersionKind(row.GVK())
	return row, o
}

var patchKinds = []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType}

const somePod = `{"metadata":{"name":"p","labels":{"a":"1"},"finalizers":["x"],"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"}]},"spec":{"containers":[{"name":"one","image":"i","env":[{"name":"E","value":"1"}],"ports":[{"containerPort":80,"protocol":"TCP"}]},{"name":"two"}],"tolerations":[{"key":"t"}],"nodeSelector":{"k":"v"}},"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}],"podIPs":[{"ip":"10.0.0.1"}]}}`

// longWay is what a patch makes of an object when the whole of it is turned into JSON and back, by the libraries alone.
func longWay(o runtime.Object, kind types.PatchType, body []byte) (runtime.Object, error) {
	doc, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	switch kind {
	case types.JSONPatchType:
		ops, err := jsonpatch.DecodePatch(body)
		if err != nil {
			return nil, err
		}
		if doc, err = ops.Apply(doc); err != nil {
			return nil, err
		}
	case types.MergePatchType:
		if doc, err = jsonpatch.MergePatch(doc, body); err != nil {
			return nil, err
		}
	default:
		if doc, err = strategicpatch.StrategicMergePatch(doc, body, newLike(o)); err != nil {
			return nil, err
		}
	}
	out := newLike(o)
	return out, kjson.UnmarshalCaseSensitivePreserveInts(doc, out)
}

// breaksLibrary knows a JSON patch that the library cannot take: it replaces the whole document by no value.
func breaksLibrary(body []byte) bool {
	ops, err := jsonpatch.DecodePatch(body)
	return err == nil && slices.ContainsFunc(ops, func(op jsonpatch.Operation) bool {
		path, err := op.Path()
		return err == nil && path == "" && op.Kind() == "replace" && op["value"] == nil
	})
}

// judge fails if the result of a patch, or its refusal, is not the libraries'. They take a patch's members in any order, so that
// one which contradicts itself has several results: ours must be one of them.
func judge(t *testing.T, from, got runtime.Object, err error, kind types.PatchType, patch []byte) {
	t.Helper()
	var want runtime.Object
	var wrong error
	for range 20 {
		want, wrong = longWay(from, kind, patch)
		// What was turned into JSON has lost what JSON does not tell, such as whether a list is empty or absent.
		if (err == nil) == (wrong == nil) && (err != nil || equality.Semantic.DeepEqual(said(t, got), said(t, want))) {
			return
		}
	}
	if err != nil || wrong != nil {
		t.Fatalf("%s %s on %v: error %v, the libraries say %v", kind, patch, said(t, from), err, wrong)
	}
	t.Fatalf("%s %s on %v:\n%s", kind, patch, said(t, from), diff.Diff(want, got))
}

// FuzzPatch patches objects: what comes out is what the libraries make of the whole object, and what went in is untouched.
func FuzzPatch(f *testing.F) {
	jsonpatch.AccumulatedCopySizeLimit = 1 << 20 // as the server sets it: a copy of a copy of a copy is bounded
	for _, p := range []string{`{"metadata":{"labels":{"a":null,"b":"2"}},"spec":{"containers":[{"name":"one","image":"j","env":[{"name":"E","$patch":"delete"}]}]}}`,
		`{"spec":{"$setElementOrder/containers":[{"name":"two"},{"name":"one"}],"containers":[{"name":"one","$patch":"replace","image":"k"}]}}`,
		`{"spec":{"$retainKeys":["containers"],"containers":[{"$patch":"replace"},{"name":"new"}]}}`, `{"metadata":{"$deleteFromPrimitiveList/finalizers":["x"],"ownerReferences":[{"uid":"u","$patch":"delete"}]}}`,
		`{"$patch":"replace","metadata":{"name":"q"}}`, `{"status":null,"spec":{"tolerations":null,"nodeSelector":{"$patch":"delete"}}}`, `{"unknown":1,"spec":3}`} {
		f.Add(uint8(0), uint8(1), []byte(somePod), []byte(p))
		f.Add(uint8(0), uint8(2), []byte(somePod), []byte(p))
	}
	for _, p := range []string{`[{"op":"replace","path":"/spec/containers/0/image","value":"j"},{"op":"remove","path":"/metadata/labels/a"}]`,
		`[{"op":"move","from":"/metadata/labels","path":"/metadata/annotations"},{"op":"copy","from":"/spec/containers/0","path":"/spec/containers/-"},{"op":"test","path":"/status/phase","value":"Running"}]`,
		`[{"op":"add","path":"/metadata/labels/x~1y~0z","value":"1"}]`, `[{"op":"replace","path":"","value":{}}]`} {
		f.Add(uint8(0), uint8(0), []byte(somePod), []byte(p))
	}
	f.Add(uint8(2), uint8(2), []byte(`{"spec":{"ports":[{"port":1},{"port":2,"protocol":"UDP"}],"selector":{"a":"b"}}}`), []byte(`{"spec":{"ports":[{"port":1,"$patch":"delete"},{"port":3}]}}`))
	f.Fuzz(func(t *testing.T, which, how uint8, text, body []byte) {
		_, o := objectOf(which, text)
		if o == nil || len(body) > 4<<10 {
			return
		}
		kind := patchKinds[int(how)%len(patchKinds)]
		if kind == types.JSONPatchType && breaksLibrary(body) {
			return
		}
		before, sent := o.DeepCopyObject(), string(body)
		got, _, err := Apply(o, kind, body)
		if string(body) != sent {
			t.Fatal("the patch was changed")
		}
		if !equality.Semantic.DeepEqual(before, o) {
			t.Fatalf("the object was changed:\n%s", diff.Diff(before, o))
		}
		judge(t, before, got, err, kind, body)
	})
}

// random returns an object of one of the fuzzed kinds with anything in it. Names come from few, so that lists have common keys.
func random(r *rand.Rand, which uint8) runtime.Object {
	row := api.ByKind(fuzzed[int(which)%len(fuzzed)])
	o := row.New()
	fill(r, reflect.ValueOf(o).Elem(), 0)
	o.GetObjectKind().SetGroupVersionKind(row.GVK())
	return o
}

// FuzzPatchBetween makes the patch that turns one object into another, with the libraries that clients have, and applies it.
// A few of its members are changed at random first: patches that do not fit are answered as by the libraries, too.
func FuzzPatchBetween(f *testing.F) {
	for i := range uint64(32) {
		f.Add(i, uint8(i), uint8(i/8), i%4 == 3)
	}
	f.Fuzz(func(t *testing.T, seed uint64, which, how uint8, disturbed bool) {
		r := rand.New(rand.NewPCG(seed, 1))
		from, to := random(r, which), random(r, which)
		kind := types.MergePatchType
		a, _ := json.Marshal(from)
		b, _ := json.Marshal(to)
		patch, err := jsonpatch.CreateMergePatch(a, b)
		if how%2 == 1 {
			kind = types.StrategicMergePatchType
			patch, err = strategicpatch.CreateTwoWayMergePatch(a, b, newLike(from))
		}
		if err != nil {
			return // a list of maps without their keys: the library makes no patch of it
		}
		if disturbed {
			var m map[string]any
			if err := json.Unmarshal(patch, &m); err != nil {
				t.Fatal(err)
			}
			disturb(r, m)
			if patch, err = json.Marshal(m); err != nil {
				t.Fatal(err)
			}
		}
		before := from.DeepCopyObject()
		got, _, err := Apply(from, kind, patch)
		if !equality.Semantic.DeepEqual(before, from) {
			t.Fatalf("the object was changed:\n%s", diff.Diff(before, from))
		}
		judge(t, before, got, err, kind, patch)
	})
}

// disturb changes some members of a patch into what it did not mean.
func disturb(r *rand.Rand, m map[string]any) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		switch r.IntN(12) {
		case 0:
			m[k] = nil
		case 1:
			m[k] = map[string]any{"$patch": [...]string{"delete", "replace", "merge", "else"}[r.IntN(4)]}
		case 2:
			m[k] = []any{map[string]any{"name": "a", "$patch": "delete"}, map[string]any{"$patch": "replace"}}
		case 3:
			m["$retainKeys"] = []any{k}
		case 4:
			m["$deleteFromPrimitiveList/"+k] = []any{"a"}
		case 5:
			m[k] = 3
		default:
			switch v := m[k].(type) {
			case map[string]any:
				disturb(r, v)
			case []any:
				for _, x := range v {
					if inner, ok := x.(map[string]any); ok {
						disturb(r, inner)
					}
				}
			}
		}
	}
}

// said is what an object says as JSON, read back.
func said(t *testing.T, o runtime.Object) map[string]any {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// owned are the managed fields of an object without their times.
func owned(t *testing.T, o runtime.Object) string {
	t.Helper()
	m := o.(metav1.Object).GetManagedFields()
	out := make([]metav1.ManagedFieldsEntry, len(m))
	for i := range m {
		out[i] = m[i]
		out[i].Time = nil
	}
	b, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// FuzzManagers has one manager make an object and another change it: who owns what is what the library says.
func FuzzManagers(f *testing.F) {
	f.Add(uint8(0), []byte(somePod), []byte(`{"metadata":{"name":"p","labels":{"a":"2","b":"3"}},"spec":{"containers":[{"name":"two","image":"x"}]}}`), false)
	f.Add(uint8(0), []byte(somePod), []byte(somePod), true)
	f.Add(uint8(1), []byte(`{"data":{"a":"1"}}`), []byte(`{"data":{"a":"2","b":""},"immutable":true}`), false)
	f.Add(uint8(3), []byte(`{"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}}}}`), []byte(`{"spec":{"replicas":2,"template":{"spec":{"containers":[{"name":"c"}]}}}}`), true)
	ours, theirs := NewManagers(), NewManagers()
	f.Fuzz(func(t *testing.T, which uint8, first, second []byte, same bool) {
		row, a := objectOf(which, first)
		_, b := objectOf(which, second)
		if a == nil || b == nil || len(a.(metav1.Object).GetManagedFields())+len(b.(metav1.Object).GetManagedFields()) > 0 {
			return
		}
		a.(metav1.Object).SetUID("u")
		b.(metav1.Object).SetUID("u")
		later := "later"
		if same {
			later = "first"
		}
		compareManagers(t, ours, theirs, row, a, b, later)
	})
}

// compareManagers makes a, changes it into b, and compares who owns what with what the library says.
func compareManagers(t *testing.T, ours, theirs *Managers, row *api.Row, a, b runtime.Object, later string) {
	t.Helper()
	library := func(live, obj runtime.Object, manager string) runtime.Object {
		fm, err := theirs.of(row, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if live == nil {
			live = row.New()
			live.GetObjectKind().SetGroupVersionKind(row.GVK())
		}
		out, err := fm.FieldManager.Update(shallow(live), obj, manager)
		if err != nil {
			obj.(metav1.Object).SetManagedFields(nil)
			return obj
		}
		return out
	}
	made, madeByLibrary := ours.Update(row, "", nil, nil, a.DeepCopyObject(), "first", time.Now()), library(nil, a.DeepCopyObject(), "first")
	if got, want := owned(t, made), owned(t, madeByLibrary); got != want {
		t.Fatalf("made of %v:\n%s\nthe library says\n%s", said(t, a), got, want)
	}
	kept := made.DeepCopyObject()
	changed, changedByLibrary := ours.Update(row, "", nil, made, b.DeepCopyObject(), later, time.Now()), library(madeByLibrary, b.DeepCopyObject(), later)
	if got, want := owned(t, changed), owned(t, changedByLibrary); got != want {
		t.Fatalf("%v became %v:\n%s\nthe library says\n%s", said(t, a), said(t, b), got, want)
	}
	if !equality.Semantic.DeepEqual(kept, made) {
		t.Fatalf("the object that was there was changed:\n%s", diff.Diff(kept, made))
	}
}

// FuzzManagersBetween does the same with objects that have anything in them.
func FuzzManagersBetween(f *testing.F) {
	for i := range uint64(32) {
		f.Add(i, uint8(i))
	}
	ours, theirs := NewManagers(), NewManagers()
	f.Fuzz(func(t *testing.T, seed uint64, which uint8) {
		r := rand.New(rand.NewPCG(seed, 2))
		a, b := random(r, which), random(r, which)
		row := api.Of(a)
		for _, o := range []runtime.Object{a, b} {
			o.(metav1.Object).SetUID("u")
			o.(metav1.Object).SetManagedFields(nil)
		}
		compareManagers(t, ours, theirs, row, a, b, "later")
	})
}

// FuzzServerSideApply applies an intent twice: the second time changes nothing, and is no conflict with oneself.
func FuzzServerSideApply(f *testing.F) {
	f.Add(uint8(0), []byte(somePod), []byte(`{"metadata":{"name":"p","labels":{"b":"2"}},"spec":{"containers":[{"name":"one","image":"j"}]}}`))
	f.Add(uint8(1), []byte(`{"data":{"a":"1"}}`), []byte("data:\n  b: '2'\n"))
	f.Add(uint8(2), []byte(`{"spec":{"ports":[{"port":1}]}}`), []byte("spec: {ports: [{port: 1, protocol: UDP}, {port: 2, protocol: TCP}]}"))
	m := NewManagers()
	f.Fuzz(func(t *testing.T, which uint8, text, intent []byte) {
		row, live := objectOf(which, text)
		u := &unstructured.Unstructured{}
		if live == nil || len(intent) > 4<<10 || yaml.Unmarshal(intent, &u.Object) != nil || u.Object == nil {
			return
		}
		typed := row.New()
		if runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed) != nil || adds(u.Object, said(t, typed)) {
			return
		}
		u.SetGroupVersionKind(row.GVK())
		live.(metav1.Object).SetManagedFields(nil)
		before := live.DeepCopyObject()
		once, err := m.Apply(row, "", nil, live, u.DeepCopy(), "me", true)
		if !equality.Semantic.DeepEqual(before, live) {
			t.Fatalf("the object was changed:\n%s", diff.Diff(before, live))
		}
		if err != nil || once == nil {
			return
		}
		was := once.DeepCopyObject()
		twice, err := m.Apply(row, "", nil, once, u.DeepCopy(), "me", false)
		if err != nil {
			t.Fatalf("%s applied to %s again: %v", intent, text, err)
		}
		if !equality.Semantic.DeepEqual(was, once) {
			t.Fatalf("the object was changed:\n%s", diff.Diff(was, once))
		}
		if twice != nil && (owned(t, twice) != owned(t, once) || !equality.Semantic.DeepEqual(said(t, stripped(twice)), said(t, stripped(once)))) {
			t.Fatalf("%s applied to %s twice:\n%s", intent, text, diff.Diff(once, twice))
		}
	})
}

// adds reports whether an object says more than the intent it was read from: a field that is always written, and is the key of
// a list's entry, is owned under another name than it was meant by, which only validation refuses.
func adds(intent, typed any) bool {
	switch t := typed.(type) {
	case map[string]any:
		i, _ := intent.(map[string]any)
		for k, v := range t {
			if in, ok := i[k]; adds(in, v) || !ok && v != nil && !isMap(v) {
				return true
			}
		}
	case []any:
		i, _ := intent.([]any)
		for n, v := range t {
			if n >= len(i) || adds(i[n], v) {
				return true
			}
		}
	}
	return false
}

func isMap(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

// stripped is a copy without managed fields, whose times differ.
func stripped(o runtime.Object) runtime.Object {
	c := o.DeepCopyObject()
	c.(metav1.Object).SetManagedFields(nil)
	return c
}
