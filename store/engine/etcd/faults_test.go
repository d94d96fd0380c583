package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"karve/store"
	"karve/store/engine/etcd/etcdtest"
)

// openStore opens a store on endpoints; the test closes it.
func openStore(t testing.TB, o Options) (*store.Store, *Engine) {
	t.Helper()
	if o.Prefix == "" {
		o.Prefix = "/registry"
	}
	e, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(ctx, store.Options{Engine: e, History: 1 << 20, Topic: func(key string) string {
		topic, _, _ := strings.Cut(key, "/")
		return topic
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, e
}

func put(t testing.TB, s *store.Store, key, value string) *store.Record {
	t.Helper()
	var expect uint64
	if r := s.Get(key); r != nil {
		expect = r.Revision
	}
	r, err := s.Commit(ctx, store.Write{Key: key, Expect: expect, Value: []byte(value)})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return r
}

// eventually waits for a state that comes by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for %s", what)
		}
	}
}

// load has writers count up keys of their own while disturb runs, and checks afterwards, on the stores and on a fresh one,
// that every acknowledged write is there, and on the watches of all stores that no event is missing or twice.
func load(t *testing.T, stores []*store.Store, endpoints []string, disturb func()) {
	t.Helper()
	type watcher struct {
		s *store.Store
		c *store.Cursor
	}
	var watchers []watcher
	for _, s := range stores {
		c, err := s.Watch("pods", s.Revision())
		if err != nil {
			t.Fatal(err)
		}
		watchers = append(watchers, watcher{s, c})
	}
	const writers = 8
	var done [writers]map[uint64]string // acknowledged, by revision
	var total, failed atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range writers {
		done[w] = map[uint64]string{}
		s, key := stores[w%len(stores)], fmt.Sprintf("pods/%d", w)
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				limit, cancel := context.WithTimeout(ctx, 100*time.Second)
				wr := store.Write{Key: key, Value: fmt.Appendf(nil, "%d.%d", w, n)}
				if err := s.Sync(limit); err == nil {
					if r := s.Get(key); r != nil {
						wr.Expect = r.Revision
					}
					r, err := s.Commit(limit, wr)
					var conflict *store.ConflictError
					switch {
					case err == nil:
						done[w][r.Revision] = string(wr.Value)
						total.Add(1)
					case errors.As(err, &conflict):
						t.Errorf("the only writer of %s met a conflict: %v", key, err)
						cancel()
						return
					default:
						failed.Add(1)
					}
				}
				cancel()
			}
		})
	}
	eventually(t, "some writes", func() bool { return total.Load() > 50 })
	disturb()
	after := total.Load() + 50
	eventually(t, "writes after the trouble", func() bool { return total.Load() > after })
	close(stop)
	wg.Wait()
	fresh, _ := openStore(t, Options{Endpoints: endpoints})
	for _, s := range append(stores, fresh) {
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		for w := range writers {
			r := s.Get(fmt.Sprintf("pods/%d", w))
			newest := uint64(0)
			for revision := range done[w] {
				newest = max(newest, revision)
			}
			if r == nil || r.Revision < newest || r.Revision == newest && string(r.Value) != done[w][newest] {
				t.Errorf("acknowledged write %q at %d is lost: there is %+v", done[w][newest], newest, r)
			}
		}
	}
	for i, w := range watchers {
		seen := map[uint64]string{}
		last := map[string]uint64{}
		for w.c.Progress() < fresh.Revision() {
			events, _, err := w.c.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.Prev != nil && e.Prev.Revision != last[e.Record.Key] && last[e.Record.Key] != 0 {
					t.Errorf("watch %d of %s: %d follows %d, which was not shown", i, e.Record.Key, e.Record.Revision, e.Prev.Revision)
				}
				if seen[e.Record.Revision] != "" {
					t.Errorf("watch %d shows revision %d twice", i, e.Record.Revision)
				}
				seen[e.Record.Revision], last[e.Record.Key] = string(e.Record.Value), e.Record.Revision
			}
		}
		for n := range done {
			for revision, value := range done[n] {
				if seen[revision] != value {
					t.Errorf("watch %d shows %q at %d, acknowledged was %q", i, seen[revision], revision, value)
				}
			}
		}
	}
	t.Logf("%d writes acknowledged, %d failed", total.Load(), failed.Load())
}

