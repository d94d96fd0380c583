// Package rest is the HTTP edge of resources: it reads bodies and options, calls the door, and writes objects, lists,
// tables and watch streams in the form the client asked for. It is called by apiserver once a request is authenticated and
// authorized. It holds no rule about any resource.
package rest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"karve/api"
	"karve/api/convert"
	"karve/apiserver/authn"
	"karve/apiserver/patch"
	"karve/apiserver/request"
	"karve/apiserver/resource"
	"karve/apiserver/resource/warnings"
)

// Handler serves resources. Safe for concurrent use.
type Handler struct {
	Door *resource.Door
	Log  *slog.Logger
	// Post answers a create whose body is of a kind that is not stored (bindings, reviews, tokens, evictions).
	Post func(ctx context.Context, c *resource.Call, body runtime.Object) (runtime.Object, error)
	// Connect serves the subresources that are streams or proxies (log, exec, attach, portforward, proxy).
	Connect func(w http.ResponseWriter, r *http.Request, i *request.Info, c *resource.Call)
	// May says whether the user of a call may do verb to its object: what an error tells about an object depends on it. Nil
	// means no.
	May func(ctx context.Context, verb string, c *resource.Call) bool
	// Listed is told how long a watch took to send what was there when it began. It may be nil.
	Listed func(i *request.Info, took time.Duration)
}

// exchange is one request being answered.
type exchange struct {
	*Handler
	w    http.ResponseWriter
	r    *http.Request
	info *request.Info
	row  *api.Row
	sub  *api.Sub
	call *resource.Call
	acc  request.Accept
	// sent and patched are what came in the body, for errors to speak of.
	sent    resource.Object
	patched []byte
	// listing is when a watch began that is to send what there is; zero for others.
	listing time.Time
	warned  warned
}

var connects = map[string]bool{"log": true, "exec": true, "attach": true, "portforward": true, "proxy": true}

// Serve answers one resource request.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, i *request.Info, user *authn.User) {
	row := api.ByResource(schema.GroupVersionResource{Group: i.Group, Version: i.Version, Resource: i.Resource})
	x := &exchange{Handler: h, w: w, r: r, info: i, row: row}
	if err := x.serve(user); err != nil {
		x.fail(err)
	}
}

func (x *exchange) serve(user *authn.User) error {
	i, r := x.info, x.r
	if x.row == nil || i.Namespace != "" && !x.row.Namespaced && x.row.Resource != "namespaces" {
		return NotFound()
	}
	if i.Subresource != "" {
		if x.sub = x.row.Subresource(i.Subresource); x.sub == nil {
			return NotFound()
		}
	}
	manager := patch.ManagerOr(r.URL.Query().Get("fieldManager"), r.UserAgent())
	x.call = &resource.Call{Row: x.row, Sub: i.Subresource, Namespace: i.Namespace, Name: i.Name, User: user, Manager: manager, Warn: x.warn}
	if !x.row.Namespaced {
		x.call.Namespace = ""
	}
	if i.HasRest && !connects[i.Subresource] {
		return NotFound()
	}
	if !x.allowed() {
		return methodNotAllowed()
	}
	if why := path.IsValidPathSegmentName(i.Name); len(why) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("Name parameter invalid: %q: %s", i.Name, strings.Join(why, ";")))
	}
	if text := warnings.Deprecated(x.row.GVR()); text != "" {
		x.warn(text)
	}
	if connects[i.Subresource] {
		x.Connect(x.w, r, i, x.call)
		return nil
	}
	acc, ok := request.Negotiate(r, "Table", "PartialObjectMetadata", "PartialObjectMetadataList")
	if !ok {
		return NotAcceptable(r, i.Name == "" && r.Method == http.MethodGet)
	}
	x.acc = acc
	return x.dispatch()
}

// allowed reports whether the path serves the method. Across namespaces a collection can only be read, and a create has
// its name in the body.
func (x *exchange) allowed() bool {
	i := x.info
	if x.sub != nil {
		return x.sub.Has(i.Verb) || connects[i.Subresource] && x.sub.Has(connectVerb(x.r.Method))
	}
	switch i.Verb {
	case "create":
		return x.row.Has("create") && i.Name == "" && (i.Namespace != "" || !x.row.Namespaced)
	case "deletecollection":
		return x.row.Has(i.Verb) && (i.Namespace != "" || !x.row.Namespaced)
	case "patch", "update":
		return x.row.Has(i.Verb) && i.Name != ""
	}
	return x.row.Has(i.Verb)
}

// connectVerb is the verb that discovery lists a method of a connection under.
func connectVerb(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return "get"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	}
	return strings.ToLower(method)
}

func (x *exchange) dispatch() error {
	if x.info.Subresource == "scale" {
		return x.scale()
	}
	switch x.info.Verb {
	case "get":
		return x.get()
	case "list":
		return x.list()
	case "watch":
		return x.watch()
	case "create":
		return x.create()
	case "update":
		return x.update()
	case "patch":
		return x.patch()
	case "delete":
		return x.delete()
	case "deletecollection":
		return x.deleteCollection()
	}
	return methodNotAllowed()
}

