// Package endpoints keeps the older Endpoints object of each Service for clients that still read it. plan decides; the
// shell writes. It is run by package controller; EndpointSlices are the business of package endpointslice.
package endpoints

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/controller/endpointslice"
	"karve/controller/loop"
	"karve/controller/pods"
)

// Name is the controller's name.
const Name = "endpoints-controller"

const (
	labelManagedBy = "endpoints.kubernetes.io/managed-by"
	managedBy      = "endpoint-controller"
	// most is how many addresses an Endpoints object holds; more are left out and said to be.
	most = 1000
)

// plan returns the Endpoints that svc should have, given what it has (nil if none); nil when nothing has to change.
func plan(svc *corev1.Service, list []*corev1.Pod, have *corev1.Endpoints, trigger time.Time) *corev1.Endpoints {
	want := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: svc.Name, Namespace: svc.Namespace}}
	if have != nil {
		want = have.DeepCopy()
	}
	var over bool
	want.Subsets, over = subsets(svc, list)
	want.Labels = maps.Clone(svc.Labels)
	if want.Labels == nil {
		want.Labels = map[string]string{}
	}
	want.Labels[labelManagedBy] = managedBy
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		want.Labels[corev1.IsHeadlessService] = ""
	} else {
		delete(want.Labels, corev1.IsHeadlessService)
	}
	if want.Annotations == nil {
		want.Annotations = map[string]string{}
	}
	delete(want.Annotations, corev1.EndpointsOverCapacity)
	if over {
		want.Annotations[corev1.EndpointsOverCapacity] = "truncated"
	}
	if have != nil && apiequality.Semantic.DeepEqual(have.Subsets, want.Subsets) && maps.Equal(have.Labels, want.Labels) &&
		have.Annotations[corev1.EndpointsOverCapacity] == want.Annotations[corev1.EndpointsOverCapacity] {
		return nil
	}
	want.Annotations[corev1.EndpointsLastChangeTriggerTime] = trigger.UTC().Format(time.RFC3339Nano)
	return want
}

// subsets groups addresses that have the same ports, ready and not ready apart, in a fixed order.
func subsets(svc *corev1.Service, list []*corev1.Pod) (out []corev1.EndpointSubset, over bool) {
	family := endpointslice.Families(svc)[0]
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(endpointslice.Address(a, family), endpointslice.Address(b, family)), cmp.Compare(a.UID, b.UID))
	})
	groups := map[string]*corev1.EndpointSubset{}
	n := 0
	for _, p := range list {
		ip := endpointslice.Address(p, family)
		if ip == "" || pods.Finished(p) || p.DeletionTimestamp != nil && !svc.Spec.PublishNotReadyAddresses {
			continue
		}
		if n++; n > most {
			over = true
			continue
		}
		a := corev1.EndpointAddress{IP: ip, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}}
		if node := p.Spec.NodeName; node != "" {
			a.NodeName = &node
		}
		if p.Spec.Hostname != "" && p.Spec.Subdomain == svc.Name {
			a.Hostname = p.Spec.Hostname
		}
		var ports []corev1.EndpointPort
		for i := range svc.Spec.Ports {
			sp := &svc.Spec.Ports[i]
			if t, ok := endpointslice.TargetPort(p, sp); ok {
				ports = append(ports, corev1.EndpointPort{Name: sp.Name, Port: t, Protocol: sp.Protocol, AppProtocol: sp.AppProtocol})
			}
		}
		if len(ports) == 0 && len(svc.Spec.Ports) > 0 {
			continue
		}
		slices.SortFunc(ports, func(a, b corev1.EndpointPort) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port))
		})
		key := fmt.Sprint(ports)
		g := groups[key]
		if g == nil {
			g = &corev1.EndpointSubset{Ports: ports}
			groups[key] = g
		}
		if svc.Spec.PublishNotReadyAddresses || pods.Ready(p) {
			g.Addresses = append(g.Addresses, a)
		} else {
			g.NotReadyAddresses = append(g.NotReadyAddresses, a)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, *groups[key])
	}
	return out, over
}

type shell struct {
	env      *loop.Env
	events   loop.Events
	services *endpointslice.Services
	all      *client.Cache[*corev1.Endpoints]
}

// New returns the Endpoints controller.
func New(env *loop.Env) *loop.Controller {
	q := loop.NewQueue()
	s := &shell{env: env, events: env.Events(managedBy), services: endpointslice.Follow(env, q), all: client.CacheOf[*corev1.Endpoints](env.Caches)}
	s.all.Handle(func(old, now *corev1.Endpoints) {
		if now == nil {
			now = old
		}
		q.Add(client.Key(now))
	})
	return &loop.Controller{Name: Name, Queue: q, Workers: 2, Sync: s.sync}
}

func (s *shell) sync(ctx context.Context, key string) error {
	res := client.Of[*corev1.Endpoints](s.env.T())
	have, exists := s.all.GetKey(key)
	svc, ok := s.services.All.GetKey(key)
	if !ok {
		if !exists || have.Labels[labelManagedBy] != managedBy {
			return nil // someone else's: an election record, or a hand-made one
		}
		if err := res.Delete(ctx, have.Namespace, have.Name, loop.OfUID(have)); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete endpoints %s: %w", key, err)
		}
		return nil
	}
	if !endpointslice.Selects(svc) {
		return nil
	}
	if !exists {
		have = nil
	}
	list := s.services.Selected(svc)
	want := plan(svc, list, have, endpointslice.Trigger(svc, list))
	if want == nil {
		return nil
	}
	var got *corev1.Endpoints
	var err error
	if have == nil {
		got, err = res.Create(ctx, want)
	} else {
		got, err = res.Update(ctx, want)
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if err != nil {
		if !loop.Expected(err) {
			s.events.Event(svc, corev1.EventTypeWarning, "FailedToUpdateEndpoint", "Failed to update endpoint %s: %v", key, err)
		}
		return fmt.Errorf("write endpoints %s: %w", key, err)
	}
	return loop.See(ctx, s.all, got)
}
