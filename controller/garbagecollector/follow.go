package garbagecollector

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"karve/client"
)

// follow keeps the graph up to date with one resource until ctx ends. listed is called once after the first list.
func (s *shell) follow(ctx context.Context, r schema.GroupVersionResource, listed func()) {
	for pause := 50 * time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		begin := time.Now()
		err := s.listAndWatch(ctx, r, listed)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begin) > time.Minute {
			pause = 50 * time.Millisecond
		}
		if err != nil && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) && !apierrors.IsNotFound(err) {
			s.env.Log.Warn("garbage collector lost a watch, listing again", "resource", r.String(), "err", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (s *shell) listAndWatch(ctx context.Context, r schema.GroupVersionResource, listed func()) error {
	obj, err := s.env.T().Do(ctx, &client.Request{Verb: "list", Resource: r, List: metav1.ListOptions{ResourceVersion: "0"}})
	if err != nil {
		if apierrors.IsNotFound(err) {
			listed()
		}
		return err
	}
	seen := map[types.UID]bool{}
	err = each(obj, func(o metav1.Object) {
		seen[o.GetUID()] = true
		s.look(s.graph.put(fromObject(r, o)))
	})
	if err != nil {
		return err
	}
	for _, uid := range s.graph.of(r) {
		if !seen[uid] {
			s.look(s.graph.drop(uid))
		}
	}
	m, err := meta.ListAccessor(obj)
	if err != nil {
		return fmt.Errorf("read list of %s: %w", r, err)
	}
	rv := m.GetResourceVersion()
	obj = nil
	listed()
	for ctx.Err() == nil {
		w, err := s.env.T().Watch(ctx, &client.Request{Verb: "watch", Resource: r, List: metav1.ListOptions{ResourceVersion: rv, AllowWatchBookmarks: true}})
		if err != nil {
			return err
		}
		before := rv
		rv, err = s.consume(ctx, r, w, rv)
		w.Stop()
		if err != nil {
			return err
		}
		if rv == before {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

func each(obj runtime.Object, fn func(metav1.Object)) error {
	add := func(o runtime.Object) error {
		m, err := meta.Accessor(o)
		if err == nil {
			fn(m)
		}
		return err
	}
	if l, ok := obj.(*client.List); ok {
		for _, o := range l.Items {
			if err := add(o); err != nil {
				return err
			}
		}
		return nil
	}
	return meta.EachListItem(obj, add)
}

func (s *shell) consume(ctx context.Context, r schema.GroupVersionResource, w watch.Interface, rv string) (string, error) {
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
			o, err := meta.Accessor(ev.Object)
			if err != nil {
				return rv, errors.New("watch " + r.String() + ": event without an object")
			}
			rv = o.GetResourceVersion()
			switch ev.Type {
			case watch.Added, watch.Modified:
				s.look(s.graph.put(fromObject(r, o)))
			case watch.Deleted:
				s.look(s.graph.drop(o.GetUID()))
			}
		}
	}
}
