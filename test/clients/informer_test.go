package clients

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// requests counts what a client asks the server for, by method and kind of read: "list", "watch", "watchlist".
type requests struct {
	mu    sync.Mutex
	count map[string]int
	next  http.RoundTripper
}

func (r *requests) RoundTrip(q *http.Request) (*http.Response, error) {
	r.mu.Lock()
	r.count[kindOfRead(q.URL.Query())]++
	r.mu.Unlock()
	return r.next.RoundTrip(q)
}

func kindOfRead(q url.Values) string {
	switch {
	case q.Get("sendInitialEvents") == "true":
		return "watchlist"
	case q.Get("watch") != "":
		return "watch"
	}
	return "list"
}

func (r *requests) of(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count[kind]
}

// counted makes a configuration whose requests are counted.
func counted(c *rest.Config) *requests {
	r := &requests{count: map[string]int{}}
	c.Wrap(func(next http.RoundTripper) http.RoundTripper { r.next = next; return r })
	return r
}

// ledger is what a handler was told: every event of every object, in order.
type ledger struct {
	mu sync.Mutex
	// versions are the resourceVersions each object was seen at, in order; a deletion is "-" after the version it had.
	versions map[string][]string
	events   map[string]int
	live     map[string]string
	wrong    []string
}

func newLedger() *ledger {
	return &ledger{versions: map[string][]string{}, events: map[string]int{}, live: map[string]string{}}
}

func (l *ledger) handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			l.note("add", o, func(cm *corev1.ConfigMap) string {
				if _, there := l.live[cm.Name]; there {
					return "added twice"
				}
				l.live[cm.Name] = cm.ResourceVersion
				return ""
			})
		},
		UpdateFunc: func(old, o any) {
			was := old.(*corev1.ConfigMap)
			if was.ResourceVersion == o.(*corev1.ConfigMap).ResourceVersion {
				l.mu.Lock()
				l.events["resync"]++
				l.mu.Unlock()
				return
			}
			l.note("update", o, func(cm *corev1.ConfigMap) string {
				if l.live[cm.Name] != was.ResourceVersion {
					return fmt.Sprintf("updated from %s, was %s", was.ResourceVersion, l.live[cm.Name])
				}
				if !later(cm.ResourceVersion, was.ResourceVersion) {
					return fmt.Sprintf("went back from %s to %s", was.ResourceVersion, cm.ResourceVersion)
				}
				l.live[cm.Name] = cm.ResourceVersion
				return ""
			})
		},
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			l.note("delete", o, func(cm *corev1.ConfigMap) string {
				if _, there := l.live[cm.Name]; !there {
					return "deleted twice"
				}
				delete(l.live, cm.Name)
				return ""
			})
		},
	}
}

func (l *ledger) note(kind string, o any, judge func(*corev1.ConfigMap) string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cm := o.(*corev1.ConfigMap)
	l.events[kind]++
	l.versions[cm.Name] = append(l.versions[cm.Name], kind+" "+cm.ResourceVersion)
	if why := judge(cm); why != "" {
		l.wrong = append(l.wrong, cm.Name+": "+why)
	}
}

func (l *ledger) of(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events[kind]
}

// is says how the ledger differs from the names and versions there are.
func (l *ledger) is(want map[string]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if maps.Equal(l.live, want) {
		return nil
	}
	return fmt.Errorf("%d objects known, %d are there", len(l.live), len(want))
}

func (l *ledger) judge(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.wrong {
		t.Error(w)
	}
}

func later(a, b string) bool {
	x, _ := strconv.ParseUint(a, 10, 64)
	y, _ := strconv.ParseUint(b, 10, 64)
	return x > y
}

// state lists what there is of the test's namespace.
func state(t testing.TB, cs kubernetes.Interface, ns string) map[string]string {
	t.Helper()
	l, err := cs.CoreV1().ConfigMaps(ns).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	out := map[string]string{}
	for _, o := range l.Items {
		out[o.Name] = o.ResourceVersion
	}
	return out
}

