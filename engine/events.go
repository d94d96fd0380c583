package engine

import (
	"context"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// bus hands events to subscribers. A slow one is waited for by nobody and loses nothing: its queue grows.
type bus struct {
	mu   sync.Mutex
	subs map[*subscription]bool
}

type subscription struct {
	mu    sync.Mutex
	queue []*runtimeapi.ContainerEventResponse
	wake  chan struct{}
}

// Events returns every event from now on, in order, until ctx is done; then the channel is closed. Events of sandboxes
// carry the sandbox's id as the container's.
func (e *Engine) Events(ctx context.Context) <-chan *runtimeapi.ContainerEventResponse {
	s := &subscription{wake: make(chan struct{}, 1)}
	e.bus.mu.Lock()
	if e.bus.subs == nil {
		e.bus.subs = map[*subscription]bool{}
	}
	e.bus.subs[s] = true
	e.bus.mu.Unlock()
	out := make(chan *runtimeapi.ContainerEventResponse)
	go func() {
		defer close(out)
		defer func() {
			e.bus.mu.Lock()
			delete(e.bus.subs, s)
			e.bus.mu.Unlock()
		}()
		for {
			s.mu.Lock()
			batch := s.queue
			s.queue = nil
			s.mu.Unlock()
			for _, ev := range batch {
				select {
				case out <- ev:
				case <-ctx.Done():
					return
				}
			}
			if len(batch) > 0 {
				continue
			}
			select {
			case <-s.wake:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// emit tells of a change to a container of a pod, or with the pod's own id to the pod. It carries the state of all of it.
func (e *Engine) emit(p *pod, id string, kind runtimeapi.ContainerEventType) {
	e.bus.mu.Lock()
	none := len(e.bus.subs) == 0
	e.bus.mu.Unlock()
	if none {
		return
	}
	ev := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: time.Now().UnixNano(),
		PodSandboxStatus: p.status(), ContainersStatuses: e.containerStatuses(p.rec.ID)}
	e.bus.mu.Lock()
	defer e.bus.mu.Unlock()
	for s := range e.bus.subs {
		s.mu.Lock()
		s.queue = append(s.queue, ev)
		s.mu.Unlock()
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}