// TestKill kills the only member under writes and starts it again, thrice.
func TestKill(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s, _ := openStore(t, Options{Endpoints: c.Endpoints()})
	load(t, []*store.Store{s}, c.Endpoints(), func() {
		for range 3 {
			c.Members[0].Kill()
			time.Sleep(100 * time.Millisecond)
			c.Members[0].Restart()
			time.Sleep(300 * time.Millisecond)
		}
	})
}

// TestMembers kills each of three members in turn, then freezes one, while two stores write.
func TestMembers(t *testing.T) {
	c := etcdtest.Start(t, 3)
	a, _ := openStore(t, Options{Endpoints: c.Endpoints()})
	b, _ := openStore(t, Options{Endpoints: c.Endpoints()})
	load(t, []*store.Store{a, b}, c.Endpoints(), func() {
		for _, m := range c.Members {
			m.Kill()
			put(t, a, "configmaps/"+m.Name, "written with two of three")
			m.Restart()
		}
		// A member that does not answer and does not close its connections either, be it the leader or not.
		for _, m := range c.Members[:2] {
			m.Freeze()
			put(t, a, "configmaps/frozen"+m.Name, "v")
			put(t, b, "configmaps/frozen2"+m.Name, "v")
			m.Thaw()
		}
	})
}

// TestUnanswered loses the answers of writes that happened: their outcome is found out, not guessed.
func TestUnanswered(t *testing.T) {
	c := etcdtest.Start(t, 1)
	proxy := etcdtest.NewProxy(t, c.Members[0].Address)
	s, _ := openStore(t, Options{Endpoints: []string{proxy.URL}})
	direct, _ := openStore(t, Options{Endpoints: c.Endpoints()})
	base := put(t, s, "pods/a", "0")
	tests := []struct {
		name  string
		write store.Write
		// meanwhile is what another does after our write and before our next attempt.
		meanwhile func()
		check     func(*store.Record, error) bool
	}{
		{"update", store.Write{Key: "pods/a", Expect: base.Revision, Value: []byte("1")}, nil,
			func(r *store.Record, err error) bool { return err == nil && string(r.Value) == "1" }},
		{"create", store.Write{Key: "pods/b", Value: []byte("1")}, nil,
			func(r *store.Record, err error) bool { return err == nil && string(r.Value) == "1" }},
		{"create, then deleted by another", store.Write{Key: "pods/c", Value: []byte("1")}, func() {
			if _, err := direct.Commit(ctx, store.Write{Key: "pods/c", Expect: direct.Get("pods/c").Revision}); err != nil {
				t.Error(err)
			}
		}, func(r *store.Record, err error) bool {
			return err == nil && string(r.Value) == "1" && s.Get("pods/c") == nil // not brought back to life
		}},
		{"update, then updated by another", store.Write{Key: "pods/b", Value: []byte("2")}, func() { put(t, direct, "pods/b", "3") },
			func(r *store.Record, err error) bool { return err == nil && string(r.Value) == "2" }},
		{"delete", store.Write{Key: "pods/a"}, nil,
			func(r *store.Record, err error) bool { return errors.Is(err, store.ErrUnanswered) }},
	}
	for _, test := range tests {
		w := test.write
		before := uint64(0)
		if r := s.Get(w.Key); r != nil {
			before = r.Revision
			w.Expect = before
		}
		type result struct {
			r   *store.Record
			err error
		}
		answer := make(chan result, 1)
		proxy.LoseAnswers(true)
		go func() {
			r, err := s.Commit(ctx, w)
			answer <- result{r, err}
		}()
		eventually(t, test.name+" to happen", func() bool {
			r := direct.Get(w.Key)
			return w.Value == nil && r == nil || w.Value != nil && r != nil && r.Revision != before && string(r.Value) == string(w.Value)
		})
		if test.meanwhile != nil {
			test.meanwhile()
		}
		proxy.LoseAnswers(false)
		proxy.Cut()
		if a := <-answer; !test.check(a.r, a.err) {
			t.Errorf("%s: got %+v, %v", test.name, a.r, a.err)
		}
	}
}

