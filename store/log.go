package store

import (
	"sort"
	"sync"
)

// segmentEvents is how many events one segment of a topic's log holds; a cursor gets at most that many at once.
const segmentEvents = 128

// topicLog is the event log of one topic: segments of events in revision order, shared by every cursor. The committer appends
// and trims; cursors hold a position, never a pointer, so a slow one keeps nothing in memory.
type topicLog struct {
	mu sync.Mutex
	// segments hold the events; all but the last are full, the first may have been trimmed at its front.
	segments [][]Event
	// base is the sequence number of slot 0 of segments[0], first that of the oldest event kept, next that of the next event.
	base, first, next uint64
	// floor is the revision that events are complete from: those after it are all here.
	floor uint64
	// bytes is how much the values of the events kept take, stale how much those do that were dropped from segments[0] and are
	// still in memory.
	bytes, stale int
	// wake is closed, and dropped, when something was appended; nil while nobody waits.
	wake   chan struct{}
	closed bool
	// lost says that events are missing: whoever follows this log has to read anew.
	lost bool
}

// keep is how much of a topic's past is kept: at most so many events, and so many bytes of values unless that would leave fewer
// than leastEvents.
type keep struct{ events, bytes int }

// leastEvents are kept however big they are, so that a watcher has a moment to read them.
const leastEvents = 64

// append adds an event and drops the oldest beyond what is to be kept. It does not wake anyone: see signal.
func (l *topicLog) append(e Event, k keep) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.segments)
	if n == 0 || len(l.segments[n-1]) == segmentEvents {
		l.segments = append(l.segments, nil)
		n++
	}
	// A segment that grows moves; readers of the old array keep reading the same events.
	l.segments[n-1] = append(l.segments[n-1], e)
	l.next++
	l.bytes += len(e.Record.Value)
	first := l.first
	if l.next-first > uint64(k.events) {
		first = l.next - uint64(k.events)
	}
	for left := l.bytes; left > k.bytes && l.next-first > leastEvents; first++ {
		left -= len(l.at(first).Record.Value)
	}
	l.trimTo(first)
	if l.stale > k.bytes/8 {
		l.release()
	}
}

// trimTo drops the events before sequence number first. A segment is freed when its last event goes; until then its
// dropped events stay in memory, as clearing them would race with readers.
func (l *topicLog) trimTo(first uint64) {
	if first <= l.first {
		return
	}
	l.floor = max(l.floor, l.at(first-1).Record.Revision)
	for ; l.first < first; l.first++ {
		n := len(l.at(l.first).Record.Value)
		l.bytes -= n
		l.stale += n
	}
	drop := 0
	for drop < len(l.segments) && l.base+segmentEvents <= first {
		l.base += segmentEvents
		drop++
	}
	if drop > 0 {
		l.stale = 0
		for seq := l.base; seq < l.first; seq++ {
			l.stale += len(l.segments[drop][seq-l.base].Record.Value)
		}
		clear(l.segments[:drop])
		l.segments = l.segments[drop:]
	}
	if l.first == l.next {
		l.segments, l.base, l.stale = nil, l.next, 0
	}
}

// at returns the event with sequence number seq, which must be kept.
func (l *topicLog) at(seq uint64) Event {
	return l.segments[(seq-l.base)/segmentEvents][(seq-l.base)%segmentEvents]
}

// compact forgets the events up to revision.
func (l *topicLog) compact(revision uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trimTo(l.seqAfter(revision))
	l.floor = max(l.floor, revision)
	l.release()
}

// release lets go of what was dropped from the first segment: readers may hold the old array, so it takes a new one.
func (l *topicLog) release() {
	l.stale = 0
	if l.first > l.base {
		kept := make([]Event, len(l.segments[0]))
		copy(kept[l.first-l.base:], l.segments[0][l.first-l.base:])
		l.segments[0] = kept
	}
}

// seqAfter is the sequence number of the first kept event with a greater revision, next if there is none.
func (l *topicLog) seqAfter(revision uint64) uint64 {
	n := sort.Search(int(l.next-l.first), func(i int) bool {
		return l.at(l.first+uint64(i)).Record.Revision > revision
	})
	return l.first + uint64(n)
}

// read returns the events from seq to the end of its segment, whether those are all there are, and if there are none a
// channel that is closed when there may be. The events are shared and never change.
func (l *topicLog) read(seq uint64) (events []Event, all bool, wake <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq < l.first || l.lost {
		return nil, false, nil, ErrExpired
	}
	if seq < l.next {
		segment := l.segments[(seq-l.base)/segmentEvents]
		events = segment[(seq-l.base)%segmentEvents : len(segment) : len(segment)]
		return events, seq+uint64(len(events)) == l.next, nil, nil
	}
	if l.closed {
		return nil, true, nil, ErrClosed
	}
	if l.wake == nil {
		l.wake = make(chan struct{})
	}
	return nil, true, l.wake, nil
}

// splits tells whether the event at seq has the revision of the one before it: on a Shared engine a revision can have many.
func (l *topicLog) splits(seq uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.lost && seq > l.first && seq < l.next && l.at(seq).Record.Revision == l.at(seq-1).Record.Revision
}

// signal wakes the cursors that wait.
func (l *topicLog) signal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

// close makes cursors end once they have read what is there.
func (l *topicLog) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.signal()
}

// lose ends the log for good: its cursors get ErrExpired.
func (l *topicLog) lose() {
	l.mu.Lock()
	l.lost, l.segments = true, nil
	l.mu.Unlock()
	l.signal()
}
