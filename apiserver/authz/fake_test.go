package authz

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
	"karve/client"
)

// fake is a transport over a fixed set of objects; send delivers further changes to the watchers of their kind.
type fake struct {
	objs []client.Object

	mu       sync.Mutex
	watchers map[string]*watch.RaceFreeFakeWatcher
}

func (f *fake) Do(_ context.Context, r *client.Request) (runtime.Object, error) {
	row := api.ByResource(r.Resource)
	l := &client.List{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
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

// serve runs what build asks of a set of caches over objs, and returns once all is readable.
func serve[T any](t *testing.T, build func(*client.Caches) T, objs ...client.Object) (T, *fake, *client.Caches) {
	t.Helper()
	f := &fake{objs: objs}
	c := client.NewCaches(f, slog.New(slog.DiscardHandler))
	out := build(c)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	if err := c.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	return out, f, c
}
