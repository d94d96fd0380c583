package client

import (
	"context"
	"encoding/json"
	"fmt"
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
)

// server is a Transport over ConfigMaps and Events in memory, whose watches a test feeds.
type server struct {
	mu       sync.Mutex
	list     List
	requests []Request
	watches  chan *watch.RaceFreeFakeWatcher // those opened, in order
	events   map[string]*corev1.Event
	fail     error
}

func newServer() *server {
	return &server{watches: make(chan *watch.RaceFreeFakeWatcher, 16), events: map[string]*corev1.Event{}}
}

func (s *server) set(rv string, objs ...runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = List{ListMeta: metav1.ListMeta{ResourceVersion: rv}, Items: objs}
}

func (s *server) Do(_ context.Context, r *Request) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, *r)
	if s.fail != nil {
		return nil, s.fail
	}
	switch r.Verb {
	case "create":
		e := r.Object.(*corev1.Event)
		s.events[e.Name] = e
		return e, nil
	case "patch":
		old := s.events[r.Name]
		if old == nil {
			return nil, apierrors.NewNotFound(corev1.Resource("events"), r.Name)
		}
		e := old.DeepCopy()
		if err := json.Unmarshal(r.Patch, e); err != nil {
			return nil, err
		}
		s.events[r.Name] = e
		return e, nil
	}
	return s.list.DeepCopyObject(), nil
}

func (s *server) Watch(ctx context.Context, r *Request) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, *r)
	w := watch.NewRaceFreeFake()
	context.AfterFunc(ctx, w.Stop)
	s.watches <- w
	return w, nil
}

func (s *server) asked(verb string) (out []Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.Verb == verb {
			out = append(out, r)
		}
	}
	return out
}

func cm(name, rv string, labels ...string) *corev1.ConfigMap {
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), ResourceVersion: rv, Labels: map[string]string{}}}
	for _, l := range labels {
		o.Labels[l] = "x"
	}
	return o
}

