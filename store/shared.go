package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// waiter waits for the store to reach a revision.
type waiter struct {
	revision uint64
	ready    chan struct{}
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

// commitShared is Commit on a Shared engine. What is published here may be behind what others did: a conflict counts only
// once everything up to now is known.
func (s *Store) commitShared(ctx context.Context, w Write) (*Record, error) {
	if w.check(s.Get(w.Key)) != nil {
		if err := s.Sync(ctx); err != nil {
			return nil, err
		}
		if err := w.check(s.Get(w.Key)); err != nil {
			return nil, err
		}
	}
	h := s.shared
	h.mu.Lock()
	if h.closing {
		h.mu.Unlock()
		return nil, ErrClosed
	}
	h.writes.Add(1)
	h.mu.Unlock()
	done := make(chan outcome, 1)
	go func() {
		defer h.writes.Done()
		r, err := s.carry(context.WithoutCancel(ctx), w)
		done <- outcome{r, err}
	}()
	select {
	case o := <-done:
		return o.record, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// carry takes a write to the engine and waits until what became of it is published.
func (s *Store) carry(ctx context.Context, w Write) (*Record, error) {
	o := &ownWrite{Write: w}
	s.mu.Lock()
	o.prev, _ = s.records.Get(w.Key)
	s.shared.own[w.Key] = append(s.shared.own[w.Key], o)
	s.mu.Unlock()
	defer s.forget(o)
	batch := []Mutation{{Key: w.Key, Value: w.Value, Expect: w.Expect}}
	for {
		err := s.engine.Apply(batch)
		switch {
		case err == nil:
			if err := s.wait(ctx, batch[0].Revision); err != nil {
				return nil, fmt.Errorf("the write is durable, but was not seen: %w", err)
			}
			return s.finish(o, batch[0].Revision), nil
		case !errors.Is(err, ErrConflict):
			return nil, fmt.Errorf("write to the engine: %w", err)
		}
		if err := s.wait(ctx, batch[0].Revision); err != nil {
			return nil, err
		}
		if errors.Is(err, ErrUnanswered) {
			if r, err := s.unanswered(o); r != nil || err != nil {
				return r, err
			}
		}
		// A record that stood in the way of a creation may be gone again: then there is no conflict to tell of.
		if err := w.check(s.Get(w.Key)); err != nil {
			return nil, err
		}
	}
}

// unanswered finds out what became of a write whose first attempt was not answered and whose next one met a conflict: the
// events of its key since then, which are all known now, hold the one that followed Expect. It returns neither record nor
// error if the write did not happen.
func (s *Store) unanswered(o *ownWrite) (*Record, error) {
	s.mu.RLock()
	seen, gap := o.seen, o.gap
	now, _ := s.records.Get(o.Key)
	s.mu.RUnlock()
	for _, e := range seen {
		follows := e.Prev == nil && o.Expect == 0 || e.Prev != nil && e.Prev.Revision == o.Expect
		switch {
		case !follows:
		case e.Deleted && o.Value == nil:
			// Somebody deleted the record; nothing tells whether it was us.
			return nil, fmt.Errorf("%w: %s is gone", ErrUnanswered, o.Key)
		case !e.Deleted && o.Value != nil && bytes.Equal(e.Record.Value, o.Value):
			return s.finish(o, e.Record.Revision), nil
		}
	}
	switch {
	case gap && now != nil && o.Value != nil && bytes.Equal(now.Value, o.Value):
		return s.finish(o, now.Revision), nil
	case gap:
		return nil, fmt.Errorf("%w: events of %s are lost", ErrUnanswered, o.Key)
	}
	return nil, nil
}

// finish returns the record that a write became at revision, which is published.
func (s *Store) finish(o *ownWrite, revision uint64) *Record {
	var r *Record
	s.mu.RLock()
	for _, e := range o.seen {
		if e.Record.Revision == revision {
			r = e.Record
		}
	}
	if now, ok := s.records.Get(o.Key); r == nil && ok && now.Revision == revision {
		r = now
	}
	s.mu.RUnlock()
	if r == nil {
		// Events were lost and the record has changed since: nobody else can have it.
		r = &Record{Key: o.Key, Revision: revision, Value: o.Value, from: s.loader}
		if o.Value == nil && o.prev != nil {
			r.Value = o.prev.Value
		}
	}
	if o.Attach != nil {
		r.att.CompareAndSwap(nil, hold(o.Attach(revision)))
	}
	return r
}

func (s *Store) forget(o *ownWrite) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.shared.own
	all := own[o.Key]
	for i := range all {
		if all[i] == o {
			all[i] = all[len(all)-1]
			all[len(all)-1] = nil
			all = all[:len(all)-1]
			break
		}
	}
	if len(all) == 0 {
		delete(own, o.Key)
	} else {
		own[o.Key] = all
	}
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

// Shared reports whether others may write too.
func (s *Store) Shared() bool { return s.shared != nil }

// Sync returns when every write that anyone had an answer to before the call shows here. On an engine of this process alone
// that is so at once. Callers that come while one asks the engine share the next question.
func (s *Store) Sync(ctx context.Context) error {
	if s.shared == nil {
		return nil
	}
	revision, err := s.shared.syncs.get(ctx)
	if err != nil {
		return fmt.Errorf("ask the engine for its revision: %w", err)
	}
	return s.wait(ctx, revision)
}

// Past returns the records with the prefix as they were at a revision, with a view that shows no others. It fails with
// ErrExpired where that is not known, which on an engine of this process alone is always so: keep the View instead.
func (s *Store) Past(ctx context.Context, prefix string, revision uint64) (*View, error) {
	if s.shared == nil || revision == 0 {
		return nil, ErrExpired
	}
	now := s.View()
	v := &View{revision: revision, records: new(index), prefix: prefix}
	err := s.shared.engine.Past(ctx, prefix, revision, func(key string, revision uint64, value []byte) error {
		r := now.Get(key)
		if r == nil || r.Revision != revision {
			r = &Record{Key: key, Revision: revision, Value: value, from: s.loader}
		}
		v.records.Load(key, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read records of revision %d: %w", revision, err)
	}
	return v, nil
}

// Reach returns when the store has come to the revision, or with the error of ctx.
func (s *Store) Reach(ctx context.Context, revision uint64) error {
	s.mu.RLock()
	there := s.revision >= revision
	s.mu.RUnlock()
	if there {
		return nil
	}
	if s.shared != nil {
		// Writes that are not ours to see move the revision too; being asked, the engine tells that nothing else is missing.
		if now, err := s.shared.syncs.get(ctx); err == nil {
			if err := s.wait(ctx, min(now, revision)); err != nil {
				return err
			}
		}
	}
	return s.wait(ctx, revision)
}

// wait waits until everything up to the revision is published. It fails with ctx's error and, on a Shared engine, with
// ErrClosed when the following has ended.
func (s *Store) wait(ctx context.Context, revision uint64) error {
	s.mu.Lock()
	if s.revision >= revision {
		s.mu.Unlock()
		return nil
	}
	w := waiter{revision, make(chan struct{})}
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	var err error
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.ended:
		err = ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.waiting {
		if s.waiting[i].ready == w.ready {
			last := len(s.waiting) - 1
			s.waiting[i] = s.waiting[last]
			s.waiting[last] = waiter{}
			s.waiting = s.waiting[:last]
			break
		}
	}
	return err
}

// release wakes those who wait for a revision that is reached. s.mu is held.
func (s *Store) release() {
	kept := s.waiting[:0]
	for _, w := range s.waiting {
		if w.revision <= s.revision {
			close(w.ready)
		} else {
			kept = append(kept, w)
		}
	}
	clear(s.waiting[len(kept):])
	s.waiting = kept
}

// batcher answers all who ask while one question is under way by one further question.
type batcher struct {
	fetch func(context.Context) (uint64, error)

	mu      sync.Mutex
	running bool
	next    *question
}

type question struct {
	done     chan struct{}
	revision uint64
	err      error
}

// fetchTime ends a question nobody answers.
const fetchTime = 30 * time.Second

func (b *batcher) get(ctx context.Context) (uint64, error) {
	b.mu.Lock()
	q := b.next
	if q == nil {
		q = &question{done: make(chan struct{})}
		b.next = q
	}
	if !b.running {
		b.running = true
		go b.run(context.WithoutCancel(ctx))
	}
	b.mu.Unlock()
	select {
	case <-q.done:
		return q.revision, q.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (b *batcher) run(ctx context.Context) {
	for {
		b.mu.Lock()
		q := b.next
		b.next = nil
		if q == nil {
			b.running = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		limit, cancel := context.WithTimeout(ctx, fetchTime)
		q.revision, q.err = b.fetch(limit)
		cancel()
		close(q.done)
	}
}