// TestNobodyThere: with no member there, a write and a question end with a clear error, and a reader's patience counts.
func TestNobodyThere(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for time to pass")
	}
	c := etcdtest.Start(t, 1)
	s, _ := openStore(t, Options{Endpoints: c.Endpoints()})
	put(t, s, "pods/a", "1")
	c.Members[0].Kill()
	limit, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := s.Sync(limit); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("sync: %v", err)
	}
	_, err := s.Commit(ctx, store.Write{Key: "pods/b", Value: []byte("b")})
	if !errors.Is(err, store.ErrUnanswered) || !strings.Contains(err.Error(), "no member of etcd answers") {
		t.Errorf("commit: %v", err)
	}
	if s.Get("pods/a") == nil {
		t.Error("reads of the past do not work")
	}
	if err := s.Err(); err == nil {
		t.Error("the store says that all is well")
	}
	c.Members[0].Restart()
	put(t, s, "pods/c", "c")
	if err := s.Err(); err != nil {
		t.Errorf("the store says %v", err)
	}
}

// TestCompacted compacts etcd while a store cannot hear of it: its watches are told to begin anew, and it shows the truth.
func TestCompacted(t *testing.T) {
	c := etcdtest.Start(t, 1)
	proxy := etcdtest.NewProxy(t, c.Members[0].Address)
	s, _ := openStore(t, Options{Endpoints: []string{proxy.URL}})
	direct, e := openStore(t, Options{Endpoints: c.Endpoints()})
	kept := put(t, s, "pods/kept", "1")
	put(t, s, "pods/changed", "1")
	put(t, s, "pods/deleted", "1")
	start := s.Revision()
	cursor, err := s.Watch("pods", start)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, _, err := cursor.Next(ctx)
		ended <- err
	}()
	proxy.Refuse(true)
	proxy.Cut()
	if err := direct.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	put(t, direct, "pods/changed", "2")
	put(t, direct, "pods/new", "1")
	if _, err := direct.Commit(ctx, store.Write{Key: "pods/deleted", Expect: direct.Get("pods/deleted").Revision}); err != nil {
		t.Fatal(err)
	}
	last := put(t, direct, "pods/new", "2")
	if _, err := e.kv.Compact(ctx, &pb.CompactionRequest{Revision: int64(last.Revision), Physical: true}); err != nil {
		t.Fatal(err)
	}
	proxy.Refuse(false)
	if err := <-ended; !errors.Is(err, store.ErrExpired) {
		t.Errorf("watch over lost events: %v", err)
	}
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Watch("pods", start); !errors.Is(err, store.ErrExpired) {
		t.Errorf("watch from before lost events: %v", err)
	}
	var got []string
	s.View().Scan("", "", func(r *store.Record) bool {
		got = append(got, fmt.Sprintf("%s=%s", r.Key, r.Value))
		return true
	})
	if want := "[pods/changed=2 pods/kept=1 pods/new=2]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if s.Get("pods/kept") != kept {
		t.Error("a record that did not change is a new one")
	}
	if cursor, err = s.Watch("pods", s.Revision()); err != nil {
		t.Fatal(err)
	}
	r := put(t, s, "pods/kept", "2")
	if events, _, err := cursor.Next(ctx); err != nil || len(events) != 1 || events[0].Record != r {
		t.Errorf("watch afterwards: %v %v", events, err)
	}
}

// TestInterrupted loses the connection while nothing is compacted: the watch goes on where it was.
func TestInterrupted(t *testing.T) {
	c := etcdtest.Start(t, 1)
	proxy := etcdtest.NewProxy(t, c.Members[0].Address)
	s, _ := openStore(t, Options{Endpoints: []string{proxy.URL}})
	direct, _ := openStore(t, Options{Endpoints: c.Endpoints()})
	cursor, err := s.Watch("pods", s.Revision())
	if err != nil {
		t.Fatal(err)
	}
	var want []uint64
	for round := range 5 {
		want = append(want, put(t, s, "pods/a", fmt.Sprint(round)).Revision)
		proxy.Refuse(true)
		proxy.Cut()
		if err := direct.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			want = append(want, put(t, direct, "pods/a", fmt.Sprint(round, i)).Revision)
		}
		proxy.Refuse(false)
		if err := s.Sync(ctx); err != nil {
			t.Fatal(err)
		}
	}
	var got []uint64
	for len(got) < len(want) {
		events, _, err := cursor.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			got = append(got, e.Record.Revision)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
