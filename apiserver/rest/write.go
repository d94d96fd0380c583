package rest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"karve/api"
	"karve/api/codec"
	"karve/apiserver/request"
	"karve/apiserver/resource"
	"karve/store"
)

// compressFrom is the size in bytes from which a client that accepts gzip gets it, as upstream does.
const compressFrom = 128 * 1024

func (x *exchange) writeResult(res *resource.Result, err error) error {
	if err != nil {
		return err
	}
	status := http.StatusOK
	if res.Created {
		status = http.StatusCreated
	}
	if res.Record == nil {
		return x.writeObject(status, x.view(res.Object))
	}
	return x.writeRecord(status, res.Record)
}

// writeRecord answers with a stored object, from the bytes its readers share where the client wants the plain form.
func (x *exchange) writeRecord(status int, rec *store.Record) error {
	if x.acc.As != "" || !x.row.Stored.Empty() {
		return x.writeObject(status, x.view(resource.ObjectOf(rec)))
	}
	b, err := recordBytes(rec, x.row.GVK(), x.acc.MediaType)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	writeBytes(x.w, x.r, x.acc, status, b)
	return nil
}

func recordBytes(rec *store.Record, gvk schema.GroupVersionKind, media string) ([]byte, error) {
	if media == codec.Protobuf {
		b, err := resource.ProtoBody(rec)
		if err != nil {
			return nil, err
		}
		return codec.Envelope(gvk, b), nil
	}
	b, err := resource.JSONBody(rec)
	if err != nil {
		return nil, err
	}
	return codec.Typed(gvk, b), nil
}

// kindOf returns the kind an object is written under: its own, by its Go type.
func kindOf(o runtime.Object) schema.GroupVersionKind {
	if row := api.Of(o); row != nil {
		return row.GVK()
	}
	gvk := o.GetObjectKind().GroupVersionKind()
	if gvk.Empty() {
		if kinds, _, err := api.Scheme().ObjectKinds(o); err == nil && len(kinds) > 0 {
			gvk = kinds[0]
		}
	}
	return gvk
}

func (x *exchange) writeObject(status int, o runtime.Object) error {
	gvk := kindOf(o)
	if m, ok := o.(resource.Object); ok && x.acc.As != "" {
		o, gvk = x.transform(m)
		if o == nil {
			if x.acc.As == "PartialObjectMetadataList" {
				return notAcceptable(fmt.Sprintf("you requested PartialObjectMetadataList, but the requested object is not a list (%s)", goName(x.row, "")))
			}
			return NotAcceptable(x.r, false)
		}
	}
	b, err := objectBytes(o, gvk, x.acc.MediaType)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	writeBytes(x.w, x.r, x.acc, status, b)
	return nil
}

func objectBytes(o runtime.Object, gvk schema.GroupVersionKind, media string) ([]byte, error) {
	if media == codec.Protobuf {
		b, err := codec.Body(o)
		if err != nil {
			return nil, err
		}
		return codec.Envelope(gvk, b), nil
	}
	b, err := codec.JSONBody(o)
	if err != nil {
		return nil, err
	}
	return codec.Typed(gvk, b), nil
}

// writeList answers with a collection, put together from the bytes of its items.
func (x *exchange) writeList(p *resource.Page) error {
	if x.acc.As != "" {
		o, err := x.transformList(p)
		if err != nil {
			return err
		}
		b, err := objectBytes(o, o.GetObjectKind().GroupVersionKind(), x.acc.MediaType)
		if err != nil {
			return apierrors.NewInternalError(err)
		}
		writeBytes(x.w, x.r, x.acc, http.StatusOK, b)
		return nil
	}
	meta := p.ListMeta()
	var b []byte
	var err error
	if x.acc.MediaType == codec.Protobuf {
		b, err = x.protoList(p, &meta)
	} else {
		b, err = x.jsonList(p, &meta)
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	writeBytes(x.w, x.r, x.acc, http.StatusOK, b)
	return nil
}

func (x *exchange) item(r *store.Record, form func(*store.Record) ([]byte, error), fresh func(runtime.Object) ([]byte, error)) ([]byte, error) {
	if x.row.Stored.Empty() {
		return form(r)
	}
	return fresh(x.view(resource.ObjectOf(r)))
}

func (x *exchange) protoList(p *resource.Page, meta *metav1.ListMeta) ([]byte, error) {
	head, err := codec.ListHeader(meta)
	if err != nil {
		return nil, err
	}
	parts := make([][]byte, 0, 1+2*len(p.Records))
	parts = append(parts, head)
	for _, r := range p.Records {
		b, err := x.item(r, resource.ProtoBody, codec.Body)
		if err != nil {
			return nil, err
		}
		parts = append(parts, codec.ItemHeader(len(b)), b)
	}
	return codec.Envelope(x.row.ListKind(), parts...), nil
}

func (x *exchange) jsonList(p *resource.Page, meta *metav1.ListMeta) ([]byte, error) {
	size := 0
	bodies := make([][]byte, len(p.Records))
	for i, r := range p.Records {
		b, err := x.item(r, resource.JSONBody, codec.JSONBody)
		if err != nil {
			return nil, err
		}
		bodies[i] = b
		size += len(b) + 1
	}
	m, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	out := codec.TypedPrefix(x.row.ListKind(), true, size+len(m)+40)
	out = append(out, `"metadata":`...)
	out = append(out, m...)
	out = append(out, `,"items":[`...)
	for i, b := range bodies {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, b...)
	}
	return append(out, ']', '}'), nil
}

var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return z
}}

// writeBytes sends an encoded answer: JSON bytes become YAML or are indented where asked, and large ones are compressed.
func writeBytes(w http.ResponseWriter, r *http.Request, acc request.Accept, status int, b []byte) {
	h := w.Header()
	switch {
	case acc.MediaType == codec.YAML:
		if y, err := yaml.JSONToYAML(b); err == nil {
			b = y
		}
	case acc.MediaType == codec.JSON && acc.Pretty:
		var out bytes.Buffer
		if json.Indent(&out, b, "", "  ") == nil {
			b = out.Bytes()
		}
	case acc.MediaType == codec.JSON:
		b = append(b[:len(b):len(b)], '\n')
	}
	h.Set("Content-Type", acc.MediaType)
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-cache, private")
	}
	if len(b) >= compressFrom && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		w.WriteHeader(status)
		z := zippers.Get().(*gzip.Writer)
		z.Reset(w)
		_, _ = z.Write(b)
		_ = z.Close()
		zippers.Put(z)
		return
	}
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that is gone cannot be told
}

// WriteObject answers with any registered object in the form negotiated.
func WriteObject(w http.ResponseWriter, r *http.Request, acc request.Accept, status int, o runtime.Object) {
	gvk := o.GetObjectKind().GroupVersionKind()
	b, err := objectBytes(o, gvk, acc.MediaType)
	if gvk.Version == "" && acc.MediaType != codec.Protobuf { // the oldest discovery documents name no version
		b, err = json.Marshal(o)
	}
	if err != nil {
		WriteError(w, r, apierrors.NewInternalError(err))
		return
	}
	writeBytes(w, r, acc, status, b)
}
