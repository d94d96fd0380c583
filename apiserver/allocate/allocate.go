// Package allocate gives Services their addresses and node ports. It is a hook of the resource door, so that a claim and
// the write it is for succeed or fail together. What is taken is kept in memory, read from the stored Services at start:
// one process writes the store, so nothing else can take an address meanwhile.
package allocate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/apiserver/resource"
)

// Services claims cluster addresses and node ports. Safe for concurrent use.
type Services struct {
	cidr      netip.Prefix
	low, high int32

	mu    sync.Mutex
	addrs map[netip.Addr]string
	ports map[nodePort]string
}

type nodePort struct {
	proto corev1.Protocol
	port  int32
}

// New returns an allocator over a service CIDR and an inclusive node port range. Services that exist are told to it by
// Adopt before the first request. The first address is kept for the API server itself.
func New(cidr netip.Prefix, low, high int32) *Services {
	return &Services{cidr: cidr.Masked(), low: low, high: high, addrs: map[netip.Addr]string{}, ports: map[nodePort]string{}}
}

// Adopt records what an existing Service holds.
func (s *Services) Adopt(svc *corev1.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range addresses(svc) {
		s.addrs[a] = owner(svc)
	}
	for _, k := range ports(svc) {
		s.ports[k] = owner(svc)
	}
}

// ports lists the node ports that a Service holds, that of its health check included.
func ports(svc *corev1.Service) []nodePort {
	var out []nodePort
	for i := range svc.Spec.Ports {
		if p := &svc.Spec.Ports[i]; p.NodePort != 0 {
			out = append(out, nodePort{p.Protocol, p.NodePort})
		}
	}
	if n := svc.Spec.HealthCheckNodePort; n != 0 {
		out = append(out, nodePort{corev1.ProtocolTCP, n})
	}
	return out
}

