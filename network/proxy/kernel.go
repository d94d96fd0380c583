package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"karve/network/nft"
)

// serviceRoute leads the service range to lo, so that a connection from this namespace finds a route, and with it a source
// address, before its destination is translated; what stays untranslated is refused or dropped by the filter chains.
func (p *Proxy) serviceRoute() *netlink.Route {
	c := p.opts.ServiceCIDR
	if !c.IsValid() {
		return nil
	}
	r := &netlink.Route{LinkIndex: 1, Dst: prefixNet(c), Table: unix.RT_TABLE_MAIN, Priority: 1024, Scope: netlink.SCOPE_LINK}
	if c.Addr().Is6() {
		r.Scope = netlink.SCOPE_UNIVERSE
	}
	for _, ip := range p.opts.NodeIPs {
		if ip.Is6() == c.Addr().Is6() {
			r.Src = ip.AsSlice()
			break
		}
	}
	return r
}

func prefixNet(p netip.Prefix) *net.IPNet {
	p = p.Masked()
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (p *Proxy) route() error {
	r := p.serviceRoute()
	if r == nil {
		return nil
	}
	err := netlink.RouteReplace(r)
	if err != nil && r.Src != nil { // the node's address may not be on an interface of this namespace
		r.Src = nil
		err = netlink.RouteReplace(r)
	}
	if err != nil {
		return fmt.Errorf("route service range %s: %w", p.opts.ServiceCIDR, err)
	}
	return nil
}

func (p *Proxy) unroute() error {
	r := p.serviceRoute()
	if r == nil {
		return nil
	}
	r.Src = nil
	if err := netlink.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route of service range %s: %w", p.opts.ServiceCIDR, err)
	}
	return nil
}

// forget ends the kernel's memory of UDP conversations with endpoints that have gone.
func (p *Proxy) forget(s *side, del, add []nft.Element) {
	flows := lost(s.v6, del, add)
	if len(flows) == 0 {
		return
	}
	fam := netlink.InetFamily(unix.AF_INET)
	if s.v6 {
		fam = unix.AF_INET6
	}
	set := make(flowSet, len(flows))
	for _, f := range flows {
		set[f] = true
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, fam, set); err != nil {
		p.opts.Log.Warn("end UDP conversations with removed endpoints", "err", err)
	}
}

type flowSet map[flow]bool

// MatchConntrackFlow makes flowSet a filter of the conntrack table.
func (s flowSet) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != udp {
		return false
	}
	front, _ := netip.AddrFromSlice(f.Forward.DstIP)
	ep, _ := netip.AddrFromSlice(f.Reverse.SrcIP)
	return s[flow{front: netip.AddrPortFrom(front.Unmap(), f.Forward.DstPort),
		endpoint: netip.AddrPortFrom(ep.Unmap(), f.Reverse.SrcPort)}]
}