// watching starts a shared informer on the ConfigMaps of a namespace; the ledger is told everything.
func watching(t *testing.T, s *server, ns string, resync time.Duration) (*ledger, *requests) {
	t.Helper()
	config := s.config()
	asked := counted(config)
	factory := informers.NewSharedInformerFactoryWithOptions(clientset(t, config), resync, informers.WithNamespace(ns))
	inf := factory.Core().V1().ConfigMaps().Informer()
	l := newLedger()
	_, err := inf.AddEventHandler(l.handler())
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	synced, done := context.WithTimeout(ctx, patience)
	defer done()
	if !cache.WaitForCacheSync(synced.Done(), inf.HasSynced) {
		t.Fatal("the informer did not fill")
	}
	return l, asked
}

// TestInformerCounts writes from several clients at once and counts what an informer tells: each write once, in order.
func TestInformerCounts(t *testing.T) {
	s := start(t)
	s.namespace("count")
	cs := s.clientset()
	const before, writers, each = 20, 8, 25
	for i := range before {
		_, err := cs.CoreV1().ConfigMaps("count").Create(t.Context(), configMap(fmt.Sprintf("old-%d", i), "0"), metav1.CreateOptions{})
		must(t, err)
	}
	l, asked := watching(t, s, "count", 0)
	if l.of("add") != before {
		t.Errorf("filled with %d objects of %d", l.of("add"), before)
	}
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			api := cs.CoreV1().ConfigMaps("count")
			for i := range each {
				name := fmt.Sprintf("w%d-%d", w, i)
				cm, err := api.Create(t.Context(), configMap(name, "1"), metav1.CreateOptions{})
				if err == nil {
					cm.Data["value"] = "2"
					_, err = api.Update(t.Context(), cm, metav1.UpdateOptions{})
				}
				if err == nil && i%2 == 0 {
					err = api.Delete(t.Context(), name, metav1.DeleteOptions{})
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	all.Wait()
	want := state(t, cs, "count")
	eventually(t, "the informer knows what there is", func() error { return l.is(want) })
	deleted := writers * ((each + 1) / 2)
	if a, u, d := l.of("add"), l.of("update"), l.of("delete"); a != before+writers*each || u != writers*each || d != deleted {
		t.Errorf("%d added, %d updated, %d deleted; want %d, %d, %d", a, u, d, before+writers*each, writers*each, deleted)
	}
	l.judge(t)
	if asked.of("watchlist") != 1 || asked.of("list") != 0 {
		t.Errorf("%d streaming lists, %d plain ones: the informer should have been filled by the stream alone", asked.of("watchlist"), asked.of("list"))
	}
}

// TestInformerResync counts the repeats that a resync period is: of what there is, and without asking the server.
func TestInformerResync(t *testing.T) {
	s := start(t)
	s.namespace("resync")
	for i := range 3 {
		_, err := s.clientset().CoreV1().ConfigMaps("resync").Create(t.Context(), configMap(fmt.Sprintf("c%d", i), "0"), metav1.CreateOptions{})
		must(t, err)
	}
	l, asked := watching(t, s, "resync", time.Second)
	eventually(t, "two resyncs", func() error { return when(l.of("resync") >= 6, "%d repeats", l.of("resync")) })
	l.judge(t)
	if n := asked.of("watchlist") + asked.of("list"); n != 1 {
		t.Errorf("%d lists for a resync", n)
	}
}

// TestInformerOutlivesRestart stops the server under an informer, and kills it, and changes what it holds while the informer
// cannot see it: afterwards the informer knows all, and was told nothing twice.
func TestInformerOutlivesRestart(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*server)
	}{{"stopped", (*server).stop}, {"killed", (*server).kill}} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t)
			s.namespace("restart")
			cs := s.clientset()
			api := cs.CoreV1().ConfigMaps("restart")
			for i := range 10 {
				_, err := api.Create(t.Context(), configMap(fmt.Sprintf("c%d", i), "0"), metav1.CreateOptions{})
				must(t, err)
			}
			gate := &gated{open: true}
			config := s.config()
			config.Wrap(gate.wrap)
			factory := informers.NewSharedInformerFactoryWithOptions(clientset(t, config), 0, informers.WithNamespace("restart"))
			inf := factory.Core().V1().ConfigMaps().Informer()
			l := newLedger()
			_, err := inf.AddEventHandler(l.handler())
			must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			factory.Start(ctx.Done())
			t.Cleanup(func() { cancel(); factory.Shutdown() })
			want := state(t, cs, "restart")
			eventually(t, "the informer fills", func() error { return l.is(want) })

			gate.set(false) // the informer sees nothing from here
			c.end(s)
			s.run()
			cs = s.clientset()
			api = cs.CoreV1().ConfigMaps("restart")
			must(t, api.Delete(t.Context(), "c0", metav1.DeleteOptions{}))
			must(t, api.Delete(t.Context(), "c1", metav1.DeleteOptions{}))
			_, err = api.Create(t.Context(), configMap("c1", "again"), metav1.CreateOptions{})
			must(t, err)
			_, err = api.Create(t.Context(), configMap("new", "1"), metav1.CreateOptions{})
			must(t, err)
			cm, err := api.Get(t.Context(), "c2", metav1.GetOptions{})
			must(t, err)
			cm.Data["value"] = "2"
			_, err = api.Update(t.Context(), cm, metav1.UpdateOptions{})
			must(t, err)
			gate.set(true)

			want = state(t, cs, "restart")
			eventually(t, "the informer catches up", func() error { return l.is(want) })
			l.judge(t)
			// It goes on after that: one more of each kind is told once.
			add, del := l.of("add"), l.of("delete")
			_, err = api.Create(t.Context(), configMap("last", "1"), metav1.CreateOptions{})
			must(t, err)
			must(t, api.Delete(t.Context(), "last", metav1.DeleteOptions{}))
			eventually(t, "events go on", func() error {
				return when(l.of("add") == add+1 && l.of("delete") == del+1, "%d added, %d deleted", l.of("add")-add, l.of("delete")-del)
			})
			l.judge(t)
		})
	}
}