// wantsHealthCheck says that load balancers ask the nodes which of them have an endpoint.
func wantsHealthCheck(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func owner(svc *corev1.Service) string { return svc.Namespace + "/" + svc.Name }

func addresses(svc *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, s := range svc.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		if a, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// Claim implements resource.Hook.
func (s *Services) Claim(obj, before resource.Object, dryRun bool) (func(), error) {
	svc := obj.(*corev1.Service)
	var old *corev1.Service
	if before != nil {
		old = before.(*corev1.Service)
		keep(svc, old)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &claim{s: s, owner: owner(svc), old: old}
	if err := c.address(svc); err != nil {
		c.undo()
		return nil, invalid(svc, err)
	}
	if err := c.nodePorts(svc); err != nil {
		c.undo()
		return nil, invalid(svc, err)
	}
	if err := c.healthCheck(svc); err != nil {
		c.undo()
		return nil, invalid(svc, err)
	}
	if !dryRun {
		c.giveUp(svc)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.undo()
	}, nil
}

// Release implements resource.Hook: a deleted Service gives everything back.
func (s *Services) Release(obj resource.Object) {
	svc := obj.(*corev1.Service)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range addresses(svc) {
		if s.addrs[a] == owner(svc) {
			delete(s.addrs, a)
		}
	}
	for _, k := range ports(svc) {
		if s.ports[k] == owner(svc) {
			delete(s.ports, k)
		}
	}
}

func invalid(svc *corev1.Service, e *field.Error) error {
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), svc.Name, field.ErrorList{e})
}

// keep carries over what a client leaves out of an update: the address, and the node ports of ports that stay.
func keep(svc, old *corev1.Service) {
	if hasAddress(svc) && hasAddress(old) {
		if svc.Spec.ClusterIP == "" {
			svc.Spec.ClusterIP = old.Spec.ClusterIP
		}
		if len(svc.Spec.ClusterIPs) == 0 && svc.Spec.ClusterIP == old.Spec.ClusterIP {
			svc.Spec.ClusterIPs = old.Spec.ClusterIPs
		}
	}
	if hasAddress(old) && !hasAddress(svc) && svc.Spec.ClusterIP == old.Spec.ClusterIP {
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.IPFamilies, svc.Spec.IPFamilyPolicy = "", nil, nil, nil
	}
	switch was, is := wantsHealthCheck(old), wantsHealthCheck(svc); {
	case was && is && svc.Spec.HealthCheckNodePort == 0:
		svc.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	case was && !is && svc.Spec.HealthCheckNodePort == old.Spec.HealthCheckNodePort:
		svc.Spec.HealthCheckNodePort = 0
	}
	if wantsPorts(old) && !wantsPorts(svc) {
		for i := range svc.Spec.Ports {
			for j := range old.Spec.Ports {
				if svc.Spec.Ports[i].NodePort == old.Spec.Ports[j].NodePort {
					svc.Spec.Ports[i].NodePort = 0
				}
			}
		}
	}
	if wantsPorts(old) && wantsPorts(svc) {
		for i := range svc.Spec.Ports {
			p := &svc.Spec.Ports[i]
			for j := range old.Spec.Ports {
				o := &old.Spec.Ports[j]
				if p.NodePort == 0 && o.Port == p.Port && o.Protocol == p.Protocol && !uses(svc, o.Protocol, o.NodePort) {
					p.NodePort = o.NodePort
				}
			}
		}
	}
}

func uses(svc *corev1.Service, proto corev1.Protocol, port int32) bool {
	for i := range svc.Spec.Ports {
		if svc.Spec.Ports[i].Protocol == proto && svc.Spec.Ports[i].NodePort == port {
			return true
		}
	}
	return false
}

func hasAddress(svc *corev1.Service) bool {
	return svc.Spec.Type != corev1.ServiceTypeExternalName
}

func wantsPorts(svc *corev1.Service) bool {
	if svc.Spec.Type == corev1.ServiceTypeNodePort {
		return true
	}
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && (svc.Spec.AllocateLoadBalancerNodePorts == nil || *svc.Spec.AllocateLoadBalancerNodePorts)
}

// claim is what one write takes; it can be undone.
type claim struct {
	s     *Services
	owner string
	old   *corev1.Service
	addrs []netip.Addr
	ports []nodePort
}

func (c *claim) undo() {
	for _, a := range c.addrs {
		delete(c.s.addrs, a)
	}
	for _, p := range c.ports {
		delete(c.s.ports, p)
	}
	c.addrs, c.ports = nil, nil
}

func (c *claim) address(svc *corev1.Service) *field.Error {
	sp := &svc.Spec
	if !hasAddress(svc) {
		return nil
	}
	if len(sp.IPFamilies) == 0 {
		sp.IPFamilies = []corev1.IPFamily{family(c.s.cidr.Addr())}
	}
	if sp.IPFamilyPolicy == nil {
		single := corev1.IPFamilyPolicySingleStack
		sp.IPFamilyPolicy = &single
	}
	if sp.ClusterIP == "" && len(sp.ClusterIPs) > 0 {
		return nil // the list without its first entry's own field: validation refuses it
	}
	path := field.NewPath("spec", "clusterIPs")
	switch {
	case c.old != nil && c.old.Spec.ClusterIP != "" && hasAddress(c.old) && c.old.Spec.ClusterIP != sp.ClusterIP && sp.ClusterIP != "":
		return nil // an address cannot be exchanged for another: validation says so
	case sp.ClusterIP == corev1.ClusterIPNone:
	case sp.ClusterIP != "":
		a, err := netip.ParseAddr(sp.ClusterIP)
		if err != nil {
			return nil // validation says what is wrong with it
		}
		if by, taken := c.s.addrs[a]; taken {
			if by == c.owner {
				break
			}
			return field.Invalid(path, []string{sp.ClusterIP}, fmt.Sprintf("failed to allocate IP %s: provided IP is already allocated", a))
		}
		if !c.s.cidr.Contains(a) {
			return field.Invalid(path, []string{sp.ClusterIP}, fmt.Sprintf("failed to allocate IP %s: the provided network does not match the current range", a))
		}
		c.take(a)
	default:
		a, ok := c.s.free()
		if !ok {
			return field.InternalError(path, fmt.Errorf("failed to allocate a serviceIP: range %s is full", c.s.cidr))
		}
		c.take(a)
		sp.ClusterIP = a.String()
	}
	if len(sp.ClusterIPs) == 0 {
		sp.ClusterIPs = []string{sp.ClusterIP}
	}
	return nil
}

func family(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

func (c *claim) take(a netip.Addr) {
	c.s.addrs[a] = c.owner
	c.addrs = append(c.addrs, a)
}

// free picks an address at random, so that one just given back is unlikely to be used again while clients remember it.
func (s *Services) free() (netip.Addr, bool) {
	bits := s.cidr.Addr().BitLen() - s.cidr.Bits()
	size := uint64(1) << min(bits, 20)
	if size <= 2 {
		return netip.Addr{}, false
	}
	start := rand.Uint64N(size)
	for i := range size {
		n := (start + i) % size
		if n < 2 || n == size-1 { // the network, the API server's own, the broadcast address
			continue
		}
		if a := nth(s.cidr.Addr(), n); s.addrs[a] == "" {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func nth(base netip.Addr, n uint64) netip.Addr {
	b := base.AsSlice()
	for i := len(b) - 1; i >= 0 && n > 0; i-- {
		n += uint64(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (c *claim) nodePorts(svc *corev1.Service) *field.Error {
	if svc.Spec.Type != corev1.ServiceTypeNodePort && svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		path := field.NewPath("spec", "ports").Index(i).Child("nodePort")
		if p.NodePort != 0 {
			if err := c.port(path, p); err != nil {
				return err
			}
			continue
		}
		if !wantsPorts(svc) {
			continue
		}
		n, ok := c.s.freePort(p.Protocol)
		if !ok {
			return field.InternalError(path, fmt.Errorf("failed to allocate a nodePort: range is full"))
		}
		p.NodePort = n
		c.takePort(nodePort{p.Protocol, n})
	}
	return nil
}

func (c *claim) port(path *field.Path, p *corev1.ServicePort) *field.Error {
	k := nodePort{p.Protocol, p.NodePort}
	if by, taken := c.s.ports[k]; taken {
		if by == c.owner {
			return nil
		}
		return field.Invalid(path, p.NodePort, "provided port is already allocated")
	}
	if p.NodePort < c.s.low || p.NodePort > c.s.high {
		return field.Invalid(path, p.NodePort, fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", c.s.low, c.s.high))
	}
	c.takePort(k)
	return nil
}

// healthCheck claims the port at which a node tells whether it has an endpoint of the Service.
func (c *claim) healthCheck(svc *corev1.Service) *field.Error {
	if !wantsHealthCheck(svc) {
		return nil
	}
	path := field.NewPath("spec", "healthCheckNodePort")
	if n := svc.Spec.HealthCheckNodePort; n != 0 {
		return c.port(path, &corev1.ServicePort{Protocol: corev1.ProtocolTCP, NodePort: n})
	}
	n, ok := c.s.freePort(corev1.ProtocolTCP)
	if !ok {
		return field.InternalError(path, fmt.Errorf("failed to allocate a HealthCheck NodePort: range is full"))
	}
	svc.Spec.HealthCheckNodePort = n
	c.takePort(nodePort{corev1.ProtocolTCP, n})
	return nil
}

func (c *claim) takePort(k nodePort) {
	c.s.ports[k] = c.owner
	c.ports = append(c.ports, k)
}

func (s *Services) freePort(proto corev1.Protocol) (int32, bool) {
	n := s.high - s.low + 1
	start := rand.Int32N(n)
	for i := range n {
		p := s.low + (start+i)%n
		if s.ports[nodePort{proto, p}] == "" {
			return p, true
		}
	}
	return 0, false
}

// giveUp frees what the old Service held and the new one does not.
func (c *claim) giveUp(svc *corev1.Service) {
	if c.old == nil {
		return
	}
	held := map[netip.Addr]bool{}
	for _, a := range addresses(svc) {
		held[a] = true
	}
	for _, a := range addresses(c.old) {
		if !held[a] && c.s.addrs[a] == c.owner {
			delete(c.s.addrs, a)
		}
	}
	kept := ports(svc)
	for _, k := range ports(c.old) {
		if !slices.Contains(kept, k) && c.s.ports[k] == c.owner {
			delete(c.s.ports, k)
		}
	}
}
