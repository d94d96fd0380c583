package codec

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/diff"
	"sigs.k8s.io/yaml"

	"karve/api"
)

// seeds are the bodies of objects in a form.
func seeds(f *testing.F, mediaType string) {
	for _, o := range objects() {
		row := api.Of(o)
		typed := o.DeepCopyObject()
		typed.GetObjectKind().SetGroupVersionKind(row.GVK())
		var b bytes.Buffer
		if err := Serializer(mediaType, false).Encode(typed, &b); err != nil {
			f.Fatal(err)
		}
		if b.Len() < 4096 {
			f.Add(b.Bytes())
		}
	}
}

// same fails when two objects differ in what they say; empty and absent lists say the same.
func same(t *testing.T, what string, a, b runtime.Object) {
	t.Helper()
	if !equality.Semantic.DeepEqual(a, b) {
		t.Fatalf("%s: %T is another:\n%s", what, a, diff.Diff(a, b))
	}
}

// decode reads a body whose kind is in it; nil for one that is refused or of a kind that has no row.
func decode(mediaType string, strict bool, data []byte) (runtime.Object, error) {
	o, _, err := Serializer(mediaType, strict).Decode(data, nil, nil)
	if err != nil {
		if _, ok := runtime.AsStrictDecodingError(err); !ok {
			return nil, err
		}
	}
	return o, err
}

// FuzzJSON decodes bodies: what is taken is written back as valid JSON that means the same, once and for all.
func FuzzJSON(f *testing.F) {
	seeds(f, JSON)
	f.Add([]byte(`{"kind":"Pod","apiVersion":"v1","spec":{"containers":[{"name":"a","name":"b","resources":{"limits":{"cpu":1e3}}}]},"unknown":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := decode(JSON, false, data)
		strict, problems := decode(JSON, true, data)
		if (o == nil) != (strict == nil) {
			t.Fatalf("taken: %v, taken strictly: %v (%v, %v)", o != nil, strict != nil, err, problems)
		}
		row := rowOf(o)
		if row == nil {
			return
		}
		for _, x := range []runtime.Object{o, strict} { // the library finds "APIversion" too, but leaves it out of the object
			x.GetObjectKind().SetGroupVersionKind(row.GVK())
		}
		same(t, "strictly", o, strict)
		before := o.DeepCopyObject()
		text, err := JSONBody(o)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		same(t, "after encoding", before, o)
		again, err := decode(JSON, true, Typed(row.GVK(), text))
		if err != nil {
			t.Fatalf("decode what was encoded: %v\n%s", err, text)
		}
		same(t, "again", o, again)
		twice, err := JSONBody(again)
		if err != nil || !bytes.Equal(text, twice) {
			t.Fatalf("encoded twice: %v\n%s\n%s", err, text, twice)
		}
		asYAML, err := yaml.JSONToYAML(Typed(row.GVK(), text))
		if err != nil && strings.Contains(err.Error(), "control characters are not allowed") {
			return // YAML has no way to say what JSON does not escape
		}
		if err != nil {
			t.Fatalf("as YAML: %v\n%s", err, text)
		}
		read, err := decode(YAML, true, asYAML)
		if err != nil {
			t.Fatalf("decode its YAML: %v\n%s", err, asYAML)
		}
		same(t, "by way of YAML", o, read)
	})
}

func rowOf(o runtime.Object) *api.Row {
	if o == nil {
		return nil
	}
	return api.Of(o)
}

// FuzzYAML decodes bodies: what is taken as YAML is taken as the JSON it stands for.
func FuzzYAML(f *testing.F) {
	for _, o := range objects() {
		b, err := yaml.Marshal(o)
		if err == nil && len(b) < 4096 {
			f.Add(append([]byte("apiVersion: v1\nkind: "+api.Of(o).Kind+"\n"), b...))
		}
	}
	f.Add([]byte("kind: ConfigMap\napiVersion: v1\ndata: {a: 'yes', b: \"0x1\", c: |\n  x\n  y\n}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, _ := decode(YAML, false, data)
		if rowOf(o) == nil {
			return
		}
		o.GetObjectKind().SetGroupVersionKind(rowOf(o).GVK())
		text, err := yaml.YAMLToJSON(data)
		if err != nil {
			t.Fatalf("taken, but no YAML: %v", err)
		}
		plain, err := decode(JSON, false, text)
		if err != nil {
			t.Fatalf("its JSON is not taken: %v\n%s", err, text)
		}
		plain.GetObjectKind().SetGroupVersionKind(rowOf(o).GVK())
		same(t, "as JSON", o, plain)
	})
}

// FuzzProtobuf decodes bodies in the protobuf envelope: what is taken comes back from what it is written as.
func FuzzProtobuf(f *testing.F) {
	seeds(f, Protobuf)
	f.Add([]byte("k8s\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := decode(Protobuf, false, data)
		row := rowOf(o)
		if err != nil || row == nil {
			return
		}
		body, err := Body(o)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		again, err := decode(Protobuf, false, Envelope(row.GVK(), body))
		if err != nil {
			t.Fatalf("decode what was encoded: %v", err)
		}
		same(t, "again", o, again)
		if twice, err := Body(again); err != nil || !bytes.Equal(body, twice) {
			t.Fatalf("encoded twice: %v\n%q\n%q", err, body, twice)
		}
		if text, err := JSONBody(o); err == nil && !json.Valid(text) {
			t.Fatalf("no JSON: %q", text)
		}
	})
}

// FuzzStored reads what may lie in the store, as any of the kinds: it is refused, or comes back from what is stored of it.
func FuzzStored(f *testing.F) {
	rows := api.Rows()
	for _, o := range objects() {
		row := api.Of(o)
		for i := range rows {
			if rows[i] != row {
				continue
			}
			body, err := Body(o)
			if err != nil {
				f.Fatal(err)
			}
			if len(body) < 4096 {
				f.Add(uint16(i), Envelope(row.GVK(), body))
			}
			if text, err := json.Marshal(o); err == nil && len(text) < 4096 {
				f.Add(uint16(i), text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint16, data []byte) {
		row := rows[int(which)%len(rows)]
		o, err := DecodeStored(row, data)
		if err != nil {
			return
		}
		if got := o.GetObjectKind().GroupVersionKind(); got != row.GVK() {
			t.Fatalf("a %v came out as %v", row.GVK(), got)
		}
		body, err := Body(o)
		if err != nil {
			return // stored as JSON alone
		}
		again, err := DecodeStored(row, Envelope(row.GVK(), body))
		if err != nil {
			t.Fatalf("what is stored of it is refused: %v", err)
		}
		same(t, "again", o, again)
	})
}
