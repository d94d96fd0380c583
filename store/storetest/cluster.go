package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"karve/store"
)

// RunShared is Run for engines that several processes write to (store.Shared). Backend.Open may be called while engines are
// open. Cases that make Apply stall or fail differ from those of Run: what is written shows as soon as the engine tells,
// answered or not, and no failure ends all writing.
func RunShared(t *testing.T, fresh func(t *testing.T) Backend) {
	tests := []struct {
		name string
		run  func(*harness)
	}{
		{"Basics", basics},
		{"Views", views},
		{"Linearizable", linearizable},
		{"Watch", watch},
		{"Expired", expired},
		{"Restart", restart},
		{"Crash", crash},
		{"SharedSlow", sharedSlow},
		{"SharedFailing", sharedFailing},
		{"SharedClosing", sharedClosing},
		{"SharedWrites", sharedWrites},
		{"SharedOrder", sharedOrder},
		{"SharedLinearizable", sharedLinearizable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			seed := seedOf(t)
			t.Logf("STORETEST_SEED=%d", seed)
			test.run(&harness{T: t, rand: rand.New(rand.NewPCG(seed, 0)), backend: fresh(t)})
		})
	}
}

// sharedHooks are hooks around an engine that is a store.Shared, which hooks alone would hide. Hooks are called one at a time.
type sharedHooks struct {
	store.Shared
	hooks *hooks
	mu    *sync.Mutex
}

// hooked puts hooks around an engine.
func hooked(k *hooks, engine store.Engine) store.Engine {
	k.Engine = engine
	if shared, ok := engine.(store.Shared); ok {
		return &sharedHooks{shared, k, new(sync.Mutex)}
	}
	return k
}

func (k *sharedHooks) call(hook func([]store.Mutation) error, batch []store.Mutation) error {
	if hook == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return hook(batch)
}

func (k *sharedHooks) Apply(batch []store.Mutation) error {
	if err := k.call(k.hooks.before, batch); err != nil {
		return err
	}
	if err := k.Shared.Apply(batch); err != nil {
		return err
	}
	return k.call(k.hooks.after, batch)
}

// sharedSlow: a write whose answer is late holds up neither its caller's context nor reads.
func sharedSlow(h *harness) {
	entered, release := make(chan struct{}, 10), make(chan struct{})
	s := h.open(&hooks{before: func([]store.Mutation) error {
		entered <- struct{}{}
		<-release
		return nil
	}})
	cursor := h.watch(s, "pods", s.Revision())
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() {
		_, err := s.Commit(ctx, store.Write{Key: "pods/a", Value: []byte("v")})
		result <- err
	}()
	<-entered
	if s.Get("pods/a") != nil || s.View().Count("") != 0 {
		h.Fatal("a write shows before it is done")
	}
	h.none(cursor)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		h.Fatalf("commit with an ended context: %v", err)
	}
	close(release)
	if events := h.next(cursor, 1); events[0].Record.Key != "pods/a" {
		h.Fatalf("got event of %s", events[0].Record.Key)
	}
	h.put(s, "pods/b", 0, "b")
}

// sharedFailing: a write that surely did not happen leaves no trace; one whose answer is lost shows as what it was, and
// writing goes on after either.
func sharedFailing(h *harness) {
	trouble := errors.New("trouble")
	var before, after error
	var meddle func([]store.Mutation) error
	s := h.open(&hooks{before: func(b []store.Mutation) error {
		if meddle != nil {
			return meddle(b)
		}
		return before
	}, after: func([]store.Mutation) error { return after }})
	ctx := context.Background()
	cursor := h.watch(s, "pods", s.Revision())
	a := h.put(s, "pods/a", 0, "1")

	before = fmt.Errorf("%w: %w", store.ErrNotApplied, trouble)
	if _, err := s.Commit(ctx, store.Write{Key: "pods/a", Expect: a.Revision, Value: []byte("no")}); !errors.Is(err, trouble) {
		h.Fatalf("commit that fails: %v", err)
	}
	if s.Get("pods/a") != a {
		h.Fatal("a failed write shows")
	}
	before, after = nil, fmt.Errorf("%w: %w", store.ErrUnanswered, trouble)
	if _, err := s.Commit(ctx, store.Write{Key: "pods/a", Expect: a.Revision, Value: []byte("2")}); !errors.Is(err, store.ErrUnanswered) {
		h.Fatalf("commit with a lost answer: %v", err)
	}
	after = nil
	events := h.next(cursor, 2)
	if string(events[1].Record.Value) != "2" || events[1].Prev != a {
		h.Fatalf("got events %+v", events)
	}
	h.put(s, "pods/a", events[1].Record.Revision, "3")
	if err := s.Err(); err != nil {
		h.Fatalf("the store says %v", err)
	}

	// A conflict that an unanswered attempt of the same write may be the cause of: the events of the key tell.
	now := s.Get("pods/a").Revision
	unanswered := fmt.Errorf("%w: %w: %w", store.ErrConflict, store.ErrUnanswered, trouble)
	after = unanswered
	r, err := s.Commit(ctx, store.Write{Key: "pods/a", Expect: now, Value: []byte("mine")})
	if err != nil || string(r.Value) != "mine" || s.Get("pods/a") != r {
		h.Fatalf("a write that happened although unanswered: %v %v", r, err)
	}
	after = nil
	other := h.open(nil)
	meddle = func(b []store.Mutation) error {
		meddle = nil
		r := h.put(other, "pods/a", b[0].Expect, "other")
		r = h.put(other, "pods/a", r.Revision, "mine too") // what our write would have been, but after another's
		b[0].Revision = r.Revision
		return unanswered
	}
	var c *store.ConflictError
	_, err = s.Commit(ctx, store.Write{Key: "pods/a", Expect: r.Revision, Value: []byte("mine too")})
	if !errors.As(err, &c) || c.Current != s.Get("pods/a") || string(c.Current.Value) != "mine too" {
		h.Fatalf("a write that did not happen: %v", err)
	}
	// For a delete nothing tells who it was.
	now = s.Get("pods/a").Revision
	after = unanswered
	if _, err := s.Commit(ctx, store.Write{Key: "pods/a", Expect: now}); !errors.Is(err, store.ErrUnanswered) {
		h.Fatalf("a delete without an answer: %v", err)
	}
	if s.Get("pods/a") != nil {
		h.Fatal("the deleted record is there")
	}
}

