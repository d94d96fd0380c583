package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api/codec"
	"karve/apiserver/request"
	"karve/apiserver/resource"
)

// NotAcceptable is the answer to a client that takes none of the forms there are.
func NotAcceptable() error {
	e := apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "", schema.GroupResource{}, "", "", 0, false)
	e.ErrStatus.Reason = metav1.StatusReasonNotAcceptable
	e.ErrStatus.Details = nil
	e.ErrStatus.Message = "only the following media types are accepted: " + strings.Join([]string{codec.JSON, codec.YAML, codec.Protobuf}, ", ")
	return e
}

func unsupportedMedia(accepted []string) error {
	e := apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "", schema.GroupResource{}, "", "", 0, false)
	e.ErrStatus.Reason = metav1.StatusReasonUnsupportedMediaType
	e.ErrStatus.Details = nil
	e.ErrStatus.Message = "the body of the request was in an unknown format - accepted media types include: " + strings.Join(accepted, ", ")
	return e
}

func (x *exchange) fail(err error) {
	if errors.Is(err, errUnknown) {
		http.Error(x.w, "404 page not found", http.StatusNotFound)
		return
	}
	if errors.Is(err, context.Canceled) {
		return // the client is gone
	}
	WriteError(x.w, x.r, err)
}

// WriteError answers with the Status of err in a form the client accepts.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, context.DeadlineExceeded) {
		err = apierrors.NewTimeoutError("the server did not answer in time", 1)
	}
	st := resource.StatusOf(err)
	if st.Details != nil && st.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(st.Details.RetryAfterSeconds)))
	}
	acc, ok := request.Negotiate(r)
	if !ok {
		acc = request.Accept{MediaType: codec.JSON}
	}
	code := int(st.Code)
	if code == 0 {
		code = http.StatusInternalServerError
	}
	b, e := json.Marshal(st)
	if acc.MediaType == codec.Protobuf {
		if b, e = codec.Body(st); e == nil {
			b = codec.Envelope(metav1.SchemeGroupVersion.WithKind("Status"), b)
		}
	}
	if e != nil {
		http.Error(w, err.Error(), code)
		return
	}
	writeBytes(w, r, acc, code, b)
}