func names(list []*corev1.ConfigMap) string {
	var out []string
	for _, o := range list {
		out = append(out, o.Name+"@"+o.ResourceVersion)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// running is a cache of ConfigMaps with an index by label and a record of what its handler was told.
type running struct {
	*Cache[*corev1.ConfigMap]
	t    *testing.T
	mu   sync.Mutex
	told []string
}

func run(t *testing.T, s *server, opts CacheOptions[*corev1.ConfigMap]) *running {
	r := &running{Cache: NewCache(s, slog.New(slog.DiscardHandler), opts), t: t}
	r.Index("label", func(o *corev1.ConfigMap) (keys []string) {
		for k := range o.Labels {
			keys = append(keys, k)
		}
		return keys
	})
	r.Handle(func(old, now *corev1.ConfigMap) {
		r.mu.Lock()
		defer r.mu.Unlock()
		version := func(o *corev1.ConfigMap) string {
			if o == nil {
				return "-"
			}
			return o.Name + "@" + o.ResourceVersion
		}
		r.told = append(r.told, version(old)+">"+version(now))
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	<-r.Synced()
	return r
}

// reaches waits for a revision and compares what can be read then, in all and under label l, and what was told since.
func (r *running) reaches(rv, all, labelled string, told ...string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if err := r.WaitAtLeast(ctx, rv); err != nil {
		r.t.Fatalf("revision %s: %v", rv, err)
	}
	if !r.AtLeast(rv) || r.AtLeast("999999") {
		r.t.Error("AtLeast does not say what WaitAtLeast found")
	}
	if got := names(r.List()); got != all {
		r.t.Errorf("at %s: %q, want %q", rv, got, all)
	}
	if got := names(r.ByIndex("label", "l")); got != labelled {
		r.t.Errorf("at %s, with the label: %q, want %q", rv, got, labelled)
	}
	for len(told) > 0 { // handlers run after a change can be read
		r.mu.Lock()
		enough := len(r.told) >= len(told)
		r.mu.Unlock()
		if enough {
			break
		}
		if ctx.Err() != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.told)
	slices.Sort(told)
	if !slices.Equal(r.told, told) {
		r.t.Errorf("at %s: told %v, want %v", rv, r.told, told)
	}
	r.told = nil
}

func TestCacheFollows(t *testing.T) {
	s := newServer()
	s.set("10", cm("a", "3", "l"), cm("b", "4"))
	r := run(t, s, CacheOptions[*corev1.ConfigMap]{Namespace: "ns", LabelSelector: "x", FieldSelector: "y"})
	r.reaches("10", "a@3 b@4", "a@3", "->a@3", "->b@4")
	if l := s.asked("list")[0]; l.Namespace != "ns" || l.List.LabelSelector != "x" || l.List.FieldSelector != "y" || l.Resource.Resource != "configmaps" {
		t.Errorf("listed %+v", l)
	}
	w := <-s.watches
	w.Add(cm("c", "11", "l"))
	w.Modify(cm("a", "12"))
	w.Delete(cm("b", "13", "last"))
	r.reaches("13", "a@12 c@11", "c@11", "->c@11", "a@3>a@12", "b@13>-")
	w.Delete(cm("b", "14")) // what is not there does not go
	w.Action(watch.Bookmark, cm("", "20"))
	r.reaches("20", "a@12 c@11", "c@11")
	if _, ok := r.Get("ns", "b"); ok {
		t.Error("a deleted object can be read")
	}
	// The server ends the watch: it goes on from where it was.
	w.Stop()
	w = <-s.watches
	if ws := s.asked("watch"); ws[len(ws)-1].List.ResourceVersion != "20" || len(s.asked("list")) != 1 {
		t.Errorf("went on with %+v after %d lists", ws[len(ws)-1].List, len(s.asked("list")))
	}
	// It has forgotten what came then: list again, and say what changed between.
	s.set("40", cm("c", "11", "l"), cm("a", "30", "l"), cm("d", "31"))
	w.Error(&apierrors.NewResourceExpired("too old").ErrStatus)
	r.reaches("40", "a@30 c@11 d@31", "a@30 c@11", "a@12>a@30", "->d@31")
	s.set("50", cm("d", "31"))
	w = <-s.watches
	w.Error(&apierrors.NewResourceExpired("too old").ErrStatus)
	r.reaches("50", "d@31", "", "a@30>-", "c@11>-")
}

func TestCacheTrims(t *testing.T) {
	s := newServer()
	s.set("10", cm("a", "3", "l"))
	r := run(t, s, CacheOptions[*corev1.ConfigMap]{Trim: func(o *corev1.ConfigMap) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: o.Name, Namespace: o.Namespace, ResourceVersion: o.ResourceVersion, Labels: map[string]string{"l": "trimmed"}}}
	}})
	w := <-s.watches
	w.Add(cm("b", "11"))
	r.reaches("11", "a@3 b@11", "a@3 b@11", "->a@3", "->b@11")
	if a, _ := r.GetKey("ns/a"); a.UID != "" {
		t.Error("the whole object is kept")
	}
}

func TestCacheWaitEnds(t *testing.T) {
	c := NewCache(newServer(), slog.New(slog.DiscardHandler), CacheOptions[*corev1.ConfigMap]{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c.WaitAtLeast(ctx, "1") == nil {
		t.Error("waiting for a revision outlived its context")
	}
}

func TestCachesShare(t *testing.T) {
	s := newServer()
	s.set("10", cm("a", "3"))
	all := NewCaches(s, slog.New(slog.DiscardHandler))
	c := CacheOf[*corev1.ConfigMap](all)
	if c != CacheOf[*corev1.ConfigMap](all) {
		t.Error("two caches of one kind")
	}
	ctx, stop := context.WithCancel(t.Context())
	early, cancel := context.WithCancel(ctx)
	cancel()
	if all.WaitSynced(early) == nil {
		t.Error("synced before it ran")
	}
	done := make(chan struct{})
	go func() { defer close(done); all.Run(ctx) }()
	if err := all.WaitSynced(ctx); err != nil || names(c.List()) != "a@3" {
		t.Errorf("synced with %v: %v", c.List(), err)
	}
	stop()
	<-done
	if n := len(s.asked("list")); n != 1 {
		t.Errorf("listed %d times", n)
	}
}

func TestNarrowIsForAllWhoAsk(t *testing.T) {
	s := newServer()
	all := NewCaches(s, slog.New(slog.DiscardHandler))
	Narrow(all, CacheOptions[*corev1.ConfigMap]{FieldSelector: "metadata.name=a"})
	if c := CacheOf[*corev1.ConfigMap](all); c.opts.FieldSelector != "metadata.name=a" {
		t.Errorf("the cache is of %+v", c.opts)
	}
	defer func() {
		if recover() == nil {
			t.Error("a cache that somebody has was narrowed")
		}
	}()
	Narrow(all, CacheOptions[*corev1.ConfigMap]{})
}

func TestRecorder(t *testing.T) {
	s := newServer()
	r := NewRecorder(s, slog.New(slog.DiscardHandler), "part", "host")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", ResourceVersion: "5"}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	write := func(n int) {
		t.Helper()
		for range n {
			if err := r.write(t.Context(), <-r.queue); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		r.Event(pod, corev1.EventTypeNormal, "Started", "container %s", "c")
	}
	r.Event(pod, corev1.EventTypeWarning, "Started", "container c")
	r.Event(node, corev1.EventTypeNormal, "Ready", "100%%")
	write(5)
	var got []string
	for _, e := range s.events {
		ref := e.InvolvedObject
		got = append(got, fmt.Sprint(e.Namespace, " ", ref.Kind, " ", ref.APIVersion, " ", ref.Name, " ", ref.UID, " ", e.Type, " ", e.Reason, " ", e.Message, " ", e.Count, " ", e.Source.Component, " ", e.Source.Host))
	}
	slices.Sort(got)
	want := []string{"default Node v1 n  Normal Ready 100% 1 part host", "ns Pod v1 p u Normal Started container c 3 part host", "ns Pod v1 p u Warning Started container c 1 part host"}
	if !slices.Equal(got, want) {
		t.Errorf("events\n got %q\nwant %q", got, want)
	}
	// One that the server has forgotten is written anew.
	clear(s.events)
	r.Event(pod, corev1.EventTypeNormal, "Started", "container c")
	write(1)
	for _, e := range s.events {
		if e.Count != 1 {
			t.Errorf("the event written anew counts %d", e.Count)
		}
	}
	if len(s.events) != 1 {
		t.Errorf("%d events, want 1", len(s.events))
	}
	// Nobody is held up when nobody writes.
	for range cap(r.queue) + 1 {
		r.Event(pod, corev1.EventTypeNormal, "Started", "again")
	}
	if len(r.queue) != cap(r.queue) {
		t.Errorf("%d wait, want %d", len(r.queue), cap(r.queue))
	}
}
