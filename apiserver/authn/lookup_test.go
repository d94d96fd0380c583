package authn

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"karve/api"
	"karve/client"
)

// twoFaced lists one set of objects and gets from another: a cache that is behind.
type twoFaced struct {
	listed, live map[string]client.Object
	gets         int
}

func (f *twoFaced) Do(_ context.Context, r *client.Request) (runtime.Object, error) {
	if r.Verb == "get" {
		f.gets++
		if r.Name == "broken" {
			return nil, errors.New("broken")
		}
		if o := f.live[r.Resource.Resource+"/"+r.Name]; o != nil {
			return o, nil
		}
		return nil, apierrors.NewNotFound(r.Resource.GroupResource(), r.Name)
	}
	l := &client.List{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	for _, o := range f.listed {
		if api.Of(o).Resource == r.Resource.Resource {
			l.Items = append(l.Items, o)
		}
	}
	return l, nil
}

func (f *twoFaced) Watch(ctx context.Context, _ *client.Request) (watch.Interface, error) {
	w := watch.NewRaceFreeFake()
	context.AfterFunc(ctx, w.Stop)
	return w, nil
}

func TestLookup(t *testing.T) {
	pod := func(name, uid, node string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID(uid)}, Spec: corev1.PodSpec{NodeName: node}}
	}
	f := &twoFaced{listed: map[string]client.Object{"a": pod("a", "1", "n"), "again": pod("again", "old", "n"), "unbound": pod("unbound", "1", "")},
		live: map[string]client.Object{"pods/again": pod("again", "new", "n"), "pods/unbound": pod("unbound", "1", "n"), "pods/late": pod("late", "1", "n")}}
	caches := client.NewCaches(f, slog.New(slog.DiscardHandler))
	l := NewLookup(caches)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); caches.Run(ctx) }()
	defer func() { stop(); <-done }()
	if err := caches.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, uid string
		want      types.UID // "" for none
		gets      int
	}{
		{"a", "1", "1", 0}, {"a", "", "1", 0}, {"again", "new", "new", 1}, {"late", "1", "1", 1}, {"gone", "1", "", 1}, {"unbound", "1", "1", 1},
	} {
		f.gets = 0
		o, err := l.Find(ctx, KindPod, "ns", c.name, types.UID(c.uid))
		if err != nil || (o == nil) != (c.want == "") || o != nil && o.GetUID() != c.want || f.gets != c.gets {
			t.Errorf("%s: got %v %v after %d gets", c.name, o, err, f.gets)
		}
		if p, ok := o.(*corev1.Pod); ok && p.Spec.NodeName != "n" {
			t.Errorf("%s: an older state of the pod", c.name)
		}
	}
	if _, err := l.Find(ctx, KindSecret, "ns", "broken", ""); err == nil {
		t.Error("a failure looks like absence")
	}
	if _, err := l.Find(ctx, "Other", "ns", "x", ""); err == nil {
		t.Error("found an unknown kind")
	}
}
