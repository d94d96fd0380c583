package local

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"karve/config"
)

const (
	bridgeName = "fabric"
	hostPort   = "host" // the bridge's end of the host's veth
	nodeLink   = "eth0"
	lastNode   = 250 // addresses .1 to .250 are the nodes', .254 the host's
)

// chooseSubnet returns a 10.x.0.0/24 that overlaps nothing in taken.
func chooseSubnet(taken []netip.Prefix) (netip.Prefix, error) {
	for x := 89; x <= 254; x++ {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(x), 0, 0}), 24)
		free := true
		for _, t := range taken {
			if t.Overlaps(p) {
				free = false
				break
			}
		}
		if free {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("choose a subnet: every 10.x.0.0/24 from 10.89 to 10.254 is routed on this machine; remove a cluster with karve down")
}

// usedSubnets are the destinations of the host's routes, in every table, but for default routes.
func usedSubnets() ([]netip.Prefix, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if p := toPrefix(r.Dst); p.IsValid() && p.Bits() > 0 {
			out = append(out, p)
		}
	}
	return out, nil
}

func toPrefix(n *net.IPNet) netip.Prefix {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	if !ok {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a.Unmap(), ones)
}

func hostAddr(subnet netip.Prefix, n byte) netip.Addr {
	b := subnet.Addr().As4()
	b[3] = n
	return netip.AddrFrom4(b)
}

// world is a network namespace and a netlink socket into it.
type world struct {
	ns netns.NsHandle
	*netlink.Handle
}

func openWorld(path string) (*world, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("open netlink in %s: %w", path, err)
	}
	return &world{ns: ns, Handle: h}, nil
}

func (w *world) close() {
	w.Handle.Close()
	w.ns.Close()
}

// ensureFabric makes the bridge and the host's veth into it.
func (s *State) ensureFabric(subnet netip.Prefix) error {
	if err := ensureNetns(s.pin("fabric", "net")); err != nil {
		return err
	}
	fabric, err := openWorld(s.pin("fabric", "net"))
	if err != nil {
		return err
	}
	defer fabric.close()
	bridge, err := fabric.ensureBridge()
	if err != nil {
		return err
	}
	host, err := openWorld("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer host.close()
	link, err := host.LinkByName(s.HostLink)
	if err == nil && link.Attrs().Alias != s.alias() {
		return fmt.Errorf("the host already has a link %s that is not of this cluster: remove it, or the cluster it belongs to", s.HostLink)
	}
	if _, ferr := fabric.LinkByName(hostPort); err != nil || ferr != nil {
		if err == nil { // its other end has gone with a namespace
			_ = host.LinkDel(link)
		}
		if err := addVeth(fabric, hostPort, bridge, host, s.HostLink); err != nil {
			return err
		}
	}
	if link, err = host.LinkByName(s.HostLink); err != nil {
		return fmt.Errorf("find link %s: %w", s.HostLink, err)
	}
	if err := host.LinkSetAlias(link, s.alias()); err != nil {
		return fmt.Errorf("mark link %s: %w", s.HostLink, err)
	}
	// The cluster speaks IPv4 here. Answers to what was sent to 127.0.0.1 must be let in again; the firewall, which stands
	// before this is set, keeps everything else for the loopback out.
	if err := writeSysctl("net/ipv6/conf/"+s.HostLink+"/disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := writeSysctl("net/ipv4/conf/"+s.HostLink+"/route_localnet", "1"); err != nil {
		return err
	}
	return host.ensureUp(link, netip.PrefixFrom(hostAddr(subnet, 254), subnet.Bits()))
}

func writeSysctl(key, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s: %w", key, err)
	}
	return nil
}

func (w *world) ensureBridge() (netlink.Link, error) {
	link, err := w.LinkByName(bridgeName)
	if err != nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeName
		if err := w.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, syscall.EEXIST) {
			return nil, fmt.Errorf("add bridge: %w", err)
		}
		if link, err = w.LinkByName(bridgeName); err != nil {
			return nil, fmt.Errorf("find bridge: %w", err)
		}
	}
	if err := w.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set bridge up: %w", err)
	}
	return link, nil
}

