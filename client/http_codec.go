package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	serializerjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"karve/api"
)

const (
	mediaJSON     = "application/json"
	mediaProtobuf = "application/vnd.kubernetes.protobuf"
)

// protobufPrefix opens every protobuf body: what follows is a runtime.Unknown that names the kind and holds the object.
var protobufPrefix = []byte("k8s\x00")

// encodeBody returns the body of a request and its media type, nil when it has none.
func encodeBody(r *Request) ([]byte, string, error) {
	switch r.Verb {
	case "create", "update":
		if r.Object == nil {
			return nil, "", fmt.Errorf("no object to send")
		}
		return encode(r.Object)
	case "patch":
		return r.Patch, string(r.PatchType), nil
	case "delete", "deletecollection":
		o := r.Delete
		o.TypeMeta = metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"}
		if r.DryRun {
			o.DryRun = []string{metav1.DryRunAll}
		}
		data, err := json.Marshal(&o)
		return data, mediaJSON, err
	}
	return nil, "", nil
}

// encode does not change obj, which may be shared: the kind it lacks is added beside it.
func encode(obj runtime.Object) ([]byte, string, error) {
	m, ok := obj.(interface{ Marshal() ([]byte, error) })
	if _, dynamic := obj.(runtime.Unstructured); dynamic || !ok {
		data, err := json.Marshal(obj)
		return data, mediaJSON, err
	}
	kinds, _, err := api.Scheme().ObjectKinds(obj)
	if err != nil {
		return nil, "", fmt.Errorf("encode %T: %w", obj, err)
	}
	raw, err := m.Marshal()
	if err != nil {
		return nil, "", fmt.Errorf("encode %T: %w", obj, err)
	}
	gv, kind := kinds[0].ToAPIVersionAndKind()
	u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: gv, Kind: kind}, Raw: raw}
	out := make([]byte, len(protobufPrefix)+u.Size())
	copy(out, protobufPrefix)
	if _, err := u.MarshalTo(out[len(protobufPrefix):]); err != nil {
		return nil, "", fmt.Errorf("encode %T: %w", obj, err)
	}
	return out, mediaProtobuf, nil
}

// decode reads one object of any registered kind; JSON of other kinds becomes unstructured.
func decode(contentType string, data []byte) (runtime.Object, error) {
	media, _, _ := mime.ParseMediaType(contentType)
	switch {
	case media == mediaProtobuf || bytes.HasPrefix(data, protobufPrefix):
		s := api.Scheme()
		obj, _, err := protobuf.NewSerializer(s, s).Decode(data, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("decode answer: %w", err)
		}
		return obj, nil
	case media == mediaJSON || media == "":
		return decodeJSON(data)
	}
	return nil, fmt.Errorf("the server answered with %q, which is no object", contentType)
}

func decodeJSON(data []byte) (runtime.Object, error) {
	s := api.Scheme()
	obj, _, err := serializerjson.NewSerializerWithOptions(serializerjson.DefaultMetaFactory, s, s, serializerjson.SerializerOptions{}).Decode(data, nil, nil)
	if runtime.IsNotRegisteredError(err) {
		obj, _, err = unstructured.UnstructuredJSONScheme.Decode(data, nil, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("decode answer: %w", err)
	}
	return obj, nil
}
