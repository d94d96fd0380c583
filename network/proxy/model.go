package proxy

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Front is one address that clients connect to: a cluster IP, a node port or a load balancer address.
type Front struct {
	Addr  netip.Addr
	Proto uint8 // IP protocol number
	Port  uint16
}

// Kind says how a Front's connections are treated.
type Kind uint8

const (
	// Internal is a cluster IP: the source address stays as it is for pods and for the node itself.
	Internal Kind = iota
	// External is a node port or load balancer address that may lead to other nodes: the source becomes the node's.
	External
	// ExternalLocal is one whose clients outside the cluster reach this node's endpoints only, and keep their address.
	ExternalLocal
)

// Backend is what stands behind a Front.
type Backend struct {
	Kind Kind
	// Local are the endpoints for outside clients of an ExternalLocal front; it is empty for the other kinds.
	Local []netip.AddrPort
	// All are the endpoints for everybody else.
	All []netip.AddrPort
	// Drop means there are endpoints, but none that this node may use: packets go nowhere. Without it, an empty backend refuses.
	Drop bool
	// Affinity is for how many seconds after its last connection a client returns to the same endpoint; 0 for not at all.
	Affinity int32
}

// View is what one node needs to know of itself to turn Services into a Plan.
type View struct {
	NodeName string
	Zone     string
	NodeIPs  []netip.Addr
	Skip     map[netip.Addr]bool
}

// Plan is the desired programme of one Service.
type Plan struct {
	Fronts map[Front]Backend
	// Hairpin are the endpoints on this node: a pod may be led back to itself.
	Hairpin []netip.Addr
}

// protocols are the transport protocols a Service may use, by IP protocol number.
var protocols = map[corev1.Protocol]uint8{corev1.ProtocolTCP: 6, corev1.ProtocolUDP: 17, corev1.ProtocolSCTP: 132, "": 6}

type endpoint struct {
	at                          netip.AddrPort
	ready, serving, terminating bool
	local                       bool
	here, hinted                bool // for this node or zone by hint; has a hint of the kind
}

// Make returns the plan for one Service and its EndpointSlices. It is pure.
func Make(v View, svc *corev1.Service, all []*discoveryv1.EndpointSlice) Plan {
	p := Plan{Fronts: map[Front]Backend{}}
	if svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == corev1.ClusterIPNone || svc.Spec.ClusterIP == "" {
		return p
	}
	hairpin := map[netip.Addr]bool{}
	for _, vip := range clusterIPs(svc) {
		for i := range svc.Spec.Ports {
			port := &svc.Spec.Ports[i]
			proto, ok := protocols[port.Protocol]
			if !ok {
				continue
			}
			eps := endpoints(v, all, port, vip.Is6())
			for _, e := range eps {
				if e.local {
					hairpin[e.at.Addr()] = true
				}
			}
			internal, external := backends(v, svc, eps)
			p.add(v, Front{vip, proto, uint16(port.Port)}, internal)
			if port.NodePort != 0 {
				for _, ip := range v.NodeIPs {
					if ip.Is6() == vip.Is6() {
						p.add(v, Front{ip, proto, uint16(port.NodePort)}, external)
					}
				}
			}
			for _, ip := range balancerIPs(svc) {
				if ip.Is6() == vip.Is6() {
					p.add(v, Front{ip, proto, uint16(port.Port)}, external)
				}
			}
		}
	}
	if len(p.Fronts) > 0 {
		for ip := range hairpin {
			p.Hairpin = append(p.Hairpin, ip)
		}
		slices.SortFunc(p.Hairpin, netip.Addr.Compare)
	}
	return p
}

func (p *Plan) add(v View, f Front, b Backend) {
	if !v.Skip[f.Addr] {
		p.Fronts[f] = b
	}
}

