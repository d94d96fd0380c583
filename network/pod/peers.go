package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"karve/client"
)

const (
	vxlanName = "karve-vx"
	// routeOwner marks the routes to peers, so that SetPeers knows its own.
	routeOwner netlink.RouteProtocol = 107
)

// Peer is another node. A node may have several ranges: one Peer for each.
type Peer struct {
	Node    string
	NodeIP  netip.Addr
	PodCIDR netip.Prefix
}

// SetPeers makes the pods of exactly these nodes reachable. It is complete and may be repeated.
func (n *Network) SetPeers(_ context.Context, peers []Peer) error {
	if err := n.ready(); err != nil {
		return fmt.Errorf("set peers: %w", err)
	}
	n.peersMu.Lock()
	defer n.peersMu.Unlock()
	var direct, tunnel []Peer
	for _, p := range peers {
		if !p.PodCIDR.IsValid() || !p.PodCIDR.Addr().Is4() || !p.NodeIP.Is4() || p.PodCIDR.Overlaps(n.opts.PodCIDR) {
			continue
		}
		if n.opts.Mode == Direct || n.opts.Mode == Auto && n.onLink(p.NodeIP) {
			direct = append(direct, p)
		} else {
			tunnel = append(tunnel, p)
		}
	}
	var routes []*netlink.Route
	var errs error
	for _, p := range direct {
		routes = append(routes, n.directRoute(p))
	}
	if len(tunnel) > 0 {
		vx, err := n.vxlan()
		if err != nil {
			return err
		}
		for _, p := range tunnel {
			routes = append(routes, &netlink.Route{LinkIndex: vx.Attrs().Index, Dst: netOf(p.PodCIDR), Gw: gatewayOf(p.PodCIDR).AsSlice(),
				Flags: int(netlink.FLAG_ONLINK), Src: n.gateway.AsSlice()})
		}
		errs = n.neighbours(vx, tunnel)
	} else if err := n.removeVXLAN(); err != nil {
		errs = err
	}
	return errors.Join(errs, n.routes(routes))
}

// onLink reports whether the address is reached without a router.
func (n *Network) onLink(a netip.Addr) bool {
	rs, err := n.host.RouteGet(a.AsSlice())
	return err == nil && len(rs) > 0 && rs[0].Gw == nil && rs[0].Type == unix.RTN_UNICAST && rs[0].LinkIndex != loopback
}

func (n *Network) directRoute(p Peer) *netlink.Route {
	r := &netlink.Route{Dst: netOf(p.PodCIDR), Gw: p.NodeIP.AsSlice()}
	if rs, err := n.host.RouteGet(p.NodeIP.AsSlice()); err == nil && len(rs) > 0 {
		r.LinkIndex = rs[0].LinkIndex
		if rs[0].Gw == nil {
			r.Flags = int(netlink.FLAG_ONLINK)
		} else {
			r.Gw = rs[0].Gw
		}
	}
	return r
}

// routes makes the routes to peers exactly these.
func (n *Network) routes(want []*netlink.Route) error {
	have, err := n.host.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeOwner, Table: unix.RT_TABLE_MAIN},
		netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes to peers: %w", err)
	}
	same := func(a *netlink.Route, b *netlink.Route) bool {
		return a.Dst.String() == b.Dst.String() && a.Gw.Equal(b.Gw) && a.LinkIndex == b.LinkIndex
	}
	var errs error
	wanted := map[string]bool{}
	for _, r := range want {
		wanted[r.Dst.String()] = true
		if slices.ContainsFunc(have, func(h netlink.Route) bool { return same(&h, r) }) {
			continue
		}
		r.Protocol, r.Table = routeOwner, unix.RT_TABLE_MAIN
		if err := n.host.RouteReplace(r); err != nil {
			errs = errors.Join(errs, fmt.Errorf("route to pods %s by %s: %w", r.Dst, r.Gw, err))
		}
	}
	for _, h := range have {
		if !wanted[h.Dst.String()] {
			if err := n.host.RouteDel(&h); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = errors.Join(errs, fmt.Errorf("remove route to pods %s: %w", h.Dst, err))
			}
		}
	}
	return errs
}

// hardware derives a node's address inside the VXLAN from its pod range, so that nodes need not tell each other.
func hardware(c netip.Prefix) net.HardwareAddr {
	b := c.Masked().Addr().As4()
	return net.HardwareAddr{0x02, 0x6b, b[0], b[1], b[2], b[3]}
}

