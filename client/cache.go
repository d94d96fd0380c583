package client

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// Cache is a watched copy of one resource: list once, then watch, and list again whenever the watch is lost. Reads never
// block on the network and return shared objects. Configure it (Handle, Index, the options) before Run. Safe for
// concurrent use.
type Cache[T Object] struct {
	res  Resource[T]
	opts CacheOptions[T]
	log  *slog.Logger

	mu       sync.RWMutex
	objects  map[string]T
	indexes  map[string]*cacheIndex[T]
	handlers []func(old, new T)
	revision uint64
	moved    chan struct{} // closed and replaced whenever revision grows
	synced   chan struct{}
	once     sync.Once
}

// CacheOptions narrows a cache. The zero value means every object of the cluster.
type CacheOptions[T Object] struct {
	Namespace, LabelSelector, FieldSelector string
	// Trim may return a smaller copy to keep instead of the object read (which must not be changed).
	Trim func(T) T
}

type cacheIndex[T Object] struct {
	keys func(T) []string
	sets map[string]map[string]T
}

// NewCache returns a cache that does nothing until Run.
func NewCache[T Object](t Transport, log *slog.Logger, opts CacheOptions[T]) *Cache[T] {
	return &Cache[T]{res: Of[T](t), opts: opts, log: log, objects: map[string]T{}, indexes: map[string]*cacheIndex[T]{},
		moved: make(chan struct{}), synced: make(chan struct{})}
}

// Handle registers fn to be called, one call at a time, after each change is readable: old is the zero T for an object
// that appeared, new for one that went. fn must return quickly (put a key on a queue).
func (c *Cache[T]) Handle(fn func(old, new T)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handlers = append(c.handlers, fn)
}

// Index keeps the objects findable by the keys that fn returns for them. A second Index of the same name is ignored, so
// that several users of a shared cache can each ask for what they need.
func (c *Cache[T]) Index(name string, fn func(T) []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.indexes[name] != nil {
		return
	}
	x := &cacheIndex[T]{keys: fn, sets: map[string]map[string]T{}}
	for k, o := range c.objects {
		x.put(k, o)
	}
	c.indexes[name] = x
}

// Get returns the object of that name.
func (c *Cache[T]) Get(namespace, name string) (T, bool) {
	key := name
	if namespace != "" {
		key = namespace + "/" + name
	}
	return c.GetKey(key)
}

// GetKey returns the object of that Key.
func (c *Cache[T]) GetKey(key string) (T, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	o, ok := c.objects[key]
	return o, ok
}

// List returns every object, in no order.
func (c *Cache[T]) List() []T {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := make([]T, 0, len(c.objects))
	for _, o := range c.objects {
		out = append(out, o)
	}
	return out
}

// ByIndex returns the objects that an Index lists under key, in no order.
func (c *Cache[T]) ByIndex(name, key string) []T {
	c.mu.RLock()
	defer c.mu.RUnlock()
	x := c.indexes[name]
	if x == nil {
		panic("client: no index " + name)
	}
	out := make([]T, 0, len(x.sets[key]))
	for _, o := range x.sets[key] {
		out = append(out, o)
	}
	return out
}

// AtLeast reports whether the cache shows every change up to resourceVersion: the way to wait for one's own writes.
func (c *Cache[T]) AtLeast(resourceVersion string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.revision >= Revision(resourceVersion)
}

