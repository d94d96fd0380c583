// Package api is the API surface as data: one Row per served version of a resource, with everything a generic handler
// needs to serve it. It is read by every part of karve; it holds no state and imports nothing of karve outside its own
// subpackages (defaults, validation, strategy, printcolumns), which join the table by kind.
package api

import (
	"reflect"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Row is one served version of one resource. Rows are immutable once the table is built.
type Row struct {
	Group, Version, Resource, Singular, Kind string
	Namespaced                               bool
	Verbs                                    []string
	Short, Categories                        []string
	// Prefix is the path below /registry/ under which objects are stored; empty for kinds that are never stored.
	Prefix string
	Sub    []Sub
	// ReturnsDeleted says that a delete answers with the object as it last was; the others answer with a Status.
	ReturnsDeleted bool
	// OrphansByDefault says that a delete without a propagation policy leaves dependents alone.
	OrphansByDefault bool
	// Stored is the kind objects are stored as when it is not the row's own: the row is a second view of them.
	Stored schema.GroupVersionKind
	// New and NewList return a fresh object and list of the row's Go type; NewList is nil where nothing lists.
	New, NewList func() runtime.Object
}

// Sub is a subresource of a Row. An empty Kind means the parent's own kind.
type Sub struct {
	Name                 string
	Verbs                []string
	Group, Version, Kind string
}

// GVR returns the row's group, version and resource name.
func (r *Row) GVR() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Resource}
}

// GVK returns the row's group, version and kind.
func (r *Row) GVK() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
}

// GR returns the row's group and resource name.
func (r *Row) GR() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Resource}
}

// Hub returns the row whose kind the row's objects are stored as: the row itself unless it is a second view.
func (r *Row) Hub() *Row {
	if r.Stored.Empty() {
		return r
	}
	return ByKind(r.Stored)
}

// ListKind returns the kind of the row's lists.
func (r *Row) ListKind() schema.GroupVersionKind {
	k := r.GVK()
	k.Kind += "List"
	return k
}

// Has reports whether the resource itself serves verb.
func (r *Row) Has(verb string) bool { return contains(r.Verbs, verb) }

// Subresource returns the row's subresource of that name, or nil.
func (r *Row) Subresource(name string) *Sub {
	for i := range r.Sub {
		if r.Sub[i].Name == name {
			return &r.Sub[i]
		}
	}
	return nil
}

// Has reports whether the subresource serves verb.
func (s *Sub) Has(verb string) bool { return contains(s.Verbs, verb) }

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func verbs(s string) []string { return strings.Fields(s) }

// returnsDeleted lists the resources whose delete answers with the object.
var returnsDeleted = []string{"csidrivers", "csinodes", "deviceclasses", "persistentvolumeclaims", "persistentvolumes", "pods", "podtemplates",
	"resourceclaims", "resourceclaimtemplates", "resourcequotas", "resourceslices", "serviceaccounts", "services", "storageclasses",
	"volumeattachments", "volumeattributesclasses"}

// orphansByDefault lists the resources that predate garbage collection and keep its absence as their default.
var orphansByDefault = []string{"jobs", "replicationcontrollers"}

// secondView lists the kinds that are another version's view of stored objects.
var secondView = map[schema.GroupVersionKind]schema.GroupVersionKind{
	{Group: "autoscaling", Version: "v1", Kind: "HorizontalPodAutoscaler"}: {Group: "autoscaling", Version: "v2", Kind: "HorizontalPodAutoscaler"},
	{Group: "events.k8s.io", Version: "v1", Kind: "Event"}:                 {Version: "v1", Kind: "Event"},
}

type index struct {
	rows   []*Row
	byGVR  map[schema.GroupVersionResource]*Row
	byGVK  map[schema.GroupVersionKind]*Row
	byType map[reflect.Type]*Row
}

var builtinIndex = sync.OnceValue(func() *index {
	x := &index{byGVR: map[schema.GroupVersionResource]*Row{}, byGVK: map[schema.GroupVersionKind]*Row{}, byType: map[reflect.Type]*Row{}}
	for i := range builtin {
		r := &builtin[i]
		r.ReturnsDeleted = contains(returnsDeleted, r.Resource)
		r.OrphansByDefault = contains(orphansByDefault, r.Resource)
		r.Stored = secondView[r.GVK()]
		x.rows = append(x.rows, r)
		x.byGVR[r.GVR()] = r
		x.byGVK[r.GVK()] = r
		x.byType[reflect.TypeOf(r.New())] = r
	}
	return x
})

// Rows returns every built-in row in discovery order. The caller must not change the slice.
func Rows() []*Row { return builtinIndex().rows }

// ByResource returns the built-in row that serves gvr, or nil.
func ByResource(gvr schema.GroupVersionResource) *Row { return builtinIndex().byGVR[gvr] }

// ByKind returns the built-in row of gvk, or nil.
func ByKind(gvk schema.GroupVersionKind) *Row { return builtinIndex().byGVK[gvk] }

// Of returns the built-in row whose Go type is obj's (a pointer to a struct of k8s.io/api), or nil.
func Of(obj runtime.Object) *Row { return builtinIndex().byType[reflect.TypeOf(obj)] }
