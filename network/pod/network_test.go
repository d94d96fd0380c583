package pod

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"karve/network/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

// node is a Network in a namespace of its own.
type node struct {
	*testnet.NS
	net *Network
}

func newNode(t *testing.T, opts Options) *node {
	t.Helper()
	n := &node{NS: testnet.New(t)}
	if opts.StateDir == "" {
		opts.StateDir = t.TempDir()
	}
	opts.Log = slog.New(slog.DiscardHandler)
	net, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	n.net = net
	return n
}

func (n *node) up(t *testing.T) {
	t.Helper()
	n.Must(func() error { return n.net.Up(t.Context()) })
	t.Cleanup(n.net.Close)
}

func (n *node) attach(t *testing.T, id string, ports ...HostPort) (*testnet.NS, string) {
	t.Helper()
	ns := testnet.New(t)
	var r Result
	n.Must(func() (err error) {
		r, err = n.net.Attach(t.Context(), ns.Path, id, ports)
		return err
	})
	ns.Serve(":8080", id)
	return ns, r.IPs[0].String()
}

func ask(t *testing.T, from *testnet.NS, network, to, name, client string) {
	t.Helper()
	who, seen, err := from.Ask(network, to)
	if err != nil {
		t.Errorf("%s %s: %v", network, to, err)
		return
	}
	if who != name || client != "" && seen != client {
		t.Errorf("%s %s: answered by %s who saw %s, want %s who saw %s", network, to, who, seen, name, client)
	}
}

var cluster = netip.MustParsePrefix("10.244.0.0/16")

func TestAttach(t *testing.T) {
	n := newNode(t, Options{PodCIDR: netip.MustParsePrefix("10.244.1.0/24"), ClusterCIDR: cluster})
	n.up(t)
	a, ipA := n.attach(t, "ns/a")
	b, ipB := n.attach(t, "ns/b")
	gw := n.net.Gateway().String()
	for _, proto := range []string{"tcp", "udp"} {
		ask(t, a, proto, ipB+":8080", "ns/b", ipA)
		ask(t, b, proto, ipA+":8080", "ns/a", ipB)
		ask(t, a, proto, ipA+":8080", "ns/a", "") // itself, over its own loopback
		ask(t, a, proto, "127.0.0.1:8080", "ns/a", "127.0.0.1")
		ask(t, n.NS, proto, ipA+":8080", "ns/a", gw)
	}
	// An address of the cluster that no pod has is refused by the node, and does not hang.
	if _, _, err := a.Ask("tcp", "10.244.200.7:8080"); err == nil {
		t.Error("an unknown pod address answered")
	}
	// Again: nothing changes.
	n.Must(func() error {
		r, err := n.net.Attach(t.Context(), a.Path, "ns/a", nil)
		if err == nil && r.IPs[0].String() != ipA {
			err = fmt.Errorf("a second attach gave %s, the first %s", r.IPs[0], ipA)
		}
		return err
	})
	ask(t, b, "tcp", ipA+":8080", "ns/a", ipB)
	// The same pod in another namespace: the old one is cut off.
	c := testnet.New(t)
	n.Must(func() error { _, err := n.net.Attach(t.Context(), c.Path, "ns/a", nil); return err })
	c.Serve(":8080", "new-a")
	ask(t, b, "tcp", ipA+":8080", "new-a", ipB)

	n.Must(func() error { return n.net.Detach(t.Context(), c.Path, "ns/a") })
	n.Must(func() error { return n.net.Detach(t.Context(), c.Path, "ns/a") })
	if _, _, err := b.Ask("tcp", ipA+":8080"); err == nil {
		t.Error("a detached pod answered")
	}
}

