package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"karve/store"
)

// expired: a log of limited length tells those who are too far behind, and nobody else.
func expired(h *harness) {
	h.history = 10
	s := h.open(nil)
	slow, idle := h.watch(s, "pods", 0), h.watch(s, "nodes", 0)
	var revision uint64
	for i := range 300 {
		revision = h.put(s, "pods/a", revision, fmt.Sprint(i)).Revision
	}
	ctx := context.Background()
	if _, _, err := slow.Next(ctx); !errors.Is(err, store.ErrExpired) {
		h.Fatalf("next of a cursor left behind: %v", err)
	}
	h.none(idle)
	if got := s.Oldest("pods"); got != 290 {
		h.Fatalf("oldest is %d, want 290", got)
	}
	if _, err := s.Watch("pods", 289); !errors.Is(err, store.ErrExpired) {
		h.Fatalf("watch from before the log: %v", err)
	}
	kept := h.watch(s, "pods", 290)
	if events := h.next(kept, 10); events[0].Record.Revision != 291 {
		h.Fatalf("oldest event has revision %d", events[0].Record.Revision)
	}
	h.watch(s, "nodes", 5)

	behind := h.watch(s, "pods", 294)
	s.Compact(295)
	if _, err := s.Watch("pods", 294); !errors.Is(err, store.ErrExpired) {
		h.Fatalf("watch from before the compaction: %v", err)
	}
	if _, err := s.Watch("nodes", 5); !errors.Is(err, store.ErrExpired) {
		h.Fatalf("watch of another topic from before the compaction: %v", err)
	}
	if _, err := s.Watch("never used", 5); !errors.Is(err, store.ErrExpired) {
		h.Fatalf("watch of a new topic from before the compaction: %v", err)
	}
	if _, _, err := behind.Next(ctx); !errors.Is(err, store.ErrExpired) {
		h.Fatalf("next of a cursor behind the compaction: %v", err)
	}
	if events := h.next(h.watch(s, "pods", 295), 5); events[0].Record.Revision != 296 {
		h.Fatalf("oldest event has revision %d", events[0].Record.Revision)
	}
	s.Compact(1 << 60)
	if got := s.Oldest("pods"); got != 300 {
		h.Fatalf("oldest is %d, want 300", got)
	}
	h.put(s, "nodes/n", 0, "n")
	h.put(s, "pods/a", revision, "last")
	h.next(kept, 1)
	h.next(idle, 1)

	// A revision that is still to come: nothing up to it is shown.
	future := h.watch(s, "nodes", 304)
	h.put(s, "nodes/a", 0, "") // 303
	h.put(s, "nodes/b", 0, "") // 304
	h.put(s, "nodes/c", 0, "") // 305
	if events := h.next(future, 1); events[0].Record.Key != "nodes/c" {
		h.Fatalf("watch after 304 shows %s", events[0].Record.Key)
	}
}

// restart: everything is there again, revisions go on, and the log begins anew.
func restart(h *harness) {
	s := h.open(nil)
	h.put(s, "pods/a", 0, "1")
	b := h.put(s, "pods/b", 0, strings.Repeat("long", 10_000))
	h.put(s, "pods/c", 0, "")
	c := h.put(s, "pods/d", 0, "d")
	h.put(s, "pods/a", 1, "2")
	h.remove(s, "pods/d", c.Revision)
	for round := range uint64(3) {
		want := contents(s)
		if err := s.Close(); err != nil {
			h.Fatalf("close: %v", err)
		}
		s = h.open(nil)
		if got := contents(s); !slices.Equal(got, want) || len(got) != 3 {
			h.Fatalf("after a restart: got %.99q, want %.99q", got, want)
		}
		if s.Revision() != 6+2*round {
			h.Fatalf("revision is %d, want %d: the last write was a delete", s.Revision(), 6+2*round)
		}
		if r := s.Get("pods/b"); r.Attachment() != "loaded "+string(b.Value) {
			h.Fatal("attachment is not made from the value")
		}
		if _, err := s.Watch("pods", s.Revision()-1); !errors.Is(err, store.ErrExpired) {
			h.Fatalf("watch from before the restart: %v", err)
		}
		cursor := h.watch(s, "pods", s.Revision())
		x := h.put(s, "pods/x", 0, "x")
		h.remove(s, "pods/x", x.Revision)
		if events := h.next(cursor, 2); events[0].Record != x || events[1].Prev != x {
			h.Fatalf("events after a restart: %+v", events)
		}
	}
}