// sharedClosing: what is in work ends well, everybody else is told, and reads go on.
func sharedClosing(h *harness) {
	entered, release := make(chan struct{}, 100), make(chan struct{})
	s := h.open(&hooks{before: func([]store.Mutation) error {
		entered <- struct{}{}
		<-release
		return nil
	}})
	ctx := context.Background()
	cursor := h.watch(s, "pods", s.Revision())
	first, closed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := s.Commit(ctx, store.Write{Key: "pods/a", Value: []byte("v")})
		first <- err
	}()
	<-entered
	go func() { closed <- s.Close() }()
	// Every write is refused once closing has begun; until then this one is stuck like the first.
	for {
		if _, err := s.Commit(canceledSoon(h), store.Write{Key: "pods/z", Value: []byte("v")}); errors.Is(err, store.ErrClosed) {
			break
		}
	}
	close(release)
	if err := <-first; err != nil {
		h.Fatalf("write in work while closing: %v", err)
	}
	if err := <-closed; err != nil {
		h.Fatalf("close: %v", err)
	}
	if events, _, err := cursor.Next(ctx); err != nil || len(events) == 0 {
		h.Fatalf("watch after closing: %v %v", events, err)
	}
	if _, err := s.Commit(ctx, store.Write{Key: "pods/b", Value: []byte("v")}); !errors.Is(err, store.ErrClosed) {
		h.Fatalf("commit after closing: %v", err)
	}
	if s.Get("pods/a") == nil {
		h.Fatal("reads do not work after closing")
	}
}