// addVeth makes a pair: one end is a port of the bridge, the other is in another world.
func addVeth(fabric *world, port string, bridge netlink.Link, other *world, name string) error {
	if old, err := fabric.LinkByName(port); err == nil {
		if err := fabric.LinkDel(old); err != nil {
			return fmt.Errorf("remove old link %s: %w", port, err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = port, bridge.Attrs().Index
	if err := fabric.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: netlink.NsFd(int(other.ns))}); err != nil {
		return fmt.Errorf("add veth %s: %w", name, err)
	}
	link, err := fabric.LinkByName(port)
	if err != nil {
		return fmt.Errorf("find veth %s: %w", port, err)
	}
	if err := fabric.LinkSetUp(link); err != nil {
		return fmt.Errorf("set veth %s up: %w", port, err)
	}
	return nil
}

func (w *world) ensureUp(link netlink.Link, addr netip.Prefix) error {
	a, err := netlink.ParseAddr(addr.String())
	if err != nil {
		return err
	}
	if err := w.AddrReplace(link, a); err != nil {
		return fmt.Errorf("give %s the address %s: %w", link.Attrs().Name, addr, err)
	}
	if err := w.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", link.Attrs().Name, err)
	}
	return nil
}

// ensureNodeNet gives a node its network: loopback and one link to the fabric, and no way out of it.
func (s *State) ensureNodeNet(i int, subnet netip.Prefix) error {
	n := &s.Nodes[i]
	if err := ensureNetns(s.pin(n.Name, "net")); err != nil {
		return err
	}
	node, err := openWorld(s.pin(n.Name, "net"))
	if err != nil {
		return err
	}
	defer node.close()
	fabric, err := openWorld(s.pin("fabric", "net"))
	if err != nil {
		return err
	}
	defer fabric.close()
	lo, err := node.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := node.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	port := fmt.Sprintf("node%d", i+1)
	link, err := node.LinkByName(nodeLink)
	if _, ferr := fabric.LinkByName(port); err != nil || ferr != nil {
		bridge, berr := fabric.ensureBridge()
		if berr != nil {
			return berr
		}
		if err == nil {
			_ = node.LinkDel(link)
		}
		if err := addVeth(fabric, port, bridge, node, nodeLink); err != nil {
			return err
		}
		if link, err = node.LinkByName(nodeLink); err != nil {
			return fmt.Errorf("find link of node %s: %w", n.Name, err)
		}
	}
	ip, err := netip.ParseAddr(n.IP)
	if err != nil {
		return err
	}
	if err := node.ensureUp(link, netip.PrefixFrom(ip, subnet.Bits())); err != nil {
		return err
	}
	return node.routeServices(link, ip)
}

// routeServices gives Service addresses a route. Where it leads does not matter: what the proxy has programmed is sent to a
// pod before it leaves. But with no default route the kernel would refuse the connection before the proxy's rules see it.
func (w *world) routeServices(link netlink.Link, src netip.Addr) error {
	_, services, err := net.ParseCIDR(config.Default().Network.ServiceCIDR)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: services, Src: src.AsSlice(), Scope: netlink.SCOPE_LINK}
	if err := w.RouteReplace(r); err != nil {
		return fmt.Errorf("route Service addresses: %w", err)
	}
	return nil
}

// dropHostLink removes the host's veth, and thereby its peer, found by its mark: the name may be gone with the state.
func (s *State) dropHostLink() error {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		// One made but not yet marked is known by its name, which no other program uses for a veth.
		if a.Alias != s.alias() && !(a.Name == s.HostLink && a.Alias == "" && l.Type() == "veth") {
			continue
		}
		if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove link %s: %w", a.Name, err)
		}
	}
	return nil
}
