// Package controllertest is an API server small enough for the tests of controllers: a client.Transport over maps, with
// revisions, watches, generated names, generations, status subresources, finalizers and graceful deletion of pods, and a
// hook that fails chosen requests. It validates, defaults and admits nothing, and only tests use it.
package controllertest

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"karve/api"
	"karve/client"
)

// Server is the fake. The zero value is not usable: call New.
type Server struct {
	// Fail, when set, may refuse a request by returning an error. It is called with no lock held.
	Fail func(r *client.Request) error

	mu       sync.Mutex
	revision uint64
	serial   uint64
	objects  map[string]map[string]client.Object // storage prefix → key → object
	log      []event
	watchers map[*watcher]bool
	calls    map[string]int
	gone     map[string]bool // namespaces that were there; one that never was is not asked for
}

type event struct {
	prefix   string
	kind     watch.EventType
	revision uint64
	object   client.Object
}

// New returns a server holding objects.
func New(objects ...client.Object) *Server {
	s := &Server{objects: map[string]map[string]client.Object{}, watchers: map[*watcher]bool{}, calls: map[string]int{}, gone: map[string]bool{}}
	for _, o := range objects {
		if _, err := s.create(api.Of(o), &client.Request{Namespace: o.GetNamespace(), Object: o}); err != nil {
			panic(err)
		}
	}
	return s
}

// Calls returns how many requests of that verb and resource (for example "create pods") were carried out.
func (s *Server) Calls(verbAndResource string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[verbAndResource]
}

// Do is client.Transport's.
func (s *Server) Do(ctx context.Context, r *client.Request) (runtime.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.Fail != nil {
		if err := s.Fail(r); err != nil {
			return nil, err
		}
	}
	row := api.ByResource(r.Resource)
	if row == nil {
		return nil, apierrors.NewNotFound(r.Resource.GroupResource(), r.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[r.Verb+" "+strings.TrimSuffix(row.Resource+"/"+r.Subresource, "/")]++
	switch r.Verb {
	case "get":
		return s.get(row, r)
	case "list":
		return s.list(row, r)
	case "create":
		return s.create(row, r)
	case "update":
		return s.update(row, r, r.Object)
	case "patch":
		return s.patch(row, r)
	case "delete":
		return s.remove(row, r)
	case "deletecollection":
		l, err := s.list(row, r)
		if err != nil {
			return nil, err
		}
		for _, o := range l.Items {
			one := *r
			m := o.(client.Object)
			one.Namespace, one.Name = m.GetNamespace(), m.GetName()
			if _, err := s.remove(row, &one); err != nil {
				return nil, err
			}
		}
		return &metav1.Status{Status: metav1.StatusSuccess}, nil
	}
	return nil, apierrors.NewMethodNotSupported(row.GR(), r.Verb)
}

func key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

func (s *Server) get(row *api.Row, r *client.Request) (client.Object, error) {
	o, ok := s.objects[row.Prefix][key(r.Namespace, r.Name)]
	if !ok {
		return nil, apierrors.NewNotFound(row.GR(), r.Name)
	}
	return o, nil
}

func selected(o client.Object, opts *metav1.ListOptions) (bool, error) {
	ls, err := labels.Parse(opts.LabelSelector)
	if err != nil {
		return false, apierrors.NewBadRequest(err.Error())
	}
	fs, err := fields.ParseSelector(opts.FieldSelector)
	if err != nil {
		return false, apierrors.NewBadRequest(err.Error())
	}
	set := fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace()}
	if p, ok := o.(*corev1.Pod); ok {
		set["spec.nodeName"], set["status.phase"] = p.Spec.NodeName, string(p.Status.Phase)
	}
	return ls.Matches(labels.Set(o.GetLabels())) && fs.Matches(set), nil
}

func (s *Server) list(row *api.Row, r *client.Request) (*client.List, error) {
	l := &client.List{}
	l.ResourceVersion = strconv.FormatUint(s.revision, 10)
	for _, o := range s.objects[row.Prefix] {
		if r.Namespace != "" && o.GetNamespace() != r.Namespace {
			continue
		}
		ok, err := selected(o, &r.List)
		if err != nil {
			return nil, err
		}
		if ok {
			l.Items = append(l.Items, o)
		}
	}
	return l, nil
}

func (s *Server) create(row *api.Row, r *client.Request) (runtime.Object, error) {
	if r.Subresource != "" {
		return nil, apierrors.NewMethodNotSupported(row.GR(), "create "+r.Subresource)
	}
	o := r.Object.DeepCopyObject().(client.Object)
	s.serial++
	if o.GetName() == "" && o.GetGenerateName() != "" {
		o.SetName(fmt.Sprintf("%s%05d", o.GetGenerateName(), s.serial))
	}
	if row.Namespaced {
		o.SetNamespace(r.Namespace)
		ns := s.objects["namespaces"][r.Namespace]
		if ns == nil && s.gone[r.Namespace] {
			return nil, apierrors.NewNotFound(corev1.Resource("namespaces"), r.Namespace)
		}
		if ns != nil && ns.GetDeletionTimestamp() != nil {
			err := apierrors.NewForbidden(row.GR(), o.GetName(), fmt.Errorf("unable to create new content in namespace %s because it is being terminated", r.Namespace))
			err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause, Field: "metadata.namespace"}}
			return nil, err
		}
	}
	if s.objects[row.Prefix][client.Key(o)] != nil {
		return nil, apierrors.NewAlreadyExists(row.GR(), o.GetName())
	}
	if o.GetUID() == "" {
		o.SetUID(types.UID(fmt.Sprintf("uid-%d", s.serial)))
	}
	if created := o.GetCreationTimestamp(); created.IsZero() {
		o.SetCreationTimestamp(metav1.Now())
	}
	o.SetGeneration(1)
	s.commit(row, watch.Added, o)
	return o, nil
}

