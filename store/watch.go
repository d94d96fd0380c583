package store

import (
	"context"
	"sync/atomic"
)

// Cursor is one watcher's place in the log of a topic. Next and Progress are for one goroutine; Close may come from any.
type Cursor struct {
	store *Store
	log   *topicLog
	// seq is the sequence number of the next event; min skips events up to a revision that lay in the future at Watch.
	seq      uint64
	min      uint64
	progress uint64
	closed   atomic.Bool
}

// Watch returns a cursor on the topic's events after revision after. It fails with ErrExpired if the log does not reach back
// that far; after a start it is empty and reaches back to the revision at Open. A revision that is still to come is
// allowed: the cursor waits for what follows it.
func (s *Store) Watch(topic string, after uint64) (*Cursor, error) {
	l, err := s.topic(topic)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if after < l.floor || l.lost {
		return nil, ErrExpired
	}
	return &Cursor{store: s, log: l, seq: l.seqAfter(after), min: after, progress: after}, nil
}

// Next waits until the topic has events after the cursor or ctx ends, and returns some of them in revision order, each once;
// they are shared and must not be changed. progress is the revision up to which the cursor has now seen everything of the
// topic. Errors: ctx.Err(), ErrExpired when the log has moved past the cursor, ErrClosed when the store or the cursor is
// closed.
func (c *Cursor) Next(ctx context.Context) (events []Event, progress uint64, err error) {
	for {
		if c.closed.Load() {
			return nil, c.progress, ErrClosed
		}
		events, wake, err := c.take()
		if err != nil || len(events) > 0 {
			return events, c.progress, err
		}
		if wake == nil {
			continue
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, c.progress, ctx.Err()
		}
	}
}

// Progress returns the revision up to which the topic has nothing the cursor has not returned: the store's revision if the
// cursor is at the end of the log, else that of the last event it returned.
func (c *Cursor) Progress() uint64 {
	// Read before the log: whatever has a revision up to this one is in the log already.
	revision := c.store.published.Load()
	c.log.mu.Lock()
	end := c.seq == c.log.next && !c.log.lost
	c.log.mu.Unlock()
	if end {
		c.progress = max(c.progress, revision)
	}
	return c.progress
}

// Close ends the cursor: Next returns ErrClosed from now on. A Next that waits ends with its context.
func (c *Cursor) Close() { c.closed.Store(true) }

// take moves the cursor over the events that are there. It returns a channel to wait on if there are none, and neither if
// all it found is to be skipped.
func (c *Cursor) take() ([]Event, <-chan struct{}, error) {
	revision := c.store.published.Load()
	events, all, wake, err := c.log.read(c.seq)
	if err != nil {
		return nil, nil, err
	}
	c.seq += uint64(len(events))
	if n := len(events); n > 0 {
		last := events[n-1].Record.Revision
		if !all && c.log.splits(c.seq) {
			last--
		}
		c.progress = max(c.progress, last)
	}
	if all {
		c.progress = max(c.progress, revision)
	}
	for len(events) > 0 && events[0].Record.Revision <= c.min {
		events = events[1:]
	}
	return events, wake, nil
}

// Oldest returns the smallest revision that Watch accepts for the topic now.
func (s *Store) Oldest(topic string) uint64 {
	l, err := s.topic(topic)
	if err != nil {
		return s.Revision()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.floor
}

// Compact forgets the events up to revision, of all topics: a Watch from before it gets ErrExpired, and so does a cursor that
// has not yet read them. Records and views are untouched. A revision beyond the current one counts as the current one.
func (s *Store) Compact(revision uint64) {
	revision = min(revision, s.Revision())
	s.topicsMu.Lock()
	defer s.topicsMu.Unlock()
	s.floor = max(s.floor, revision)
	for _, l := range s.topics {
		l.compact(revision)
	}
}

// topic returns the log of a topic, made on first use.
func (s *Store) topic(name string) (*topicLog, error) {
	s.topicsMu.Lock()
	defer s.topicsMu.Unlock()
	if l := s.topics[name]; l != nil {
		return l, nil
	}
	if s.topicsClosed {
		return nil, ErrClosed
	}
	l := &topicLog{floor: s.floor}
	s.topics[name] = l
	return l, nil
}
