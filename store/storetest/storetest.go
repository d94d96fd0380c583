// Package storetest is the conformance suite of store engines: what store promises must hold on each of them. The tests of
// every engine call Run. It looks at an engine only through a store on top of it, and is imported by tests alone.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"karve/store"
)

// Backend is a place that engines keep their records in.
type Backend interface {
	// Open opens an engine on what the place holds. The one before was closed, or Crash was called.
	Open(t *testing.T) store.Engine
	// Crash is a loss of power at this moment: the next Open finds what was durable now, and the engine that is open goes
	// on for a while without effect on that.
	Crash(t *testing.T, r *rand.Rand)
}

// Run runs the suite; fresh returns an empty place. The seed of random operations is printed and can be set with
// STORETEST_SEED.
func Run(t *testing.T, fresh func(t *testing.T) Backend) {
	tests := []struct {
		name string
		run  func(*harness)
	}{
		{"Basics", basics},
		{"Views", views},
		{"Batch", batch},
		{"Linearizable", linearizable},
		{"Watch", watch},
		{"Expired", expired},
		{"Restart", restart},
		{"Crash", crash},
		{"Slow", slow},
		{"Failing", failing},
		{"Closing", closing},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			seed := seedOf(t)
			t.Logf("STORETEST_SEED=%d", seed)
			test.run(&harness{T: t, rand: rand.New(rand.NewPCG(seed, 0)), backend: fresh(t)})
		})
	}
}

// Seed is what random operations begin with; it is printed.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := seedOf(t)
	t.Logf("STORETEST_SEED=%d", seed)
	return seed
}

func seedOf(t testing.TB) uint64 {
	if text := os.Getenv("STORETEST_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("STORETEST_SEED: %v", err)
		}
		return seed
	}
	return uint64(time.Now().UnixNano())
}

// Long says that tests shall take their time: with STORETEST_LONG=1 they run many more rounds than a build can wait for.
func Long() bool { return os.Getenv("STORETEST_LONG") != "" }

// harness is what a test of the suite works with.
type harness struct {
	*testing.T
	rand    *rand.Rand
	backend Backend
	history int
}

// open opens a store on the backend, through hooks if there are any. The test closes it, or not.
func (h *harness) open(k *hooks) *store.Store {
	h.Helper()
	var engine store.Engine = h.backend.Open(h.T)
	if k != nil {
		engine = hooked(k, engine)
	}
	s, err := store.Open(context.Background(), store.Options{Engine: engine, Topic: topicOf, History: h.history,
		Attach: func(key string, revision uint64, value []byte) (any, error) { return "loaded " + string(value), nil }})
	if err != nil {
		h.Fatalf("open store: %v", err)
	}
	h.Cleanup(func() { s.Close() })
	return s
}

// topicOf is the first path element of a key.
func topicOf(key string) string {
	topic, _, _ := strings.Cut(key, "/")
	return topic
}

// hooks is an engine that calls before and after around Apply; an error from before keeps the batch from the engine.
type hooks struct {
	store.Engine
	before, after func([]store.Mutation) error
}

func (k *hooks) Apply(batch []store.Mutation) error {
	if k.before != nil {
		if err := k.before(batch); err != nil {
			return err
		}
	}
	if err := k.Engine.Apply(batch); err != nil {
		return err
	}
	if k.after != nil {
		return k.after(batch)
	}
	return nil
}

func (h *harness) put(s *store.Store, key string, expect uint64, value string) *store.Record {
	h.Helper()
	r, err := s.Commit(context.Background(), store.Write{Key: key, Expect: expect, Value: []byte(value)})
	if err != nil {
		h.Fatalf("put %s: %v", key, err)
	}
	return r
}

func (h *harness) remove(s *store.Store, key string, expect uint64) *store.Record {
	h.Helper()
	r, err := s.Commit(context.Background(), store.Write{Key: key, Expect: expect})
	if err != nil {
		h.Fatalf("delete %s: %v", key, err)
	}
	return r
}

func (h *harness) watch(s *store.Store, topic string, after uint64) *store.Cursor {
	h.Helper()
	c, err := s.Watch(topic, after)
	if err != nil {
		h.Fatalf("watch %s after %d: %v", topic, after, err)
	}
	return c
}

// next returns the next n events of the cursor.
func (h *harness) next(c *store.Cursor, n int) []store.Event {
	h.Helper()
	var all []store.Event
	for len(all) < n {
		events, _, err := c.Next(context.Background())
		if err != nil {
			h.Fatalf("next: %v", err)
		}
		all = append(all, events...)
	}
	if len(all) != n {
		h.Fatalf("got %d events, want %d", len(all), n)
	}
	return all
}

// none checks that the cursor has no event now.
func (h *harness) none(c *store.Cursor) {
	h.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if events, _, err := c.Next(ctx); len(events) > 0 || !errors.Is(err, context.Canceled) {
		h.Fatalf("next: got %d events and %v, want none", len(events), err)
	}
}

// contents is all records as "key@revision=value".
func contents(s *store.Store) []string {
	var all []string
	s.View().Scan("", "", func(r *store.Record) bool {
		all = append(all, fmt.Sprintf("%s@%d=%s", r.Key, r.Revision, r.Value))
		return true
	})
	return all
}

// conflict checks that err is a conflict with the revision (0: with no record).
func (h *harness) conflict(err error, revision uint64) {
	h.Helper()
	var c *store.ConflictError
	if !errors.As(err, &c) {
		h.Fatalf("got %v, want a conflict", err)
	}
	if got := revisionOf(c.Current); got != revision {
		h.Fatalf("conflict is with revision %d, want %d", got, revision)
	}
}

func revisionOf(r *store.Record) uint64 {
	if r == nil {
		return 0
	}
	return r.Revision
}
