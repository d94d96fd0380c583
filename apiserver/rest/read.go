package rest

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	listvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api"
	"karve/api/codec"
	"karve/api/convert"
	"karve/apiserver/patch"
	"karve/apiserver/request"
	"karve/apiserver/resource"
)

// maxBody is upstream's bound on a request body, in bytes.
const maxBody = 3 * 1024 * 1024

// validation is what a write does about unknown and duplicate fields: Strict, Warn or Ignore.
type validation struct {
	mode string
	warn func(string)
}

func (v *validation) strict(errs []error) error {
	switch v.mode {
	case metav1.FieldValidationStrict:
		return apierrors.NewBadRequest(patch.StrictMessage(errs))
	case metav1.FieldValidationWarn:
		for _, e := range errs {
			v.warn(e.Error())
		}
	}
	return nil
}

func (x *exchange) writeOptions(kind string) (*validation, error) {
	q := x.r.URL.Query()
	v := &validation{mode: q.Get("fieldValidation"), warn: x.warn}
	var errs field.ErrorList
	errs = append(errs, metavalidation.ValidateDryRun(field.NewPath("dryRun"), q["dryRun"])...)
	errs = append(errs, metavalidation.ValidateFieldManager(q.Get("fieldManager"), field.NewPath("fieldManager"))...)
	errs = append(errs, metavalidation.ValidateFieldValidation(field.NewPath("fieldValidation"), v.mode)...)
	if kind == "PatchOptions" {
		apply := strings.HasPrefix(request.ContentType(x.r), "application/apply-patch+")
		if apply && q.Get("fieldManager") == "" {
			errs = append(errs, field.Required(field.NewPath("fieldManager"), "is required for apply patch"))
		}
		if !apply && q.Has("force") {
			errs = append(errs, field.Forbidden(field.NewPath("force"), "may not be specified for non-apply patch"))
		}
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
	}
	if v.mode == "" {
		v.mode = metav1.FieldValidationWarn
	}
	x.call.DryRun = len(q["dryRun"]) > 0
	return v, nil
}

func readAll(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, ok := err.(*http.MaxBytesError); ok {
			return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", maxBody))
		}
		return nil, apierrors.NewBadRequest("cannot read the request body: " + err.Error())
	}
	return body, nil
}

// readBody decodes the request body as kind. row is nil for a body that is not the row's own kind.
func (x *exchange) readBody(kind schema.GroupVersionKind, row *api.Row, v *validation) (runtime.Object, error) {
	media := request.ContentType(x.r)
	s := codec.Serializer(media, v.mode != metav1.FieldValidationIgnore)
	if s == nil {
		return nil, unsupportedMedia([]string{codec.JSON, codec.YAML, codec.Protobuf, "application/cbor"})
	}
	body, err := readAll(x.w, x.r)
	if err != nil {
		return nil, err
	}
	into, err := api.Scheme().New(kind)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	obj, got, err := s.Decode(body, &kind, into)
	if err != nil {
		strict, ok := runtime.AsStrictDecodingError(err)
		if !ok || obj == nil {
			return nil, undecodable(got, kind, err, body)
		}
		if err := v.strict(strict.Errors()); err != nil {
			return nil, err
		}
	}
	if got.GroupVersion() != kind.GroupVersion() && !(x.sub != nil && got.Kind == kind.Kind) {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), kind.GroupVersion()))
	}
	if got.Kind != kind.Kind {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %s", kind.Kind, got.Kind))
	}
	if row != nil && !row.Stored.Empty() {
		obj = convert.To(obj, row.Stored)
	}
	return obj, nil
}

func undecodable(got *schema.GroupVersionKind, want schema.GroupVersionKind, err error, body []byte) error {
	if got != nil && got.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, want.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, excerpt(body)))
}

