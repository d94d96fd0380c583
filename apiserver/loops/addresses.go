// Package loops keeps in order what the API server itself owes its clients beside answers: an IPAddress object for every
// address a Service holds, and the word that the range they come from is ready. The server runs it from its caches, after
// the bootstrap objects are there. It gives out no addresses: that is apiserver/allocate, in the write of the Service; what
// is written here only shows it.
package loops

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
)

const (
	// managedBy marks the IPAddress objects that are ours to make and to remove.
	managedBy = "ipallocator.k8s.io"
	// again is how long a write that was refused waits for its next try.
	again   = 5 * time.Second
	byIndex = "address"
)

// Addresses makes the IPAddress objects of Services. Make it before the caches run.
type Addresses struct {
	log      *slog.Logger
	services *client.Cache[*corev1.Service]
	shown    *client.Cache[*netv1.IPAddress]
	write    client.Resource[*netv1.IPAddress]

	mu    sync.Mutex
	dirty map[string]bool
	wake  chan struct{}
}

// NewAddresses returns a loop over the Services of caches.
func NewAddresses(caches *client.Caches, log *slog.Logger) *Addresses {
	a := &Addresses{log: log, services: client.CacheOf[*corev1.Service](caches), shown: client.CacheOf[*netv1.IPAddress](caches),
		write: client.Of[*netv1.IPAddress](caches.Transport()), dirty: map[string]bool{}, wake: make(chan struct{}, 1)}
	a.services.Index(byIndex, addresses)
	a.services.Handle(func(old, now *corev1.Service) {
		for _, s := range []*corev1.Service{old, now} {
			if s != nil {
				a.look(addresses(s)...)
			}
		}
	})
	a.shown.Handle(func(old, now *netv1.IPAddress) {
		if now == nil {
			now = old
		}
		a.look(now.Name)
	})
	return a
}

// addresses lists the addresses that a Service holds, as their objects are called.
func addresses(s *corev1.Service) []string {
	var out []string
	for _, ip := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			out = append(out, a.String())
		}
	}
	return out
}

func (a *Addresses) look(ips ...string) {
	if len(ips) == 0 {
		return
	}
	a.mu.Lock()
	for _, ip := range ips {
		a.dirty[ip] = true
	}
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (a *Addresses) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		a.mu.Lock()
		batch := a.dirty
		a.dirty = map[string]bool{}
		a.mu.Unlock()
		for ip := range batch {
			if err := a.settle(ctx, ip); err != nil && ctx.Err() == nil {
				a.log.Warn("address object of a service not written", "address", ip, "err", err)
				time.AfterFunc(again, func() { a.look(ip) })
			}
		}
	}
}

// settle makes one address's object say what the Services say.
func (a *Addresses) settle(ctx context.Context, ip string) error {
	have, shown := a.shown.Get("", ip)
	want := wanted(ip, a.services.ByIndex(byIndex, ip))
	var err error
	switch {
	case want != nil && !shown:
		if _, err = a.write.Create(ctx, want); apierrors.IsAlreadyExists(err) {
			err = nil
		}
	case shown && have.Labels[netv1.LabelManagedBy] == managedBy && (want == nil || !same(have, want)):
		// what another Service holds now is made when this is seen to be gone
		if err = a.write.Delete(ctx, "", ip, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &have.UID}}); apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("show address %s: %w", ip, err)
	}
	return nil
}

// wanted is the object of an address, nil for an address that no Service holds.
func wanted(ip string, owners []*corev1.Service) *netv1.IPAddress {
	a, err := netip.ParseAddr(ip)
	if err != nil || len(owners) == 0 {
		return nil
	}
	family := corev1.IPv4Protocol
	if a.Is6() {
		family = corev1.IPv6Protocol
	}
	s := owners[0]
	return &netv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: ip, Labels: map[string]string{netv1.LabelIPAddressFamily: string(family), netv1.LabelManagedBy: managedBy}},
		Spec: netv1.IPAddressSpec{ParentRef: &netv1.ParentReference{Resource: "services", Namespace: s.Namespace, Name: s.Name}}}
}

func same(have, want *netv1.IPAddress) bool {
	return have.Spec.ParentRef != nil && *have.Spec.ParentRef == *want.Spec.ParentRef
}

// RangeReady says in the status of the default ServiceCIDR that Services get their addresses from it.
func RangeReady(ctx context.Context, t client.Transport, now time.Time) error {
	ranges := client.Of[*netv1.ServiceCIDR](t)
	r, err := ranges.Get(ctx, "", "kubernetes")
	if err != nil {
		return fmt.Errorf("read default service range: %w", err)
	}
	for _, c := range r.Status.Conditions {
		if c.Type == netv1.ServiceCIDRConditionReady && c.Status == metav1.ConditionTrue {
			return nil
		}
	}
	r = r.DeepCopy()
	r.Status.Conditions = append(r.Status.Conditions, metav1.Condition{Type: netv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue,
		LastTransitionTime: metav1.NewTime(now), Message: "Kubernetes default Service CIDR is ready"})
	if _, err := ranges.UpdateStatus(ctx, r); err != nil {
		return fmt.Errorf("say that the default service range is ready: %w", err)
	}
	return nil
}
