package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

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
