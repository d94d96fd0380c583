// Package apitest is an API server in memory for tests of the kubelet: it stores objects, watches them by name or node,
// and answers token requests and reviews. It validates and defaults nothing.
package apitest

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"

	authnv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"

	"karve/api"
	"karve/client"
)

// Server implements client.Transport. It is safe for concurrent use.
type Server struct {
	mu       sync.Mutex
	rv       int
	objects  map[schema.GroupVersionResource]map[string]client.Object
	watchers map[*watcher]bool
	writes   map[string]int
}

type watcher struct {
	gvr schema.GroupVersionResource
	req client.Request
	w   *stream
}

// stream is a watch with room for all that a test does.
type stream struct {
	ch   chan watch.Event
	once sync.Once
}

// ResultChan implements watch.Interface.
func (s *stream) ResultChan() <-chan watch.Event { return s.ch }

// Stop implements watch.Interface; the server ends the stream with the watch's context.
func (s *stream) Stop() {}

// New returns an empty server.
func New() *Server {
	return &Server{objects: map[schema.GroupVersionResource]map[string]client.Object{}, watchers: map[*watcher]bool{}, writes: map[string]int{}}
}

func key(ns, name string) string { return ns + "/" + name }

// Add stores objects as they are, with a uid of their name when they have none.
func (s *Server) Add(objs ...client.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range objs {
		o = o.DeepCopyObject().(client.Object)
		if o.GetUID() == "" {
			o.SetUID(types.UID("uid-" + o.GetName()))
		}
		s.store(api.Of(o).GVR(), o)
	}
}

// Writes returns how often "verb resource/subresource" was done.
func (s *Server) Writes(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes[what]
}

func (s *Server) store(gvr schema.GroupVersionResource, o client.Object) {
	s.rv++
	o.SetResourceVersion(strconv.Itoa(s.rv))
	if s.objects[gvr] == nil {
		s.objects[gvr] = map[string]client.Object{}
	}
	k := key(o.GetNamespace(), o.GetName())
	kind := watch.Added
	if _, had := s.objects[gvr][k]; had {
		kind = watch.Modified
	}
	s.objects[gvr][k] = o
	s.notify(gvr, kind, o)
}

func (s *Server) drop(gvr schema.GroupVersionResource, o client.Object) {
	s.rv++
	delete(s.objects[gvr], key(o.GetNamespace(), o.GetName()))
	o = o.DeepCopyObject().(client.Object)
	o.SetResourceVersion(strconv.Itoa(s.rv))
	s.notify(gvr, watch.Deleted, o)
}

func (s *Server) notify(gvr schema.GroupVersionResource, kind watch.EventType, o client.Object) {
	for w := range s.watchers {
		if w.gvr == gvr && selected(&w.req, o) {
			w.w.ch <- watch.Event{Type: kind, Object: o}
		}
	}
}

func selected(r *client.Request, o client.Object) bool {
	if r.Namespace != "" && o.GetNamespace() != r.Namespace {
		return false
	}
	field, value, ok := strings.Cut(r.List.FieldSelector, "=")
	if !ok {
		return true
	}
	switch field {
	case "metadata.name":
		return o.GetName() == value
	case "spec.nodeName":
		p, is := o.(*corev1.Pod)
		return is && p.Spec.NodeName == value
	}
	return false
}

// Watch implements client.Transport.
func (s *Server) Watch(ctx context.Context, r *client.Request) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &watcher{gvr: r.Resource, req: *r, w: &stream{ch: make(chan watch.Event, 1<<14)}}
	from := client.Revision(r.List.ResourceVersion)
	for _, o := range s.objects[r.Resource] {
		if client.Revision(o.GetResourceVersion()) > from && selected(r, o) {
			w.w.ch <- watch.Event{Type: watch.Modified, Object: o}
		}
	}
	s.watchers[w] = true
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		delete(s.watchers, w)
		s.mu.Unlock()
		w.w.once.Do(func() { close(w.w.ch) })
	})
	return w.w, nil
}

