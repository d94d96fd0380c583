package store

import (
	"math/rand/v2"
	"testing"
)

// TestLogKeepsWhatItShould appends, trims and compacts at random and compares with a plain slice.
func TestLogKeepsWhatItShould(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		l := &topicLog{}
		history := 1 + r.IntN(500)
		var want []uint64 // revisions kept
		var revision, floor uint64
		for range 1500 {
			if r.IntN(60) == 0 {
				at := revision - min(revision, r.Uint64N(300))
				l.compact(at)
				for len(want) > 0 && want[0] <= at {
					want = want[1:]
				}
				floor = max(floor, at)
			}
			revision += 1 + r.Uint64N(3)
			l.append(Event{Record: &Record{Revision: revision}}, keep{history, 1 << 20})
			want = append(want, revision)
			if len(want) > history {
				floor = max(floor, want[0])
				want = want[1:]
			}
			if l.floor != floor || l.next-l.first != uint64(len(want)) {
				t.Fatalf("floor %d, %d events; want %d, %d", l.floor, l.next-l.first, floor, len(want))
			}
		}
		var got []uint64
		for seq := l.first; seq < l.next; {
			events, all, _, err := l.read(seq)
			if err != nil || len(events) == 0 || all != (seq+uint64(len(events)) == l.next) {
				t.Fatalf("read %d: %d events, all %v, %v", seq, len(events), all, err)
			}
			for _, e := range events {
				got = append(got, e.Record.Revision)
			}
			seq += uint64(len(events))
		}
		for i := range want {
			if len(got) != len(want) || got[i] != want[i] {
				t.Fatalf("got %v, want %v", got, want)
			}
			if seq := l.seqAfter(want[i] - 1); seq != l.first+uint64(i) {
				t.Fatalf("event after %d is %d, want %d", want[i]-1, seq, l.first+uint64(i))
			}
		}
		// What is forgotten must not stay in memory.
		l.compact(revision)
		if l.segments != nil {
			t.Fatalf("%d segments stay after everything was compacted", len(l.segments))
		}
	}
}

// TestCompactedEventsAreReleased: a half-compacted segment drops its records, and a reader's slice of it does not change.
func TestCompactedEventsAreReleased(t *testing.T) {
	l := &topicLog{}
	for revision := uint64(1); revision <= 50; revision++ {
		l.append(Event{Record: &Record{Revision: revision}}, keep{1000, 1 << 20})
	}
	held, _, _, _ := l.read(0)
	l.compact(30)
	for i, e := range l.segments[0] {
		if (e.Record == nil) != (i < 30) {
			t.Fatalf("slot %d holds %v", i, e.Record)
		}
	}
	l.append(Event{Record: &Record{Revision: 51}}, keep{1000, 1 << 20})
	for i, e := range held {
		if e.Record.Revision != uint64(i+1) {
			t.Fatalf("a reader's event %d changed", i)
		}
	}
}

// TestLogIsBoundedInBytes appends events of any size: those kept are small together, or few, and so is what lies dropped beside
// them.
func TestLogIsBoundedInBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	const limit = 100_000
	for range 20 {
		l := &topicLog{}
		largest := 1 + r.IntN(5000)
		for revision := uint64(1); revision <= 3000; revision++ {
			if r.IntN(200) == 0 {
				l.compact(revision - min(revision, r.Uint64N(100)))
			}
			l.append(Event{Record: &Record{Revision: revision, Value: make([]byte, r.IntN(largest))}}, keep{1000, limit})
			kept, dropped := 0, 0
			for i, segment := range l.segments {
				for j, e := range segment {
					switch seq := l.base + uint64(i*segmentEvents+j); {
					case e.Record == nil:
					case seq < l.first:
						dropped += len(e.Record.Value)
					default:
						kept += len(e.Record.Value)
					}
				}
			}
			if kept != l.bytes || dropped != l.stale {
				t.Fatalf("%d bytes kept and %d dropped, counted as %d and %d", kept, dropped, l.bytes, l.stale)
			}
			if n := l.next - l.first; n > 1000 || kept > limit && n > leastEvents || dropped > limit/8 {
				t.Fatalf("%d events of %d bytes are kept, and %d bytes beside them", n, kept, dropped)
			}
			if n := l.next - l.first; n < min(revision-l.floor, leastEvents) {
				t.Fatalf("only %d events are kept after %d", n, revision)
			}
		}
	}
}
