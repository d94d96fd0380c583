package controllertest

import (
	"context"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"

	"karve/api"
	"karve/client"
)

// watcher queues without bound, so that a slow reader never holds a writer up.
type watcher struct {
	server *Server
	row    *api.Row
	req    client.Request
	out    chan watch.Event
	cancel context.CancelFunc

	mu      sync.Mutex
	pending []watch.Event
	wake    chan struct{}
}

// Watch is client.Transport's. Every watch starts from the request's resourceVersion exactly.
func (s *Server) Watch(ctx context.Context, r *client.Request) (watch.Interface, error) {
	if s.Fail != nil {
		if err := s.Fail(r); err != nil {
			return nil, err
		}
	}
	row := api.ByResource(r.Resource)
	if row == nil {
		return nil, apierrors.NewNotFound(r.Resource.GroupResource(), r.Name)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{server: s, row: row, req: *r, out: make(chan watch.Event), cancel: cancel, wake: make(chan struct{}, 1)}
	from := client.Revision(r.List.ResourceVersion)
	s.mu.Lock()
	for _, ev := range s.log {
		if ev.revision > from {
			w.offer(ev)
		}
	}
	s.watchers[w] = true
	s.mu.Unlock()
	go w.run(ctx)
	return w, nil
}

func (w *watcher) offer(ev event) {
	if ev.prefix != w.row.Prefix || w.req.Namespace != "" && ev.object.GetNamespace() != w.req.Namespace {
		return
	}
	if ok, err := selected(ev.object, &w.req.List); err != nil || !ok {
		return
	}
	w.mu.Lock()
	w.pending = append(w.pending, watch.Event{Type: ev.kind, Object: ev.object})
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) run(ctx context.Context) {
	defer close(w.out)
	defer func() {
		w.server.mu.Lock()
		delete(w.server.watchers, w)
		w.server.mu.Unlock()
	}()
	for {
		w.mu.Lock()
		batch := w.pending
		w.pending = nil
		w.mu.Unlock()
		for _, ev := range batch {
			select {
			case w.out <- ev:
			case <-ctx.Done():
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
	}
}

// Stop is watch.Interface's.
func (w *watcher) Stop() { w.cancel() }

// ResultChan is watch.Interface's.
func (w *watcher) ResultChan() <-chan watch.Event { return w.out }