func (x *exchange) warn(text string) { x.warned.add(x.w.Header(), text) }

func (x *exchange) get() error {
	if x.row.Prefix == "" {
		return apierrors.NewNotFound(schema.GroupResource{Group: x.row.Group, Resource: x.row.Singular}, x.call.Name)
	}
	rec, err := x.Door.Get(x.r.Context(), x.call, x.r.URL.Query().Get("resourceVersion"))
	if err != nil {
		return err
	}
	return x.writeRecord(http.StatusOK, rec)
}

func (x *exchange) list() error {
	opts, err := listOptions(x.r.URL.Query(), false)
	if err != nil {
		return err
	}
	if x.row.Prefix == "" {
		return x.writeList(&resource.Page{Revision: x.Door.Store().Revision()})
	}
	page, err := x.Door.List(x.r.Context(), x.call, opts)
	if err != nil {
		return err
	}
	return x.writeList(page)
}

func (x *exchange) create() error {
	v, err := x.writeOptions("CreateOptions")
	if err != nil {
		return err
	}
	into := x.row
	kind := x.row.GVK()
	if x.sub != nil && x.sub.Kind != "" {
		if kind.Kind = x.sub.Kind; x.sub.Version != "" {
			kind.Group, kind.Version = x.sub.Group, x.sub.Version
		}
		into = nil
	}
	obj, err := x.readBody(kind, into, v)
	if err != nil {
		return err
	}
	if x.sub != nil || x.row.Prefix == "" {
		out, err := x.Post(x.r.Context(), x.call, obj)
		if err != nil {
			return err
		}
		return x.writeObject(http.StatusCreated, out)
	}
	x.sent = obj.(resource.Object)
	res, err := x.Door.Create(x.r.Context(), x.call, x.sent)
	return x.writeResult(res, err)
}

func (x *exchange) update() error {
	v, err := x.writeOptions("UpdateOptions")
	if err != nil {
		return err
	}
	obj, err := x.readBody(x.row.GVK(), x.row, v)
	if err != nil {
		return err
	}
	x.sent = obj.(resource.Object)
	res, err := x.Door.Update(x.r.Context(), x.call, x.sent)
	return x.writeResult(res, err)
}

func (x *exchange) patch() error {
	v, err := x.writeOptions("PatchOptions")
	if err != nil {
		return err
	}
	kind := types.PatchType(request.ContentType(x.r))
	if err := patchable(kind); err != nil {
		return err
	}
	if v.body, err = readAll(x.w, x.r); err != nil {
		return err
	}
	x.patched = v.body
	opts := resource.PatchOptions{Force: x.force(), Strict: v.strictPatch}
	if kind != types.ApplyYAMLPatchType {
		res, err := x.Door.Patch(x.r.Context(), x.call, kind, v.body, opts)
		return x.writeResult(res, err)
	}
	intent, err := x.readIntent(v.body, x.row.GVK(), v)
	if err != nil {
		return err
	}
	res, err := x.Door.ServerSideApply(x.r.Context(), x.call, intent, opts)
	return x.writeResult(res, err)
}

// force says whether an apply takes over what others own.
func (x *exchange) force() bool { return request.Flag(x.r.URL.Query(), "force") }

func patchable(kind types.PatchType) error {
	switch kind {
	case types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyYAMLPatchType:
		return nil
	}
	return unsupportedMedia(string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType), string(types.ApplyYAMLPatchType))
}

func (x *exchange) delete() error {
	opts, err := x.deleteOptions()
	if err != nil {
		return err
	}
	if opts.PropagationPolicy == nil && opts.OrphanDependents == nil { //nolint:staticcheck // old clients still send it
		if text := warnings.ForDelete(x.row.GVK().GroupKind()); text != "" {
			x.warn(text)
		}
	}
	d, err := x.Door.Delete(x.r.Context(), x.call, opts)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if !d.Gone && opts.OrphanDependents != nil && !*opts.OrphanDependents { //nolint:staticcheck // old clients still send it
		status = http.StatusAccepted
	}
	answer := d.Answer(x.row.Hub())
	if s, ok := answer.(*metav1.Status); ok {
		s.Details.Group, s.Details.Kind = x.row.Group, x.row.Resource
		return x.writeObject(status, s)
	}
	return x.writeObject(status, x.view(answer))
}

func (x *exchange) deleteCollection() error {
	opts, err := x.deleteOptions()
	if err != nil {
		return err
	}
	list, err := listOptions(x.r.URL.Query(), false)
	if err != nil {
		return err
	}
	page, err := x.Door.DeleteCollection(x.r.Context(), x.call, opts, list)
	if err != nil {
		return err
	}
	return x.writeList(page)
}

// view converts a stored object to the version the client asked for.
func (x *exchange) view(o runtime.Object) runtime.Object {
	if x.row.Stored.Empty() {
		return o
	}
	return convert.To(o, x.row.GVK())
}

// Known reports whether a resource is in the table.
func (h *Handler) Known(gvr schema.GroupVersionResource) bool { return api.ByResource(gvr) != nil }
