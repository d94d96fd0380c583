// Package client is how every part of karve except the API server itself talks to the API: a Transport that carries one
// request, typed access on top of it (Of), and a watched copy of a resource (Cache). There are two transports: in-process
// (made by apiserver) and HTTP (NewHTTP), and no caller can tell them apart. It knows no resource by name: what it needs of
// a kind it reads from the api table.
//
// Objects returned by a Transport or a Cache are shared and must never be changed; DeepCopy before a change.
package client

import (
	"context"
	"fmt"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"karve/api"
)

// Object is any API object that has metadata.
type Object interface {
	runtime.Object
	metav1.Object
}

// Request is one call of the API. Verb is get, list, watch, create, update, patch, delete or deletecollection.
type Request struct {
	Verb        string
	Resource    schema.GroupVersionResource
	Namespace   string
	Name        string
	Subresource string
	// Object is the body of create and update; it is not changed and not kept.
	Object runtime.Object
	// PatchType and Patch are the body of patch.
	PatchType types.PatchType
	Patch     []byte
	// List holds the options of list, watch and deletecollection; Delete those of delete and deletecollection.
	List   metav1.ListOptions
	Delete metav1.DeleteOptions
	// FieldManager, Force and DryRun apply to create, update and patch.
	FieldManager string
	Force        bool
	DryRun       bool
}

// Transport carries requests to an API server. It is safe for concurrent use. Errors of the server are
// *apierrors.StatusError (k8s.io/apimachinery/pkg/api/errors), whichever the transport.
type Transport interface {
	// Do carries out any verb but watch and returns the object or list the server answered with. The answer is shared:
	// read only. A delete may answer with the object or with a *metav1.Status.
	Do(ctx context.Context, r *Request) (runtime.Object, error)
	// Watch opens a watch; it ends when ctx does, when Stop is called, or when the server ends it.
	Watch(ctx context.Context, r *Request) (watch.Interface, error)
}

// Resource is typed access to one resource. Its zero Namespace argument means cluster scope, or all namespaces in a list.
// It is a small value: make one where it is needed.
type Resource[T Object] struct {
	t   Transport
	row *api.Row
	// Manager is the field manager its writes are recorded under; empty lets the server choose.
	Manager string
}

// Of returns typed access to T, which must be a built-in kind of the api table (a program error otherwise: it panics).
func Of[T Object](t Transport) Resource[T] {
	var zero T
	row := api.Of(zero)
	if row == nil {
		panic(fmt.Sprintf("client: %T is not a built-in resource", zero))
	}
	return Resource[T]{t: t, row: row}
}

// As returns the same access with another field manager.
func (r Resource[T]) As(manager string) Resource[T] { r.Manager = manager; return r }

func (r Resource[T]) request(verb, namespace, name string) *Request {
	return &Request{Verb: verb, Resource: r.row.GVR(), Namespace: namespace, Name: name, FieldManager: r.Manager}
}

func (r Resource[T]) do(ctx context.Context, req *Request) (T, error) {
	var zero T
	obj, err := r.t.Do(ctx, req)
	if err != nil {
		return zero, err
	}
	got, ok := obj.(T)
	if !ok {
		return zero, fmt.Errorf("%s %s %s/%s: the server answered with a %T", req.Verb, r.row.Resource, req.Namespace, req.Name, obj)
	}
	return got, nil
}

// Get reads one object.
func (r Resource[T]) Get(ctx context.Context, namespace, name string) (T, error) {
	return r.do(ctx, r.request("get", namespace, name))
}

// List reads a collection and returns its items with the resourceVersion of the list.
func (r Resource[T]) List(ctx context.Context, namespace string, opts metav1.ListOptions) ([]T, string, error) {
	req := r.request("list", namespace, "")
	req.List = opts
	obj, err := r.t.Do(ctx, req)
	if err != nil {
		return nil, "", err
	}
	return items[T](obj)
}

// Watch watches a collection.
func (r Resource[T]) Watch(ctx context.Context, namespace string, opts metav1.ListOptions) (watch.Interface, error) {
	req := r.request("watch", namespace, "")
	req.List = opts
	return r.t.Watch(ctx, req)
}

// Create writes a new object in its own namespace.
func (r Resource[T]) Create(ctx context.Context, obj T) (T, error) {
	req := r.request("create", obj.GetNamespace(), "")
	req.Object = obj
	return r.do(ctx, req)
}

// Update replaces an object; its resourceVersion, when set, must be the current one (a conflict otherwise).
func (r Resource[T]) Update(ctx context.Context, obj T) (T, error) { return r.UpdateSub(ctx, obj, "") }

// UpdateStatus replaces the status of an object.
func (r Resource[T]) UpdateStatus(ctx context.Context, obj T) (T, error) {
	return r.UpdateSub(ctx, obj, "status")
}

// UpdateSub replaces through a subresource.
func (r Resource[T]) UpdateSub(ctx context.Context, obj T, sub string) (T, error) {
	req := r.request("update", obj.GetNamespace(), obj.GetName())
	req.Object, req.Subresource = obj, sub
	return r.do(ctx, req)
}

// Patch changes an object, or a subresource of it when one is named.
func (r Resource[T]) Patch(ctx context.Context, namespace, name string, kind types.PatchType, patch []byte, sub ...string) (T, error) {
	req := r.request("patch", namespace, name)
	req.PatchType, req.Patch = kind, patch
	if len(sub) > 0 {
		req.Subresource = sub[0]
	}
	return r.do(ctx, req)
}

// Delete deletes an object. What the server answers with (object or Status) is dropped.
func (r Resource[T]) Delete(ctx context.Context, namespace, name string, opts metav1.DeleteOptions) error {
	req := r.request("delete", namespace, name)
	req.Delete = opts
	_, err := r.t.Do(ctx, req)
	return err
}

// CreateSub posts a body of another kind to a subresource, for example a Binding to pods/binding or an Eviction to
// pods/eviction, and returns the server's answer.
func (r Resource[T]) CreateSub(ctx context.Context, namespace, name, sub string, body runtime.Object) (runtime.Object, error) {
	req := r.request("create", namespace, name)
	req.Object, req.Subresource = body, sub
	return r.t.Do(ctx, req)
}

// Revision returns a resourceVersion as a number, 0 when it is none.
func Revision(resourceVersion string) uint64 {
	n, err := strconv.ParseUint(resourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Key returns "namespace/name", or the name alone at cluster scope.
func Key(o metav1.Object) string {
	if ns := o.GetNamespace(); ns != "" {
		return ns + "/" + o.GetName()
	}
	return o.GetName()
}
