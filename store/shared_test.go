package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"karve/store"
	"karve/store/storetest"
)

// common is a place in memory that several engines write to, as it would be on another machine.
type common struct {
	mu      sync.Mutex
	records map[string]store.Mutation
	history []store.Mutation // history[i] has revision i+1
	moved   chan struct{}
}

func newCommon() *common {
	return &common{records: map[string]store.Mutation{}, moved: make(chan struct{})}
}

func (c *common) clone() *common {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &common{records: maps.Clone(c.records), history: slices.Clone(c.history), moved: make(chan struct{})}
}

// member is an engine on a common place.
type member struct {
	*common
	// gap, once set, makes the next Follow step lose what it was to tell, and tell everything anew.
	gap chan struct{}
}

func (m *member) Load(_ context.Context, fn func(string, uint64, []byte) error) (uint64, error) {
	all, revision := m.all()
	for _, r := range all {
		if err := fn(r.Key, r.Revision, r.Value); err != nil {
			return 0, err
		}
	}
	return revision, nil
}

func (c *common) all() ([]store.Mutation, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Collect(maps.Values(c.records))
	slices.SortFunc(all, func(a, b store.Mutation) int { return strings.Compare(a.Key, b.Key) })
	return all, uint64(len(c.history))
}

func (m *member) Apply(batch []store.Mutation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := &batch[0]
	if now := m.records[b.Key]; now.Revision != b.Expect {
		if b.Revision = now.Revision; b.Revision == 0 {
			b.Revision = uint64(len(m.history))
		}
		return store.ErrConflict
	}
	b.Revision = uint64(len(m.history)) + 1
	m.history = append(m.history, *b)
	if b.Value == nil {
		delete(m.records, b.Key)
	} else {
		m.records[b.Key] = *b
	}
	close(m.moved)
	m.moved = make(chan struct{})
	return nil
}

func (m *member) Follow(ctx context.Context, after uint64, tell func(store.News)) {
	for ctx.Err() == nil {
		m.mu.Lock()
		n, moved := uint64(len(m.history)), m.moved
		if more := n - after; more > 1 {
			n = after + 1 + rand.Uint64N(more) // some of what there is
		}
		changes := slices.Clone(m.history[after:n])
		m.mu.Unlock()
		select {
		case <-m.gap:
			all, revision := m.all()
			after = revision
			tell(store.News{Changes: all, Revision: revision, Anew: true})
			continue
		default:
		}
		if len(changes) > 0 {
			after = n
			tell(store.News{Changes: changes, Revision: n})
			continue
		}
		select {
		case <-moved:
		case <-ctx.Done():
		}
	}
}

func (m *member) Current(context.Context) (uint64, error) {
	_, revision := m.all()
	return revision, nil
}

func (m *member) Past(_ context.Context, prefix string, revision uint64, fn func(string, uint64, []byte) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	records := map[string]store.Mutation{}
	for _, h := range m.history[:revision] {
		if records[h.Key] = h; h.Value == nil {
			delete(records, h.Key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(records)) {
		if r := records[key]; strings.HasPrefix(key, prefix) {
			if err := fn(key, r.Revision, r.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *member) Close() error { return nil }

type commonPlace struct{ *common }

func (p *commonPlace) Open(*testing.T) store.Engine { return &member{common: p.common} }

func (p *commonPlace) Crash(*testing.T, *rand.Rand) { p.common = p.clone() }

func TestShared(t *testing.T) {
	storetest.RunShared(t, func(*testing.T) storetest.Backend { return &commonPlace{newCommon()} })
}

// TestLostEvents: when an engine cannot tell what happened, watches end, the truth shows, and a write whose event was lost is
// answered all the same.
func TestLostEvents(t *testing.T) {
	c := newCommon()
	mine := &member{common: c, gap: make(chan struct{}, 1)}
	s, other := open(t, mine), open(t, &member{common: c})
	kept := put(t, s, "pods/kept", []byte("1"))
	put(t, s, "pods/gone", []byte("1"))
	before, err := s.Watch("pods", s.Revision())
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := s.Watch("nodes", s.Revision())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	mine.gap <- struct{}{}
	if _, err := other.Commit(ctx, store.Write{Key: "pods/gone", Expect: other.Get("pods/gone").Revision}); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	for _, cursor := range []*store.Cursor{before, elsewhere} {
		if _, _, err := cursor.Next(ctx); !errors.Is(err, store.ErrExpired) {
			t.Errorf("watch over lost events: %v", err)
		}
	}
	if s.Get("pods/gone") != nil || s.Get("pods/kept") != kept || s.View().Count("") != 1 {
		t.Error("the store does not show what there is")
	}
	mine.gap <- struct{}{}
	r, err := s.Commit(ctx, store.Write{Key: "pods/new", Value: []byte("v"), Attach: func(revision uint64) any { return revision }})
	if err != nil || r != s.Get("pods/new") || r.Attachment() != r.Revision {
		t.Errorf("a write with a lost event: %+v %v", r, err)
	}
	if oldest := s.Oldest("pods"); oldest != s.Revision() {
		t.Errorf("watches may begin at %d, the events after %d are there", oldest, s.Revision())
	}
}

// TestPast: what was, on an engine that knows it, with the records of now where they are the same.
func TestPast(t *testing.T) {
	s := open(t, &member{common: newCommon()})
	kept := put(t, s, "pods/kept", []byte("1"))
	put(t, s, "nodes/n", []byte("1"))
	then := put(t, s, "pods/changed", []byte("1"))
	put(t, s, "pods/changed", []byte("2"))
	v, err := s.Past(ctx, "pods/", then.Revision)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	v.Scan("pods/", "", func(r *store.Record) bool {
		got = append(got, fmt.Sprintf("%s=%s", r.Key, r.Value))
		return true
	})
	if want := "[pods/changed=1 pods/kept=1]"; fmt.Sprint(got) != want || v.Get("pods/kept") != kept || v.Revision() != then.Revision {
		t.Errorf("got %v at %d, want %s", got, v.Revision(), want)
	}
	if !v.Covers("pods/") || !v.Covers("pods/a") || v.Covers("nodes/") || v.Covers("") || !s.View().Covers("") {
		t.Error("a view covers what it should not, or not what it should")
	}
	if s.Shared() == false {
		t.Error("the store is not shared")
	}
}
