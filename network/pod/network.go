// Package pod gives pods their addresses and carries packets between them: a routed veth pair per pod (no bridge), host
// ports, and routes or VXLAN to the pods of other nodes. The node's kubelet attaches and detaches; the node's start-up runs
// Peers. It owns the address leases in its state directory, the interfaces named kv… and karve-vx, the nftables table
// karve-pods, and the routes of the cluster range. It does not balance (package proxy) and answers no names (package dns).
//
// Every pod has one /32 address and a default route to the node's gateway address, so each packet, also between two pods
// of one node, passes the node's own routing: address translation needs no bridge filtering, a pod cannot take another's
// address, and a pod costs one route. It works in the network namespace of the calling thread.
package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"karve/network/nft"
)

const (
	tableName    = "karve-pods"
	setPorts     = "hostports"    // protocol.port : pod.port
	setPortsAt   = "hostports-at" // address.protocol.port : pod.port
	setHairpin   = "hairpin"      // pod.pod of the pods that have host ports
	setPods      = "pods"         // interface
	setOwn       = "own"          // interface.pod
	loopback     = 1              // interface index of lo in every namespace
	rangeMetric  = 4096
	vxlanHeaders = 50
)

// Mode chooses how packets reach other nodes.
type Mode string

const (
	// Auto routes directly to nodes of a local subnet and uses VXLAN for the others.
	Auto Mode = ""
	// Direct always routes directly; the network between the nodes must know where to go.
	Direct Mode = "direct"
	// VXLAN always encapsulates.
	VXLAN Mode = "vxlan"
)

// Options configure a Network.
type Options struct {
	// PodCIDR is this node's part of ClusterCIDR (IPv4). ClusterCIDR and ServiceCIDR may be the zero Prefix.
	PodCIDR, ClusterCIDR, ServiceCIDR netip.Prefix
	// NodeIP is this node's own address towards the others.
	NodeIP netip.Addr
	Mode   Mode
	// VNI and Port are those of the VXLAN; 0 means 1 and 4789.
	VNI, Port int
	// MTU of the pods' interfaces, in bytes; 0 takes that of the interface with NodeIP, less the VXLAN headers in mode VXLAN.
	MTU int
	// KeepSource turns off the masquerading of pod traffic that leaves the cluster.
	KeepSource bool
	// StateDir keeps the address leases, one file each.
	StateDir string
	Log      *slog.Logger
}

// Network is the pod network of one node. Its methods may be used concurrently once Up has returned.
type Network struct {
	opts    Options
	gateway netip.Addr
	mtu     int

	host, removal *netlink.Handle // a socket of its own for what takes long

	mu     sync.Mutex // guards leases and table
	leases *leases
	table  *nft.Table

	peersMu sync.Mutex
}

// New returns a Network that does nothing until Up.
func New(opts Options) (*Network, error) {
	c := opts.PodCIDR.Masked()
	if !c.IsValid() || !c.Addr().Is4() || c.Bits() > 30 {
		return nil, fmt.Errorf("pod network: %q is not an IPv4 prefix with room for pods", opts.PodCIDR)
	}
	opts.PodCIDR = c
	if opts.VNI == 0 {
		opts.VNI = 1
	}
	if opts.Port == 0 {
		opts.Port = 4789
	}
	return &Network{opts: opts, gateway: gatewayOf(c)}, nil
}

func gatewayOf(c netip.Prefix) netip.Addr { return c.Masked().Addr().Next() }

// Gateway returns the node's address in its pod range, which all pods route to.
func (n *Network) Gateway() netip.Addr { return n.gateway }

// Up prepares the namespace. It may be repeated.
func (n *Network) Up(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.host == nil {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("pod network up: %w", err)
		}
		if n.removal, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			h.Close()
			return fmt.Errorf("pod network up: %w", err)
		}
		n.host = h
	}
	if n.leases == nil {
		l, err := openLeases(n.opts.StateDir, n.opts.PodCIDR)
		if err != nil {
			return fmt.Errorf("pod network up: %w", err)
		}
		n.leases = l
	}
	n.mtu = n.chooseMTU()
	if err := errors.Join(sysctls(), n.addresses(), n.ranges(), n.rules()); err != nil {
		return fmt.Errorf("pod network up: %w", err)
	}
	return ctx.Err()
}

