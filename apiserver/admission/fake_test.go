package admission

import (
	"context"
	"log/slog"
	"reflect"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"karve/api"
	"karve/apiserver/authz"
	"karve/client"
)

// fake is a transport over a fixed set of objects. Those in late are there, but no list has them yet: what a cache does
// not know of.
type fake struct {
	objs, late []client.Object

	mu       sync.Mutex
	watchers map[string]*watch.RaceFreeFakeWatcher
}

func (f *fake) Do(_ context.Context, r *client.Request) (runtime.Object, error) {
	row := api.ByResource(r.Resource)
	l := &client.List{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	for _, o := range f.late {
		if r.Verb == "get" && reflect.TypeOf(o) == reflect.TypeOf(row.New()) && o.GetName() == r.Name && o.GetNamespace() == r.Namespace {
			return o, nil
		}
	}
	for _, o := range f.objs {
		if reflect.TypeOf(o) != reflect.TypeOf(row.New()) {
			continue
		}
		if r.Verb == "get" && o.GetName() == r.Name && o.GetNamespace() == r.Namespace {
			return o, nil
		}
		l.Items = append(l.Items, o)
	}
	if r.Verb == "get" {
		return nil, apierrors.NewNotFound(row.GR(), r.Name)
	}
	return l, nil
}

func (f *fake) watcher(resource string) *watch.RaceFreeFakeWatcher {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers == nil {
		f.watchers = map[string]*watch.RaceFreeFakeWatcher{}
	}
	if f.watchers[resource] == nil {
		f.watchers[resource] = watch.NewRaceFreeFake()
	}
	return f.watchers[resource]
}

func (f *fake) Watch(ctx context.Context, r *client.Request) (watch.Interface, error) {
	w := f.watcher(r.Resource.Resource)
	context.AfterFunc(ctx, w.Stop)
	return w, nil
}

// chain returns the default plugins over objs.
func chain(t *testing.T, late []client.Object, objs ...client.Object) Chain {
	t.Helper()
	f := &fake{objs: objs, late: late}
	caches := client.NewCaches(f, slog.New(slog.DiscardHandler))
	rbac := authz.NewRBAC(caches)
	c := Default(Deps{Caches: caches, Authorizer: authz.Union{authz.Masters{}, authz.NewNode(caches), rbac}})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); caches.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	if err := caches.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}
