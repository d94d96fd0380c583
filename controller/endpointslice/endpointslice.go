// Package endpointslice lists the pods behind each Service in EndpointSlices. plan decides which slices to write; the shell
// reads caches and writes them. It is run by package controller. Who reads slices (proxy, DNS) is not its business, nor are
// slices that others manage.
package endpointslice

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"karve/client"
	"karve/controller/loop"
)

// Name is the controller's name and the component of its events.
const Name = "endpointslice-controller"

type shell struct {
	env      *loop.Env
	queue    *loop.Queue
	events   loop.Events
	services *Services
	slices   *client.Cache[*discoveryv1.EndpointSlice]
	nodes    *client.Cache[*corev1.Node]
}

// New returns the EndpointSlice controller.
func New(env *loop.Env) *loop.Controller {
	q := loop.NewQueue()
	s := &shell{env: env, queue: q, events: env.Events("endpoint-slice-controller"), services: Follow(env, q),
		slices: client.CacheOf[*discoveryv1.EndpointSlice](env.Caches), nodes: client.CacheOf[*corev1.Node](env.Caches)}
	s.slices.Index("service", func(e *discoveryv1.EndpointSlice) []string {
		if e.Labels[discoveryv1.LabelManagedBy] != managedBy {
			return nil
		}
		return []string{e.Namespace + "/" + e.Labels[discoveryv1.LabelServiceName]}
	})
	s.slices.Handle(func(old, now *discoveryv1.EndpointSlice) {
		for _, e := range [...]*discoveryv1.EndpointSlice{old, now} {
			if e != nil && e.Labels[discoveryv1.LabelManagedBy] == managedBy {
				q.Add(e.Namespace + "/" + e.Labels[discoveryv1.LabelServiceName])
			}
		}
	})
	s.nodes.Handle(s.nodeChanged)
	return &loop.Controller{Name: Name, Queue: q, Workers: 5, Sync: s.sync}
}

// nodeChanged looks at every Service again when the zone of a node that was there before changes.
func (s *shell) nodeChanged(old, now *corev1.Node) {
	if now == nil || old != nil && old.Labels[corev1.LabelTopologyZone] == now.Labels[corev1.LabelTopologyZone] ||
		old == nil && now.Labels[corev1.LabelTopologyZone] == "" {
		return
	}
	for _, svc := range s.services.All.List() {
		s.queue.Add(client.Key(svc))
	}
}

func (s *shell) zone(node string) string {
	if n, ok := s.nodes.Get("", node); ok {
		return n.Labels[corev1.LabelTopologyZone]
	}
	return ""
}

func (s *shell) sync(ctx context.Context, key string) error {
	svc, ok := s.services.All.GetKey(key)
	if !ok || !Selects(svc) || svc.DeletionTimestamp != nil {
		return nil // slices of a deleted Service go with their owner
	}
	list := s.services.Selected(svc)
	p := plan(svc, list, s.zone, s.slices.ByIndex("service", key), Trigger(svc, list))
	res := client.Of[*discoveryv1.EndpointSlice](s.env.T())
	var errs []error
	see := func(got *discoveryv1.EndpointSlice, err error) {
		if err == nil {
			err = loop.See(ctx, s.slices, got)
		}
		errs = append(errs, err)
	}
	for _, e := range p.Create {
		got, err := res.Create(ctx, e)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		see(got, err)
	}
	for _, e := range p.Update {
		see(res.Update(ctx, e))
	}
	for _, e := range p.Delete {
		err := res.Delete(ctx, e.Namespace, e.Name, loop.OfUID(e))
		if err == nil {
			err = loop.Gone(ctx, s.slices, e)
		}
		if !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	for _, e := range errs {
		if e != nil && !loop.Expected(e) {
			s.events.Event(svc, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices", "Error updating Endpoint Slices for Service %s: %v", key, e)
			return fmt.Errorf("write endpoint slices of %s: %w", key, e)
		}
	}
	s.queue.Retry(key)
	return nil
}