// sharedWrites: what one store was told is done shows on the other once it was asked to catch up, and neither takes what it
// has not heard of for a conflict.
func sharedWrites(h *harness) {
	a, b := h.open(nil), h.open(nil)
	ctx := context.Background()
	stores := []*store.Store{a, b}
	var last *store.Record
	for i := range 200 {
		mine, other := stores[i%2], stores[(i+1)%2]
		var expect uint64
		if last != nil {
			expect = last.Revision
		}
		// No Sync here: the write itself must know better than what this store has heard.
		r, err := mine.Commit(ctx, store.Write{Key: "pods/a", Expect: expect, Value: fmt.Appendf(nil, "%d", i)})
		if err != nil {
			h.Fatalf("write %d: %v", i, err)
		}
		if err := other.Sync(ctx); err != nil {
			h.Fatal(err)
		}
		if got := other.Get("pods/a"); got == nil || got.Revision != r.Revision || string(got.Value) != fmt.Sprint(i) {
			h.Fatalf("write %d at %d: the other has %+v at %d", i, r.Revision, got, other.Revision())
		}
		last = r
		if i%10 == 9 {
			if _, err := other.Commit(ctx, store.Write{Key: "pods/a", Expect: r.Revision}); err != nil {
				h.Fatalf("delete by the other: %v", err)
			}
			last = nil
		}
	}
	// A real conflict shows the record it is with.
	r := h.put(a, "pods/c", 0, "a")
	_, err := b.Commit(ctx, store.Write{Key: "pods/c", Value: []byte("b")})
	h.conflict(err, r.Revision)
	_, err = b.Commit(ctx, store.Write{Key: "pods/c", Expect: r.Revision + 1000, Value: []byte("b")})
	h.conflict(err, r.Revision)
	h.remove(b, "pods/c", r.Revision)
	_, err = a.Commit(ctx, store.Write{Key: "pods/c", Expect: r.Revision, Value: []byte("a")})
	h.conflict(err, 0)
	// A revision of the other's is reached without anybody's asking again.
	r = h.put(b, "pods/d", 0, "d")
	if err := a.Reach(ctx, r.Revision); err != nil || a.Get("pods/d") == nil {
		h.Fatalf("reach: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := a.Reach(short, r.Revision+1000); !errors.Is(err, context.DeadlineExceeded) {
		h.Fatalf("reach of the future: %v", err)
	}
}

// sharedOrder: with writers on both, watches on both show the same events in the same order.
func sharedOrder(h *harness) {
	stores := []*store.Store{h.open(nil), h.open(nil)}
	start := stores[0].Revision()
	cursors := []*store.Cursor{h.watch(stores[0], "pods", start), h.watch(stores[1], "pods", start)}
	var wg sync.WaitGroup
	for w := range 8 {
		s := stores[w%2]
		r := rand.New(rand.NewPCG(h.rand.Uint64(), 5))
		wg.Go(func() {
			for i := range 60 {
				key := fmt.Sprintf("pods/%d", r.IntN(12))
				wr := store.Write{Key: key, Expect: revisionOf(s.Get(key)), Value: fmt.Appendf(nil, "%d.%d", w, i)}
				if wr.Expect != 0 && r.IntN(4) == 0 {
					wr.Value = nil
				}
				var c *store.ConflictError
				if _, err := s.Commit(context.Background(), wr); err != nil && !errors.As(err, &c) {
					h.Errorf("commit: %v", err)
				}
			}
		})
	}
	wg.Wait()
	var seen [2][]string
	for i, s := range stores {
		if err := s.Sync(context.Background()); err != nil {
			h.Fatal(err)
		}
		for _, e := range h.drain(cursors[i], s.Revision()) {
			seen[i] = append(seen[i], fmt.Sprint(e.Record.Revision, e.Record.Key, e.Deleted, revisionOf(e.Prev), string(e.Record.Value)))
		}
	}
	if len(seen[0]) < 100 || !slices.Equal(seen[0], seen[1]) {
		h.Fatalf("one watch shows %d events, the other %d:\n%q\n%q", len(seen[0]), len(seen[1]), seen[0], seen[1])
	}
	if got, want := contents(stores[0]), contents(stores[1]); !slices.Equal(got, want) {
		h.Fatalf("one store holds %q, the other %q", got, want)
	}
}

// sharedLinearizable: reads (after Sync) and writes of two stores look as if each happened at one moment within its call.
func sharedLinearizable(h *harness) {
	stores := []*store.Store{h.open(nil), h.open(nil)}
	var mu sync.Mutex
	var history []porcupine.Operation
	var wg sync.WaitGroup
	began := time.Now()
	ctx := context.Background()
	for client := range 8 {
		s := stores[client%2]
		r := rand.New(rand.NewPCG(h.rand.Uint64(), 6))
		wg.Go(func() {
			for i := range 80 {
				in := operation{key: fmt.Sprintf("k/%d", r.IntN(3)), write: r.IntN(2) > 0, delete: r.IntN(4) == 0}
				if r.IntN(10) > 0 {
					in.expect = revisionOf(s.Get(in.key))
				}
				op := porcupine.Operation{ClientId: client, Input: in, Call: int64(time.Since(began))}
				var out answer
				if in.write {
					w := store.Write{Key: in.key, Expect: in.expect}
					if !in.delete {
						w.Value = fmt.Appendf(nil, "%d.%d", client, i)
					}
					record, err := s.Commit(ctx, w)
					var c *store.ConflictError
					switch {
					case errors.As(err, &c):
						out = answer{revisionOf(c.Current), true}
					case err != nil:
						h.Errorf("commit: %v", err)
						return
					default:
						out.revision = record.Revision
					}
				} else {
					if err := s.Sync(ctx); err != nil {
						h.Errorf("sync: %v", err)
						return
					}
					out.revision = revisionOf(s.Get(in.key))
				}
				op.Output, op.Return = out, int64(time.Since(began))
				mu.Lock()
				history = append(history, op)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, part := range register.Partition(history) {
		if result := porcupine.CheckOperationsTimeout(register, part, time.Minute); result != porcupine.Ok {
			slices.SortFunc(part, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
			for _, op := range part {
				h.Logf("client %d from %d to %d: %+v gave %+v", op.ClientId, op.Call, op.Return, op.Input, op.Output)
			}
			h.Fatalf("history of %d operations of a key is not linearizable: %s", len(part), result)
		}
	}
}