// vxlan returns the VXLAN interface, making it when it is missing or differs from the options.
func (n *Network) vxlan() (netlink.Link, error) {
	under, err := n.linkOf(n.opts.NodeIP)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", vxlanName, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.Flags = vxlanName, hardware(n.opts.PodCIDR), net.FlagUp
	attrs.MTU = under.Attrs().MTU - vxlanHeaders
	want := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: n.opts.VNI, Port: n.opts.Port, VtepDevIndex: under.Attrs().Index,
		SrcAddr: n.opts.NodeIP.AsSlice()}
	var link netlink.Link = want
	if old, err := n.host.LinkByName(vxlanName); err == nil {
		o, ok := old.(*netlink.Vxlan)
		if ok && o.VxlanId == want.VxlanId && o.Port == want.Port && o.VtepDevIndex == want.VtepDevIndex &&
			o.SrcAddr.Equal(want.SrcAddr) && o.HardwareAddr.String() == want.HardwareAddr.String() && o.MTU == want.MTU {
			link = old
		} else if err := n.host.LinkDel(old); err != nil {
			return nil, fmt.Errorf("replace %s: %w", vxlanName, err)
		}
	}
	if link == netlink.Link(want) {
		if err := n.host.LinkAdd(want); err != nil {
			return nil, fmt.Errorf("make %s: %w", vxlanName, err)
		}
	}
	if err := sysctl("net/ipv4/conf/"+vxlanName+"/rp_filter", "2"); err != nil {
		return nil, err
	}
	if err := n.host.AddrReplace(link, &netlink.Addr{IPNet: host32(n.gateway)}); err != nil {
		return nil, fmt.Errorf("add address to %s: %w", vxlanName, err)
	}
	if err := n.host.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set %s up: %w", vxlanName, err)
	}
	return link, nil
}

func (n *Network) removeVXLAN() error {
	link, err := n.host.LinkByName(vxlanName)
	if err != nil {
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return nil
		}
		return fmt.Errorf("find %s: %w", vxlanName, err)
	}
	if err := n.host.LinkDel(link); err != nil {
		return fmt.Errorf("remove %s: %w", vxlanName, err)
	}
	return nil
}

// neighbours makes the permanent entries of the VXLAN interface exactly those of the peers: which hardware address has a
// peer's gateway address, and which node has a hardware address.
func (n *Network) neighbours(vx netlink.Link, peers []Peer) error {
	index := vx.Attrs().Index
	var errs error
	wanted := map[string]bool{}
	for _, p := range peers {
		mac := hardware(p.PodCIDR)
		for _, e := range []*netlink.Neigh{
			{LinkIndex: index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: gatewayOf(p.PodCIDR).AsSlice(), HardwareAddr: mac},
			{LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF, IP: p.NodeIP.AsSlice(), HardwareAddr: mac},
		} {
			wanted[e.IP.String()+e.HardwareAddr.String()] = true
			if err := n.host.NeighSet(e); err != nil {
				errs = errors.Join(errs, fmt.Errorf("neighbour %s of %s: %w", e.IP, vxlanName, err))
			}
		}
	}
	for _, fam := range []int{unix.AF_INET, unix.AF_BRIDGE} {
		have, err := n.host.NeighList(index, fam)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("list neighbours of %s: %w", vxlanName, err))
		}
		for _, h := range have {
			if h.State&netlink.NUD_PERMANENT == 0 || h.IP == nil || wanted[h.IP.String()+h.HardwareAddr.String()] {
				continue
			}
			if err := n.host.NeighDel(&h); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = errors.Join(errs, fmt.Errorf("remove neighbour %s of %s: %w", h.IP, vxlanName, err))
			}
		}
	}
	return errs
}

// Peers keeps a Network's peers those of the cluster's Nodes.
type Peers struct {
	net   *Network
	nodes *client.Cache[*corev1.Node]
	self  string
	log   *slog.Logger
	wake  chan struct{}
}

// NewPeers returns a follower that does nothing until Run. Make it before the caches run.
func NewPeers(net *Network, caches *client.Caches, self string) *Peers {
	p := &Peers{net: net, nodes: client.CacheOf[*corev1.Node](caches), self: self, log: net.opts.Log, wake: make(chan struct{}, 1)}
	p.nodes.Handle(func(old, now *corev1.Node) {
		if old != nil && now != nil && slices.Equal(peersOf(old), peersOf(now)) {
			return // a heartbeat
		}
		select {
		case p.wake <- struct{}{}:
		default:
		}
	})
	return p
}

// peersOf returns the ranges of a Node with its internal address; none while it lacks either.
func peersOf(n *corev1.Node) []Peer {
	var ip netip.Addr
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP && !ip.IsValid() {
			if x, err := netip.ParseAddr(a.Address); err == nil && x.Is4() {
				ip = x
			}
		}
	}
	if !ip.IsValid() {
		return nil
	}
	ranges := n.Spec.PodCIDRs
	if len(ranges) == 0 && n.Spec.PodCIDR != "" {
		ranges = []string{n.Spec.PodCIDR}
	}
	var out []Peer
	for _, r := range ranges {
		if c, err := netip.ParsePrefix(r); err == nil {
			out = append(out, Peer{Node: n.Name, NodeIP: ip, PodCIDR: c})
		}
	}
	return out
}

// Run follows the Nodes until ctx ends and leaves the routes in place. The Network must be up.
func (p *Peers) Run(ctx context.Context) error {
	select {
	case <-p.nodes.Synced():
	case <-ctx.Done():
		return nil
	}
	for {
		var peers []Peer
		for _, n := range p.nodes.List() {
			if n.Name != p.self {
				peers = append(peers, peersOf(n)...)
			}
		}
		var again <-chan time.Time
		if err := p.net.SetPeers(ctx, peers); err != nil {
			p.log.Error("set routes to other nodes", "err", err)
			again = time.After(5 * time.Second)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-again:
		}
	}
}