// crash: after a loss of power in the middle of concurrent writes the engine holds exactly the writes up to some revision,
// and every acknowledged write is among them.
func crash(h *harness) {
	s := h.open(nil)
	for range 5 {
		crashOnce(h, s)
		s = h.open(nil)
	}
}

// keyLog is what the only writer of a key knows of it: the value of each revision ("" for deleted), and the write that was
// never answered.
type keyLog struct {
	done     map[uint64]string
	inFlight string
	expect   uint64
}

func crashOnce(h *harness, s *store.Store) {
	const writers = 8
	base := s.Revision()
	logs := make([]keyLog, writers)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var acknowledged uint64
	var once sync.Once
	enough := make(chan struct{})
	stop := make(chan struct{})
	for i := range writers {
		log := &logs[i]
		key := fmt.Sprintf("pods/%d", i)
		log.done = map[uint64]string{}
		if r := s.Get(key); r != nil {
			log.done[r.Revision], log.expect = string(r.Value), r.Revision
		}
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				w := store.Write{Key: key, Expect: log.expect}
				log.inFlight = ""
				if n%5 != 4 || log.expect == 0 {
					log.inFlight = fmt.Sprintf("%d.%d.%s", base, n, strings.Repeat("x", 1000))
					w.Value = []byte(log.inFlight)
				}
				r, err := s.Commit(context.Background(), w)
				if err != nil {
					return
				}
				log.done[r.Revision], log.expect = log.inFlight, r.Revision
				if w.Value == nil {
					log.expect = 0
				}
				mu.Lock()
				if acknowledged = max(acknowledged, r.Revision); acknowledged >= base+100 {
					once.Do(func() { close(enough) })
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	mu.Lock()
	atLeast := acknowledged
	mu.Unlock()
	h.backend.Crash(h.T, h.rand)
	close(stop)
	wg.Wait()
	_ = s.Close() // the lost machine: what it still does and says counts for nothing

	after := h.open(nil)
	defer after.Close()
	last := after.Revision()
	if last < atLeast {
		h.Fatalf("revision is %d, but %d was acknowledged", last, atLeast)
	}
	for i := range logs {
		newest := uint64(0)
		for revision := range logs[i].done {
			if revision <= last {
				newest = max(newest, revision)
			}
		}
		r := after.Get(fmt.Sprintf("pods/%d", i))
		value := ""
		if r != nil {
			value = string(r.Value)
		}
		// A write without an answer may have come last, if it follows all that is known.
		lost := value == logs[i].inFlight && newest == highest(logs[i].done)
		if value != logs[i].done[newest] && !lost || r != nil && !lost && r.Revision != newest {
			h.Fatalf("key %d after a crash at %d: revision %d, %.30q; the newest of its writes was %d, %.30q", i, last,
				revisionOf(r), value, newest, logs[i].done[newest])
		}
	}
}

func highest(m map[uint64]string) (most uint64) {
	for revision := range m {
		most = max(most, revision)
	}
	return most
}

// slow: while the disk stalls, reads and impatient callers do not wait, and nothing unacknowledged shows.
func slow(h *harness) {
	entered, release := make(chan struct{}, 10), make(chan struct{})
	s := h.open(&hooks{after: func([]store.Mutation) error {
		entered <- struct{}{}
		<-release
		return nil
	}})
	cursor := h.watch(s, "pods", 0)
	results := make(chan error, 2)
	ctx, cancel := context.WithCancel(context.Background())
	commit := func(ctx context.Context, key string) {
		_, err := s.Commit(ctx, store.Write{Key: key, Value: []byte("v")})
		results <- err
	}
	go commit(ctx, "pods/a")
	<-entered
	go commit(ctx, "pods/b") // queued, or about to be
	if s.Get("pods/a") != nil || s.View().Count("") != 0 || s.Revision() != 0 || cursor.Progress() != 0 {
		h.Fatal("a write shows before it is acknowledged")
	}
	h.none(cursor)
	cancel()
	for range 2 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			h.Fatalf("commit with an ended context: %v", err)
		}
	}
	close(release)
	// The first was under way and comes to be; the second was given up before its turn.
	if events := h.next(cursor, 1); events[0].Record.Key != "pods/a" {
		h.Fatalf("got event of %s", events[0].Record.Key)
	}
	h.put(s, "pods/c", 0, "c")
	if got, want := contents(s), []string{"pods/a@1=v", "pods/c@2=c"}; !slices.Equal(got, want) {
		h.Fatalf("got %q, want %q", got, want)
	}
}

