// Package proxy makes Services work on one node: it turns Services and EndpointSlices into nftables elements in the network
// namespace it runs in. Each node's start-up runs one. It owns the tables named karve-proxy and the route of the service
// address range; it does not own pod addresses (package pod) and answers no names (package dns). Rules stay when it stops.
//
// model.go decides (pure), layout.go says it in rules, ledger.go finds what changed (pure), this file does it.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"karve/client"
	"karve/network/nft"
)

const (
	tableName = "karve-proxy"
	// sliceIndex lists EndpointSlices by the namespace/name of their Service.
	sliceIndex = "network.service"
	// pause follows each change, so that a burst becomes few transactions; the first change of a burst does not wait.
	pause = 10 * time.Millisecond
	// check is how often the tables are looked at, in case another program removed them.
	check = time.Minute
)

// Options says for which node a Proxy works.
type Options struct {
	Caches   *client.Caches
	NodeName string
	// Zone is the node's topology.kubernetes.io/zone, if known.
	Zone string
	// NodeIPs are the addresses that node ports answer on.
	NodeIPs []netip.Addr
	// ClusterCIDR holds all pods of the cluster, ServiceCIDR all cluster IPs. Either may be the zero Prefix.
	ClusterCIDR, ServiceCIDR netip.Prefix
	// LocalVIPs are cluster IPs that this node answers itself: they are never programmed.
	LocalVIPs []netip.Addr
	Log       *slog.Logger
}

// Proxy programmes one node. Make it before its Caches run, then Run it once.
type Proxy struct {
	opts   Options
	view   View
	svcs   *client.Cache[*corev1.Service]
	slices *client.Cache[*discoveryv1.EndpointSlice]

	mu    sync.Mutex
	dirty map[string]bool
	wake  chan struct{}

	sides []*side
}

// side is the state of one address family.
type side struct {
	family
	table  *nft.Table
	ledger *ledger
	chains map[string]bool // programmed spreads
	stale  bool            // the table may not hold what the ledger says
}

// New returns a Proxy that does nothing until Run.
func New(opts Options) *Proxy {
	p := &Proxy{opts: opts, svcs: client.CacheOf[*corev1.Service](opts.Caches),
		slices: client.CacheOf[*discoveryv1.EndpointSlice](opts.Caches), dirty: map[string]bool{}, wake: make(chan struct{}, 1)}
	p.view = View{NodeName: opts.NodeName, Zone: opts.Zone, NodeIPs: opts.NodeIPs, Skip: map[netip.Addr]bool{}}
	for _, a := range opts.LocalVIPs {
		p.view.Skip[a] = true
	}
	p.slices.Index(sliceIndex, func(s *discoveryv1.EndpointSlice) []string {
		if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
			return []string{s.Namespace + "/" + name}
		}
		return nil
	})
	p.svcs.Handle(func(old, now *corev1.Service) {
		if now == nil {
			now = old
		}
		p.touch(client.Key(now))
	})
	p.slices.Handle(func(old, now *discoveryv1.EndpointSlice) {
		for _, s := range []*discoveryv1.EndpointSlice{old, now} {
			if s != nil && s.Labels[discoveryv1.LabelServiceName] != "" {
				p.touch(s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName])
			}
		}
	})
	return p
}

func (p *Proxy) touch(service string) {
	p.mu.Lock()
	p.dirty[service] = true
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Proxy) take() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.dirty
	p.dirty = map[string]bool{}
	return d
}

// families lists the address families that the node serves.
func (p *Proxy) families() []family {
	has := map[bool]bool{}
	for _, a := range p.opts.NodeIPs {
		has[a.Is6()] = true
	}
	if p.opts.ServiceCIDR.IsValid() {
		has[p.opts.ServiceCIDR.Addr().Is6()] = true
	}
	var out []family
	for _, v6 := range []bool{false, true} {
		if !has[v6] {
			continue
		}
		f := family{v6: v6, w: nft.Width(v6)}
		if c := p.opts.ClusterCIDR; c.IsValid() && c.Addr().Is6() == v6 {
			f.cluster = c
		}
		if c := p.opts.ServiceCIDR; c.IsValid() && c.Addr().Is6() == v6 {
			f.service = c
		}
		for _, a := range p.opts.LocalVIPs {
			if a.Is6() == v6 {
				f.skip = append(f.skip, a)
			}
		}
		out = append(out, f)
	}
	return out
}

// Run programmes the node until ctx ends and leaves the rules in place. It works in the network namespace of the calling
// goroutine's thread, which the caller locks if that is not the process's. It returns an error only if it cannot start.
func (p *Proxy) Run(ctx context.Context) error {
	for _, ch := range []<-chan struct{}{p.svcs.Synced(), p.slices.Synced()} {
		select {
		case <-ch:
		case <-ctx.Done():
			return nil
		}
	}
	if err := p.open(); err != nil {
		return err
	}
	defer p.close()
	p.take()
	for _, s := range p.svcs.List() {
		p.record(client.Key(s), nil)
	}
	if err := p.adopt(); err != nil {
		p.opts.Log.Warn("service rules not adopted, making them anew", "err", err)
	}
	return p.loop(ctx)
}

func (p *Proxy) open() error {
	for _, f := range p.families() {
		t, err := nft.Open(tableName, f.v6, f.layout())
		if err != nil {
			p.close()
			return fmt.Errorf("start service proxy: %w", err)
		}
		p.sides = append(p.sides, &side{family: f, table: t, ledger: newLedger(), chains: f.made(), stale: true})
	}
	if err := p.route(); err != nil {
		p.opts.Log.Warn("no route for the service range", "err", err)
	}
	return nil
}

