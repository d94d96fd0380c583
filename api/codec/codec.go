// Package codec turns built-in objects into bytes and back: JSON, YAML, protobuf on the wire and the protobuf envelope in
// the store. An object's body is encoded once per media type without its kind and version, which are put in front where a
// reader wants them: that is what lets a get, a list and every watcher share the same bytes.
//
// It is called by apiserver (edge and store) and by client (HTTP transport). It keeps no state.
package codec

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"reflect"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	sjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"karve/api"
)

// Media types that the API speaks.
const (
	JSON     = "application/json"
	YAML     = "application/yaml"
	Protobuf = "application/vnd.kubernetes.protobuf"
)

type marshaler interface{ Marshal() ([]byte, error) }

var magic = []byte{'k', '8', 's', 0}

// Body encodes obj as protobuf without an envelope.
func Body(obj runtime.Object) ([]byte, error) {
	m, ok := obj.(marshaler)
	if !ok {
		return nil, fmt.Errorf("encode %T: it has no protobuf form", obj)
	}
	return m.Marshal()
}

// Envelope puts the kind and version of gvk around protobuf bodies, which are concatenated.
func Envelope(gvk schema.GroupVersionKind, bodies ...[]byte) []byte {
	size := 0
	for _, b := range bodies {
		size += len(b)
	}
	return AppendEnvelope(make([]byte, 0, EnvelopeLen(gvk, size)), gvk, bodies...)
}

// Encode returns obj as it is stored: its protobuf form in an envelope of gvk, written in one piece.
func Encode(gvk schema.GroupVersionKind, obj runtime.Object) ([]byte, error) {
	m, ok := obj.(interface {
		Size() int
		MarshalToSizedBuffer(b []byte) (int, error)
	})
	if !ok {
		return nil, fmt.Errorf("encode %T: it has no protobuf form", obj)
	}
	size := m.Size()
	out := AppendEnvelopeHead(make([]byte, 0, EnvelopeLen(gvk, size)), gvk, size)
	start := len(out)
	out = out[:start+size]
	n, err := m.MarshalToSizedBuffer(out[start:])
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", obj, err)
	}
	if n != size { // it is written from the end
		return nil, fmt.Errorf("encode %T: %d bytes, said %d", obj, n, size)
	}
	return AppendEnvelopeEnd(out), nil
}

// EnvelopeLen returns the length of an envelope around size bytes.
func EnvelopeLen(gvk schema.GroupVersionKind, size int) int {
	tm := typeMetaLen(gvk)
	return len(magic) + 1 + UvarintLen(tm) + tm + 1 + UvarintLen(size) + size + len(envelopeEnd)
}

func typeMetaLen(gvk schema.GroupVersionKind) int {
	v := len(gvk.Version)
	if gvk.Group != "" {
		v += len(gvk.Group) + 1
	}
	return v + len(gvk.Kind) + 2 + UvarintLen(v) + UvarintLen(len(gvk.Kind))
}

// envelopeEnd is contentEncoding and contentType, empty, as upstream writes them.
var envelopeEnd = []byte{0x1a, 0, 0x22, 0}

// AppendEnvelope is Envelope at the end of out.
func AppendEnvelope(out []byte, gvk schema.GroupVersionKind, bodies ...[]byte) []byte {
	size := 0
	for _, b := range bodies {
		size += len(b)
	}
	out = AppendEnvelopeHead(out, gvk, size)
	for _, b := range bodies {
		out = append(out, b...)
	}
	return append(out, envelopeEnd...)
}

// AppendEnvelopeHead appends what comes before size bytes in an envelope; AppendEnvelopeEnd appends what comes after them.
func AppendEnvelopeHead(out []byte, gvk schema.GroupVersionKind, size int) []byte {
	out = append(out, magic...)
	out = append(out, 0x0a) // Unknown.typeMeta
	out = binary.AppendUvarint(out, uint64(typeMetaLen(gvk)))
	out = append(out, 0x0a) // TypeMeta.apiVersion
	if gvk.Group != "" {
		out = binary.AppendUvarint(out, uint64(len(gvk.Group)+1+len(gvk.Version)))
		out = append(append(out, gvk.Group...), '/')
	} else {
		out = binary.AppendUvarint(out, uint64(len(gvk.Version)))
	}
	out = append(out, gvk.Version...)
	out = appendString(out, 0x12, gvk.Kind)
	out = append(out, 0x12) // Unknown.raw
	return binary.AppendUvarint(out, uint64(size))
}

// AppendEnvelopeEnd appends the end of an envelope.
func AppendEnvelopeEnd(out []byte) []byte { return append(out, envelopeEnd...) }

func appendString(out []byte, tag byte, s string) []byte {
	out = append(out, tag)
	out = binary.AppendUvarint(out, uint64(len(s)))
	return append(out, s...)
}

