package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"

	"karve/store"
	"karve/store/engine/mem"
)

func TestForm(t *testing.T) {
	s := open(t, mem.New())
	r := put(t, s, "pods/a", []byte("v"))
	broken := errors.New("broken")
	if _, err := r.Form(func() ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	made := 0
	for range 100 {
		b, err := r.Form(func() ([]byte, error) { made++; return []byte("form"), nil })
		if err != nil || string(b) != "form" {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	if made > 50 { // a collection may come in between
		t.Errorf("made %d times for 100 readers", made)
	}
}

// TestAttachmentsAreLetGo: an object that nobody uses does not stay in memory, and one that somebody uses is the same for all.
func TestAttachmentsAreLetGo(t *testing.T) {
	type object struct{ text [1000]byte }
	made := 0
	s, err := store.Open(t.Context(), store.Options{Engine: mem.New(), Topic: func(string) string { return "" },
		Attach: func(string, uint64, []byte) (any, error) { made++; return &object{}, nil }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := put(t, s, "pods/a", []byte("v"))
	held := r.Attachment().(*object)
	runtime.GC()
	if r.Attachment().(*object) != held || made != 1 {
		t.Errorf("a used object was made %d times", made)
	}
	held.text[0] = 1
	runtime.KeepAlive(held)
	held = nil
	runtime.GC()
	runtime.GC()
	if again := r.Attachment().(*object); made != 2 || again.text[0] != 0 {
		t.Errorf("an unused object is still there")
	}
}

func TestAttachmentOfLoadedRecord(t *testing.T) {
	engine := mem.New()
	s := open(t, engine)
	put(t, s, "pods/good", []byte("v"))
	put(t, s, "pods/bad", []byte("v"))
	s.Close()
	var mu sync.Mutex
	calls := map[string]int{}
	var log bytes.Buffer
	s, err := store.Open(ctx, store.Options{Engine: engine, Topic: func(string) string { return "" },
		Log: slog.New(slog.NewTextHandler(&log, nil)),
		Attach: func(key string, revision uint64, value []byte) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			calls[key]++
			if key == "pods/bad" {
				return nil, errors.New("no such kind")
			}
			return &key, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(calls) != 0 {
		t.Errorf("attachments were made before anyone asked: %v", calls)
	}
	first := s.Get("pods/good").Attachment()
	for range 3 {
		if got := s.Get("pods/bad").Attachment(); got != nil {
			t.Errorf("attachment of a bad record is %v", got)
		}
		if s.Get("pods/good").Attachment() != first {
			t.Error("attachment is made anew")
		}
	}
	if n := strings.Count(log.String(), "no such kind"); n != 1 || calls["pods/bad"] != 1 || calls["pods/good"] != 1 {
		t.Errorf("logged %d times, called %v", n, calls)
	}
}

// TestBatchBytes checks that a batch ends before 4 MiB, that a greater write goes alone, and that order is kept.
func TestBatchBytes(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	engine := mem.New()
	var sizes []int
	engine.Before = func(b []store.Mutation) error {
		size := 0
		for _, m := range b {
			size += len(m.Value)
		}
		sizes = append(sizes, size)
		if len(sizes) == 1 {
			close(entered)
			<-release
		}
		return nil
	}
	s := open(t, engine)
	var wg sync.WaitGroup
	write := func(key string, size int) {
		wg.Go(func() { put(t, s, key, make([]byte, size)) })
	}
	write("first", 1)
	<-entered
	write("huge", 6<<20)
	for i := range 10 {
		write(fmt.Sprint(i), 1<<20)
	}
	close(release)
	wg.Wait()
	total := 0
	for _, size := range sizes {
		total += size
		if size > 4<<20 && size != 6<<20 {
			t.Errorf("batch of %d bytes", size)
		}
	}
	if total != 16<<20+1 || s.Revision() != 12 {
		t.Errorf("wrote %d bytes in %v, revision %d", total, sizes, s.Revision())
	}
}

func TestOpenRefusesDamage(t *testing.T) {
	engine := mem.New()
	s := open(t, engine)
	put(t, s, "a", []byte("v"))
	s.Close()
	options := store.Options{Engine: forgetful{engine}, Topic: func(string) string { return "" }}
	if _, err := store.Open(ctx, options); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a record beyond the last revision: %v", err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	options.Engine = engine
	if _, err := store.Open(canceled, options); !errors.Is(err, context.Canceled) {
		t.Errorf("open with an ended context: %v", err)
	}
	if _, err := store.Open(ctx, store.Options{}); err == nil {
		t.Error("opened without an engine")
	}
}

// forgetful is an engine that lost its last revision.
type forgetful struct{ store.Engine }

func (f forgetful) Load(ctx context.Context, fn func(string, uint64, []byte) error) (uint64, error) {
	_, err := f.Engine.Load(ctx, fn)
	return 0, err
}

// TestWatchWakesItsTopicOnly commits to one topic while a watcher of another waits: it must not come back.
func TestWatchWakesItsTopicOnly(t *testing.T) {
	s := open(t, mem.New())
	nodes, err := s.Watch("nodes", 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []store.Event, 1)
	go func() {
		events, progress, err := nodes.Next(ctx)
		if err != nil || progress != 501 {
			t.Errorf("progress %d, %v", progress, err)
		}
		got <- events
	}()
	for i := range 500 {
		put(t, s, fmt.Sprintf("pods/%d", i%7), []byte("v"))
	}
	select {
	case events := <-got:
		t.Fatalf("woken with %d events", len(events))
	default:
	}
	last := put(t, s, "nodes/n", []byte("v"))
	if events := <-got; len(events) != 1 || events[0].Record != last {
		t.Fatalf("got %v", events)
	}
}
