package apiserver

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"

	"karve/apiserver/allocate"
	"karve/apiserver/resource"
	"karve/store"
)

const (
	eventKeys   = resource.Root + "events/"
	serviceKeys = resource.Root + "services/specs/"
	// expiryShare is how often in an event's life it is looked whether it has ended: it lives by up to that much longer.
	expiryShare = 20
)

// expiry finds the events that were last written too long ago. A record does not say when it was written, but its revision
// lies between revisions whose time is known: those of the rounds before.
type expiry struct {
	marks []mark
	// before is the revision at the start. Records up to it may be of any age; their objects tell.
	before uint64
}

type mark struct {
	revision uint64
	at       time.Time
}

// round notes the present revision and returns the one up to which records were written before limit.
func (e *expiry) round(revision uint64, now, limit time.Time) uint64 {
	e.marks = append(e.marks, mark{revision, now})
	old := 0
	for old+1 < len(e.marks) && !e.marks[old+1].at.After(limit) {
		old++
	}
	e.marks = e.marks[old:]
	if e.marks[0].at.After(limit) {
		return 0
	}
	return e.marks[0].revision
}

// expired reports whether a record was last written before limit; written is what round returned.
func (e *expiry) expired(r *store.Record, written uint64, limit time.Time) bool {
	if r.Revision <= written {
		return true
	}
	if r.Revision > e.before {
		return false
	}
	ev, ok := resource.ObjectOf(r).(*corev1.Event)
	return ok && lastWritten(ev).Before(limit)
}

// lastWritten is the newest time that an event knows of.
func lastWritten(ev *corev1.Event) time.Time {
	last := ev.CreationTimestamp.Time
	newer := func(t time.Time) {
		if t.After(last) {
			last = t
		}
	}
	newer(ev.LastTimestamp.Time)
	newer(ev.EventTime.Time)
	if ev.Series != nil {
		newer(ev.Series.LastObservedTime.Time)
	}
	for i := range ev.ManagedFields {
		if t := ev.ManagedFields[i].Time; t != nil {
			newer(t.Time)
		}
	}
	return last
}

// expireEvents deletes events some time after they were last written. Engines with leases need none of it.
func (s *Server) expireEvents(ctx context.Context, ttl time.Duration) {
	e := expiry{before: s.store.Revision()}
	tick := time.NewTicker(max(ttl/expiryShare, time.Second))
	defer tick.Stop()
	for {
		s.expireRound(ctx, &e, time.Now(), ttl)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) expireRound(ctx context.Context, e *expiry, now time.Time, ttl time.Duration) {
	view, limit := s.store.View(), now.Add(-ttl)
	written := e.round(view.Revision(), now, limit)
	view.Scan(eventKeys, "", func(r *store.Record) bool {
		if !e.expired(r, written, limit) {
			return true
		}
		_, err := s.store.Commit(ctx, store.Write{Key: r.Key, Expect: r.Revision})
		var conflict *store.ConflictError
		if err != nil && !errors.As(err, &conflict) { // a conflict: it was written again, or is gone
			if ctx.Err() == nil {
				s.log.Warn("event not removed at its end", "key", r.Key, "err", err)
			}
			return false
		}
		return ctx.Err() == nil
	})
}

// followServices tells the allocator what other servers on the same store give to Services and take back.
func (s *Server) followServices(ctx context.Context, services *allocate.Services, after uint64) {
	cursor, err := s.store.Watch(serviceKeys, after)
	for {
		var events []store.Event
		if err == nil {
			events, _, err = cursor.Next(ctx)
		}
		switch {
		case errors.Is(err, store.ErrExpired):
			view := s.store.View()
			view.Scan(serviceKeys, "", func(r *store.Record) bool {
				adopt(services, r)
				return true
			})
			cursor, err = s.store.Watch(serviceKeys, view.Revision())
			continue
		case err != nil:
			return
		}
		for _, e := range events {
			if e.Prev != nil {
				if svc, ok := resource.ObjectOf(e.Prev).(*corev1.Service); ok {
					services.Release(svc)
				}
			}
			if !e.Deleted {
				adopt(services, e.Record)
			}
		}
	}
}

func adopt(services *allocate.Services, r *store.Record) {
	if svc, ok := resource.ObjectOf(r).(*corev1.Service); ok {
		services.Adopt(svc)
	}
}
