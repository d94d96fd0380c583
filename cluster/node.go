package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"karve/api"
	"karve/apiserver/authn"
	"karve/client"
	"karve/config"
	"karve/engine"
	"karve/kubelet"
	"karve/network/dns"
	"karve/network/pod"
	"karve/network/proxy"
)

// node is the part of this process that runs pods: container engine, kubelet, pod network, Service proxy and DNS.
type node struct {
	p      *process
	t      client.Transport
	creds  *credentials
	caches *client.Caches
	engine *engine.Engine
	pods   *podNetwork

	clusterCIDR, serviceCIDR netip.Prefix
	dns                      netip.Addr
}

func newNode(ctx context.Context, p *process) (*node, error) {
	n := &node{p: p}
	var err error
	if n.clusterCIDR, err = netip.ParsePrefix(p.c.Network.PodCIDR); err != nil {
		return nil, fmt.Errorf("network.podCIDR: %w", err)
	}
	if n.serviceCIDR, err = netip.ParsePrefix(p.c.Network.ServiceCIDR); err != nil {
		return nil, fmt.Errorf("network.serviceCIDR: %w", err)
	}
	n.dns, _ = netip.ParseAddr(p.c.Network.DNS)
	if n.creds, err = p.credentials(ctx); err != nil {
		return nil, err
	}
	n.t = n.creds.transport
	n.caches = client.NewCaches(n.t, p.log)
	if !p.c.Components.Kubelet {
		return n, nil
	}
	n.pods = newPodNetwork(n)
	n.engine, err = engine.Open(ctx, engine.Options{Root: filepath.Join(p.c.DataDir, "engine"), State: filepath.Join(p.c.StateDir, "engine"), CgroupRoot: p.c.Node.CgroupRoot,
		Network: n.pods, Registries: registries(p.c.Node.PullNetns), Log: p.log.With("part", "engine")})
	return n, err
}

func (n *node) start(ctx context.Context, start func(string, func(context.Context) error)) error {
	p := n.p
	if p.c.Components.Proxy {
		o := proxy.Options{Caches: n.caches, NodeName: p.name, NodeIPs: []netip.Addr{p.ip}, ClusterCIDR: n.clusterCIDR, ServiceCIDR: n.serviceCIDR, Log: p.log.With("part", "proxy")}
		if n.dns.IsValid() {
			o.LocalVIPs = []netip.Addr{n.dns}
		}
		px := proxy.New(o)
		start("proxy", px.Run)
	}
	if p.c.Components.DNS && n.dns.IsValid() {
		if err := n.startDNS(start); err != nil {
			return err
		}
	}
	if p.c.Components.Kubelet {
		if err := n.startKubelet(ctx, start); err != nil {
			return err
		}
	}
	start("caches", func(ctx context.Context) error { n.caches.Run(ctx); return nil })
	if n.creds.renew != nil {
		start("certificates", n.creds.renew)
	}
	return nil
}

func (n *node) startDNS(start func(string, func(context.Context) error)) error {
	if err := dns.BindVIP(n.dns); err != nil {
		return fmt.Errorf("bind the DNS address %s: %w", n.dns, err)
	}
	up, err := upstreams(n.p.c.Network, n.p.c.Node.PullNetns == "")
	if err != nil {
		return err
	}
	d := dns.New(dns.Options{Caches: n.caches, Listen: []netip.AddrPort{netip.AddrPortFrom(n.dns, 53)}, ClusterDomain: n.p.c.Network.ClusterDomain,
		Upstreams: up, Log: n.p.log.With("part", "dns")})
	start("dns", d.Run)
	return nil
}

// upstreams are the servers that names outside the cluster are asked of: those configured, else this machine's own, unless
// the node lives in a namespace that cannot reach them.
func upstreams(c config.Network, own bool) ([]netip.AddrPort, error) {
	if len(c.UpstreamDNS) == 0 && own {
		f, err := os.Open("/etc/resolv.conf")
		if err != nil {
			return nil, nil // a machine without one has no upstream
		}
		defer f.Close()
		return dns.Upstreams(f)
	}
	var out []netip.AddrPort
	for _, s := range c.UpstreamDNS {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
			continue
		}
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return nil, fmt.Errorf("network.upstreamDNS %q: %w", s, err)
		}
		out = append(out, ap)
	}
	return out, nil
}