// gated lets requests through while it is open, and fails them otherwise.
type gated struct {
	mu   sync.Mutex
	open bool
	next http.RoundTripper
}

func (g *gated) wrap(next http.RoundTripper) http.RoundTripper { g.next = next; return g }

func (g *gated) set(open bool) {
	g.mu.Lock()
	g.open = open
	g.mu.Unlock()
}

func (g *gated) RoundTrip(q *http.Request) (*http.Response, error) {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	if !open {
		return nil, io.ErrUnexpectedEOF
	}
	return g.next.RoundTrip(q)
}

// TestReflectorBookmarks watches something that does not change while other things do. Its reflector takes up its place by
// the bookmarks it gets, so that a cut stream is resumed without reading anything again.
func TestReflectorBookmarks(t *testing.T) {
	s := start(t)
	s.namespace("marks")
	cs := s.clientset()
	_, err := cs.CoreV1().ConfigMaps("marks").Create(t.Context(), configMap("still", "0"), metav1.CreateOptions{})
	must(t, err)
	var mu sync.Mutex
	bookmarks, watches, lists, versions := 0, 0, 0, []string{}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			mu.Lock()
			lists++
			mu.Unlock()
			return cs.CoreV1().ConfigMaps("marks").List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			mu.Lock()
			watches++
			versions = append(versions, o.ResourceVersion)
			mu.Unlock()
			short := int64(2) // so that the stream ends and is taken up again many times in a test
			o.TimeoutSeconds = &short
			w, err := cs.CoreV1().ConfigMaps("marks").Watch(ctx, o)
			if err != nil {
				return nil, err
			}
			return watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
				if e.Type == watch.Bookmark {
					mu.Lock()
					bookmarks++
					mu.Unlock()
				}
				return e, true
			}), nil
		},
	}
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	r := cache.NewReflectorWithOptions(lw, &corev1.ConfigMap{}, store, cache.ReflectorOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.RunWithContext(ctx) }()
	defer func() { cancel(); <-done }()
	eventually(t, "the reflector fills", func() error { return when(len(store.List()) > 0, "empty") })
	first := r.LastSyncResourceVersion()
	for i := range 5 { // time goes on elsewhere
		_, err := cs.CoreV1().ConfigMaps("default").Create(t.Context(), configMap(fmt.Sprintf("noise-%d", i), "0"), metav1.CreateOptions{})
		must(t, err)
	}
	eventually(t, "three streams end", func() error {
		mu.Lock()
		defer mu.Unlock()
		return when(watches >= 4, "%d streams", watches)
	})
	mu.Lock()
	defer mu.Unlock()
	if lists != 0 {
		t.Errorf("%d lists: the stream with the initial events should have been enough", lists)
	}
	for _, v := range versions[1:] {
		if later(first, v) {
			t.Errorf("a stream went on from %q, before %q: places asked for: %v", v, first, versions)
		}
	}
	if bookmarks == 0 {
		t.Errorf("no bookmark in %d streams", watches)
	}
}

