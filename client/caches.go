package client

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
)

// Caches hands out one shared whole-cluster Cache per kind, so that several controllers of a process keep one copy.
type Caches struct {
	t   Transport
	log *slog.Logger

	mu    sync.Mutex
	all   map[reflect.Type]runner
	order []runner
	wg    sync.WaitGroup
}

type runner interface {
	Run(context.Context)
	Synced() <-chan struct{}
}

// NewCaches returns an empty set over t.
func NewCaches(t Transport, log *slog.Logger) *Caches {
	return &Caches{t: t, log: log, all: map[reflect.Type]runner{}}
}

// Transport returns the transport the caches read from.
func (s *Caches) Transport() Transport { return s.t }

// CacheOf returns the set's cache of T, making it on first use. Ask for it, and add handlers and indexes, before Run.
func CacheOf[T Object](s *Caches) *Cache[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := reflect.TypeFor[T]()
	if c, ok := s.all[key]; ok {
		return c.(*Cache[T])
	}
	c := NewCache(s.t, s.log, CacheOptions[T]{})
	s.all[key] = c
	s.order = append(s.order, c)
	return c
}

// Narrow makes the set's cache of T one of the objects that o says, for all who ask for it. Call it before the first CacheOf of T.
func Narrow[T Object](s *Caches, o CacheOptions[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := reflect.TypeFor[T]()
	if _, ok := s.all[key]; ok {
		panic(fmt.Sprintf("client: the cache of %s must not be narrowed after somebody has it", key))
	}
	c := NewCache(s.t, s.log, o)
	s.all[key] = c
	s.order = append(s.order, c)
}

// Run runs every cache asked for so far until ctx ends.
func (s *Caches) Run(ctx context.Context) {
	s.mu.Lock()
	order := append([]runner(nil), s.order...)
	s.mu.Unlock()
	for _, c := range order {
		s.wg.Go(func() { c.Run(ctx) })
	}
	s.wg.Wait()
}

// WaitSynced waits until every cache asked for so far has listed once.
func (s *Caches) WaitSynced(ctx context.Context) error {
	s.mu.Lock()
	order := append([]runner(nil), s.order...)
	s.mu.Unlock()
	for _, c := range order {
		select {
		case <-c.Synced():
		case <-ctx.Done():
			return fmt.Errorf("wait for caches: %w", ctx.Err())
		}
	}
	return nil
}