// Do implements client.Transport.
func (s *Server) Do(_ context.Context, r *client.Request) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Verb != "get" && r.Verb != "list" {
		s.writes[r.Verb+" "+r.Resource.Resource+"/"+r.Subresource]++
	}
	if r.Verb == "list" {
		out := &client.List{}
		out.ResourceVersion = strconv.Itoa(s.rv)
		for _, o := range s.objects[r.Resource] {
			if selected(r, o) {
				out.Items = append(out.Items, o)
			}
		}
		return out, nil
	}
	if r.Verb == "create" {
		return s.create(r)
	}
	old := s.objects[r.Resource][key(r.Namespace, r.Name)]
	if old == nil {
		return nil, apierrors.NewNotFound(r.Resource.GroupResource(), r.Name)
	}
	switch r.Verb {
	case "get":
		return old, nil
	case "update":
		o := r.Object.DeepCopyObject().(client.Object)
		o.SetUID(old.GetUID())
		s.store(r.Resource, o)
		return o, nil
	case "patch":
		return s.patch(r, old)
	case "delete":
		return s.remove(r, old)
	}
	return nil, fmt.Errorf("verb %s", r.Verb)
}

func (s *Server) create(r *client.Request) (runtime.Object, error) {
	switch body := r.Object.(type) {
	case *authnv1.TokenRequest:
		out := body.DeepCopy()
		out.Status.Token = "token-of-" + r.Name + "-" + strconv.Itoa(s.writes["create serviceaccounts/token"])
		out.Status.ExpirationTimestamp = metav1.Now()
		return out, nil
	case *authnv1.TokenReview:
		out := body.DeepCopy()
		out.Status.Authenticated = body.Spec.Token == "good"
		return out, nil
	}
	o, ok := r.Object.DeepCopyObject().(client.Object)
	if !ok {
		return r.Object, nil
	}
	if o.GetName() != "" && s.objects[r.Resource][key(o.GetNamespace(), o.GetName())] != nil {
		return nil, apierrors.NewAlreadyExists(r.Resource.GroupResource(), o.GetName())
	}
	if o.GetUID() == "" {
		o.SetUID(types.UID("uid-" + o.GetName()))
	}
	s.store(r.Resource, o)
	return o, nil
}

func (s *Server) patch(r *client.Request, old client.Object) (runtime.Object, error) {
	before, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	var uid struct {
		Metadata struct {
			UID types.UID `json:"uid"`
		} `json:"metadata"`
	}
	if json.Unmarshal(r.Patch, &uid) == nil && uid.Metadata.UID != "" && uid.Metadata.UID != old.GetUID() {
		return nil, apierrors.NewConflict(r.Resource.GroupResource(), r.Name, fmt.Errorf("uid mismatch"))
	}
	row := api.ByResource(r.Resource)
	after, err := strategicpatch.StrategicMergePatch(before, r.Patch, row.New())
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	o := row.New().(client.Object)
	if err := json.Unmarshal(after, o); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	s.store(r.Resource, o)
	return o, nil
}

func (s *Server) remove(r *client.Request, old client.Object) (runtime.Object, error) {
	if p := r.Delete.Preconditions; p != nil && p.UID != nil && *p.UID != old.GetUID() {
		return nil, apierrors.NewConflict(r.Resource.GroupResource(), r.Name, fmt.Errorf("uid mismatch"))
	}
	pod, isPod := old.(*corev1.Pod)
	if isPod && (r.Delete.GracePeriodSeconds == nil || *r.Delete.GracePeriodSeconds > 0) {
		pod = pod.DeepCopy()
		grace := int64(30)
		if pod.Spec.TerminationGracePeriodSeconds != nil {
			grace = *pod.Spec.TerminationGracePeriodSeconds
		}
		if r.Delete.GracePeriodSeconds != nil {
			grace = *r.Delete.GracePeriodSeconds
		}
		now := metav1.Now()
		pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, &grace
		s.store(r.Resource, pod)
		return pod, nil
	}
	s.drop(r.Resource, old)
	return old, nil
}