// The kernel takes the larger of conf/all/rp_filter and an interface's own: with 2 it lets a pod use another one's address.
func TestSpoofedSourceIsDropped(t *testing.T) {
	for _, filter := range []string{"0", "1", "2"} {
		t.Run("rp_filter="+filter, func(t *testing.T) {
			n := newNode(t, Options{PodCIDR: netip.MustParsePrefix("10.244.1.0/24"), ClusterCIDR: cluster})
			n.Must(func() error { return sysctl("net/ipv4/conf/all/rp_filter", filter) })
			n.up(t)
			a, ipA := n.attach(t, "a")
			b, ipB := n.attach(t, "b")
			_, victim := n.attach(t, "victim")
			a.Must(func() error {
				eth, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return netlink.AddrAdd(eth, &netlink.Addr{IPNet: host32(netip.MustParseAddr(victim))})
			})
			// The two packets take the same way: when the second is there, the first was dropped or is there, too.
			if got := firstSender(t, a, b, ipB, victim, ipA); got != ipA {
				t.Errorf("a packet from %s arrived, sent by the pod %s", got, ipA)
			}
			// So it is after somebody emptied the table, once the next pod comes or goes.
			n.Must(func() error { return n.net.table.Delete() })
			n.Must(func() error { return n.net.Detach(t.Context(), "", "victim") })
			n.attach(t, "next")
			ask(t, a, "tcp", ipB+":8080", "b", ipA)
			if filter != "2" {
				return
			}
			_, again := n.attach(t, "victim")
			a.Must(func() error {
				eth, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return netlink.AddrAdd(eth, &netlink.Addr{IPNet: host32(netip.MustParseAddr(again))})
			})
			if got := firstSender(t, a, b, ipB, again, ipA); got != ipA {
				t.Errorf("with the table made anew, a packet from %s arrived, sent by the pod %s", got, ipA)
			}
		})
	}
}

func TestRestartKeepsPods(t *testing.T) {
	dir := t.TempDir()
	opts := Options{PodCIDR: netip.MustParsePrefix("10.244.1.0/24"), ClusterCIDR: cluster, StateDir: dir}
	n := newNode(t, opts)
	n.up(t)
	a, ipA := n.attach(t, "a", HostPort{Port: 9000, ContainerPort: 8080})
	_, ipB := n.attach(t, "b")
	n.net.Close()
	opts.Log = slog.New(slog.DiscardHandler)
	again, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	n.net = again
	n.up(t)
	ask(t, a, "tcp", ipB+":8080", "b", ipA)
	n.Must(func() error { return n.net.Retain(t.Context(), []string{"a"}) })
	if _, _, err := a.Ask("tcp", ipB+":8080"); err == nil {
		t.Error("a pod that is not retained answered")
	}
	ask(t, n.NS, "tcp", n.net.Gateway().String()+":9000", "a", "")
	_, ipC := n.attach(t, "c")
	if ipC == ipB {
		t.Errorf("the address %s was used again at once", ipB)
	}
	n.Must(func() error { return n.net.Down(t.Context()) })
	n.Must(func() error {
		links, err := netlink.LinkList()
		if len(links) != 1 {
			return fmt.Errorf("left over after Down: %d links (%v)", len(links), err)
		}
		routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
		if len(routes) != 0 {
			return fmt.Errorf("left over after Down: routes %v (%v)", routes, err)
		}
		return err
	})
}

