package store

import (
	"context"
	"errors"
	"fmt"
)

const (
	// maxBatch and maxBatchBytes end a batch, so that the first writer of it does not wait for too many others.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
)

// pending is a write on its way through the committer.
type pending struct {
	Write
	ctx  context.Context
	done chan outcome
}

// outcome is the answer to a write.
type outcome struct {
	record *Record
	err    error
}

// Commit makes a write durable and visible and returns its record. Errors: *ConflictError at once if Expect does not hold;
// ErrClosed; ErrReadOnly while it is not known what became of an earlier write; ErrUnanswered if it is not known what became of
// this one (Shared engines only); what the engine answered; ctx.Err() if ctx ends first, and then the write may or may not
// come to be, but never in part. When Commit returns a record, every later Get, View and Next shows it; when it returns a
// *ConflictError they show what the conflict is with.
func (s *Store) Commit(ctx context.Context, w Write) (*Record, error) {
	if w.Key == "" {
		return nil, errors.New("store: a write needs a key")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.shared != nil {
		return s.commitShared(ctx, w)
	}
	// A conflict with what is published needs no place in the queue.
	if err := w.check(s.Get(w.Key)); err != nil {
		return nil, err
	}
	p := &pending{Write: w, ctx: ctx, done: make(chan outcome, 1)}
	select {
	case s.queue <- p:
	case <-s.closed:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case o := <-p.done:
		return o.record, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ended:
		// The committer has answered all it took; what came into the queue after that was never looked at.
		select {
		case o := <-p.done:
			return o.record, o.err
		default:
			return nil, ErrClosed
		}
	}
}

// check reports whether the write may follow current, the newest record of its key or nil.
func (w *Write) check(current *Record) error {
	if current == nil {
		if w.Expect == 0 && w.Value != nil {
			return nil
		}
		return &ConflictError{Key: w.Key}
	}
	if w.Expect != 0 && w.Expect == current.Revision {
		return nil
	}
	return &ConflictError{Key: w.Key, Current: current}
}

// committer is the state of the one goroutine that writes. Nothing else touches it.
type committer struct {
	store *Store
	held  *pending // taken from the queue, but too big for the batch it would have joined
	stop  error    // set by a failed batch of unknown outcome, for good unless the engine can come back
	doubt *doubt   // that batch, nil if there is none or the engine cannot

	batch  []*pending
	writes []change
	newest map[string]*Record // of keys written in this batch; nil for deleted
	muts   []Mutation
	woken  map[*topicLog]struct{}
}

// change is a write that passed its check, with the record it will become.
type change struct {
	*pending
	record, prev *Record
}

func (s *Store) commitLoop() {
	defer close(s.ended)
	c := &committer{store: s, newest: map[string]*Record{}, woken: map[*topicLog]struct{}{}}
	for c.gather() {
		c.commit()
	}
	for {
		if c.held != nil {
			c.held.done <- outcome{err: ErrClosed}
			c.held = nil
		}
		select {
		case c.held = <-s.queue:
		default:
			return
		}
	}
}

// gather waits for writes and takes all that are queued, up to the limits of a batch. It returns false when the store closes.
func (c *committer) gather() bool {
	clear(c.batch)
	c.batch = c.batch[:0]
	first := c.held
	c.held = nil
	select {
	case <-c.store.closed:
		c.held = first
		return false
	default:
	}
	if first == nil {
		select {
		case first = <-c.store.queue:
		case <-c.retry():
			c.settle()
			return true
		case <-c.store.closed:
			return false
		}
	}
	c.batch = append(c.batch, first)
	size := len(first.Value)
	for len(c.batch) < maxBatch {
		select {
		case p := <-c.store.queue:
			if size += len(p.Value); size > maxBatchBytes {
				c.held = p
				return true
			}
			c.batch = append(c.batch, p)
		default:
			return true
		}
	}
	return true
}

// commit checks the batch, makes it durable, publishes it and answers.
func (c *committer) commit() {
	s := c.store
	clear(c.newest)
	clear(c.writes)
	clear(c.muts)
	c.writes, c.muts = c.writes[:0], c.muts[:0]
	var late []*pending // conflicts with writes of this very batch: true only if it succeeds
	var lateErr []error
	for _, p := range c.batch {
		if c.stop != nil {
			p.done <- outcome{err: c.stop}
			continue
		}
		if err := p.ctx.Err(); err != nil {
			p.done <- outcome{err: err}
			continue
		}
		current, inBatch := c.newest[p.Key]
		if !inBatch {
			current = s.Get(p.Key)
		}
		if err := p.check(current); err != nil {
			if inBatch {
				late, lateErr = append(late, p), append(lateErr, err)
			} else {
				p.done <- outcome{err: err}
			}
			continue
		}
		c.add(p, current)
	}
	if len(c.writes) == 0 {
		return
	}
	if err := c.apply(); err != nil {
		c.fail(err, late)
		return
	}
	c.publish()
	for i := range c.writes {
		c.writes[i].done <- outcome{record: c.writes[i].record}
	}
	for i, p := range late {
		p.done <- outcome{err: lateErr[i]}
	}
}

// add gives the write the next revision and a place in the batch.
func (c *committer) add(p *pending, prev *Record) {
	r := &Record{Key: p.Key, Revision: c.store.revision + uint64(len(c.writes)) + 1, Value: p.Value, from: c.store.loader}
	c.muts = append(c.muts, Mutation{Key: p.Key, Revision: r.Revision, Value: p.Value, Expect: p.Expect})
	if p.Value == nil {
		r.Value = prev.Value
		c.newest[p.Key] = nil
	} else {
		c.newest[p.Key] = r
	}
	c.writes = append(c.writes, change{p, r, prev})
}

// fail answers a batch that the engine refused. Unless it was surely not applied, no later write may build on what the
// store believes is on the disk.
func (c *committer) fail(err error, late []*pending) {
	answer := fmt.Errorf("write to the engine: %w", err)
	if !errors.Is(err, ErrNotApplied) {
		remedy := "check the disk and restart"
		if c.doubt != nil {
			remedy = "check the disk; writes are taken again by themselves once it works"
			c.doubt.keep(c.writes)
		}
		c.stop = fmt.Errorf("%w since a write failed in an unknown state; %s: %w", ErrReadOnly, remedy, err)
		stop := c.stop
		c.store.broken.Store(&stop)
		c.store.log.Error("store is read-only: a write failed in an unknown state; "+remedy, "err", err)
	}
	for i := range c.writes {
		c.writes[i].done <- outcome{err: answer}
	}
	for _, p := range late {
		p.done <- outcome{err: answer}
	}
}

// publish makes a durable batch visible: index, logs and revision together, then the wake-ups.
func (c *committer) publish() {
	s := c.store
	for i := range c.writes {
		if w := &c.writes[i]; w.Attach != nil {
			w.record.att.Store(hold(w.Attach(w.record.Revision)))
		}
	}
	s.mu.Lock()
	for i := range c.writes {
		w := &c.writes[i]
		c.woken[s.show(Event{Record: w.record, Prev: w.prev, Deleted: w.Value == nil})] = struct{}{}
	}
	s.reached(c.writes[len(c.writes)-1].record.Revision)
	s.mu.Unlock()
	for l := range c.woken {
		l.signal()
	}
	clear(c.woken)
}

// show puts an event into index and log, and returns the log, whose cursors are to be woken. s.mu is held.
func (s *Store) show(e Event) *topicLog {
	if e.Deleted {
		s.records.Delete(e.Record.Key)
	} else {
		s.records.Set(e.Record.Key, e.Record)
	}
	// Never an error: topics close only after whoever calls this has ended.
	l, _ := s.topic(s.topicOf(e.Record.Key))
	l.append(e, s.history)
	return l
}

// reached moves the revision on, when index and logs have everything up to it. s.mu is held.
func (s *Store) reached(revision uint64) {
	s.revision = revision
	s.view = nil
	s.published.Store(revision)
	if len(s.waiting) > 0 {
		s.release()
	}
}
