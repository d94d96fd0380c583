package rest

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"karve/api"
	"karve/api/codec"
	"karve/api/fields"
	"karve/apiserver/advice"
	"karve/apiserver/request"
	"karve/apiserver/resource"
)

// advised adds to an error, which is about to be written, what may help the person who reads it.
func (x *exchange) advised(err error) error {
	st := resource.StatusOf(err)
	if t := x.applied(); t != nil && st.Code == http.StatusInternalServerError { // what an apply cannot read is one, as upstream has it
		return x.undeclared(err, st, t)
	}
	switch {
	case x.row == nil || st.Code < 400 || st.Code >= 500:
		return err
	case x.call == nil: // the path was not understood
		if x.info.Namespace != "" && !x.row.Namespaced {
			return advice.Add(err, advice.Unscoped(x.row))
		}
		return advice.Add(err, advice.Path(x.row.GVR(), x.info.Subresource))
	}
	switch st.Reason {
	case metav1.StatusReasonBadRequest:
		return advice.Add(err, x.parameter(st.Message))
	case metav1.StatusReasonMethodNotAllowed:
		return advice.Add(err, advice.Methods(x.verbs()))
	case metav1.StatusReasonConflict:
		return advice.Add(err, x.since(st))
	case metav1.StatusReasonInvalid:
		return x.invalid(st)
	}
	return err
}

// applied is the type of what a request applies, nil for another request.
func (x *exchange) applied() reflect.Type {
	if x.row == nil || x.call == nil || x.sub != nil && x.sub.Kind != "" || request.ContentType(x.r) != string(types.ApplyYAMLPatchType) {
		return nil
	}
	return goType(x.row.GVK())
}

func (x *exchange) undeclared(err error, st *metav1.Status, t reflect.Type) error {
	text := advice.Undeclared(t, st.Message)
	if text == "" {
		return err
	}
	return advice.Add(&apierrors.StatusError{ErrStatus: *st}, text)
}

// verbs are those the path serves.
func (x *exchange) verbs() []string {
	if x.sub != nil {
		return x.sub.Verbs
	}
	var out []string
	for _, v := range x.row.Verbs {
		named := v == "get" || v == "update" || v == "patch" || v == "delete"
		across := x.row.Namespaced && x.info.Namespace == "" && (v == "create" || v == "deletecollection")
		if (x.info.Name != "") == named && !across {
			out = append(out, v)
		}
	}
	return out
}

// parameter names the parameter of the URL that a complaint of a parser is about, and what it takes.
func (x *exchange) parameter(message string) string {
	q := x.r.URL.Query()
	switch {
	case strings.HasPrefix(message, "strconv.") && q.Has("gracePeriodSeconds"):
		return "the parameter gracePeriodSeconds takes a whole number of seconds"
	case strings.HasPrefix(message, "field label "):
		if names := fields.Supported(x.row.GVK()); len(names) > 0 {
			return fmt.Sprintf("the fields that %s can be selected by are %s", x.row.Resource, strings.Join(names, ", "))
		}
	case strings.Contains(message, "field selector") || strings.HasPrefix(message, "invalid selector: "):
		return `a fieldSelector looks like "metadata.name=web,status.phase!=Running"`
	case q.Get("labelSelector") != "" && strings.Contains(message, ", expected: "):
		return `a labelSelector looks like "app=web,tier!=cache,zone in (a,b),!canary"`
	case strings.HasPrefix(message, "invalid continue token"):
		return "the parameter continue takes what the last page said in metadata.continue, unchanged; without it the list begins anew"
	case strings.HasPrefix(message, "the name of the object ("):
		return fmt.Sprintf("metadata.name has to be %q here", x.call.Name)
	case strings.HasPrefix(message, "the namespace of the provided object"):
		return fmt.Sprintf("metadata.namespace has to be %q here, or left out", x.call.Namespace)
	case strings.HasPrefix(message, "invalid object type: "):
		return fmt.Sprintf("here the body has apiVersion %q and kind %q", x.row.GVK().GroupVersion(), x.row.Kind)
	case strings.HasPrefix(message, "error decoding patch") || strings.HasPrefix(message, "error decoding YAML") || strings.HasPrefix(message, "error strict decoding YAML"):
		return x.patchForm(message)
	}
	return ""
}

// patchForm says where a patch is malformed, or what its form would be.
func (x *exchange) patchForm(message string) string {
	kind := request.ContentType(x.r)
	apply := strings.HasPrefix(kind, "application/apply-patch+")
	if at := x.text(x.patched, apply).Malformed(); at != "" {
		return at
	}
	switch {
	case !strings.Contains(message, "cannot unmarshal"):
	case strings.HasPrefix(kind, "application/json-patch+"):
		return `a JSON patch is a list such as [{"op": "replace", "path": "/spec/replicas", "value": 3}]; a part of the object is sent as application/merge-patch+json`
	default:
		return "the body has to be an object, with the fields to change; a list of operations is sent as application/json-patch+json"
	}
	return ""
}

// text is a body that advice is sought on.
func (x *exchange) text(body []byte, yaml bool) advice.Body {
	return advice.Body{Text: body, YAML: yaml, Secret: secret(x.row)}
}

// secret says that what a resource's bodies hold must not be repeated.
func secret(row *api.Row) bool {
	return row.Group == "" && row.Resource == "secrets" || row.Group == "authentication.k8s.io"
}

