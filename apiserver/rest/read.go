package rest

import (
	"encoding/hex"
	"encoding/json"
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
	"sigs.k8s.io/yaml"

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
	// body is the patch being applied, if it is one, and kind what it is applied to.
	body []byte
	kind schema.GroupVersionKind
	// hidden says that errors must not quote the patch.
	hidden bool
}

// strict judges problems of a body that is to be a want.
func (v *validation) strict(errs []error, got, want schema.GroupVersionKind) error {
	errs = meant(errs, want)
	if v.mode == metav1.FieldValidationStrict {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %s", got.Kind, got.Version, want.Kind, patch.StrictMessage(errs)))
	}
	v.note(errs)
	return nil
}

// strictPatch judges problems that a patch brought in.
func (v *validation) strictPatch(errs []error) error {
	errs = meant(errs, v.kind)
	if v.mode == metav1.FieldValidationStrict {
		return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), v.patch(), patch.StrictMessage(errs))})
	}
	v.note(errs)
	return nil
}

func (v *validation) note(errs []error) {
	if v.mode == metav1.FieldValidationWarn {
		for _, e := range errs {
			v.warn(e.Error())
		}
	}
}

// patch is the patch as an error quotes it.
func (v *validation) patch() string {
	if v.hidden {
		return "<hidden>"
	}
	var m map[string]any
	if json.Unmarshal(v.body, &m) == nil {
		return fmt.Sprintf("%+v", m)
	}
	return string(v.body)
}

func (x *exchange) writeOptions(kind string) (*validation, error) {
	q := x.r.URL.Query()
	v := &validation{mode: q.Get("fieldValidation"), warn: x.warn, kind: x.row.GVK(), hidden: secret(x.row)}
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
		return nil, unsupportedMedia()
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
	if err != nil && got != nil && olderForms[*got] == kind && media != codec.Protobuf {
		*got, obj, err = kind, into, yaml.Unmarshal(body, into)
	}
	if err != nil {
		strict, ok := runtime.AsStrictDecodingError(err)
		if !ok || obj == nil {
			return nil, x.unreadable(got, kind, err, body, media)
		}
		if err := v.strict(strict.Errors(), *got, kind); err != nil {
			return nil, err
		}
	}
	if got.Kind != kind.Kind || got.Group != kind.Group {
		return nil, x.unreadable(got, kind, fmt.Errorf("converting (%s.%s) to (%s.%s): unknown conversion", got.Version, got.Kind, family(kind.Group), kind.Kind), body, media)
	}
	if got.Version != kind.Version && x.sub == nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), kind.GroupVersion()))
	}
	if row != nil && !row.Stored.Empty() {
		obj = convert.To(obj, row.Stored)
	}
	return obj, modernize(obj, kind)
}

// olderForms are versions of bodies, no longer served by themselves, that are still taken for their present one.
var olderForms = map[schema.GroupVersionKind]schema.GroupVersionKind{
	{Group: "policy", Version: "v1beta1", Kind: "Eviction"}: {Group: "policy", Version: "v1", Kind: "Eviction"},
}

// family is what errors call the internal form of a group.
func family(group string) string {
	if group == "" {
		return "core"
	}
	name, _, _ := strings.Cut(group, ".")
	return name
}

func undecodable(got *schema.GroupVersionKind, want schema.GroupVersionKind, err error, shown string) error {
	if got != nil && got.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, want.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, shown))
}

// excerpt shows the beginning of a body: as text if it may be JSON, else as hexadecimal digits.
func excerpt(b []byte) string {
	const n = 30
	if len(b) == 0 {
		return "<empty>"
	}
	head, more := b, ""
	if len(b) > n {
		head, more = b[:n], " ..."
	}
	if b[0] == '{' {
		return string(head) + more
	}
	return hex.EncodeToString(head) + more
}

// readIntent reads the body of a server-side apply as an untyped object of kind.
func (x *exchange) readIntent(body []byte, kind schema.GroupVersionKind, v *validation) (resource.Object, error) {
	intent, err := resource.Intent(body)
	if err != nil {
		return nil, err
	}
	if got := intent.GetObjectKind().GroupVersionKind(); got != kind {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid object type: %s", got))
	}
	if v.mode != metav1.FieldValidationIgnore {
		if err := yaml.UnmarshalStrict(body, &map[string]any{}); err != nil {
			if v.mode == metav1.FieldValidationStrict {
				return nil, apierrors.NewBadRequest("error strict decoding YAML: " + err.Error())
			}
			v.note([]error{err})
		}
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
			return nil, unsupportedMedia()
		}
		kind := schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"}
		obj, _, err := s.Decode(body, &kind, opts)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if got, ok := obj.(*metav1.DeleteOptions); ok {
			opts = got
		} else {
			got := obj.GetObjectKind().GroupVersionKind()
			return nil, apierrors.NewBadRequest(fmt.Sprintf("no kind %q is registered for version %q as options of a delete", got.Kind, got.GroupVersion()))
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
func listOptions(q url.Values, watch bool) (*metav1.ListOptions, error) {
	o := &metav1.ListOptions{}
	if err := metav1.Convert_url_Values_To_v1_ListOptions(&q, o, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	o.Watch = watch
	in := internalversion.ListOptions{Watch: watch, AllowWatchBookmarks: o.AllowWatchBookmarks, ResourceVersion: o.ResourceVersion,
		ResourceVersionMatch: o.ResourceVersionMatch, TimeoutSeconds: o.TimeoutSeconds, Limit: o.Limit, Continue: o.Continue, SendInitialEvents: o.SendInitialEvents,
		LabelSelector: labels.Everything(), FieldSelector: fields.Everything()}
	if from := o.ResourceVersion; watch && o.SendInitialEvents == nil && o.ResourceVersionMatch == "" && (from == "" || from == "0") {
		yes := true // a watch from nowhere in particular is judged as the one it amounts to
		in.SendInitialEvents, in.ResourceVersionMatch = &yes, metav1.ResourceVersionMatchNotOlderThan
	}
	if errs := listvalidation.ValidateListOptions(&in, true); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	return o, nil
}