// failing: a batch that was surely not applied leaves no trace; one that may have been ends all writing until a restart,
// which shows it wholly or not at all.
func failing(h *harness) {
	disk := errors.New("disk trouble")
	var before, after error
	k := &hooks{before: func([]store.Mutation) error { return before }, after: func([]store.Mutation) error { return after }}
	s := h.open(k)
	ctx := context.Background()
	cursor := h.watch(s, "pods", 0)
	a := h.put(s, "pods/a", 0, "1")

	before = fmt.Errorf("%w: %w", store.ErrNotApplied, disk)
	if _, err := s.Commit(ctx, store.Write{Key: "pods/a", Expect: 1, Value: []byte("no")}); !errors.Is(err, disk) {
		h.Fatalf("commit on a failing disk: %v", err)
	}
	if s.Get("pods/a") != a || s.Revision() != 1 {
		h.Fatal("a failed write shows")
	}
	before = nil
	b := h.put(s, "pods/a", 1, "2")
	if b.Revision != 2 {
		h.Fatalf("revision after a failed write is %d, want 2", b.Revision)
	}

	after = disk // it is on the disk, but nobody knows
	if _, err := s.Commit(ctx, store.Write{Key: "pods/a", Expect: 2, Value: []byte("3")}); !errors.Is(err, disk) {
		h.Fatalf("commit with a lost answer: %v", err)
	}
	after = nil
	_, err := s.Commit(ctx, store.Write{Key: "pods/b", Value: []byte("b")})
	if !errors.Is(err, store.ErrReadOnly) || !errors.Is(err, disk) || !strings.Contains(err.Error(), "check the disk and restart") {
		h.Fatalf("commit after a lost answer: %v", err)
	}
	if events := h.next(cursor, 2); events[1].Record != b || s.Get("pods/a") != b || s.Revision() != 2 {
		h.Fatal("reads differ from the last acknowledged state")
	}
	h.none(cursor)
	_ = s.Close()
	s = h.open(nil)
	if got, want := contents(s), []string{"pods/a@3=3"}; !slices.Equal(got, want) || s.Revision() != 3 {
		h.Fatalf("after the restart: got %q at %d, want %q", got, s.Revision(), want)
	}
	if r := h.put(s, "pods/a", 3, "4"); r.Revision != 4 {
		h.Fatalf("revision after the restart is %d, want 4", r.Revision)
	}
}

// closing: the batch in work ends well, everybody else is told, and reads go on.
func closing(h *harness) {
	entered, release := make(chan struct{}, 10), make(chan struct{})
	s := h.open(&hooks{before: func([]store.Mutation) error {
		entered <- struct{}{}
		<-release
		return nil
	}})
	ctx := context.Background()
	cursor := h.watch(s, "pods", 0)
	watched := make(chan error, 1)
	go func() {
		_, _, err := cursor.Next(ctx)
		if err == nil {
			_, _, err = cursor.Next(ctx)
		}
		watched <- err
	}()
	first, others := make(chan error, 1), make(chan error, 20)
	go func() {
		_, err := s.Commit(ctx, store.Write{Key: "pods/a", Value: []byte("v")})
		first <- err
	}()
	<-entered
	for i := range 20 {
		go func() {
			_, err := s.Commit(ctx, store.Write{Key: fmt.Sprintf("pods/%d", i), Value: []byte("v")})
			others <- err
		}()
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	// Those that are refused before the batch ends prove that Close has begun; whoever is queued is refused after it.
	for {
		if _, err := s.Commit(canceledSoon(h), store.Write{Key: "pods/z", Value: []byte("v")}); errors.Is(err, store.ErrClosed) {
			break
		}
	}
	close(release)
	if err := <-first; err != nil {
		h.Fatalf("write in work while closing: %v", err)
	}
	for range 20 {
		if err := <-others; !errors.Is(err, store.ErrClosed) {
			h.Fatalf("queued write while closing: %v", err)
		}
	}
	if err := <-closed; err != nil {
		h.Fatalf("close: %v", err)
	}
	if err := <-watched; !errors.Is(err, store.ErrClosed) {
		h.Fatalf("watch while closing: %v", err)
	}
	if s.Get("pods/a") == nil || s.View().Count("") != 1 {
		h.Fatal("reads do not work after closing")
	}
	if _, err := s.Commit(ctx, store.Write{Key: "pods/b", Value: []byte("v")}); !errors.Is(err, store.ErrClosed) {
		h.Fatalf("commit after closing: %v", err)
	}
	if _, err := s.Watch("fresh", s.Revision()); !errors.Is(err, store.ErrClosed) {
		h.Fatalf("watch after closing: %v", err)
	}
}

// canceledSoon is a context that ends in a moment.
func canceledSoon(h *harness) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 1e6)
	h.Cleanup(cancel)
	return ctx
}
