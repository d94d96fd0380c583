package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api/codec"
	"karve/apiserver/request"
	"karve/apiserver/resource"
)

// NotAcceptable is the answer to a client that takes none of the forms there are. stream says that the path can be watched.
func NotAcceptable(r *http.Request, stream bool) error {
	e := apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "", schema.GroupResource{}, "", "", 0, false)
	e.ErrStatus.Reason = metav1.StatusReasonNotAcceptable
	if request.Speaks(r) { // a transformation there is not
		return withoutDetails(e, "only the following media types are accepted: "+strings.Join(spoken, ", "))
	}
	forms := spoken
	if stream {
		forms = append(slices.Clone(spoken), codec.JSON+";stream=watch", codec.Protobuf+";stream=watch")
	}
	e.ErrStatus.Details, e.ErrStatus.Message = &metav1.StatusDetails{}, "406: Not Acceptable\n\nAvailable representations: "+strings.Join(forms, ", ")
	return e
}

var spoken = []string{codec.JSON, codec.YAML, codec.Protobuf}

func withoutDetails(e *apierrors.StatusError, message string) error {
	e.ErrStatus.Details, e.ErrStatus.Message = nil, message
	return e
}

func notAcceptable(message string) error {
	e := apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "", schema.GroupResource{}, "", "", 0, false)
	e.ErrStatus.Reason = metav1.StatusReasonNotAcceptable
	return withoutDetails(e, message)
}

// unsupportedMedia answers a body in a form that is not accepted; accepted defaults to the forms objects come in.
func unsupportedMedia(accepted ...string) error {
	if len(accepted) == 0 {
		accepted = spoken
	}
	e := apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "", schema.GroupResource{}, "", "", 0, false)
	e.ErrStatus.Reason = metav1.StatusReasonUnsupportedMediaType
	return withoutDetails(e, "the body of the request was in an unknown format - accepted media types include: "+strings.Join(accepted, ", "))
}

// methodNotAllowed is the answer to a method that the path does not serve.
func methodNotAllowed() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusMethodNotAllowed, Reason: metav1.StatusReasonMethodNotAllowed,
		Details: &metav1.StatusDetails{}, Message: "the server does not allow this method on the requested resource"}}
}

// NotFound is the answer to a path below a group's version that no resource has.
func NotFound() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Details: &metav1.StatusDetails{}, Message: "the server could not find the requested resource"}}
}

func (x *exchange) fail(err error) {
	if errors.Is(err, context.Canceled) {
		return // the client is gone
	}
	WriteError(x.w, x.r, x.advised(err))
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
			b = codec.Envelope(schema.GroupVersionKind{Version: "v1", Kind: "Status"}, b)
		}
	}
	if e != nil {
		http.Error(w, err.Error(), code)
		return
	}
	writeBytes(w, r, acc, code, b)
}
