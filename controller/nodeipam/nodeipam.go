// Package nodeipam gives each node its range of pod addresses as soon as the node appears, and never the same range to two
// nodes. It is run by package controller. Addresses of single pods are the node's own business.
package nodeipam

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
	"karve/controller/loop"
)

// Name is the controller's name.
const Name = "node-ipam-controller"

type shell struct {
	env     *loop.Env
	events  loop.Events
	nodes   *client.Cache[*corev1.Node]
	cluster netip.Prefix
	bits    int

	last uint64 // where the next search starts; only the one worker touches it
}

// New returns the controller, which cuts cluster into ranges of size bits; bits 0 means /24, or /64 for IPv6.
func New(env *loop.Env, cluster netip.Prefix, bits int) (*loop.Controller, error) {
	if bits == 0 {
		bits = 24
		if cluster.Addr().Is6() {
			bits = 64
		}
	}
	if err := validate(cluster, bits); err != nil {
		return nil, err
	}
	s := &shell{env: env, events: env.Events("cidrAllocator"), nodes: client.CacheOf[*corev1.Node](env.Caches), cluster: cluster, bits: bits}
	q := loop.NewQueue()
	s.nodes.Handle(func(old, now *corev1.Node) {
		if now != nil && now.Spec.PodCIDR == "" && now.DeletionTimestamp == nil {
			q.Add(now.Name)
		}
	})
	// One worker: two would have to agree on what is free.
	return &loop.Controller{Name: Name, Queue: q, Workers: 1, Sync: s.sync}, nil
}

// inUse lists what nodes hold. A node's ranges are read anew for every allocation, so a restart needs no record.
func inUse(nodes []*corev1.Node) map[netip.Prefix]bool {
	used := map[netip.Prefix]bool{}
	for _, n := range nodes {
		for _, c := range append([]string{n.Spec.PodCIDR}, n.Spec.PodCIDRs...) {
			if p, err := netip.ParsePrefix(c); err == nil {
				used[p.Masked()] = true
			}
		}
	}
	return used
}

func (s *shell) sync(ctx context.Context, name string) error {
	n, ok := s.nodes.Get("", name)
	if !ok || n.Spec.PodCIDR != "" {
		return nil
	}
	p, at, ok := next(s.cluster, s.bits, inUse(s.nodes.List()), s.last)
	if !ok {
		s.events.Event(n, corev1.EventTypeNormal, "CIDRNotAvailable", "Node %s status is now: CIDRNotAvailable", name)
		return fmt.Errorf("give node %s a pod range: every range of %s is taken", name, s.cluster)
	}
	patch := fmt.Appendf(nil, `{"metadata":{"uid":%q},"spec":{"podCIDR":%q,"podCIDRs":[%q]}}`, n.UID, p, p)
	got, err := client.Of[*corev1.Node](s.env.T()).Patch(ctx, "", name, types.StrategicMergePatchType, patch)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("give node %s a pod range: %w", name, err)
	}
	s.last = at + 1
	return loop.See(ctx, s.nodes, got)
}
