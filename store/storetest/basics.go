package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"karve/store"
)

// basics: each kind of write, its conflicts, its record and its event.
func basics(h *harness) {
	s := h.open(nil)
	ctx := context.Background()
	cursor := h.watch(s, "pods", 0)

	attach := func(revision uint64) any { return revision }
	a, err := s.Commit(ctx, store.Write{Key: "pods/a", Value: []byte("1"), Attach: attach})
	if err != nil || a.Revision != 1 || a.Attachment() != uint64(1) {
		h.Fatalf("create: %+v %v", a, err)
	}
	_, err = s.Commit(ctx, store.Write{Key: "pods/a", Value: []byte("x")})
	h.conflict(err, 1)
	_, err = s.Commit(ctx, store.Write{Key: "pods/a", Expect: 7, Value: []byte("x")})
	h.conflict(err, 1)
	_, err = s.Commit(ctx, store.Write{Key: "pods/b", Expect: 7, Value: []byte("x")})
	h.conflict(err, 0)
	_, err = s.Commit(ctx, store.Write{Key: "pods/b"})
	h.conflict(err, 0)
	_, err = s.Commit(ctx, store.Write{Key: "pods/a"})
	h.conflict(err, 1)
	if _, err := s.Commit(ctx, store.Write{Value: []byte("x")}); err == nil {
		h.Fatal("a write without a key succeeded")
	}
	b := h.put(s, "pods/a", 1, "2")
	if b.Revision != 2 || string(b.Value) != "2" || b.Attachment() != "loaded 2" || s.Get("pods/a") != b {
		h.Fatalf("update: %+v", b)
	}
	h.put(s, "nodes/n", 0, "n")
	d, err := s.Commit(ctx, store.Write{Key: "pods/a", Expect: 2, Attach: attach})
	if err != nil || d.Revision != 4 || string(d.Value) != "2" || d.Attachment() != uint64(4) || s.Get("pods/a") != nil {
		h.Fatalf("delete: %+v %v", d, err)
	}
	if b.Revision != 2 {
		h.Fatal("the deleted record was changed")
	}
	if got := h.put(s, "pods/a", 0, ""); got.Revision != 5 || got.Value == nil || s.Get("pods/a") == nil {
		h.Fatalf("create again, empty: %+v", got)
	}

	events := h.next(cursor, 4)
	want := []store.Event{{Record: a}, {Record: b, Prev: a}, {Record: d, Prev: b, Deleted: true}, {Record: s.Get("pods/a")}}
	if !slices.Equal(events, want) {
		h.Fatalf("got events %+v, want %+v", events, want)
	}
	if got := cursor.Progress(); got != 5 {
		h.Fatalf("progress is %d, want 5", got)
	}
	h.put(s, "nodes/m", 0, "m")
	if got := cursor.Progress(); got != 6 {
		h.Fatalf("progress is %d, want 6: another topic moved on", got)
	}
	h.put(s, "pods/c", 0, "c")
	if got := cursor.Progress(); got != 6 {
		h.Fatalf("progress is %d, want 6: an event is unseen", got)
	}
	h.next(cursor, 1)
	h.none(cursor)
	cursor.Close()
	if _, _, err := cursor.Next(ctx); !errors.Is(err, store.ErrClosed) {
		h.Fatalf("next on a closed cursor: %v", err)
	}
}

// views: snapshots do not move, and show any part of the keys in order.
func views(h *harness) {
	s := h.open(nil)
	var want []string
	state := map[string]uint64{}
	type snapshot struct {
		view *store.View
		want []string
	}
	var snapshots []snapshot
	for i := range 600 {
		key := fmt.Sprintf("%s/%02d", []string{"a", "b", "b.c", "b0"}[h.rand.IntN(4)], h.rand.IntN(50))
		if old := state[key]; old != 0 && h.rand.IntN(3) == 0 {
			h.remove(s, key, old)
			delete(state, key)
		} else {
			state[key] = h.put(s, key, old, fmt.Sprint(i)).Revision
		}
		if i%50 == 0 {
			want = nil
			for key, revision := range state {
				want = append(want, fmt.Sprintf("%s@%d", key, revision))
			}
			slices.Sort(want)
			if s.View().Revision() != uint64(i+1) || s.Revision() != uint64(i+1) {
				h.Fatalf("after %d writes: view at %d, store at %d", i+1, s.View().Revision(), s.Revision())
			}
			snapshots = append(snapshots, snapshot{s.View(), want})
		}
	}
	for i, snap := range snapshots {
		for _, prefix := range []string{"", "a/", "b/", "b", "b.c/", "c/", "b/1"} {
			for _, after := range []string{"", "a", prefix, prefix + "/07", "b/13", "b/130", "z", "b.c/99"} {
				var got, want []string
				snap.view.Scan(prefix, after, func(r *store.Record) bool {
					got = append(got, fmt.Sprintf("%s@%d", r.Key, r.Revision))
					if snap.view.Get(r.Key) != r {
						h.Fatalf("Get(%s) differs from Scan", r.Key)
					}
					return true
				})
				for _, w := range snap.want {
					key, _, _ := strings.Cut(w, "@")
					if strings.HasPrefix(key, prefix) && key > after {
						want = append(want, w)
					}
				}
				if !slices.Equal(got, want) {
					h.Fatalf("view %d, prefix %q after %q: got %q, want %q", i, prefix, after, got, want)
				}
				if n := snap.view.CountAfter(prefix, after); n != len(want) {
					h.Fatalf("view %d, prefix %q after %q: counted %d, want %d", i, prefix, after, n, len(want))
				}
				if after == "" && snap.view.Count(prefix) != len(want) {
					h.Fatalf("view %d, prefix %q: counted %d, want %d", i, prefix, snap.view.Count(prefix), len(want))
				}
			}
		}
	}
	n := 0
	s.View().Scan("", "", func(*store.Record) bool { n++; return n < 3 })
	if n != 3 {
		h.Fatalf("scan went on to %d after being told to stop at 3", n)
	}
}

// batch: writes that wait together share one Apply, in order and with consecutive revisions, each checked against the others.
func batch(h *harness) {
	entered, release := make(chan int, 100), make(chan struct{})
	s := h.open(&hooks{before: func(b []store.Mutation) error {
		entered <- len(b)
		<-release
		return nil
	}})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var ok, conflicts int
	write := func(key string) {
		wg.Go(func() {
			r, err := s.Commit(context.Background(), store.Write{Key: key, Value: []byte("v")})
			mu.Lock()
			defer mu.Unlock()
			var c *store.ConflictError
			switch {
			case err == nil:
				ok++
			case errors.As(err, &c) && c.Current != nil && s.Get(key) == c.Current:
				conflicts++
			default:
				h.Errorf("write %s: %v %v", key, r, err)
			}
		})
	}
	write("pods/first")
	if n := <-entered; n != 1 {
		h.Fatalf("first batch has %d writes", n)
	}
	for i := range 40 {
		write(fmt.Sprintf("pods/%d", i%20))
	}
	total := 0
	for total < 20 {
		release <- struct{}{}
		total += <-entered
	}
	close(release)
	wg.Wait()
	if ok != 21 || conflicts != 20 || s.Revision() != 21 {
		h.Fatalf("%d writes succeeded, %d met a conflict, revision %d; want 21, 20, 21", ok, conflicts, s.Revision())
	}
}
