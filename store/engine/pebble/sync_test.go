package pebble

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"karve/store"
	"karve/store/storetest"
)

// synced is an engine that says after each batch which bytes of the log no sync covers.
type synced struct {
	*Engine
	t    *testing.T
	disk *disk
}

func (s *synced) Apply(batch []store.Mutation) error {
	err := s.Engine.Apply(batch)
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	for name, n := range s.disk.unsynced {
		if err == nil && n != 0 {
			s.t.Errorf("revision %d is applied, but %d bytes of %s are not synced", batch[len(batch)-1].Revision, n, name)
		}
	}
	return err
}

// TestEveryWriteIsSynced: whenever a batch is applied, and so before any Commit of it returns, a sync that began after the
// last byte was written to the log has ended. Every acknowledged write survives the worst crash at once.
func TestEveryWriteIsSynced(t *testing.T) {
	seed := storetest.Seed(t)
	for _, writers := range []int{1, 8} {
		d := newDisk()
		e, err := open(d, "data", nil)
		if err != nil {
			t.Fatal(err)
		}
		s := openStore(t, &synced{e, t, d}, nil)
		d.mu.Lock()
		before := d.syncs
		d.mu.Unlock()
		const each = 150
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				key := fmt.Sprintf("k/%d", w)
				var revision uint64
				for n := range each {
					value := fmt.Sprintf("%d %s", n, strings.Repeat("v", int(seed>>8)%500+n*200))
					r, err := s.Commit(context.Background(), store.Write{Key: key, Expect: revision, Value: []byte(value)})
					if err != nil {
						t.Errorf("commit: %v", err)
						return
					}
					revision = r.Revision
					if n%30 != 7 {
						continue
					}
					if got, last := d.durable(t); last < revision || got[key] != fmt.Sprintf("%d %s", revision, value) {
						t.Errorf("a crash right after revision %d was acknowledged leaves %d, %.20q", revision, last, got[key])
					}
				}
			})
		}
		wg.Wait()
		d.mu.Lock()
		syncs := d.syncs - before
		d.mu.Unlock()
		if writers == 1 && syncs < each {
			t.Errorf("%d syncs for %d writes one after another", syncs, each)
		}
		t.Logf("%d writers: %d writes, %d syncs", writers, writers*each, syncs)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSlowSync holds a sync back: reads go on, nothing unsynced shows, who waits may give up, and all is well once it is over.
func TestSlowSync(t *testing.T) {
	d := newDisk()
	e, err := open(d, "data", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, e, nil)
	defer s.Close()
	ctx := context.Background()
	if _, err := s.Commit(ctx, store.Write{Key: "k/a", Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	cursor, err := s.Watch("k", 1)
	if err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}, 10), make(chan struct{})
	stall := func() {
		entered <- struct{}{}
		if storetest.Long() {
			time.Sleep(7 * time.Second)
		}
		<-release
	}
	d.stall.Store(&stall)
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		_, err := s.Commit(ctx, store.Write{Key: "k/a", Expect: 1, Value: []byte("2")})
		done <- err
	}()
	<-entered
	impatient, cancel := context.WithCancel(ctx)
	gaveUp := make(chan error, 1)
	go func() {
		_, err := s.Commit(impatient, store.Write{Key: "k/b", Value: []byte("b")})
		gaveUp <- err
	}()
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("a writer that gives up gets %v", err)
	}
	if r := s.Get("k/a"); string(r.Value) != "1" || s.Revision() != 1 || s.View().Revision() != 1 || cursor.Progress() != 1 {
		t.Error("what is not synced shows")
	}
	if _, last := d.durable(t); last != 1 {
		t.Errorf("revision %d is durable before its sync", last)
	}
	if _, _, err := cursor.Next(impatient); !errors.Is(err, context.Canceled) {
		t.Errorf("a watcher sees what is not synced: %v", err)
	}
	d.stall.Store(nil)
	close(release)
	if err := <-done; err != nil {
		t.Errorf("the slow write: %v", err)
	}
	t.Logf("the write took %v", time.Since(began))
	if events, _, err := cursor.Next(ctx); err != nil || len(events) != 1 || string(events[0].Record.Value) != "2" {
		t.Errorf("after the sync: %v %v", events, err)
	}
	if s.Err() != nil {
		t.Errorf("a slow disk broke the store: %v", s.Err())
	}
}