func TestHostPorts(t *testing.T) {
	n := newNode(t, Options{PodCIDR: netip.MustParsePrefix("10.244.1.0/24"), ClusterCIDR: cluster, NodeIP: netip.MustParseAddr("192.0.2.1")})
	out := testnet.New(t)
	testnet.Wire(n.NS, out, "up0", "out0", "192.0.2.1/24", "192.0.2.9/24")
	n.up(t)
	a, ipA := n.attach(t, "a", HostPort{Port: 80, ContainerPort: 8080}, HostPort{Port: 80, Protocol: "UDP", ContainerPort: 8080},
		HostPort{Port: 81, HostIP: netip.MustParseAddr("192.0.2.1"), ContainerPort: 8080})
	b, _ := n.attach(t, "b")
	ask(t, out, "tcp", "192.0.2.1:80", "a", "192.0.2.9")
	ask(t, out, "udp", "192.0.2.1:80", "a", "192.0.2.9")
	ask(t, out, "tcp", "192.0.2.1:81", "a", "192.0.2.9")
	ask(t, n.NS, "tcp", "192.0.2.1:80", "a", "")
	ask(t, b, "tcp", "192.0.2.1:80", "a", "")
	ask(t, a, "tcp", "192.0.2.1:80", "a", n.net.Gateway().String()) // back to itself
	if _, _, err := n.Ask("tcp", n.net.Gateway().String()+":81"); err == nil {
		t.Error("a host port of one address answered at another")
	}
	n.Must(func() error {
		if _, err := n.net.Attach(t.Context(), b.Path, "c", []HostPort{{Port: 80, ContainerPort: 1}}); err == nil {
			return fmt.Errorf("two pods hold one host port")
		}
		return nil
	})
	// Out of the cluster a pod has its node's address.
	out.Serve("192.0.2.9:8080", "out")
	ask(t, a, "tcp", "192.0.2.9:8080", "out", "192.0.2.1")
	n.Must(func() error { return n.net.Detach(t.Context(), "", "a") })
	if _, _, err := out.Ask("tcp", "192.0.2.1:80"); err == nil {
		t.Errorf("the host port of detached pod %s answered", ipA)
	}
}

func TestTwoNodes(t *testing.T) {
	for _, mode := range []Mode{Auto, Direct, VXLAN} {
		t.Run("mode="+string(mode), func(t *testing.T) {
			ip1, ip2 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
			r1, r2 := netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("10.244.2.0/24")
			n1 := newNode(t, Options{PodCIDR: r1, ClusterCIDR: cluster, NodeIP: ip1, Mode: mode})
			n2 := newNode(t, Options{PodCIDR: r2, ClusterCIDR: cluster, NodeIP: ip2, Mode: mode})
			testnet.Wire(n1.NS, n2.NS, "up0", "up0", "192.0.2.1/24", "192.0.2.2/24")
			n1.up(t)
			n2.up(t)
			peers := []Peer{{"n1", ip1, r1}, {"n2", ip2, r2}}
			for _, n := range []*node{n1, n2} {
				for range 2 {
					n.Must(func() error { return n.net.SetPeers(t.Context(), peers) })
				}
			}
			a, ipA := n1.attach(t, "a")
			b, ipB := n2.attach(t, "b")
			ask(t, a, "tcp", ipB+":8080", "b", ipA)
			ask(t, b, "udp", ipA+":8080", "a", ipB)
			ask(t, n1.NS, "tcp", ipB+":8080", "b", "")
			ask(t, n2.NS, "tcp", ipA+":8080", "a", "")
			tunnelled := false
			n1.Must(func() error {
				link, err := netlink.LinkByName(vxlanName)
				tunnelled = err == nil && link.Attrs().Statistics.TxPackets > 0
				return nil
			})
			if tunnelled != (mode == VXLAN) {
				t.Errorf("packets went through the VXLAN: %t", tunnelled)
			}
			n1.Must(func() error { return n1.net.SetPeers(t.Context(), nil) })
			if _, _, err := a.Ask("tcp", ipB+":8080"); err == nil {
				t.Error("pods of a node that is no peer any more answered")
			}
		})
	}
}