// WaitAtLeast waits until AtLeast, or until ctx ends.
func (c *Cache[T]) WaitAtLeast(ctx context.Context, resourceVersion string) error {
	want := Revision(resourceVersion)
	for {
		c.mu.RLock()
		now, moved := c.revision, c.moved
		c.mu.RUnlock()
		if now >= want {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Synced is closed once the first list is readable and its handlers have run.
func (c *Cache[T]) Synced() <-chan struct{} { return c.synced }

// Run keeps the cache up to date until ctx ends. It retries for ever, with a growing pause, and never gives up.
func (c *Cache[T]) Run(ctx context.Context) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		started := time.Now()
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !expired(err) {
			c.log.Warn("watch lost, listing again", "resource", c.res.row.Resource, "err", err)
		}
		if time.Since(started) > 10*time.Second || expired(err) {
			pause = 0
		}
		pause = min(max(2*pause, 50*time.Millisecond), 10*time.Second)
		select {
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		case <-ctx.Done():
		}
	}
}

func expired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

// follow lists once and then watches for as long as the server lets it continue from where it was.
func (c *Cache[T]) follow(ctx context.Context) error {
	opts := metav1.ListOptions{LabelSelector: c.opts.LabelSelector, FieldSelector: c.opts.FieldSelector}
	list := opts
	list.ResourceVersion = "0"
	objs, rv, err := c.res.List(ctx, c.opts.Namespace, list)
	if err != nil {
		return err
	}
	c.replace(objs, rv)
	c.once.Do(func() { close(c.synced) })
	for ctx.Err() == nil {
		opts.ResourceVersion, opts.AllowWatchBookmarks = rv, true
		w, err := c.res.Watch(ctx, c.opts.Namespace, opts)
		if err != nil {
			return err
		}
		before := rv
		rv, err = c.consume(ctx, w, rv)
		w.Stop()
		if err != nil {
			return err
		}
		if rv == before { // the server ended it at once: do not spin
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

func (c *Cache[T]) consume(ctx context.Context, w watch.Interface, rv string) (string, error) {
	for {
		select {
		case <-ctx.Done():
			return rv, nil
		case ev, ok := <-w.ResultChan():
			if !ok {
				return rv, nil
			}
			if ev.Type == watch.Error {
				return rv, apierrors.FromObject(ev.Object)
			}
			m, ok := ev.Object.(metav1.Object)
			if !ok {
				return rv, errors.New("watch " + c.res.row.Resource + ": event without an object")
			}
			rv = m.GetResourceVersion()
			if ev.Type == watch.Bookmark {
				c.advance(rv)
				continue
			}
			obj, ok := ev.Object.(T)
			if !ok {
				return rv, errors.New("watch " + c.res.row.Resource + ": event of another kind")
			}
			c.apply(obj, ev.Type == watch.Deleted, rv)
		}
	}
}

func (c *Cache[T]) advance(rv string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := Revision(rv); n > c.revision {
		c.revision = n
		close(c.moved)
		c.moved = make(chan struct{})
	}
}

func (c *Cache[T]) set(obj T, gone bool) (old, now T, handlers []func(old, new T)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := Key(obj)
	prev, had := c.objects[key]
	if had {
		old = prev
		for _, x := range c.indexes {
			x.drop(key, prev)
		}
	}
	if gone {
		delete(c.objects, key)
		if !had {
			return old, now, nil
		}
		return obj, now, c.handlers // the last state says more than the one before it
	}
	if c.opts.Trim != nil {
		obj = c.opts.Trim(obj)
	}
	c.objects[key] = obj
	for _, x := range c.indexes {
		x.put(key, obj)
	}
	return old, obj, c.handlers
}

func (c *Cache[T]) apply(obj T, gone bool, rv string) {
	old, now, handlers := c.set(obj, gone)
	c.advance(rv)
	for _, h := range handlers {
		h(old, now)
	}
}

func (c *Cache[T]) replace(objs []T, rv string) {
	seen := make(map[string]bool, len(objs))
	for _, o := range objs {
		seen[Key(o)] = true
		if prev, ok := c.GetKey(Key(o)); ok && prev.GetResourceVersion() == o.GetResourceVersion() && prev.GetUID() == o.GetUID() {
			continue
		}
		old, now, handlers := c.set(o, false)
		for _, h := range handlers {
			h(old, now)
		}
	}
	for _, o := range c.List() {
		if !seen[Key(o)] {
			old, now, handlers := c.set(o, true)
			for _, h := range handlers {
				h(old, now)
			}
		}
	}
	c.advance(rv)
}

func (x *cacheIndex[T]) put(key string, o T) {
	for _, k := range x.keys(o) {
		if x.sets[k] == nil {
			x.sets[k] = map[string]T{}
		}
		x.sets[k][key] = o
	}
}

func (x *cacheIndex[T]) drop(key string, o T) {
	for _, k := range x.keys(o) {
		delete(x.sets[k], key)
		if len(x.sets[k]) == 0 {
			delete(x.sets, k)
		}
	}
}