func (n *Network) chooseMTU() int {
	if n.opts.MTU != 0 {
		return n.opts.MTU
	}
	mtu := 1500
	if n.opts.NodeIP.IsValid() {
		if link, err := n.linkOf(n.opts.NodeIP); err == nil && link.Attrs().Index != loopback {
			mtu = link.Attrs().MTU
		}
	}
	if n.opts.Mode == VXLAN {
		mtu -= vxlanHeaders
	}
	return mtu
}

// linkOf returns the interface that has the address.
func (n *Network) linkOf(a netip.Addr) (netlink.Link, error) {
	addrs, err := n.host.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	for _, x := range addrs {
		if x.IP.Equal(a.AsSlice()) {
			return n.host.LinkByIndex(x.LinkIndex)
		}
	}
	return nil, fmt.Errorf("no interface has the address %s", a)
}

// sysctls make the namespace a router. A value that is right already is not written: the tree may be read-only.
func sysctls() error {
	for _, s := range [][2]string{
		{"net/ipv4/ip_forward", "1"},
		{"net/ipv4/conf/all/route_localnet", "0"},
		{"net/ipv4/conf/default/send_redirects", "0"},
		{"net/ipv4/conf/all/send_redirects", "0"},
	} {
		if err := sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	// Replies may come by another way than the question went. Strict checking for all interfaces would drop them.
	if now, err := os.ReadFile("/proc/sys/net/ipv4/conf/all/rp_filter"); err == nil && strings.TrimSpace(string(now)) == "1" {
		return sysctl("net/ipv4/conf/all/rp_filter", "2")
	}
	return nil
}

func sysctl(name, value string) error {
	path := "/proc/sys/" + name
	if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s to %s: %w", name, value, err)
	}
	return nil
}