func (n *node) startKubelet(ctx context.Context, start func(string, func(context.Context) error)) error {
	p := n.p
	rec := client.NewRecorder(n.t, p.log, "kubelet", p.name)
	o := kubelet.Options{Transport: n.t, Runtime: runtime{n.engine}, NodeName: p.name, NodeIPs: []netip.Addr{p.ip},
		Root: filepath.Join(p.c.DataDir, "kubelet"), LogRoot: filepath.Join(p.c.DataDir, "logs", "pods"),
		ClusterDomain: p.c.Network.ClusterDomain, CgroupRoot: p.c.Node.CgroupRoot, MaxPods: p.c.Node.MaxPods,
		Labels: p.c.Node.Labels, TLS: n.creds.serving, ClientCA: n.creds.pool, Recorder: rec, Log: p.log.With("part", "kubelet"),
		OnPodCIDR: func(cidr netip.Prefix) { n.pods.up(ctx, cidr) }, Version: api.Version(Version)}
	if n.dns.IsValid() {
		o.ClusterDNS = []netip.Addr{n.dns}
	}
	k, err := kubelet.New(o)
	if err != nil {
		return err
	}
	peers := n.pods.follow()
	start("events", func(ctx context.Context) error { rec.Run(ctx); return nil })
	start("kubelet", k.Run)
	start("pod-network", peers)
	return nil
}

// nodeUser is the identity of a node's kubelet.
func nodeUser(name string) *authn.User { return user("system:node:"+name, authn.GroupNodes) }

// podNetwork gives the engine its network once the node has been told its range of addresses.
type podNetwork struct {
	n     *node
	ready chan struct{}
	net   *pod.Network

	mu      sync.Mutex
	problem error
}

func newPodNetwork(n *node) *podNetwork { return &podNetwork{n: n, ready: make(chan struct{})} }

// up is called by the kubelet with the node's range. What fails is tried again in the background until ctx ends; the node
// is not Ready meanwhile, and says why.
func (x *podNetwork) up(ctx context.Context, cidr netip.Prefix) {
	err := x.tryUp(ctx, cidr)
	x.setProblem(err)
	if err != nil {
		go x.retry(ctx, cidr)
	}
}

func (x *podNetwork) retry(ctx context.Context, cidr netip.Prefix) {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		x.n.p.log.Error("pod network is not up, trying again", "podCIDR", cidr, "err", x.Ready())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		err := x.tryUp(ctx, cidr)
		x.setProblem(err)
		if err == nil {
			return
		}
	}
}

func (x *podNetwork) setProblem(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.problem = err
}

// Ready says whether pods can be attached, and why not; the engine makes it part of its own state.
func (x *podNetwork) Ready() error {
	select {
	case <-x.ready:
		return nil
	default:
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.problem != nil {
		return x.problem
	}
	return errors.New("the node has not been given a range of pod addresses yet")
}

func (x *podNetwork) tryUp(ctx context.Context, cidr netip.Prefix) error {
	select {
	case <-x.ready:
		return nil
	default:
	}
	c := &x.n.p.c
	net, err := pod.New(pod.Options{PodCIDR: cidr, ClusterCIDR: x.n.clusterCIDR, ServiceCIDR: x.n.serviceCIDR, NodeIP: x.n.p.ip, Mode: pod.Mode(c.Network.Mode),
		StateDir: filepath.Join(c.DataDir, "network"), Log: x.n.p.log.With("part", "network")})
	if err != nil {
		return err
	}
	if err := net.Up(ctx); err != nil {
		return err
	}
	x.net = net
	close(x.ready)
	return nil
}

// follow keeps the routes to other nodes' pods up to date.
func (x *podNetwork) follow() func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-x.ready:
		case <-ctx.Done():
			return nil
		}
		caches := client.NewCaches(x.n.t, x.n.p.log)
		peers := pod.NewPeers(x.net, caches, x.n.p.name)
		go caches.Run(ctx)
		return peers.Run(ctx)
	}
}

func (x *podNetwork) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	select {
	case <-x.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the node has not been given a range of pod addresses: %w", ctx.Err())
	}
}

// Attach implements engine.Network.
func (x *podNetwork) Attach(ctx context.Context, netns string, r engine.PodNetworkRequest) (engine.PodNetworkResult, error) {
	if err := x.wait(ctx); err != nil {
		return engine.PodNetworkResult{}, err
	}
	res, err := x.net.Attach(ctx, netns, r.SandboxID, hostPorts(r))
	return engine.PodNetworkResult{IPs: res.IPs}, err
}

// Detach implements engine.Network.
func (x *podNetwork) Detach(ctx context.Context, netns string, r engine.PodNetworkRequest) error {
	if err := x.wait(ctx); err != nil {
		return err
	}
	return x.net.Detach(ctx, netns, r.SandboxID)
}

func hostPorts(r engine.PodNetworkRequest) []pod.HostPort {
	var out []pod.HostPort
	for _, m := range r.PortMappings {
		if m.HostPort <= 0 {
			continue
		}
		ip, _ := netip.ParseAddr(m.HostIp)
		out = append(out, pod.HostPort{HostIP: ip, Protocol: m.Protocol.String(), Port: uint16(m.HostPort), ContainerPort: uint16(m.ContainerPort)})
	}
	return out
}