// clusterIPs returns the Service's addresses, one per family.
func clusterIPs(svc *corev1.Service) []netip.Addr {
	all := svc.Spec.ClusterIPs
	if len(all) == 0 {
		all = []string{svc.Spec.ClusterIP}
	}
	var out []netip.Addr
	for _, s := range all {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func balancerIPs(svc *corev1.Service) []netip.Addr {
	var out []netip.Addr
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	for _, in := range svc.Status.LoadBalancer.Ingress {
		if in.IPMode != nil && *in.IPMode == corev1.LoadBalancerIPModeProxy {
			continue
		}
		if a, err := netip.ParseAddr(in.IP); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func isTrue(b *bool, unset bool) bool {
	if b == nil {
		return unset
	}
	return *b
}

// endpoints collects the addresses behind one port of the Service, of one family, sorted and each once.
func endpoints(v View, all []*discoveryv1.EndpointSlice, port *corev1.ServicePort, v6 bool) []endpoint {
	kind := discoveryv1.AddressTypeIPv4
	if v6 {
		kind = discoveryv1.AddressTypeIPv6
	}
	var out []endpoint
	for _, s := range all {
		number, ok := portOf(s, port)
		if s.AddressType != kind || !ok {
			continue
		}
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if len(e.Addresses) == 0 {
				continue
			}
			addr, err := netip.ParseAddr(e.Addresses[0])
			if err != nil || addr.Unmap().Is6() != v6 {
				continue
			}
			ready := isTrue(e.Conditions.Ready, true)
			ep := endpoint{at: netip.AddrPortFrom(addr.Unmap(), number), ready: ready,
				serving: isTrue(e.Conditions.Serving, ready), terminating: isTrue(e.Conditions.Terminating, false),
				local: e.NodeName != nil && *e.NodeName == v.NodeName}
			ep.hint(v, e.Hints)
			out = append(out, ep)
		}
	}
	// An address that stands in two slices, as while it moves, counts once, by its better state.
	slices.SortFunc(out, func(a, b endpoint) int {
		return cmp.Or(a.at.Compare(b.at), order(b.ready)-order(a.ready), order(b.serving)-order(a.serving))
	})
	return slices.CompactFunc(out, func(a, b endpoint) bool { return a.at == b.at })
}

func order(b bool) int {
	if b {
		return 1
	}
	return 0
}

func portOf(s *discoveryv1.EndpointSlice, port *corev1.ServicePort) (uint16, bool) {
	want := port.Protocol
	if want == "" {
		want = corev1.ProtocolTCP
	}
	for _, p := range s.Ports {
		name, proto := "", corev1.ProtocolTCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Protocol != nil {
			proto = *p.Protocol
		}
		if name == port.Name && proto == want && p.Port != nil && *p.Port > 0 {
			return uint16(*p.Port), true
		}
	}
	return 0, false
}

func (e *endpoint) hint(v View, h *discoveryv1.EndpointHints) {
	if h == nil {
		return
	}
	for _, n := range h.ForNodes {
		e.hinted = true
		e.here = e.here || n.Name == v.NodeName
	}
	if e.hinted {
		return
	}
	for _, z := range h.ForZones {
		e.hinted = true
		e.here = e.here || v.Zone != "" && z.Name == v.Zone
	}
}

// usable returns the ready endpoints, or, when there is none, those that still serve while they terminate.
func usable(eps []endpoint) []endpoint {
	var ready, leaving []endpoint
	for _, e := range eps {
		switch {
		case e.ready:
			ready = append(ready, e)
		case e.serving && e.terminating:
			leaving = append(leaving, e)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return leaving
}

// hinted narrows the endpoints to those meant for this node or zone, if all carry a hint and any is.
func hinted(eps []endpoint) []endpoint {
	var here []endpoint
	for _, e := range eps {
		if !e.hinted {
			return eps
		}
		if e.here {
			here = append(here, e)
		}
	}
	if len(here) == 0 {
		return eps
	}
	return here
}

func addresses(eps []endpoint) []netip.AddrPort {
	var out []netip.AddrPort
	for _, e := range eps {
		out = append(out, e.at)
	}
	return out
}

// backends returns what stands behind the cluster IP, and behind the outside addresses, of one port.
func backends(v View, svc *corev1.Service, eps []endpoint) (internal, external Backend) {
	var mine []endpoint
	for _, e := range eps {
		if e.local {
			mine = append(mine, e)
		}
	}
	any := usable(eps)
	cluster, local := addresses(hinted(any)), addresses(usable(mine))
	internal = Backend{Kind: Internal, All: cluster}
	if p := svc.Spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		internal.All = local
		internal.Drop = len(local) == 0 && len(any) > 0
	}
	external = Backend{Kind: External, All: cluster}
	if svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && len(any) > 0 {
		external.Kind, external.Local = ExternalLocal, local
	}
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		seconds := int32(10800)
		if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			seconds = *c.ClientIP.TimeoutSeconds
		}
		internal.Affinity, external.Affinity = seconds, seconds
	}
	return internal, external
}