// TestBookmarksEveryMinute watches something that does not change, while other things do, for more than two minutes.
func TestBookmarksEveryMinute(t *testing.T) {
	long(t)
	s := start(t)
	s.namespace("marks")
	cs := s.clientset()
	w, err := cs.CoreV1().ConfigMaps("marks").Watch(t.Context(), metav1.ListOptions{AllowWatchBookmarks: true, ResourceVersion: s.revision("marks")})
	must(t, err)
	defer w.Stop()
	noise := time.NewTicker(10 * time.Second)
	defer noise.Stop()
	limit := time.After(4 * time.Minute)
	marks, last, n := 0, s.revision("marks"), 0
	for marks < 2 {
		select {
		case <-noise.C:
			n++
			_, err := cs.CoreV1().ConfigMaps("default").Create(t.Context(), configMap(fmt.Sprintf("noise-%d", n), "0"), metav1.CreateOptions{})
			must(t, err)
		case e, open := <-w.ResultChan():
			if !open || e.Type != watch.Bookmark {
				t.Fatalf("%v %+v", open, e)
			}
			version := e.Object.(*corev1.ConfigMap).ResourceVersion
			if !later(version, last) {
				t.Errorf("bookmark %d is at %s, after %s", marks, version, last)
			}
			last = version
			marks++
		case <-limit:
			t.Fatalf("%d bookmarks in four minutes", marks)
		}
	}
}

// TestWatchSelectors follows an object through what selectors make of it: it comes to match, changes, stops matching.
func TestWatchSelectors(t *testing.T) {
	s := start(t)
	s.namespace("sel")
	cs := s.clientset()
	api := cs.CoreV1().ConfigMaps("sel")
	byLabel, err := api.Watch(t.Context(), metav1.ListOptions{LabelSelector: "color=red"})
	must(t, err)
	defer byLabel.Stop()
	byName, err := api.Watch(t.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", "a").String()})
	must(t, err)
	defer byName.Stop()
	paint := func(name, color string) {
		t.Helper()
		cm, err := api.Get(t.Context(), name, metav1.GetOptions{})
		must(t, err)
		cm.Labels = map[string]string{"color": color}
		_, err = api.Update(t.Context(), cm, metav1.UpdateOptions{})
		must(t, err)
	}
	for _, n := range []string{"a", "b"} {
		_, err := api.Create(t.Context(), configMap(n, "0"), metav1.CreateOptions{})
		must(t, err)
	}
	paint("a", "red")
	paint("b", "red")
	paint("a", "blue")
	must(t, api.Delete(t.Context(), "a", metav1.DeleteOptions{}))
	must(t, api.Delete(t.Context(), "b", metav1.DeleteOptions{}))
	told := func(w watch.Interface, n int) string {
		t.Helper()
		var out []string
		limit := time.After(patience)
		for len(out) < n {
			select {
			case e, open := <-w.ResultChan():
				if !open {
					t.Fatalf("the stream ended after %v", out)
				}
				out = append(out, fmt.Sprintf("%s %s", e.Type, e.Object.(*corev1.ConfigMap).Name))
			case <-limit:
				t.Fatalf("only %v", out)
			}
		}
		return strings.Join(out, ", ")
	}
	if got, want := told(byLabel, 4), "ADDED a, ADDED b, DELETED a, DELETED b"; got != want {
		t.Errorf("by label: %s, want %s", got, want)
	}
	if got, want := told(byName, 4), "ADDED a, MODIFIED a, MODIFIED a, DELETED a"; got != want {
		t.Errorf("by name: %s, want %s", got, want)
	}
}
