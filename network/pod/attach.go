package pod

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"karve/network/nft"
)

const (
	podInterface = "eth0"
	settleTime   = 2 * time.Second
)

// Result is how a pod is attached.
type Result struct {
	IPs     []netip.Addr
	Gateway netip.Addr
}

// hostName is the name of the node's end of a pod's veth pair.
func hostName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "kv" + hex.EncodeToString(sum[:6])
}

// Attach connects the network namespace at netnsPath as the pod id, and gives it an address and host ports. Repeating it
// changes nothing, or repairs what is missing. After an error the pod is not attached.
func (n *Network) Attach(ctx context.Context, netnsPath, id string, hostPorts []HostPort) (Result, error) {
	if err := errors.Join(ctx.Err(), n.ready()); err != nil {
		return Result{}, fmt.Errorf("attach pod %s: %w", id, err)
	}
	ns, err := netns.GetFromPath(netnsPath)
	if err != nil {
		return Result{}, fmt.Errorf("attach pod %s: open namespace: %w", id, err)
	}
	defer ns.Close()
	l, err := n.lease(id, hostPorts)
	if err != nil {
		return Result{}, fmt.Errorf("attach pod %s: %w", id, err)
	}
	if err := n.connect(ns, id, l.IP); err != nil {
		return Result{}, errors.Join(fmt.Errorf("attach pod %s: %w", id, err), n.Detach(ctx, netnsPath, id))
	}
	return Result{IPs: []netip.Addr{l.IP}, Gateway: n.gateway}, nil
}

func (n *Network) ready() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.host == nil || n.leases == nil || n.table == nil {
		return errors.New("the pod network is not up")
	}
	return nil
}

// lease takes an address and programmes what depends on it.
func (n *Network) lease(id string, ports []HostPort) (*lease, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var before []nft.Element
	if old := n.leases.byID[id]; old != nil {
		before = old.elements()
	}
	l, made, err := n.leases.take(id, ports)
	if err != nil {
		return nil, err
	}
	after := l.elements()
	if !made && equal(before, after) {
		return l, nil
	}
	if err := n.change(nft.Change{Del: before, Add: after}, ""); err != nil {
		if made {
			_, dropped := n.leases.drop(id)
			err = errors.Join(err, dropped)
		}
		return nil, err
	}
	return l, nil
}

func equal(a, b []nft.Element) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// connect makes the veth pair, the pod's end directly in its namespace, and both ends' addresses and routes.
func (n *Network) connect(ns netns.NsHandle, id string, ip netip.Addr) error {
	in, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open namespace: %w", err)
	}
	defer in.Close()
	name := hostName(id)
	index, err := n.pair(ns, in, name)
	if err != nil {
		return err
	}
	if err := n.inside(in, ip); err != nil {
		return err
	}
	// The pod may only use its own address. The rules see to that; this holds without them, where conf/all does not loosen it.
	if err := sysctl("net/ipv4/conf/"+name+"/rp_filter", "1"); err != nil {
		return err
	}
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: index, Name: name}}
	if err := n.host.AddrAdd(link, &netlink.Addr{IPNet: host32(n.gateway)}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add gateway address: %w", err)
	}
	r := &netlink.Route{LinkIndex: index, Dst: host32(ip), Scope: netlink.SCOPE_LINK, Src: n.gateway.AsSlice(), Table: unix.RT_TABLE_MAIN}
	if err := n.host.RouteReplace(r); err != nil {
		return fmt.Errorf("route to %s: %w", ip, err)
	}
	n.settle(index)
	return nil
}

// settle waits until the kernel has noticed that the other end is up, which it does in the background: before that it drops
// what is sent to the pod, and a client would wait a second to try again. Another end that stays down is no error here.
func (n *Network) settle(index int) {
	for start := time.Now(); time.Since(start) < settleTime; time.Sleep(200 * time.Microsecond) {
		link, err := n.host.LinkByIndex(index)
		if err != nil || link.Attrs().OperState == netlink.OperUp {
			return
		}
	}
	n.opts.Log.Warn("the interface of a pod is slow to come up", "index", index)
}

