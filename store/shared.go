package store

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// Shared is an Engine that other processes write to as well. It gives out the revisions, so that a store on it takes no write
// for done before it is told of it in its place among all others:
//
//   - Apply gets one mutation at a time, from many goroutines. It applies it if Expect holds and sets Revision. If Expect does
//     not hold it answers ErrConflict and sets Revision to one at which that shows; see also ErrUnanswered.
//   - Load may be called again by the engine's own Follow, not by the store.
type Shared interface {
	Engine
	// Follow calls tell with all that happens after a revision, own writes included, until ctx ends. Calls do not overlap.
	// It lives through the loss of its connection.
	Follow(ctx context.Context, after uint64, tell func(News))
	// Current returns a revision that no write answered before the call, by whomever, is beyond, and sees to it that
	// Follow tells of everything up to it soon.
	Current(ctx context.Context) (uint64, error)
	// Past calls fn for the records with the prefix as they were at a revision, in key order. It fails with ErrExpired if
	// the engine does not know that anymore. fn may keep value.
	Past(ctx context.Context, prefix string, revision uint64, fn func(key string, revision uint64, value []byte) error) error
}

// News is a part of what happens on a Shared engine.
type News struct {
	// Changes are in revision order. Several may share a revision.
	Changes []Mutation
	// Revision is what everything has been told up to.
	Revision uint64
	// Anew says that events are lost: Changes are all records as they are at Revision, in key order. Watches have to begin
	// anew too.
	Anew bool
}

const (
	// closeWait is how long Close waits for writes in work on a Shared engine.
	closeWait = 3 * time.Second
	// askTime is how long Err waits for the engine.
	askTime = 2 * time.Second
)

// sharing is what a store has more when its engine is a Shared.
type sharing struct {
	engine Shared
	ctx    context.Context // ends with the store
	stop   context.CancelFunc
	syncs  batcher

	mu      sync.Mutex
	closing bool
	writes  sync.WaitGroup

	// own are the writes in work by key; Store.mu guards it.
	own map[string][]*ownWrite
}

// ownWrite is a write in work, with the events of its key since it began.
type ownWrite struct {
	Write
	prev *Record
	seen []Event
	// gap says that events are missing among those seen.
	gap bool
}

// share starts following the engine.
func (s *Store) share(ctx context.Context, engine Shared) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.shared = &sharing{engine: engine, ctx: ctx, stop: stop, own: map[string][]*ownWrite{}}
	s.shared.syncs.fetch = engine.Current
	after := s.revision
	go func() {
		defer close(s.ended)
		engine.Follow(ctx, after, s.told)
	}()
}

// ask finds out whether the engine answers and what it tells arrives.
func (h *sharing) ask(s *Store) error {
	ctx, cancel := context.WithTimeout(h.ctx, askTime)
	defer cancel()
	return s.Sync(ctx)
}

// unshare lets no more writes in, waits a moment for those in work, and ends the following.
func (s *Store) unshare() {
	h := s.shared
	h.mu.Lock()
	h.closing = true
	h.mu.Unlock()
	done := make(chan struct{})
	go func() {
		h.writes.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(closeWait):
		s.log.Warn("store closes while writes are unanswered")
	}
	h.stop()
}

// told publishes what the engine tells.
func (s *Store) told(n News) {
	if n.Anew {
		s.anew(n)
		return
	}
	var few [4]*topicLog // most news are of one topic, and they come often
	woken := few[:0]
	s.mu.Lock()
	for i := range n.Changes {
		m := &n.Changes[i]
		prev, _ := s.records.Get(m.Key)
		if m.Value == nil && prev == nil || prev != nil && m.Revision <= prev.Revision {
			continue
		}
		e := Event{Prev: prev, Deleted: m.Value == nil, Record: &Record{Key: m.Key, Revision: m.Revision, Value: m.Value, from: s.loader}}
		if e.Deleted {
			e.Record.Value = prev.Value
		}
		l := s.show(e)
		known := false
		for _, w := range woken {
			known = known || w == l
		}
		if !known {
			woken = append(woken, l)
		}
		for _, o := range s.shared.own[m.Key] {
			o.seen = append(o.seen, e)
		}
	}
	if n.Revision > s.revision {
		s.reached(n.Revision)
	}
	s.mu.Unlock()
	for _, l := range woken {
		l.signal()
	}
}

// anew replaces everything by what the engine holds, when events are lost. Records that did not change stay the same.
func (s *Store) anew(n News) {
	fresh := new(index)
	s.mu.Lock()
	before := s.revision
	for i := range n.Changes {
		m := &n.Changes[i]
		r, _ := s.records.Get(m.Key)
		if r == nil || r.Revision != m.Revision || !bytes.Equal(r.Value, m.Value) {
			r = &Record{Key: m.Key, Revision: m.Revision, Value: m.Value, from: s.loader}
		}
		fresh.Load(m.Key, r)
	}
	s.records = fresh
	for _, all := range s.shared.own {
		for _, o := range all {
			o.gap = true
		}
	}
	s.topicsMu.Lock()
	lost := s.topics
	s.topics, s.floor = map[string]*topicLog{}, n.Revision
	s.topicsMu.Unlock()
	s.reached(n.Revision)
	s.mu.Unlock()
	for _, l := range lost {
		l.lose()
	}
	s.log.Warn("events were lost: watches begin anew", "after", before, "revision", n.Revision, "records", len(n.Changes))
}
