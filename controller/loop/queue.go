package loop

import (
	"context"
	"sync"
	"time"
)

// The pause before a failed key is tried again doubles from retryFirst to retryLast.
const (
	retryFirst = 10 * time.Millisecond
	retryLast  = 30 * time.Second
)

// Queue is a set of keys to work on. A key waits in it at most once; a key added while it is being worked on comes back
// when that work is Done, so that no key is ever worked on twice at the same time. Safe for concurrent use.
type Queue struct {
	mu       sync.Mutex
	ready    []string
	dirty    map[string]bool
	active   map[string]bool
	later    map[string]*delayed
	failures map[string]int
	wake     chan struct{}
	closed   bool
}

type delayed struct {
	at    time.Time
	timer *time.Timer
}

// NewQueue returns an empty queue.
func NewQueue() *Queue {
	return &Queue{dirty: map[string]bool{}, active: map[string]bool{}, later: map[string]*delayed{}, failures: map[string]int{},
		wake: make(chan struct{}, 1)}
}

// Add puts key in the queue unless it already waits there.
func (q *Queue) Add(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(key)
}

func (q *Queue) add(key string) {
	if q.closed || q.dirty[key] {
		return
	}
	q.dirty[key] = true
	if !q.active[key] {
		q.ready = append(q.ready, key)
		q.signal()
	}
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// AddAfter adds key once d has passed. Of several delays of one key the earliest counts.
func (q *Queue) AddAfter(key string, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	if d <= 0 {
		q.add(key)
		return
	}
	at := time.Now().Add(d)
	if prev, ok := q.later[key]; ok {
		if !at.Before(prev.at) {
			return
		}
		prev.timer.Stop()
	}
	item := &delayed{at: at}
	item.timer = time.AfterFunc(d, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.later[key] == item {
			delete(q.later, key)
			q.add(key)
		}
	})
	q.later[key] = item
}

// Retry adds key after a pause that doubles with every Retry until Forget.
func (q *Queue) Retry(key string) {
	q.mu.Lock()
	n := q.failures[key]
	q.failures[key] = n + 1
	q.mu.Unlock()
	d := retryLast
	if n < 12 {
		d = min(retryFirst<<n, retryLast)
	}
	q.AddAfter(key, d)
}

// Forget makes the next Retry of key start from the shortest pause.
func (q *Queue) Forget(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.failures, key)
}

// Len returns how many keys are ready to be worked on.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ready)
}

// Idle reports whether no key is ready or being worked on; delayed keys do not count.
func (q *Queue) Idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ready) == 0 && len(q.active) == 0
}

func (q *Queue) take() (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.ready) == 0 {
		q.ready = nil
		return "", false
	}
	key := q.ready[0]
	q.ready = q.ready[1:]
	delete(q.dirty, key)
	q.active[key] = true
	if len(q.ready) > 0 {
		q.signal() // another worker may be asleep
	}
	return key, true
}

// Get waits for a key and marks it as being worked on; the caller must call Done. It returns false when ctx ends.
func (q *Queue) Get(ctx context.Context) (string, bool) {
	for {
		if ctx.Err() != nil {
			return "", false
		}
		if key, ok := q.take(); ok {
			return key, true
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return "", false
		}
	}
}

// Done ends the work on key.
func (q *Queue) Done(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.active, key)
	if q.dirty[key] {
		q.ready = append(q.ready, key)
		q.signal()
	}
}

// Close drops delayed keys and makes every later Add do nothing.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, d := range q.later {
		d.timer.Stop()
	}
	clear(q.later)
}