func excerpt(b []byte) string {
	const n = 30
	if len(b) == 0 {
		return "<empty>"
	}
	for _, c := range b[:min(n, len(b))] {
		if c < 0x20 && c != '\n' && c != '\t' && c != '\r' || c >= 0x7f {
			return fmt.Sprintf("%x", b[:min(n, len(b))]) + dots(len(b) > n)
		}
	}
	return string(b[:min(n, len(b))]) + dots(len(b) > n)
}

func dots(more bool) string {
	if more {
		return " ..."
	}
	return ""
}

// readIntent reads the body of a server-side apply and checks it against the kind without filling anything in.
func (x *exchange) readIntent(body []byte, v *validation) (resource.Object, error) {
	intent, err := resource.Intent(body)
	if err != nil {
		return nil, err
	}
	got := intent.GetObjectKind().GroupVersionKind()
	if got.Kind == "" || got.Version == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid object type: %s", got))
	}
	if got != x.row.GVK() {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid object type: %s", got))
	}
	if v.mode != metav1.FieldValidationIgnore {
		s := codec.Serializer(codec.YAML, true)
		if _, _, err := s.Decode(body, nil, x.row.New()); err != nil {
			if strict, ok := runtime.AsStrictDecodingError(err); ok {
				if err := v.strict(strict.Errors()); err != nil {
					return nil, err
				}
			}
		}
	}
	if intent.GetName() == "" {
		intent.SetName(x.call.Name)
	}
	if intent.GetName() != x.call.Name {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", intent.GetName(), x.call.Name))
	}
	if x.row.Namespaced && intent.GetNamespace() == "" {
		intent.SetNamespace(x.call.Namespace)
	}
	return intent, nil
}

func (x *exchange) deleteOptions() (*metav1.DeleteOptions, error) {
	opts := &metav1.DeleteOptions{}
	body, err := readAll(x.w, x.r)
	if err != nil {
		return nil, err
	}
	q := x.r.URL.Query()
	if len(body) > 0 {
		s := codec.Serializer(request.ContentType(x.r), false)
		if s == nil {
			return nil, unsupportedMedia([]string{codec.JSON, codec.YAML, codec.Protobuf, "application/cbor"})
		}
		kind := metav1.SchemeGroupVersion.WithKind("DeleteOptions")
		obj, _, err := s.Decode(body, &kind, opts)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if got, ok := obj.(*metav1.DeleteOptions); ok {
			opts = got
		} else {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("decoded object cannot be converted to DeleteOptions (%T)", obj))
		}
	} else if err := deleteQuery(q, opts); err != nil {
		return nil, err
	}
	if errs := metavalidation.ValidateDeleteOptions(opts); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "DeleteOptions"}, "", errs)
	}
	x.call.DryRun = len(opts.DryRun) > 0
	return opts, nil
}

func deleteQuery(q url.Values, opts *metav1.DeleteOptions) error {
	if v := q.Get("gracePeriodSeconds"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		opts.GracePeriodSeconds = &n
	}
	if v := q.Get("propagationPolicy"); v != "" {
		p := metav1.DeletionPropagation(v)
		opts.PropagationPolicy = &p
	}
	if v := q.Get("orphanDependents"); v != "" {
		b := v == "true" || v == "1"
		opts.OrphanDependents = &b //nolint:staticcheck // old clients still send it
	}
	opts.DryRun = q["dryRun"]
	return nil
}

// listOptions reads and checks the query of a list or watch.
func listOptions(q url.Values) (*metav1.ListOptions, error) {
	o := &metav1.ListOptions{}
	if err := metav1.Convert_url_Values_To_v1_ListOptions(&q, o, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	in := internalversion.ListOptions{Watch: o.Watch, AllowWatchBookmarks: o.AllowWatchBookmarks, ResourceVersion: o.ResourceVersion,
		ResourceVersionMatch: o.ResourceVersionMatch, TimeoutSeconds: o.TimeoutSeconds, Limit: o.Limit, Continue: o.Continue, SendInitialEvents: o.SendInitialEvents,
		LabelSelector: labels.Everything(), FieldSelector: fields.Everything()}
	if errs := listvalidation.ValidateListOptions(&in, true); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	return o, nil
}