func (s *Server) commit(row *api.Row, kind watch.EventType, o client.Object) {
	s.revision++
	o.SetResourceVersion(strconv.FormatUint(s.revision, 10))
	if s.objects[row.Prefix] == nil {
		s.objects[row.Prefix] = map[string]client.Object{}
	}
	if kind == watch.Deleted {
		delete(s.objects[row.Prefix], client.Key(o))
		if row.Kind == "Namespace" {
			s.gone[o.GetName()] = true
		}
	} else {
		s.objects[row.Prefix][client.Key(o)] = o
	}
	ev := event{prefix: row.Prefix, kind: kind, revision: s.revision, object: o}
	s.log = append(s.log, ev)
	for w := range s.watchers {
		w.offer(ev)
	}
}

// part returns the addressable field of that name, or an invalid Value.
func part(o runtime.Object, field string) reflect.Value {
	return reflect.ValueOf(o).Elem().FieldByName(field)
}

func (s *Server) update(row *api.Row, r *client.Request, body runtime.Object) (runtime.Object, error) {
	old, err := s.get(row, r)
	if err != nil {
		return nil, err
	}
	o := body.DeepCopyObject().(client.Object)
	if rv := o.GetResourceVersion(); rv != "" && rv != old.GetResourceVersion() {
		return nil, apierrors.NewConflict(row.GR(), r.Name, fmt.Errorf("object has been modified"))
	}
	if uid := o.GetUID(); uid != "" && uid != old.GetUID() {
		return nil, apierrors.NewConflict(row.GR(), r.Name, fmt.Errorf("uid mismatch"))
	}
	o.SetUID(old.GetUID())
	o.SetCreationTimestamp(old.GetCreationTimestamp())
	o.SetDeletionTimestamp(old.GetDeletionTimestamp())
	o.SetGeneration(old.GetGeneration())
	status, spec := part(o, "Status"), part(o, "Spec")
	switch {
	case r.Subresource == "status" && spec.IsValid():
		spec.Set(part(old.DeepCopyObject(), "Spec"))
	case r.Subresource == "finalize", r.Subresource == "status":
	case status.IsValid() && row.Subresource("status") != nil:
		status.Set(part(old.DeepCopyObject(), "Status"))
	}
	if spec.IsValid() && !reflect.DeepEqual(spec.Interface(), part(old, "Spec").Interface()) {
		o.SetGeneration(old.GetGeneration() + 1)
	}
	o.SetResourceVersion(old.GetResourceVersion())
	if reflect.DeepEqual(o, old) {
		return old, nil
	}
	if o.GetDeletionTimestamp() != nil && len(o.GetFinalizers()) == 0 && !keeps(o) {
		s.commit(row, watch.Deleted, o)
		return o, nil
	}
	s.commit(row, watch.Modified, o)
	return o, nil
}

