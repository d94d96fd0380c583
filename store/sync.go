package store

import (
	"context"
	"fmt"
	"sync"
	"time"
)

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

// waiter waits for the store to reach a revision.
type waiter struct {
	revision uint64
	ready    chan struct{}
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
