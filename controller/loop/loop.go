// Package loop is what every controller runs on: a queue of keys, workers that take them, and an Env with the shared caches,
// the transport and the event recorders. The controllers use it, and package controller runs them. It knows no kind of
// object, and it keeps no state of a key beyond its retry count.
package loop

import (
	"context"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
)

// Events is where a controller reports what it did; *client.Recorder is one.
type Events interface {
	Event(obj client.Object, eventType, reason, format string, args ...any)
}

// Runner is anything that works until its context ends: a private cache, a recorder, a background scan.
type Runner interface{ Run(context.Context) }

// Env is what a controller is made of. Controllers share one.
type Env struct {
	Caches *client.Caches
	Log    *slog.Logger
	// Now is the clock; plans are given its value.
	Now func() time.Time
	// NewEvents makes the sink of a component's events; nil means a client.Recorder.
	NewEvents func(component string) Events

	mu      sync.Mutex
	runners []Runner
	events  map[string]Events
	waits   []<-chan struct{}
}

// NewEnv returns an Env over t with an empty set of caches.
func NewEnv(t client.Transport, log *slog.Logger) *Env {
	return &Env{Caches: client.NewCaches(t, log), Log: log, Now: time.Now, events: map[string]Events{}}
}

// T returns the transport.
func (e *Env) T() client.Transport { return e.Caches.Transport() }

// Events returns the recorder of a component, making it on first use.
func (e *Env) Events(component string) Events {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r, ok := e.events[component]; ok {
		return r
	}
	var r Events
	if e.NewEvents != nil {
		r = e.NewEvents(component)
	} else {
		rec := client.NewRecorder(e.T(), e.Log, component, "")
		e.runners = append(e.runners, rec)
		r = &limited{to: rec, now: e.Now, buckets: map[types.UID]bucket{}}
	}
	e.events[component] = r
	return r
}

// Also runs r for as long as the controllers run. A synced channel, when given, holds the workers back until it is closed.
func (e *Env) Also(r Runner, synced ...<-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.runners = append(e.runners, r)
	e.waits = append(e.waits, synced...)
}

// Cache returns a private, narrowed cache that runs with the controllers.
func Cache[T client.Object](e *Env, opts client.CacheOptions[T]) *client.Cache[T] {
	c := client.NewCache(e.T(), e.Log, opts)
	e.Also(c, c.Synced())
	return c
}

// Controller is one reconcile loop.
type Controller struct {
	// Name is the name it is switched on and off by, as in --controllers.
	Name  string
	Queue *Queue
	// Workers is how many keys are worked on at once; 0 means 2.
	Workers int
	// Sync brings what key names to its desired state. It must be correct from any state, since it may be cut off between
	// any two of its writes. An error means: try again later.
	Sync func(ctx context.Context, key string) error
	// Every and Tick: call Tick each Every (and once at start), beside the keys. Optional.
	Every time.Duration
	Tick  func(ctx context.Context)
}

// Run starts caches, waits for them, and runs the controllers until ctx ends and every worker has returned.
func (e *Env) Run(ctx context.Context, controllers []*Controller) {
	var wg sync.WaitGroup
	defer wg.Wait()
	e.mu.Lock()
	runners, waits := e.runners, e.waits
	e.mu.Unlock()
	wg.Go(func() { e.Caches.Run(ctx) })
	for _, r := range runners {
		wg.Go(func() { r.Run(ctx) })
	}
	if e.Caches.WaitSynced(ctx) != nil {
		return
	}
	for _, w := range waits {
		select {
		case <-w:
		case <-ctx.Done():
			return
		}
	}
	for _, c := range controllers {
		n := c.Workers
		if n == 0 {
			n = 2
		}
		if c.Sync != nil {
			for range n {
				wg.Go(func() { c.work(ctx, e.Log) })
			}
		}
		if c.Tick != nil {
			wg.Go(func() { c.tick(ctx) })
		}
	}
	<-ctx.Done()
	for _, c := range controllers {
		if c.Queue != nil {
			c.Queue.Close()
		}
	}
}

func (c *Controller) tick(ctx context.Context) {
	t := time.NewTicker(c.Every)
	defer t.Stop()
	for {
		c.Tick(ctx)
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (c *Controller) work(ctx context.Context, log *slog.Logger) {
	for {
		key, ok := c.Queue.Get(ctx)
		if !ok {
			return
		}
		c.one(ctx, key, log)
	}
}

func (c *Controller) one(ctx context.Context, key string, log *slog.Logger) {
	defer c.Queue.Done(key)
	err := c.Sync(ctx, key)
	if err == nil {
		c.Queue.Forget(key)
		return
	}
	if ctx.Err() != nil {
		return
	}
	if !Expected(err) {
		log.Warn("sync failed, will retry", "controller", c.Name, "key", key, "err", err)
	}
	c.Queue.Retry(key)
}

// Expected reports whether err is what a controller meets when others write too: it retries and says nothing.
func Expected(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err)
}