// pair returns the interface index of the node's end, which is up. An older pair of that name is kept if its other end is
// in this very namespace, and replaced otherwise.
func (n *Network) pair(ns netns.NsHandle, in *netlink.Handle, name string) (int, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Flags = name, n.mtu, net.FlagUp
	v := netlink.NewVeth(attrs)
	v.PeerName, v.PeerMTU, v.PeerNamespace = podInterface, uint32(n.mtu), netlink.NsFd(ns)
	err := n.host.LinkAdd(v)
	if errors.Is(err, unix.EEXIST) {
		old, oldErr := n.host.LinkByName(name)
		if oldErr != nil {
			// No such link here: it is the pod's end whose name is taken.
			return 0, fmt.Errorf("make veth pair: the namespace has another %s: %w", podInterface, err)
		}
		if n.paired(ns, in, old) {
			return old.Attrs().Index, nil
		}
		if err := n.host.LinkDel(old); err != nil && !errors.Is(err, unix.ENODEV) {
			return 0, fmt.Errorf("remove old veth pair: %w", err)
		}
		err = n.host.LinkAdd(v)
	}
	if err != nil {
		return 0, fmt.Errorf("make veth pair: %w", err)
	}
	return v.Attrs().Index, nil
}

func (n *Network) paired(ns netns.NsHandle, in *netlink.Handle, host netlink.Link) bool {
	peer, err := in.LinkByName(podInterface)
	if err != nil || peer.Attrs().ParentIndex != host.Attrs().Index || host.Attrs().ParentIndex != peer.Attrs().Index {
		return false
	}
	nsid, err := n.host.GetNetNsIdByFd(int(ns))
	return err == nil && nsid >= 0 && host.Attrs().NetNsID == nsid
}

// inside sets up the pod's own namespace.
func (n *Network) inside(in *netlink.Handle, ip netip.Addr) error {
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: loopback, Name: "lo"}}
	if err := in.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set the pod's lo up: %w", err)
	}
	eth, err := in.LinkByName(podInterface)
	if err != nil {
		return fmt.Errorf("find the pod's %s: %w", podInterface, err)
	}
	if err := in.AddrReplace(eth, &netlink.Addr{IPNet: host32(ip)}); err != nil {
		return fmt.Errorf("give the pod %s: %w", ip, err)
	}
	if err := in.LinkSetUp(eth); err != nil {
		return fmt.Errorf("set the pod's %s up: %w", podInterface, err)
	}
	index := eth.Attrs().Index
	for _, r := range []*netlink.Route{
		{LinkIndex: index, Dst: host32(n.gateway), Scope: netlink.SCOPE_LINK, Src: ip.AsSlice()},
		{LinkIndex: index, Dst: netOf(netip.PrefixFrom(netip.IPv4Unspecified(), 0)), Gw: n.gateway.AsSlice(), Src: ip.AsSlice()},
	} {
		if err := in.RouteReplace(r); err != nil {
			return fmt.Errorf("route of the pod: %w", err)
		}
	}
	return nil
}

// Detach undoes Attach: interface, address, host ports. The namespace may be gone already; netnsPath is not opened.
func (n *Network) Detach(_ context.Context, netnsPath, id string) error {
	if err := n.ready(); err != nil {
		return fmt.Errorf("detach pod %s: %w", id, err)
	}
	// The interface goes before the address is free. The kernel takes its time over it: nobody else waits for that.
	link, err := n.removal.LinkByName(hostName(id))
	if err == nil {
		err = n.removal.LinkDel(link)
	}
	var missing netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &missing) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("detach pod %s: %w", id, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.leases.byID[id]
	if l == nil {
		return nil
	}
	if err := n.change(nft.Change{Del: l.elements()}, id); err != nil {
		return fmt.Errorf("detach pod %s: %w", id, err)
	}
	if _, err := n.leases.drop(id); err != nil {
		return fmt.Errorf("detach pod %s: %w", id, err)
	}
	return nil
}

// Retain detaches every pod that is not among ids: after a restart, those that ended meanwhile.
func (n *Network) Retain(ctx context.Context, ids []string) error {
	if err := n.ready(); err != nil {
		return fmt.Errorf("retain pods: %w", err)
	}
	keep := map[string]bool{}
	for _, id := range ids {
		keep[id] = true
	}
	n.mu.Lock()
	all := n.leases.all()
	n.mu.Unlock()
	var errs error
	for _, l := range all {
		if !keep[l.ID] {
			errs = errors.Join(errs, n.Detach(ctx, "", l.ID))
		}
	}
	return errs
}

// IPs returns the addresses of an attached pod, none when it is not.
func (n *Network) IPs(id string) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leases == nil {
		return nil
	}
	if l := n.leases.byID[id]; l != nil {
		return []netip.Addr{l.IP}
	}
	return nil
}
