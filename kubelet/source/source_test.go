package source

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"karve/client"
)

// server has one ConfigMap and one Secret, and notes what is asked of it: a node is allowed no more than single names.
type server struct {
	mu    sync.Mutex
	asked []string
	open  map[string]*watch.RaceFreeFakeWatcher
	ended chan string
}

func (s *server) note(r *client.Request) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	what := r.Verb + " " + r.Resource.Resource + " " + r.Namespace + " " + r.List.FieldSelector + r.List.LabelSelector
	s.asked = append(s.asked, what)
	return what
}

func (s *server) Do(_ context.Context, r *client.Request) (runtime.Object, error) {
	s.note(r)
	l := &client.List{ListMeta: metav1.ListMeta{ResourceVersion: "5"}}
	switch {
	case r.List.FieldSelector != "metadata.name=here":
	case r.Resource.Resource == "secrets":
		l.Items = append(l.Items, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "here", ResourceVersion: "3"}})
	default:
		l.Items = append(l.Items, configMap("3"))
	}
	return l, nil
}

func (s *server) Watch(ctx context.Context, r *client.Request) (watch.Interface, error) {
	what := s.note(r)
	w := watch.NewRaceFreeFake()
	s.mu.Lock()
	s.open[what] = w
	s.mu.Unlock()
	context.AfterFunc(ctx, func() { w.Stop(); s.ended <- what })
	return w, nil
}

func (s *server) watcher(t *testing.T, what string) *watch.RaceFreeFakeWatcher {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		w := s.open[what]
		s.mu.Unlock()
		if w != nil {
			return w
		}
	}
	t.Fatal("no ", what)
	return nil
}

func configMap(rv string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "here", ResourceVersion: rv}, Data: map[string]string{"v": rv}}
}

func TestObjects(t *testing.T) {
	s := &server{open: map[string]*watch.RaceFreeFakeWatcher{}, ended: make(chan string, 16)}
	told := make(chan types.UID, 16)
	o := New(t.Context(), s, slog.New(slog.DiscardHandler), func(pod types.UID) { told <- pod })
	for range 2 {
		for _, pod := range []types.UID{"p1", "p2"} {
			if got, err := o.ConfigMap(t.Context(), pod, "ns", "here"); err != nil || got.Data["v"] != "3" {
				t.Fatalf("%v, %v", got, err)
			}
		}
	}
	if _, err := o.Secret(t.Context(), "p2", "ns", "here"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.ConfigMap(t.Context(), "p1", "ns", "missing"); !apierrors.IsNotFound(err) || err.Error() != `configmap "missing" not found` {
		t.Errorf("one that is not there: %v", err)
	}
	if o.Held() != 3 {
		t.Errorf("%d are held, want 3", o.Held())
	}
	// A change is told to those who hold the object, and can be read then.
	const what = "watch configmaps ns metadata.name=here"
	s.watcher(t, what).Modify(configMap("7"))
	pods := []types.UID{<-told, <-told}
	slices.Sort(pods)
	if !slices.Equal(pods, []types.UID{"p1", "p2"}) {
		t.Errorf("told %v", pods)
	}
	if got, err := o.ConfigMap(t.Context(), "p1", "ns", "here"); err != nil || got.Data["v"] != "7" {
		t.Errorf("after the change: %v, %v", got, err)
	}
	// p1 goes, and takes its own with it.
	s.watcher(t, "watch configmaps ns metadata.name=missing")
	o.Release("p1")
	if o.Held() != 2 {
		t.Errorf("%d are held after the release, want 2", o.Held())
	}
	if got := <-s.ended; got != "watch configmaps ns metadata.name=missing" {
		t.Errorf("ended %s", got)
	}
	s.watcher(t, what).Delete(configMap("9"))
	if pod := <-told; pod != "p2" {
		t.Errorf("told %s, who holds nothing", pod)
	}
	if _, err := o.ConfigMap(t.Context(), "p2", "ns", "here"); !apierrors.IsNotFound(err) {
		t.Errorf("after its deletion: %v", err)
	}
	o.Release("p2")
	if o.Held() != 0 {
		t.Errorf("%d are held after the last release", o.Held())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if !strings.Contains(a, " ns metadata.name=") {
			t.Errorf("asked for more than a node may read: %s", a)
		}
	}
	if len(s.asked) > 6 {
		t.Errorf("asked %d times, want one list and one watch for each of three objects: %v", len(s.asked), s.asked)
	}
}

func TestWaitEnds(t *testing.T) {
	life, cancel := context.WithCancel(t.Context())
	cancel() // nothing is ever read
	o := New(life, &server{open: map[string]*watch.RaceFreeFakeWatcher{}, ended: make(chan string, 16)}, slog.New(slog.DiscardHandler), func(types.UID) {})
	if _, err := o.Secret(life, "p", "ns", "here"); err == nil || apierrors.IsNotFound(err) {
		t.Errorf("what is not known is taken for what is not there: %v", err)
	}
}
