package dns

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"karve/client"
)

// Names of the cache indexes; the first is the same in package proxy, which wants the same.
const (
	sliceIndex   = "network.service"
	addressIndex = "dns.address"
)

// cached is a directory over the shared caches.
type cached struct {
	svcs *client.Cache[*corev1.Service]
	eps  *client.Cache[*discoveryv1.EndpointSlice]
	ns   *client.Cache[*corev1.Namespace]
}

func newCached(c *client.Caches) *cached {
	d := &cached{svcs: client.CacheOf[*corev1.Service](c), eps: client.CacheOf[*discoveryv1.EndpointSlice](c), ns: client.CacheOf[*corev1.Namespace](c)}
	d.svcs.Index(addressIndex, func(s *corev1.Service) (out []string) {
		eachClusterIP(s, func(a netip.Addr) { out = append(out, a.String()) })
		return out
	})
	d.eps.Index(sliceIndex, func(s *discoveryv1.EndpointSlice) []string {
		if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
			return []string{s.Namespace + "/" + name}
		}
		return nil
	})
	d.eps.Index(addressIndex, func(s *discoveryv1.EndpointSlice) (out []string) {
		if _, is := s.Labels[corev1.IsHeadlessService]; !is { // only those of headless Services have names
			return nil
		}
		for i := range s.Endpoints {
			for _, text := range s.Endpoints[i].Addresses {
				if a, err := netip.ParseAddr(text); err == nil {
					out = append(out, a.Unmap().String())
				}
			}
		}
		return out
	})
	return d
}

func (d *cached) synced() bool {
	for _, ch := range []<-chan struct{}{d.svcs.Synced(), d.eps.Synced(), d.ns.Synced()} {
		select {
		case <-ch:
		default:
			return false
		}
	}
	return true
}

func (d *cached) service(namespace, name string) *corev1.Service {
	s, ok := d.svcs.Get(namespace, name)
	if !ok {
		return nil
	}
	return s
}

func (d *cached) slices(namespace, name string) []*discoveryv1.EndpointSlice {
	return d.eps.ByIndex(sliceIndex, namespace+"/"+name)
}

func (d *cached) byIP(ip netip.Addr) *corev1.Service {
	for _, s := range d.svcs.ByIndex(addressIndex, ip.String()) {
		return s
	}
	return nil
}

func (d *cached) slicesByIP(ip netip.Addr) []*discoveryv1.EndpointSlice {
	return d.eps.ByIndex(addressIndex, ip.String())
}

func (d *cached) namespace(name string) bool {
	_, ok := d.ns.Get("", name)
	return ok
}
