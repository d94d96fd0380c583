package store_test

import (
	"errors"
	"strings"
	"testing"

	"karve/store"
	"karve/store/engine/mem"
)

// comesBack is an engine whose writes can fail, with or without having happened, and that comes back when it is let.
type comesBack struct {
	*mem.Engine
	fail    error // of the next Apply
	happens bool  // and yet it happens
	back    chan error
	last    uint64
}

func (e *comesBack) Apply(batch []store.Mutation) error {
	if e.fail == nil || e.happens {
		if err := e.Engine.Apply(batch); err != nil {
			return err
		}
		e.last = batch[len(batch)-1].Revision
	}
	err := e.fail
	e.fail = nil
	return err
}

func (e *comesBack) Recover() (uint64, error) { return e.last, <-e.back }

// TestWritesInDoubt lets a write fail without anybody knowing what became of it. Until the engine comes back nothing else is
// written and reads show the state before; then the write shows, with its event, or it does not and its revision is free.
func TestWritesInDoubt(t *testing.T) {
	disk := errors.New("disk trouble")
	for _, happens := range []bool{true, false} {
		for _, tries := range []int{0, 1, 2} {
			e := &comesBack{Engine: mem.New(), back: make(chan error, 10)}
			s := open(t, e)
			put(t, s, "pods/a", []byte("1"))
			cursor, err := s.Watch("pods", 1)
			if err != nil {
				t.Fatal(err)
			}
			e.fail, e.happens = disk, happens
			if tries > 0 {
				e.back <- disk
			} else {
				e.back <- nil
			}
			r, err := s.Commit(ctx, store.Write{Key: "pods/a", Expect: 1, Value: []byte("2")})
			switch {
			case tries == 0 && happens: // it came back at once and told the truth
				if err != nil || r.Revision != 2 {
					t.Fatalf("got %v", err)
				}
			case tries == 0:
				if !errors.Is(err, store.ErrNotApplied) || !errors.Is(err, disk) {
					t.Fatalf("got %v", err)
				}
			default:
				if errors.Is(err, store.ErrNotApplied) || !errors.Is(err, disk) {
					t.Fatalf("got %v", err)
				}
				_, err = s.Commit(ctx, store.Write{Key: "pods/b", Value: []byte("b")})
				if !errors.Is(err, store.ErrReadOnly) || !errors.Is(s.Err(), store.ErrReadOnly) || !strings.Contains(err.Error(), "by themselves once") {
					t.Fatalf("while in doubt: %v, %v", err, s.Err())
				}
				if string(s.Get("pods/a").Value) != "1" || s.Revision() != 1 {
					t.Fatal("what is in doubt shows")
				}
				if tries > 1 {
					e.back <- disk
				}
				e.back <- nil
			}
			want := uint64(1)
			if happens {
				want = 2
				events, _, err := cursor.Next(ctx)
				if err != nil || len(events) != 1 || string(events[0].Record.Value) != "2" || string(events[0].Prev.Value) != "1" {
					t.Fatalf("events %v, %v", events, err)
				}
			}
			for {
				r, err := s.Commit(ctx, store.Write{Key: "pods/c", Value: []byte("c")})
				if errors.Is(err, store.ErrReadOnly) {
					continue // it has not come back yet
				}
				if err != nil || r.Revision != want+1 {
					t.Fatalf("after it came back: %v at %v, want %d", err, r, want+1)
				}
				break
			}
			if s.Err() != nil {
				t.Errorf("still broken: %v", s.Err())
			}
		}
	}
}

// TestEngineThatLostWrites comes back with less than was acknowledged: nothing is written to it.
func TestEngineThatLostWrites(t *testing.T) {
	e := &comesBack{Engine: mem.New(), back: make(chan error, 10)}
	s := open(t, e)
	put(t, s, "pods/a", []byte("1"))
	put(t, s, "pods/a", []byte("2"))
	e.fail, e.last = errors.New("disk trouble"), 1
	e.back <- nil
	e.back <- nil
	for range 3 {
		if _, err := s.Commit(ctx, store.Write{Key: "pods/b", Value: []byte("b")}); err == nil {
			t.Fatal("a write succeeded")
		}
	}
	for !strings.Contains(s.Err().Error(), "the engine is at revision 1, but 2 was acknowledged") {
		if !errors.Is(s.Err(), store.ErrReadOnly) {
			t.Fatal(s.Err())
		}
	}
	e.back <- errors.New("closing")
}
