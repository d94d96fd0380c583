package loop

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"karve/client"
)

// An object may have eventBurst events at once and one more each eventRefill, as every client of the API limits itself;
// without it a large rollout would write an event for every pod.
const (
	eventBurst  = 25
	eventRefill = 5 * time.Minute
)

// limited drops the events of an object that has too many.
type limited struct {
	to  Events
	now func() time.Time

	mu      sync.Mutex
	buckets map[types.UID]bucket
}

type bucket struct {
	left  float64
	since time.Time
}

// Event is Events'.
func (l *limited) Event(obj client.Object, eventType, reason, format string, args ...any) {
	if l.allow(obj.GetUID()) {
		l.to.Event(obj, eventType, reason, format, args...)
	}
}

func (l *limited) allow(uid types.UID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b, ok := l.buckets[uid]
	if !ok {
		if len(l.buckets) >= 4096 { // forget an arbitrary one: it merely starts full again
			for k := range l.buckets {
				delete(l.buckets, k)
				break
			}
		}
		b = bucket{left: eventBurst, since: now}
	}
	b.left = min(eventBurst, b.left+float64(now.Sub(b.since))/float64(eventRefill))
	b.since = now
	if b.left < 1 {
		l.buckets[uid] = b
		return false
	}
	b.left--
	l.buckets[uid] = b
	return true
}