// keeps reports whether something other than a finalizer keeps a deleted object: a namespace its spec.finalizers, a pod
// on a node its grace period.
func keeps(o client.Object) bool {
	switch o := o.(type) {
	case *corev1.Namespace:
		return len(o.Spec.Finalizers) > 0
	case *corev1.Pod:
		return o.DeletionGracePeriodSeconds != nil && *o.DeletionGracePeriodSeconds > 0
	}
	return false
}

func (s *Server) remove(row *api.Row, r *client.Request) (runtime.Object, error) {
	old, err := s.get(row, r)
	if err != nil {
		return nil, err
	}
	if p := r.Delete.Preconditions; p != nil {
		if p.UID != nil && *p.UID != old.GetUID() || p.ResourceVersion != nil && *p.ResourceVersion != old.GetResourceVersion() {
			return nil, apierrors.NewConflict(row.GR(), r.Name, fmt.Errorf("precondition failed"))
		}
	}
	o := old.DeepCopyObject().(client.Object)
	finalizers := o.GetFinalizers()
	if p := r.Delete.PropagationPolicy; p != nil && o.GetDeletionTimestamp() == nil {
		switch *p {
		case metav1.DeletePropagationForeground:
			finalizers = append(finalizers, metav1.FinalizerDeleteDependents)
		case metav1.DeletePropagationOrphan:
			finalizers = append(finalizers, metav1.FinalizerOrphanDependents)
		}
		o.SetFinalizers(finalizers)
	}
	if p, ok := o.(*corev1.Pod); ok {
		grace := int64(0)
		if p.Spec.NodeName != "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			grace = 30
		}
		if g := r.Delete.GracePeriodSeconds; g != nil {
			grace = *g
		}
		if was := p.DeletionGracePeriodSeconds; p.DeletionTimestamp != nil && was != nil && *was <= grace && grace > 0 {
			return old, nil
		}
		p.DeletionGracePeriodSeconds = &grace
	}
	if ns, ok := o.(*corev1.Namespace); ok && len(ns.Spec.Finalizers) > 0 {
		ns.Status.Phase = corev1.NamespaceTerminating
	}
	if o.GetDeletionTimestamp() == nil {
		now := metav1.Now()
		o.SetDeletionTimestamp(&now)
	}
	if len(finalizers) > 0 || keeps(o) {
		s.commit(row, watch.Modified, o)
		return o, nil
	}
	s.commit(row, watch.Deleted, o)
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// MustGet returns an object that has to exist.
func MustGet[T client.Object](s *Server, namespace, name string) T {
	o, err := client.Of[T](s).Get(context.Background(), namespace, name)
	if err != nil {
		panic(err)
	}
	return o
}

// All returns every object of a kind in a namespace ("" for all).
func All[T client.Object](s *Server, namespace string) []T {
	l, _, err := client.Of[T](s).List(context.Background(), namespace, metav1.ListOptions{})
	if err != nil {
		panic(err)
	}
	return l
}

// GVR is a short way to name a resource in a Fail hook.
func GVR(group, version, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
}