func TestAutoUsesVXLANAcrossARouter(t *testing.T) {
	ip1, ip2 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	r1, r2 := netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("10.244.2.0/24")
	n1 := newNode(t, Options{PodCIDR: r1, ClusterCIDR: cluster, NodeIP: ip1})
	n2 := newNode(t, Options{PodCIDR: r2, ClusterCIDR: cluster, NodeIP: ip2})
	router := testnet.New(t)
	testnet.Wire(n1.NS, router, "up0", "one", "192.0.2.1/24", "192.0.2.254/24")
	testnet.Wire(n2.NS, router, "up0", "two", "198.51.100.2/24", "198.51.100.254/24")
	router.Must(func() error { return sysctl("net/ipv4/ip_forward", "1") })
	n1.Route("0.0.0.0/0", "192.0.2.254", "")
	n2.Route("0.0.0.0/0", "198.51.100.254", "")
	for _, n := range []*node{n1, n2} {
		n.up(t)
		n.Must(func() error { return n.net.SetPeers(t.Context(), []Peer{{"n1", ip1, r1}, {"n2", ip2, r2}}) })
	}
	a, ipA := n1.attach(t, "a")
	_, ipB := n2.attach(t, "b")
	ask(t, a, "tcp", ipB+":8080", "b", ipA)
	ask(t, n1.NS, "tcp", ipB+":8080", "b", "")
}

func TestPeersFollowNodes(t *testing.T) {
	api := testnet.NewAPI()
	api.Set(nodeObject("n1", "192.0.2.1", "10.244.1.0/24"))
	api.Set(nodeObject("n2", "192.0.2.2", "10.244.2.0/24"))
	n := newNode(t, Options{PodCIDR: netip.MustParsePrefix("10.244.1.0/24"), ClusterCIDR: cluster, NodeIP: netip.MustParseAddr("192.0.2.1")})
	testnet.Wire(n.NS, testnet.New(t), "up0", "up0", "192.0.2.1/24", "192.0.2.2/24")
	n.up(t)
	caches, run := api.Caches(t)
	p := NewPeers(n.net, caches, "n1")
	run()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Do(func() error { return p.Run(ctx) }) }()
	routes := func() (out []string) {
		n.Must(func() error {
			rs, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeOwner}, netlink.RT_FILTER_PROTOCOL)
			for _, r := range rs {
				out = append(out, r.Dst.String()+" by "+r.Gw.String())
			}
			return err
		})
		slices.Sort(out)
		return out
	}
	wait := func(want ...string) {
		t.Helper()
		for range 500 {
			if slices.Equal(routes(), want) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("routes %v, want %v", routes(), want)
	}
	wait("10.244.2.0/24 by 192.0.2.2")
	api.Set(nodeObject("n3", "192.0.2.3", "10.244.3.0/24"))
	wait("10.244.2.0/24 by 192.0.2.2", "10.244.3.0/24 by 192.0.2.3")
	api.Set(nodeObject("n3", "192.0.2.4", "10.244.3.0/24"))
	wait("10.244.2.0/24 by 192.0.2.2", "10.244.3.0/24 by 192.0.2.4")
	api.Delete(nodeObject("n2", "", ""))
	wait("10.244.3.0/24 by 192.0.2.4")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func BenchmarkAttach(b *testing.B) {
	ns := testnet.New(b)
	net, err := New(Options{PodCIDR: netip.MustParsePrefix("10.244.0.0/16"), StateDir: b.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer net.Close()
	ns.Must(func() error { return net.Up(b.Context()) })
	pods := make([]*testnet.NS, b.N)
	for i := range pods {
		pods[i] = testnet.New(b)
	}
	var attach, detach time.Duration
	ns.Must(func() error {
		start := time.Now()
		for i, p := range pods {
			if _, err := net.Attach(b.Context(), p.Path, fmt.Sprint(i), nil); err != nil {
				return err
			}
		}
		attach, start = time.Since(start), time.Now()
		for i, p := range pods {
			if err := net.Detach(b.Context(), p.Path, fmt.Sprint(i)); err != nil {
				return err
			}
		}
		detach = time.Since(start)
		return nil
	})
	b.ReportMetric(float64(attach.Microseconds())/float64(b.N), "us/attach")
	b.ReportMetric(float64(detach.Microseconds())/float64(b.N), "us/detach")
}
