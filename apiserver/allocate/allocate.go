// Package allocate gives Services their addresses and node ports. It is a hook of the resource door, so that a claim and
// the write it is for succeed or fail together. What is taken is kept in memory, read from the stored Services at start:
// one process writes the store, so nothing else can take an address meanwhile.
package allocate

import (
	"errors"
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
	ports map[int32]string
}

// New returns an allocator over a service CIDR and an inclusive node port range. Services that exist are told to it by
// Adopt before the first request. The first address is kept for the API server itself.
func New(cidr netip.Prefix, low, high int32) *Services {
	return &Services{cidr: cidr.Masked(), low: low, high: high, addrs: map[netip.Addr]string{}, ports: map[int32]string{}}
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
func ports(svc *corev1.Service) []int32 {
	var out []int32
	for i := range svc.Spec.Ports {
		if n := svc.Spec.Ports[i].NodePort; n != 0 {
			out = append(out, n)
		}
	}
	if n := svc.Spec.HealthCheckNodePort; n != 0 {
		out = append(out, n)
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
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &claim{s: s, owner: owner(svc), old: old}
	for _, step := range []func(*corev1.Service) error{c.address, c.nodePorts, c.healthCheck} {
		if err := step(svc); err != nil {
			c.undo()
			return nil, err
		}
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

func invalid(svc *corev1.Service, errs ...*field.Error) error {
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), svc.Name, errs)
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
	ports []int32
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

// address brings families and addresses in order, and takes an address for a Service that is to have one and has none.
func (c *claim) address(svc *corev1.Service) error {
	sp := &svc.Spec
	if !hasAddress(svc) || unchanged(svc, c.old) {
		return nil
	}
	if errs := c.s.families(svc, c.old); len(errs) > 0 {
		return invalid(svc, errs...)
	}
	if sp.ClusterIP == corev1.ClusterIPNone || c.old != nil && hasAddress(c.old) {
		return nil // it has what it is to have: validation holds it still
	}
	if sp.ClusterIP == "" {
		a, ok := c.s.free()
		if !ok {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: range %s is full", c.s.cidr))
		}
		c.take(a)
		sp.ClusterIP, sp.ClusterIPs = a.String(), []string{a.String()}
		return nil
	}
	a, err := netip.ParseAddr(sp.ClusterIP)
	if err != nil {
		return nil // validation says what is wrong with it
	}
	refuse := func(detail string) error {
		return invalid(svc, field.Invalid(field.NewPath("spec", "clusterIPs"), sp.ClusterIPs, fmt.Sprintf("failed to allocate IP %s: %s", sp.ClusterIP, detail)))
	}
	if _, taken := c.s.addrs[a]; taken {
		return refuse("provided IP is already allocated")
	}
	if !c.s.cidr.Contains(a) {
		return refuse("the provided network does not match the current range")
	}
	c.take(a)
	return nil
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

// nodePorts takes the ports of a Service that is reached at its nodes. A port is taken for every protocol; two of the
// Service's own ports with one number share one.
func (c *claim) nodePorts(svc *corev1.Service) error {
	if svc.Spec.Type != corev1.ServiceTypeNodePort && svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	if c.old != nil {
		return c.changePorts(svc)
	}
	given := map[int32]int32{}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		if p.NodePort == 0 && !wantsPorts(svc) {
			continue
		}
		switch has := given[p.Port]; {
		case has == 0:
			n := requested(svc, p.Port)
			if n == 0 {
				var ok bool
				if n, ok = c.s.freePort(); !ok {
					return apierrors.NewInternalError(errors.New("failed to allocate a nodePort: range is full"))
				}
				c.takePort(n)
			} else if err := c.port(n); err != nil {
				return invalid(svc, nodePortError(i, n, err))
			}
			p.NodePort, given[p.Port] = n, n
		case p.NodePort == 0:
			p.NodePort = has
		case p.NodePort != has:
			if err := c.port(p.NodePort); err != nil {
				return invalid(svc, nodePortError(i, p.NodePort, err))
			}
		}
	}
	return nil
}

// requested is the node port that a Service asks for at a port, 0 for none.
func requested(svc *corev1.Service, port int32) int32 {
	for i := range svc.Spec.Ports {
		if p := &svc.Spec.Ports[i]; p.Port == port && p.NodePort != 0 {
			return p.NodePort
		}
	}
	return 0
}

func nodePortError(i int, n int32, err error) *field.Error {
	return field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), n, err.Error())
}

// changePorts takes the ports that an update adds.
func (c *claim) changePorts(svc *corev1.Service) error {
	var had []int32
	for i := range c.old.Spec.Ports {
		had = append(had, c.old.Spec.Ports[i].NodePort)
	}
	type port struct {
		protocol corev1.Protocol
		number   int32
	}
	seen := map[port]bool{}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		switch {
		case p.NodePort == 0 && !wantsPorts(svc):
			continue
		case p.NodePort == 0:
			n, ok := c.s.freePort()
			if !ok {
				return apierrors.NewInternalError(errors.New("failed to allocate a nodePort: range is full"))
			}
			c.takePort(n)
			p.NodePort = n
		case !slices.Contains(had, p.NodePort) && !slices.Contains(c.ports, p.NodePort):
			if err := c.port(p.NodePort); err != nil {
				return invalid(svc, nodePortError(i, p.NodePort, err))
			}
		}
		k := port{p.Protocol, p.NodePort}
		if seen[k] {
			return apierrors.NewInternalError(fmt.Errorf("duplicate nodePort: %v", k))
		}
		seen[k] = true
	}
	return nil
}

// port takes a port that was asked for.
func (c *claim) port(n int32) error {
	if n < c.s.low || n > c.s.high {
		return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %d-%d", c.s.low, c.s.high)
	}
	if _, taken := c.s.ports[n]; taken {
		return errors.New("provided port is already allocated")
	}
	c.takePort(n)
	return nil
}

// healthCheck claims the port at which a node tells whether it has an endpoint of the Service.
func (c *claim) healthCheck(svc *corev1.Service) error {
	if !wantsHealthCheck(svc) || c.old != nil && wantsHealthCheck(c.old) {
		return nil
	}
	if n := svc.Spec.HealthCheckNodePort; n != 0 {
		if err := c.port(n); err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %w", n, err))
		}
		return nil
	}
	n, ok := c.s.freePort()
	if !ok {
		return apierrors.NewInternalError(errors.New("failed to allocate a HealthCheck NodePort: range is full"))
	}
	svc.Spec.HealthCheckNodePort = n
	c.takePort(n)
	return nil
}

func (c *claim) takePort(n int32) {
	c.s.ports[n] = c.owner
	c.ports = append(c.ports, n)
}

func (s *Services) freePort() (int32, bool) {
	n := s.high - s.low + 1
	start := rand.Int32N(n)
	for i := range n {
		p := s.low + (start+i)%n
		if s.ports[p] == "" {
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
