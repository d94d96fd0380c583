// Package queue orders the pods that wait for a node: by priority, then by how long they have waited. A pod that could not
// be placed is parked until something happens that may help, and then waits out a growing pause. The scheduler owns one.
package queue

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"karve/scheduler/snapshot"
)

// Pauses between attempts at one pod, and how long a pod stays parked when nothing happens.
const (
	firstPause = time.Second
	maxPause   = 10 * time.Second
	maxParked  = 5 * time.Minute
)

// Item is a waiting pod.
type Item struct {
	Pod      *snapshot.Pod
	Added    time.Time // when it was first seen
	Attempts int

	ready  time.Time // not before
	parked time.Time // zero when not parked
	index  int       // in the heap, -1 when not there
}

// Queue is safe for concurrent use.
type Queue struct {
	mu     sync.Mutex
	now    func() time.Time
	items  map[types.UID]*Item
	active active
	taken  map[types.UID]bool
	// moves counts the events that may help: a pod that failed while one came in is tried again.
	moves uint64
	wake  chan struct{}
}

// New returns an empty queue; now is its clock.
func New(now func() time.Time) *Queue {
	return &Queue{now: now, items: map[types.UID]*Item{}, taken: map[types.UID]bool{}, wake: make(chan struct{}, 1)}
}

func (q *Queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Set adds a pod, or replaces one that waits; a changed pod is tried anew.
func (q *Queue) Set(p *snapshot.Pod) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[p.UID]
	if it == nil {
		it = &Item{Added: q.now(), index: -1}
		q.items[p.UID] = it
	}
	it.Pod = p
	if !q.taken[p.UID] {
		q.activate(it)
	}
	q.signal()
}

func (q *Queue) activate(it *Item) {
	it.parked = time.Time{}
	if it.index >= 0 {
		heap.Fix(&q.active, it.index)
		return
	}
	heap.Push(&q.active, it)
}

// Remove forgets a pod.
func (q *Queue) Remove(uid types.UID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if it := q.items[uid]; it != nil {
		if it.index >= 0 {
			heap.Remove(&q.active, it.index)
		}
		delete(q.items, uid)
		delete(q.taken, uid)
	}
}

// Move makes every parked pod a candidate again: something happened that may help.
func (q *Queue) Move() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.moves++
	for _, it := range q.items {
		if !it.parked.IsZero() {
			q.activate(it)
		}
	}
	q.signal()
}

// Next waits for the next pod whose pause is over. The caller must end with Done or Retry. moves is to be given to Retry.
func (q *Queue) Next(ctx context.Context) (it *Item, moves uint64, err error) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		q.mu.Lock()
		it, wait := q.take()
		moves = q.moves
		q.mu.Unlock()
		if it != nil {
			return it, moves, nil
		}
		timer.Reset(wait)
		select {
		case <-q.wake:
		case <-timer.C:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}

// take returns the best pod that may be tried now, or how long there is nothing to do.
func (q *Queue) take() (*Item, time.Duration) {
	now := q.now()
	var held []*Item
	defer func() {
		for _, it := range held {
			heap.Push(&q.active, it)
		}
	}()
	wait := time.Minute
	for q.active.Len() > 0 {
		it := heap.Pop(&q.active).(*Item)
		if left := it.ready.Sub(now); left > 0 {
			wait = min(wait, left)
			held = append(held, it)
			continue
		}
		q.taken[it.Pod.UID] = true
		it.Attempts++
		return it, 0
	}
	for _, it := range q.items {
		if !it.parked.IsZero() {
			if left := maxParked - now.Sub(it.parked); left <= 0 {
				it.parked = time.Time{}
				held = append(held, it)
				wait = 0
			} else {
				wait = min(wait, left)
			}
		}
	}
	return nil, wait
}

// Done ends an attempt that placed the pod.
func (q *Queue) Done(uid types.UID) { q.Remove(uid) }

// Retry ends an attempt that failed: the pod is parked, or waits only its pause when something happened meanwhile.
func (q *Queue) Retry(it *Item, moves uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	uid := it.Pod.UID
	delete(q.taken, uid)
	if q.items[uid] != it {
		return
	}
	now := q.now()
	pause := min(firstPause<<min(it.Attempts-1, 8), maxPause)
	it.ready = now.Add(pause)
	if q.moves != moves {
		q.activate(it)
		q.signal()
		return
	}
	it.parked = now
}

// Len returns how many pods wait, parked ones included.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// active is the heap of pods to try.
type active []*Item

func (a active) Len() int { return len(a) }
func (a active) Less(i, j int) bool {
	if pi, pj := priority(a[i]), priority(a[j]); pi != pj {
		return pi > pj
	}
	return a[i].Added.Before(a[j].Added)
}
func (a active) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i, j
}
func (a *active) Push(x any) {
	it := x.(*Item)
	it.index = len(*a)
	*a = append(*a, it)
}
func (a *active) Pop() any {
	old := *a
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*a = old[:len(old)-1]
	it.index = -1
	return it
}

func priority(it *Item) int32 {
	if p := it.Pod.Spec.Priority; p != nil {
		return *p
	}
	return 0
}