// UvarintLen returns the length of n as a protobuf varint.
func UvarintLen(n int) int { return (bits.Len64(uint64(n)|1) + 6) / 7 }

// AppendItemHead appends the bytes that come before one item of n bytes in the protobuf body of any Kubernetes list.
func AppendItemHead(out []byte, n int) []byte {
	return binary.AppendUvarint(append(out, 0x12), uint64(n))
}

// ItemHeadLen returns the length of what AppendItemHead appends.
func ItemHeadLen(n int) int { return 1 + UvarintLen(n) }

// ListHeader returns the protobuf encoding of a list's metadata as the first field of the list.
func ListHeader(m *metav1.ListMeta) ([]byte, error) {
	b, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	return append(binary.AppendUvarint([]byte{0x0a}, uint64(len(b))), b...), nil
}

// JSONBody encodes obj as JSON without kind and apiVersion, and without a newline at the end.
func JSONBody(obj runtime.Object) ([]byte, error) {
	if k := obj.GetObjectKind(); !k.GroupVersionKind().Empty() {
		// A shallow copy is enough to leave the shared object alone.
		c := reflect.New(reflect.TypeOf(obj).Elem())
		c.Elem().Set(reflect.ValueOf(obj).Elem())
		obj = c.Interface().(runtime.Object)
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	return json.Marshal(obj)
}

// Typed puts kind and version in front of what JSONBody returned.
func Typed(gvk schema.GroupVersionKind, body []byte) []byte {
	return append(TypedPrefix(gvk, len(body) > 2, len(body)), body[1:]...)
}

// TypedPrefix returns the opening of a JSON object that carries gvk; more says that other members follow.
func TypedPrefix(gvk schema.GroupVersionKind, more bool, room int) []byte {
	gv := gvk.GroupVersion().String()
	out := make([]byte, 0, len(gv)+len(gvk.Kind)+32+room)
	out = append(out, `{"kind":"`...)
	out = append(out, gvk.Kind...)
	out = append(out, `","apiVersion":"`...)
	out = append(out, gv...)
	out = append(out, '"')
	if more {
		out = append(out, ',')
	}
	return out
}

type serializers struct {
	json, strict, yaml, strictYAML runtime.Serializer
	proto                          runtime.Serializer
}

var codecs = sync.OnceValue(func() *serializers {
	s := api.Scheme()
	mk := func(yaml, strict bool) runtime.Serializer {
		return sjson.NewSerializerWithOptions(sjson.DefaultMetaFactory, s, s, sjson.SerializerOptions{Yaml: yaml, Strict: strict})
	}
	return &serializers{json: mk(false, false), strict: mk(false, true), yaml: mk(true, false), strictYAML: mk(true, true),
		proto: protobuf.NewSerializer(s, s)}
})

// Serializer returns apimachinery's serializer for a media type, or nil for one that is not spoken. A strict one reports
// unknown and duplicate fields as a runtime.StrictDecodingError beside the object.
func Serializer(mediaType string, strict bool) runtime.Serializer {
	c := codecs()
	switch mediaType {
	case JSON:
		if strict {
			return c.strict
		}
		return c.json
	case YAML:
		if strict {
			return c.strictYAML
		}
		return c.yaml
	case Protobuf:
		return c.proto
	}
	return nil
}

// DecodeStored reads what Envelope wrote, or JSON as upstream stores some kinds, into a fresh object of the row's type,
// with kind and version set.
func DecodeStored(row *api.Row, value []byte) (runtime.Object, error) {
	obj := row.New()
	if !bytes.HasPrefix(value, magic) {
		if err := json.Unmarshal(value, obj); err != nil {
			return nil, fmt.Errorf("decode stored %s: %w", row.Resource, err)
		}
		obj.GetObjectKind().SetGroupVersionKind(row.GVK())
		return obj, nil
	}
	var u runtime.Unknown
	if err := u.Unmarshal(value[len(magic):]); err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", row.Resource, err)
	}
	m, ok := obj.(interface{ Unmarshal([]byte) error })
	if !ok {
		return nil, fmt.Errorf("decode stored %s: %T has no protobuf form", row.Resource, obj)
	}
	if err := m.Unmarshal(u.Raw); err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", row.Resource, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(row.GVK())
	if s, ok := obj.(*appsv1.StatefulSet); ok {
		// the claims are objects inside an object: protobuf drops their kind, which every StatefulSet has by default
		for i := range s.Spec.VolumeClaimTemplates {
			s.Spec.VolumeClaimTemplates[i].TypeMeta = metav1.TypeMeta{Kind: "PersistentVolumeClaim", APIVersion: "v1"}
		}
	}
	return obj, nil
}