// unreadable is undecodable with what is wrong, and where.
func (x *exchange) unreadable(got *schema.GroupVersionKind, want schema.GroupVersionKind, err error, body []byte, media string) error {
	shown := "<hidden>"
	if !secret(x.row) {
		shown = excerpt(body)
	}
	out := undecodable(got, want, err, shown)
	if media == codec.Protobuf {
		return out
	}
	b := x.text(body, media == codec.YAML)
	text := b.Malformed()
	if text == "" && got != nil && *got == want {
		if t := goType(want); t != nil {
			text = b.Misfit(t)
		}
	}
	if text == "" && got != nil && got.Kind != "" {
		text = advice.Kind(*got, want)
	}
	return advice.Add(out, text)
}

// meant adds to unknown fields those that were probably meant.
func meant(errs []error, kind schema.GroupVersionKind) []error {
	t := goType(kind)
	if len(errs) == 0 || t == nil {
		return errs
	}
	return advice.Unknown(t, errs)
}

func goType(gvk schema.GroupVersionKind) reflect.Type {
	o, err := api.Scheme().New(gvk)
	if err != nil {
		return nil
	}
	return reflect.TypeOf(o).Elem()
}

// may asks whether the user who sent the request may do verb to its object too: only then can an error tell about it.
func (x *exchange) may(verb string) bool {
	if x.May == nil || x.call.Name == "" {
		return false
	}
	c := *x.call
	c.Sub = ""
	return x.May(x.r.Context(), verb, &c)
}

// stored is the object a request is about as it is now, nil for a user who may not read it.
func (x *exchange) stored() resource.Object {
	if x.row.Prefix == "" || !x.may("get") {
		return nil
	}
	rec, err := x.Door.Get(x.r.Context(), x.call, "")
	if err != nil {
		return nil
	}
	return resource.ObjectOf(rec)
}

// since says who changed an object that a client wanted to change, too.
func (x *exchange) since(st *metav1.Status) string {
	now := x.stored()
	if now == nil {
		return ""
	}
	if st.Details != nil && len(st.Details.Causes) > 0 { // an apply met other owners
		return advice.Owners(now, st.Details.Causes)
	}
	if !strings.Contains(st.Message, "the object has been modified") {
		return ""
	}
	s := &advice.Since{Now: now}
	if x.sent != nil {
		s.Sent = x.sent
		if before := x.Door.Before(x.r.Context(), x.call, x.sent.GetResourceVersion()); before != nil {
			s.Before = before
		}
	}
	return s.Text()
}

// invalid adds to the causes of a failed validation.
func (x *exchange) invalid(st *metav1.Status) error {
	t := goType(x.row.GVK())
	if st = x.misfit(st, t); st.Details == nil || t == nil || x.sub != nil && x.sub.Kind != "" || st.Details.Kind != x.row.Kind && st.Details.Kind != x.row.Resource {
		return &apierrors.StatusError{ErrStatus: *st}
	}
	st = st.DeepCopy()
	v := &advice.Invalid{Type: t, Secret: secret(x.row)}
	if x.sent != nil {
		v.Sent = x.sent
	}
	if immutable(st.Details.Causes) {
		if now := x.stored(); now != nil {
			v.Stored = x.view(now)
		}
	}
	if _, ok := v.Sent.(*corev1.Secret); ok {
		v.Secret = true
	}
	v.Advise(st)
	return &apierrors.StatusError{ErrStatus: *st}
}

// misfit says which value of a patch made the object none of its kind.
func (x *exchange) misfit(st *metav1.Status, t reflect.Type) *metav1.Status {
	if kind := request.ContentType(x.r); t == nil || x.sub != nil && x.sub.Kind != "" ||
		kind != string(types.MergePatchType) && kind != string(types.StrategicMergePatchType) ||
		st.Details == nil || len(st.Details.Causes) != 1 || st.Details.Causes[0].Field != "patch" {
		return st
	}
	if text := x.text(x.patched, false).Misfit(t); text != "" {
		st = st.DeepCopy()
		st.Details.Causes[0].Message += " (" + text + ")"
		st.Message += " (" + text + ")"
	}
	return st
}

func immutable(causes []metav1.StatusCause) bool {
	for _, c := range causes {
		if strings.HasSuffix(c.Message, "field is immutable") {
			return true
		}
	}
	return false
}

// NoPath is the answer to a path below a group that no resource has, with the one that was probably meant.
func NoPath(i *request.Info) error {
	if !i.IsResource {
		return NotFound()
	}
	return advice.Add(NotFound(), advice.Path(schema.GroupVersionResource{Group: i.Group, Version: i.Version, Resource: i.Resource}, i.Subresource))
}

// PlainNotFound is the answer in plain text to a path below no group. It is always the same: what was probably meant is said
// in a warning.
func PlainNotFound(w http.ResponseWriter, i *request.Info) {
	if i.IsResource {
		if hint := advice.Path(schema.GroupVersionResource{Group: i.Group, Version: i.Version, Resource: i.Resource}, i.Subresource); hint != "" {
			w.Header().Add("Warning", fmt.Sprintf("299 - %q", hint))
		}
	}
	http.Error(w, "404 page not found", http.StatusNotFound)
}
