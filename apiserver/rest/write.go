package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

// writeRecord answers with a stored object, from its stored bytes or those that readers share where the client wants the
// plain form.
func (x *exchange) writeRecord(status int, rec *store.Record) error {
	if x.acc.As == "" && x.row.Stored.Empty() {
		if x.acc.MediaType == codec.Protobuf {
			if s, ok := codec.Open(rec.Value); ok {
				gvk, version := x.row.GVK(), versionOf(rec)
				kept := buffers.Get().(*[]byte)
				b := codec.AppendEnvelopeHead((*kept)[:0], gvk, s.Len(version))
				b = codec.AppendEnvelopeEnd(s.Append(b, version))
				writeBytes(x.w, x.r, x.acc, status, b)
				release(kept, b)
				return nil
			}
		} else {
			b, err := resource.JSONBody(rec)
			if err != nil || b == nil {
				return unreadable(rec, err)
			}
			writeBytes(x.w, x.r, x.acc, status, codec.Typed(x.row.GVK(), b))
			return nil
		}
	}
	o := resource.ObjectOf(rec)
	if o == nil {
		return unreadable(rec, nil)
	}
	return x.writeObject(status, x.view(o))
}

func versionOf(rec *store.Record) string { return strconv.FormatUint(rec.Revision, 10) }

// unreadable is the answer where a stored object makes no sense; the log says why.
func unreadable(rec *store.Record, err error) error {
	if err == nil {
		err = errors.New("what is stored is damaged; delete it or restore it from a backup")
	}
	return apierrors.NewInternalError(fmt.Errorf("read %s: %w", rec.Key, err))
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
	h.Set("Content-Type", acc.MediaType+acc.Suffix)
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-cache, private")
	}
	if len(b) > compressFrom && AcceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		w.WriteHeader(status)
		z := zip(w)
		_, _ = z.Write(b)
		_ = z.Close()
		zippers.Put(z)
		return
	}
	w.WriteHeader(status)
	_, _ = w.Write(b) // a client that is gone cannot be told
}

// WriteJSON answers with an object that is encoded as JSON already, in a form that JSON can be turned into.
func WriteJSON(w http.ResponseWriter, r *http.Request, acc request.Accept, b []byte) {
	writeBytes(w, r, acc, http.StatusOK, b)
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