func host32(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func netOf(p netip.Prefix) *net.IPNet {
	p = p.Masked()
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// addresses puts the gateway address on lo: it is there before and after any pod.
func (n *Network) addresses() error {
	lo, err := n.host.LinkByIndex(loopback)
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if lo.Attrs().Flags&net.FlagUp == 0 {
		if err := n.host.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
	}
	if err := n.host.AddrReplace(lo, &netlink.Addr{IPNet: host32(n.gateway)}); err != nil {
		return fmt.Errorf("add gateway address %s: %w", n.gateway, err)
	}
	return nil
}

// ranges makes every pod address without a better route unreachable, so that nothing meant for a pod leaves the machine.
func (n *Network) ranges() error {
	for _, p := range []netip.Prefix{n.opts.PodCIDR, n.opts.ClusterCIDR} {
		if !p.IsValid() || !p.Addr().Is4() {
			continue
		}
		r := &netlink.Route{Dst: netOf(p), Type: unix.RTN_UNREACHABLE, Table: unix.RT_TABLE_MAIN, Priority: rangeMetric}
		if err := n.host.RouteReplace(r); err != nil {
			return fmt.Errorf("route range %s: %w", p, err)
		}
	}
	return nil
}

func (n *Network) layout() nft.Layout {
	const r0 = nft.R0
	target := []nft.Field{nft.Addr, nft.Port}
	outside := nft.Rule(nft.DestLocal(false, r0), nft.Dest(false, r0), nft.Prefix(netip.MustParsePrefix("127.0.0.0/8"), true, r0))
	if s := n.opts.ServiceCIDR; s.IsValid() && s.Addr().Is4() { // the node may answer on a service address itself
		outside = nft.Rule(outside, nft.Dest(false, r0), nft.Prefix(s, true, r0))
	}
	ports := [][]expr.Any{
		nft.Rule(nft.Dest(false, r0), nft.Protocol(r0+1), nft.DestPort(r0+2), nft.Lookup(setPortsAt, r0, r0+4), nft.DNAT(false, r0+4, r0+5)),
		nft.Rule(nft.Protocol(r0+1), nft.DestPort(r0+2), nft.Lookup(setPorts, r0+1, r0+4), nft.DNAT(false, r0+4, r0+5)),
	}
	local := [][]expr.Any{nft.Rule(outside, nft.Jump("hostports"))}
	post := [][]expr.Any{nft.Rule(nft.Source(false, r0), nft.Dest(false, r0+1), nft.In(setHairpin, r0), nft.Masquerade())}
	cluster := n.opts.ClusterCIDR
	if !cluster.IsValid() || !cluster.Addr().Is4() {
		cluster = n.opts.PodCIDR
	}
	// What the node itself sends into the VXLAN must come back by it.
	post = append(post, nft.Rule(nft.OutInterface(vxlanName, false, r0), nft.Source(false, r0), nft.Prefix(cluster, true, r0), nft.Masquerade()))
	if !n.opts.KeepSource {
		post = append(post, nft.Rule(nft.Source(false, r0), nft.Prefix(n.opts.PodCIDR, false, r0),
			nft.Dest(false, r0), nft.Prefix(cluster, true, r0), nft.OutInterface("lo", true, r0), nft.Masquerade()))
	}
	// A pod may send from its own address alone. Its elements are there before its interface is.
	foreign := nft.Rule(nft.InInterface(r0), nft.In(setPods, r0), nft.Source(false, r0+4), nft.NotIn(setOwn, r0), nft.Drop())
	return nft.Layout{
		Sets: []nft.Set{
			{Name: setPods, Key: []nft.Field{nft.Interface}},
			{Name: setOwn, Key: []nft.Field{nft.Interface, nft.Addr}},
			{Name: setPorts, Key: []nft.Field{nft.Proto, nft.Port}, Data: target},
			{Name: setPortsAt, Key: []nft.Field{nft.Addr, nft.Proto, nft.Port}, Data: target},
			{Name: setHairpin, Key: []nft.Field{nft.Addr, nft.Addr}},
		},
		Chains: []nft.Chain{
			{Name: "sources", Hook: nft.Raw(), Rules: [][]expr.Any{foreign}},
			{Name: "hostports", Rules: ports},
			{Name: "prerouting", Hook: nft.Prerouting(), Rules: local},
			{Name: "output", Hook: nft.Output(), Rules: local},
			{Name: "postrouting", Hook: nft.Postrouting(), Rules: post},
		},
	}
}

// change programmes a transaction. If somebody emptied the table, it is made anew from the leases, those of gone left out.
func (n *Network) change(c nft.Change, gone string) error {
	err := n.table.Apply(c)
	if err == nil {
		return nil
	}
	if again := n.table.Replace(nil, n.elements(gone)); again != nil {
		return errors.Join(err, again)
	}
	return nil
}

// elements are those of all leases but that of the pod gone.
func (n *Network) elements(gone string) []nft.Element {
	var out []nft.Element
	for _, l := range n.leases.all() {
		if l.ID != gone {
			out = append(out, l.elements()...)
		}
	}
	return out
}

func (n *Network) rules() error {
	if n.table == nil {
		t, err := nft.Open(tableName, false, n.layout())
		if err != nil {
			return err
		}
		n.table = t
	}
	return n.table.Replace(nil, n.elements(""))
}

// Close releases the sockets; everything keeps working.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.host != nil {
		n.host.Close()
		n.removal.Close()
		n.host, n.removal = nil, nil
	}
	if n.table != nil {
		n.table.Close()
		n.table = nil
	}
}

// Down removes everything: pods' interfaces, routes, rules and leases.
func (n *Network) Down(ctx context.Context) error {
	errs := errors.Join(n.SetPeers(ctx, nil), n.Retain(ctx, nil))
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range []netip.Prefix{n.opts.PodCIDR, n.opts.ClusterCIDR} {
		if p.IsValid() && p.Addr().Is4() {
			err := n.host.RouteDel(&netlink.Route{Dst: netOf(p), Type: unix.RTN_UNREACHABLE, Table: unix.RT_TABLE_MAIN, Priority: rangeMetric})
			if err != nil && !errors.Is(err, unix.ESRCH) {
				errs = errors.Join(errs, fmt.Errorf("remove route of %s: %w", p, err))
			}
		}
	}
	if lo, err := n.host.LinkByIndex(loopback); err == nil {
		if err := n.host.AddrDel(lo, &netlink.Addr{IPNet: host32(n.gateway)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = errors.Join(errs, fmt.Errorf("remove gateway address: %w", err))
		}
	}
	return errors.Join(errs, n.table.Delete())
}
