// Package defaults fills in what a client left out, kind by kind: the API server runs it on every decoded body before
// admission. It owns values only; whether the result is acceptable is validation's business. Defaults that need a cluster
// (addresses, ports, service accounts) belong to admission and the allocators.
package defaults

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

type table map[schema.GroupVersionKind]func(runtime.Object)

var all = sync.OnceValue(func() table {
	t := table{}
	for _, add := range []func(table){
		addCore, addApps, addBatch, addAutoscaling, addNetworking, addRBAC, addStorage, addAdmission, addExtensions, addFlow, addResource,
	} {
		add(t)
	}
	return t
})

// For returns the function that sets the defaults of gvk in place, or nil where the kind has none. The object handed to it
// must be of the Go type that serves gvk.
func For(gvk schema.GroupVersionKind) func(obj runtime.Object) { return all()[gvk] }

func set[T runtime.Object](t table, group, version, kind string, f func(T)) {
	t[schema.GroupVersionKind{Group: group, Version: version, Kind: kind}] = func(o runtime.Object) { f(o.(T)) }
}

// zero sets *p to v when it is the zero value.
func zero[T comparable](p *T, v T) {
	var none T
	if *p == none {
		*p = v
	}
}

// unset points *p at v when it is nil.
func unset[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}
