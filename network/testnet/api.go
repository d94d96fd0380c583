package testnet

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"karve/api"
	"karve/client"
)

// API is an API server made of memory: a client.Transport that lists and watches what Set and Delete put there.
type API struct {
	mu      sync.Mutex
	rev     uint64
	objects map[schema.GroupVersionResource]map[string]client.Object
	history []event
	grown   chan struct{}
}

type event struct {
	rev  uint64
	gvr  schema.GroupVersionResource
	kind watch.EventType
	obj  client.Object
}

// NewAPI returns an empty API.
func NewAPI() *API {
	return &API{objects: map[schema.GroupVersionResource]map[string]client.Object{}, grown: make(chan struct{})}
}

// Caches returns caches over the API; run starts them and waits until they have listed.
func (a *API) Caches(t testing.TB) (caches *client.Caches, run func()) {
	caches = client.NewCaches(a, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return caches, func() {
		go caches.Run(ctx)
		if err := caches.WaitSynced(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// Set creates or replaces the object.
func (a *API) Set(obj client.Object) { a.put(obj, false) }

// Delete removes the object.
func (a *API) Delete(obj client.Object) { a.put(obj, true) }

func (a *API) put(obj client.Object, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rev++
	obj = obj.DeepCopyObject().(client.Object)
	obj.SetResourceVersion(strconv.FormatUint(a.rev, 10))
	gvr := api.Of(obj).GVR()
	if a.objects[gvr] == nil {
		a.objects[gvr] = map[string]client.Object{}
	}
	kind := watch.Added
	if _, had := a.objects[gvr][client.Key(obj)]; had {
		kind = watch.Modified
	}
	if gone {
		kind = watch.Deleted
		delete(a.objects[gvr], client.Key(obj))
	} else {
		a.objects[gvr][client.Key(obj)] = obj
	}
	a.history = append(a.history, event{a.rev, gvr, kind, obj})
	close(a.grown)
	a.grown = make(chan struct{})
}

// Do lists; it knows no other verb.
func (a *API) Do(_ context.Context, r *client.Request) (runtime.Object, error) {
	if r.Verb != "list" {
		return nil, apierrors.NewMethodNotSupported(r.Resource.GroupResource(), r.Verb)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	l := &client.List{}
	l.ResourceVersion = strconv.FormatUint(a.rev, 10)
	for _, o := range a.objects[r.Resource] {
		l.Items = append(l.Items, o)
	}
	return l, nil
}

// Watch sends what happened after the resource version, and then what happens.
func (a *API) Watch(ctx context.Context, r *client.Request) (watch.Interface, error) {
	out := make(chan watch.Event)
	w := watch.NewProxyWatcher(out)
	go func() {
		defer close(out)
		seen := client.Revision(r.List.ResourceVersion)
		for {
			a.mu.Lock()
			var news []event
			for _, e := range a.history {
				if e.rev > seen && e.gvr == r.Resource {
					news = append(news, e)
				}
			}
			seen = max(seen, a.rev)
			grown := a.grown
			a.mu.Unlock()
			for _, e := range news {
				select {
				case out <- watch.Event{Type: e.kind, Object: e.obj}:
				case <-ctx.Done():
					return
				case <-w.StopChan():
					return
				}
			}
			select {
			case <-grown:
			case <-ctx.Done():
				return
			case <-w.StopChan():
				return
			}
		}
	}()
	return w, nil
}