func (p *Proxy) close() {
	for _, s := range p.sides {
		s.table.Close()
	}
	p.sides = nil
}

func (p *Proxy) loop(ctx context.Context) error {
	tick := time.NewTicker(check)
	defer tick.Stop()
	retry := time.Duration(0)
	for {
		var again <-chan time.Time
		if err := p.step(); err != nil {
			retry = min(max(2*retry, 100*time.Millisecond), 30*time.Second)
			p.opts.Log.Error("programme services", "err", err, "retry", retry)
			again = time.After(retry)
		} else {
			retry = 0
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-again:
		case <-tick.C:
			p.inspect()
		}
	}
}

// record works out what a Service wants and notes what changes by it in changes, one per side (nil: only in the ledger).
func (p *Proxy) record(service string, changes []change) {
	var plan Plan
	if svc, ok := p.svcs.GetKey(service); ok {
		plan = Make(p.view, svc, p.slices.ByIndex(sliceIndex, service))
	}
	for i, s := range p.sides {
		elements, used := s.lower(plan)
		del, add := s.ledger.set(service, elements)
		if changes != nil {
			changes[i].del = append(changes[i].del, del...)
			changes[i].add = append(changes[i].add, add...)
			changes[i].used = append(changes[i].used, used...)
		}
	}
}

type change struct {
	del, add []nft.Element
	used     []spread
}

// step programmes what is dirty, and a whole table where the last attempt failed.
func (p *Proxy) step() error {
	changes := make([]change, len(p.sides))
	dirty := p.take()
	freed := false
	for service := range dirty {
		p.record(service, changes)
	}
	for _, c := range changes {
		freed = freed || len(c.del) > 0
	}
	if freed {
		for _, s := range p.sides {
			for service := range s.ledger.contested {
				p.record(service, changes)
			}
		}
	}
	var errs error
	for i, s := range p.sides {
		errs = errors.Join(errs, p.write(s, changes[i]))
	}
	return errs
}

func (p *Proxy) write(s *side, c change) error {
	if !s.stale {
		if len(c.del)+len(c.add) == 0 {
			return nil
		}
		err := s.table.Apply(nft.Change{Chains: s.missing(c.used), Del: c.del, Add: c.add})
		if err == nil {
			p.forget(s, c.del, c.add)
			return nil
		}
		s.stale = true
		p.opts.Log.Warn("service rules differ from what was written, making them anew", "err", err)
	}
	s.chains = s.made()
	chains := s.missing(p.allSpreads(s))
	if err := s.table.Replace(chains, s.ledger.elements()); err != nil {
		return err
	}
	s.stale = false
	p.forget(s, c.del, c.add)
	return nil
}

// made returns the names of the spread chains that every table has from its layout.
func (f family) made() map[string]bool {
	out := map[string]bool{}
	for _, c := range f.chains(sample) {
		out[c.Name] = true
	}
	return out
}

// missing returns the chains that used needs and the table lacks, and counts them as made.
func (s *side) missing(used []spread) []nft.Chain {
	var out []nft.Chain
	for _, u := range used {
		if s.chains[u.name()] {
			continue
		}
		for _, c := range s.family.chains(u) {
			if !s.chains[c.Name] {
				s.chains[c.Name] = true
				out = append(out, c)
			}
		}
	}
	return out
}

func (p *Proxy) allSpreads(s *side) []spread {
	seen := map[spread]bool{}
	var out []spread
	for service := range s.ledger.own {
		svc, ok := p.svcs.GetKey(service)
		if !ok {
			continue
		}
		_, used := s.lower(Make(p.view, svc, p.slices.ByIndex(sliceIndex, service)))
		for _, u := range used {
			if !seen[u] {
				seen[u] = true
				out = append(out, u)
			}
		}
	}
	return out
}

// adopt takes over a table that an earlier run left, with a transaction that holds only the difference.
func (p *Proxy) adopt() error {
	for _, s := range p.sides {
		chains, loaded, ok, err := s.table.Load()
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		for _, c := range chains {
			s.chains[c] = true
		}
		del, add := s.ledger.against(loaded)
		if err := s.table.Apply(nft.Change{Chains: s.missing(p.allSpreads(s)), Del: del, Add: add}); err != nil {
			return err
		}
		s.stale = false
		p.forget(s, del, add)
		p.opts.Log.Debug("adopted service rules", "v6", s.v6, "kept", len(loaded)-len(del), "removed", len(del), "added", len(add))
	}
	return nil
}

func (p *Proxy) inspect() {
	for _, s := range p.sides {
		if ok, err := s.table.Intact(); err == nil && !ok {
			p.opts.Log.Warn("service rules are gone, making them anew", "v6", s.v6)
			s.stale = true
		}
	}
}

// Cleanup removes the tables and the route. Call it when Run is not running.
func (p *Proxy) Cleanup() error {
	var errs error
	for _, v6 := range []bool{false, true} {
		t, err := nft.Open(tableName, v6, nft.Layout{})
		if err == nil {
			err = t.Delete()
			t.Close()
		}
		errs = errors.Join(errs, err)
	}
	return errors.Join(errs, p.unroute())
}

// Dump writes the programmed elements of this namespace as text.
func (p *Proxy) Dump(w io.Writer) error {
	for _, f := range p.families() {
		t, err := nft.Open(tableName, f.v6, f.layout())
		if err != nil {
			return err
		}
		defer t.Close()
		if err := t.Dump(w); err != nil {
			return err
		}
	}
	return nil
}
