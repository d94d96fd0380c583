package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"karve/store"
)

// operation and answer are what porcupine checks: reads, and writes that expect a revision, of one key.
type operation struct {
	key    string
	write  bool
	delete bool
	expect uint64
}

type answer struct {
	revision uint64 // of what was read or written, or of the record in conflict; 0 for none
	conflict bool
}

// register models one key: its state is the revision of its record, 0 for none.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(operation).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(uint64), input.(operation), output.(answer)
		switch {
		case !in.write:
			return out.revision == now, now
		case out.conflict:
			return out.revision == now && (in.expect != now || in.delete && now == 0), now
		case in.expect != now || out.revision <= now:
			return false, now
		case in.delete:
			return true, uint64(0)
		default:
			return true, out.revision
		}
	},
}

// linearizable: concurrent reads and writes of few keys look as if each happened at one moment within its call. Some writers
// do not wait for their answer; the log tells what became of their writes.
func linearizable(h *harness) {
	delays := rand.New(rand.NewPCG(h.rand.Uint64(), 1))
	s := h.open(&hooks{before: func([]store.Mutation) error {
		time.Sleep(time.Duration(delays.IntN(300)) * time.Microsecond)
		return nil
	}})
	cursor := h.watch(s, "k", 0)
	var mu sync.Mutex
	var history []porcupine.Operation
	unknown := map[string]porcupine.Operation{} // by value written, or by "delete revision"
	var wg sync.WaitGroup
	began := time.Now()
	for client := range 8 {
		r := rand.New(rand.NewPCG(h.rand.Uint64(), 2))
		wg.Go(func() {
			for i := range 120 {
				in := operation{key: fmt.Sprintf("k/%d", r.IntN(4)), write: r.IntN(3) > 0, delete: r.IntN(4) == 0}
				if r.IntN(10) > 0 {
					in.expect = revisionOf(s.Get(in.key))
				}
				w := store.Write{Key: in.key, Expect: in.expect}
				name := fmt.Sprintf("delete %s %d", in.key, in.expect)
				if !in.delete {
					name = fmt.Sprintf("%d.%d", client, i)
					w.Value = []byte(name)
				}
				ctx, cancel := context.WithCancel(context.Background())
				if r.IntN(8) == 0 {
					time.AfterFunc(time.Duration(r.IntN(300))*time.Microsecond, cancel)
				}
				op := porcupine.Operation{ClientId: client, Input: in, Call: int64(time.Since(began))}
				var out answer
				if in.write {
					record, err := s.Commit(ctx, w)
					var c *store.ConflictError
					switch {
					case errors.As(err, &c):
						out = answer{revisionOf(c.Current), true}
					case errors.Is(err, context.Canceled):
						op.Return = math.MaxInt64
					case err != nil:
						h.Errorf("commit: %v", err)
					default:
						out.revision = record.Revision
					}
				} else {
					out.revision = revisionOf(s.Get(in.key))
				}
				cancel()
				mu.Lock()
				if op.Return == math.MaxInt64 {
					// Of several lost deletes of one revision at most one happened; the one called first allows for all.
					if first, ok := unknown[name]; !ok || op.Call < first.Call {
						unknown[name] = op
					}
				} else {
					op.Output, op.Return = out, int64(time.Since(began))
					history = append(history, op)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	// Once this write is answered, whatever was queued before it has been dealt with.
	h.put(s, "k/end", 0, "end")
	done := map[string]bool{}
	for _, e := range h.drain(cursor, s.Revision()) {
		name := string(e.Record.Value)
		if e.Deleted {
			name = fmt.Sprintf("delete %s %d", e.Record.Key, e.Prev.Revision)
		}
		if op, ok := unknown[name]; ok && !answered(history, e.Record.Revision) {
			op.Output = answer{revision: e.Record.Revision}
			history = append(history, op)
		}
		if done[name] {
			h.Fatalf("write %s happened twice", name)
		}
		done[name] = true
	}
	if result := porcupine.CheckOperationsTimeout(register, history, time.Minute); result != porcupine.Ok {
		h.Fatalf("history of %d operations is not linearizable: %s", len(history), result)
	}
}

// answered tells whether a caller was told that its write got the revision.
func answered(history []porcupine.Operation, revision uint64) bool {
	return slices.ContainsFunc(history, func(op porcupine.Operation) bool {
		out := op.Output.(answer)
		return op.Input.(operation).write && !out.conflict && out.revision == revision
	})
}

// drain reads the cursor until its progress reaches the revision.
func (h *harness) drain(c *store.Cursor, revision uint64) []store.Event {
	var all []store.Event
	for c.Progress() < revision {
		events, _, err := c.Next(context.Background())
		if err != nil {
			h.Errorf("next: %v", err)
			return all
		}
		all = append(all, events...)
	}
	return all
}

// watch: any number of watchers, begun at any time and revision, see every event of their topic after it, in order and once,
// and progress never overtakes an event.
func watch(h *harness) {
	h.history = 1 << 20
	s := h.open(nil)
	topics := []string{"a", "b", "c"}
	const writers, each = 6, 150
	var wg, watchers sync.WaitGroup
	var mu sync.Mutex
	truth := map[string]map[uint64]string{"a": {}, "b": {}, "c": {}}
	type seen struct {
		topic  string
		after  uint64
		events []store.Event
	}
	var all []*seen
	start := func(r *rand.Rand) {
		w := &seen{topic: topics[r.IntN(3)]}
		now := s.Revision()
		w.after = now
		if now > 0 && r.IntN(3) > 0 {
			w.after = r.Uint64N(now)
		}
		all = append(all, w)
		watchers.Go(func() {
			c, err := s.Watch(w.topic, w.after)
			if err != nil {
				h.Errorf("watch: %v", err)
				return
			}
			progress := w.after
			for progress < writers*each+3 {
				events, p, err := c.Next(context.Background())
				if err != nil {
					h.Errorf("next: %v", err)
					return
				}
				if events[0].Record.Revision <= progress || p < events[len(events)-1].Record.Revision {
					h.Errorf("progress %d, then events %d to %d with progress %d", progress,
						events[0].Record.Revision, events[len(events)-1].Record.Revision, p)
				}
				progress = max(p, c.Progress())
				w.events = append(w.events, events...)
			}
		})
	}
	for range 5 {
		start(h.rand)
	}
	for writer := range writers {
		r := rand.New(rand.NewPCG(h.rand.Uint64(), 3))
		wg.Go(func() {
			mine := map[string]uint64{}
			for i := range each {
				topic := topics[r.IntN(3)]
				w := store.Write{Key: fmt.Sprintf("%s/%d-%d", topic, writer, r.IntN(5))}
				w.Expect = mine[w.Key]
				if w.Expect == 0 || r.IntN(4) > 0 {
					w.Value = fmt.Appendf(nil, "%d.%d", writer, i)
				}
				record, err := s.Commit(context.Background(), w)
				if err != nil {
					h.Errorf("commit: %v", err)
					return
				}
				mine[w.Key] = record.Revision
				if w.Value == nil {
					mine[w.Key] = 0
				}
				mu.Lock()
				truth[topic][record.Revision] = fmt.Sprint(w.Key, w.Value == nil, w.Expect, string(record.Value))
				if i%20 == 0 {
					start(r)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	// One last event per topic lets every watcher reach the end.
	for _, topic := range topics {
		key := topic + "/end"
		truth[topic][h.put(s, key, 0, "end").Revision] = fmt.Sprint(key, false, 0, "end")
	}
	for _, topic := range topics {
		cursor := h.watch(s, topic, 0)
		all = append(all, &seen{topic: topic, events: h.drain(cursor, s.Revision())})
	}
	// Watchers of topics that ended early learn of the end by a further write each.
	for _, topic := range topics {
		h.put(s, topic+"/over", 0, "over")
	}
	watchers.Wait()
	for _, w := range all {
		var got, want []string
		for _, e := range w.events {
			if e.Record.Revision <= writers*each+3 {
				got = append(got, fmt.Sprint(e.Record.Revision, e.Record.Key, e.Deleted, revisionOf(e.Prev), string(e.Record.Value)))
			}
		}
		for revision := w.after + 1; revision <= writers*each+3; revision++ {
			if text, ok := truth[w.topic][revision]; ok {
				want = append(want, fmt.Sprint(revision, text))
			}
		}
		if !slices.Equal(got, want) {
			h.Fatalf("watch of %s after %d: got %d events, want %d\ngot  %q\nwant %q", w.topic, w.after, len(got), len(want), got, want)
		}
	}
}
