package proxy

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"karve/network/nft"
)

// masqMark is the packet mark bit of connections whose source must become the node's; it is cleared before they leave.
const masqMark = 0x4000

// The sets of the table.
const (
	setFronts   = "fronts"   // address.protocol.port : chain
	setSlots    = "slots"    // address.protocol.port.slot : endpoint.port
	setRefused  = "refused"  // address.protocol.port : reject or drop
	setVIPs     = "vips"     // service addresses in use
	setHairpin  = "hairpin"  // endpoint.endpoint of this node's endpoints
	setNumbers  = "numbers"  // address.protocol.port.slot : number, of services with affinity
	setSticky   = "sticky"   // address.protocol.port.number : endpoint.port, of services with affinity
	setAffinity = "affinity" // client.address.protocol.port : number, filled by packets
)

// family builds the rules of one address family.
type family struct {
	v6      bool
	w       uint32 // registers an address takes
	cluster netip.Prefix
	service netip.Prefix
	skip    []netip.Addr
}

func (f family) layout() nft.Layout {
	front := []nft.Field{nft.Addr, nft.Proto, nft.Port}
	target := []nft.Field{nft.Addr, nft.Port}
	frontKey := nft.Rule(nft.Dest(f.v6, nft.R0), nft.Protocol(nft.R0+f.w), nft.DestPort(nft.R0+f.w+1))
	refuse := nft.Rule(nft.New(nft.R0), frontKey, nft.Vmap(setRefused, nft.R0))
	l := nft.Layout{
		Sets: []nft.Set{
			{Name: setFronts, Key: front, Verdict: true},
			{Name: setSlots, Key: append(front[:3:3], nft.Mark), Data: target},
			{Name: setRefused, Key: front, Verdict: true},
			{Name: setVIPs, Key: []nft.Field{nft.Addr}},
			{Name: setHairpin, Key: []nft.Field{nft.Addr, nft.Addr}},
			{Name: setNumbers, Key: append(front[:3:3], nft.Mark), Data: []nft.Field{nft.Mark}},
			{Name: setSticky, Key: append(front[:3:3], nft.Mark), Data: target},
			{Name: setAffinity, Key: append([]nft.Field{nft.Addr}, front...), Data: []nft.Field{nft.Mark}, Dynamic: true, Size: 1 << 18},
		},
	}
	translate := [][]expr.Any{nft.Rule(frontKey, nft.Vmap(setFronts, nft.R0))}
	unknown := [][]expr.Any{refuse}
	if f.service.IsValid() {
		in := nft.Rule(nft.Dest(f.v6, nft.R0), nft.Prefix(f.service, false, nft.R0))
		unknown = append(unknown, nft.Rule(in, nft.Goto("unknown")))
	}
	var stray [][]expr.Any
	for _, a := range f.skip {
		stray = append(stray, nft.Rule(nft.Dest(f.v6, nft.R0), nft.Equal(nft.R0, a.AsSlice()), nft.Accept()))
	}
	stray = append(stray, nft.Rule(nft.Dest(f.v6, nft.R0), nft.In(setVIPs, nft.R0), nft.Goto("reject")), nft.Drop())
	l.Chains = []nft.Chain{
		{Name: "reject", Rules: nft.Reject(f.v6)},
		{Name: "unknown", Rules: stray},
		{Name: "prerouting", Hook: nft.Prerouting(), Rules: translate},
		{Name: "output", Hook: nft.Output(), Rules: translate},
		{Name: "postrouting", Hook: nft.Postrouting(), Rules: [][]expr.Any{
			nft.Rule(nft.HasMark(masqMark, nft.R0), nft.ClearMark(masqMark, nft.R0), nft.Masquerade()),
			nft.Rule(nft.Source(f.v6, nft.R0), nft.Dest(f.v6, nft.R0+f.w), nft.In(setHairpin, nft.R0), nft.Masquerade()),
		}},
		{Name: "filter-input", Hook: nft.Filter(nftables.ChainHookInput), Rules: [][]expr.Any{refuse}},
		{Name: "filter-forward", Hook: nft.Filter(nftables.ChainHookForward), Rules: unknown},
		{Name: "filter-output", Hook: nft.Filter(nftables.ChainHookOutput), Rules: unknown},
	}
	l.Chains = append(l.Chains, f.chains(sample)...)
	return l
}

// sample is in every layout, so that the layout's identity covers how spreads are written.
var sample = spread{kind: ExternalLocal, local: 1, all: 1, stickySecs: 10800}

// spread is one way to choose an endpoint; equal ones share a chain, which the name identifies wholly.
type spread struct {
	kind        Kind
	local, all  int // number of slots; those of local come first
	stickySecs  int32
	afterLocals int // slots to skip before those of all
}

func (s spread) name() string {
	n := fmt.Sprintf("%s-%d", [...]string{"in", "ex", "lo"}[s.kind], s.all)
	if s.kind == ExternalLocal {
		n += fmt.Sprintf("-of-%d", s.local)
	}
	if s.afterLocals > 0 {
		n += fmt.Sprintf("-after-%d", s.afterLocals)
	}
	if s.stickySecs > 0 {
		n += fmt.Sprintf("-for-%d", s.stickySecs)
	}
	return n
}

// chains returns the chain of s, after the chains that it goes to.
func (f family) chains(s spread) []nft.Chain {
	c := nft.Chain{Name: s.name()}
	var out []nft.Chain
	switch s.kind {
	case Internal:
		outside := nft.SourceLocal(true, nft.R0)
		if f.cluster.IsValid() {
			outside = nft.Rule(nft.Source(f.v6, nft.R0), nft.Prefix(f.cluster, true, nft.R0), outside)
		}
		ex := s
		ex.kind = External
		out = f.chains(ex)
		c.Rules = append(c.Rules, nft.Rule(outside, nft.Goto(ex.name())))
		c.Rules = append(c.Rules, f.choose(s.all, s.afterLocals, s.stickySecs, 0)...)
	case External:
		c.Rules = append(c.Rules, nft.SetMark(masqMark, nft.R0))
		c.Rules = append(c.Rules, f.choose(s.all, s.afterLocals, s.stickySecs, masqMark)...)
	case ExternalLocal:
		in := spread{kind: Internal, all: s.all, afterLocals: s.local, stickySecs: s.stickySecs}
		ex := in
		ex.kind = External
		out = f.chains(in) // brings ex with it
		if f.cluster.IsValid() {
			c.Rules = append(c.Rules, nft.Rule(nft.Source(f.v6, nft.R0), nft.Prefix(f.cluster, false, nft.R0), nft.Goto(in.name())))
		}
		c.Rules = append(c.Rules, nft.Rule(nft.SourceLocal(false, nft.R0), nft.Goto(ex.name())))
		if s.local == 0 {
			c.Rules = append(c.Rules, nft.Drop())
			break
		}
		c.Rules = append(c.Rules, f.choose(s.local, 0, s.stickySecs, 0)...)
	}
	return append(out, c)
}

// choose returns the rules that pick one of n slots from first on.
//
// With sticky seconds an endpoint is known by a number: affinity remembers it for the client, and sticky holds the numbers
// that are good now, so that what is remembered of an endpoint that has gone leads nowhere and is replaced. The number
// passes from rule to rule in the packet mark, which is left as mark says (nft before 1.0.7 ends with an assertion, for
// every table of the machine, when it lists a rule whose lookup reads a register that another lookup wrote).
func (f family) choose(n, first int, sticky int32, mark uint32) [][]expr.Any {
	client := uint32(nft.R0)
	front := client + f.w
	extra := front + f.w + 2
	target := extra + 1
	load := nft.Rule(nft.Dest(f.v6, front), nft.Protocol(front+f.w), nft.DestPort(front+f.w+1))
	random := nft.Random(n, first, extra)
	to := nft.DNAT(f.v6, target, target+f.w)
	if sticky == 0 {
		return [][]expr.Any{nft.Rule(load, random, nft.Lookup(setSlots, front, target), to)}
	}
	who := nft.Rule(nft.Source(f.v6, client), load)
	change := func(op uint32, timeout int32) []expr.Any {
		return nft.One(&expr.Dynset{SrcRegKey: client, SrcRegData: extra, SetName: setAffinity, Operation: op,
			Timeout: time.Duration(timeout) * time.Second})
	}
	use := nft.Rule(who, nft.Marked(extra), nft.Lookup(setSticky, front, target), change(unix.NFT_DYNSET_OP_UPDATE, sticky),
		nft.MarkAs(mark, client), to)
	return [][]expr.Any{
		nft.Rule(who, nft.Lookup(setAffinity, client, extra), nft.MarkFrom(extra)),
		use,
		nft.Rule(who, nft.Marked(extra), change(dynsetDelete, 0)),
		nft.Rule(load, random, nft.Lookup(setNumbers, front, extra), nft.MarkFrom(extra)),
		use,
	}
}

// number is what an endpoint is known by in affinity: the same in every run, and no mark that means anything else.
func number(ip netip.Addr) uint32 {
	h := fnv.New32a()
	h.Write(ip.AsSlice())
	return h.Sum32() | 1<<31
}

// dynsetDelete is NFT_DYNSET_OP_DELETE of linux/netfilter/nf_tables.h.
const dynsetDelete = 2

// lower turns a plan into the elements and spreads of this family.
func (f family) lower(p Plan) (elements []nft.Element, used []spread) {
	add := func(set, key, value string) {
		elements = append(elements, nft.Element{Set: set, Key: key, Value: value})
	}
	vips := map[netip.Addr]bool{}
	for front, b := range p.Fronts {
		if front.Addr.Is6() != f.v6 {
			continue
		}
		key := nft.Key(front.Addr, front.Proto, front.Port)
		if f.service.IsValid() && f.service.Contains(front.Addr) && !vips[front.Addr] {
			vips[front.Addr] = true
			add(setVIPs, nft.Key(front.Addr), "")
		}
		switch {
		case b.Drop:
			add(setRefused, key, "drop")
			continue
		case len(b.All) == 0:
			add(setRefused, key, "reject")
			continue
		}
		s := spread{kind: b.Kind, local: len(b.Local), all: len(b.All), stickySecs: b.Affinity}
		used = append(used, s)
		add(setFronts, key, s.name())
		numbers := map[uint32]netip.AddrPort{}
		for i, ep := range slices.Concat(b.Local, b.All) {
			value := nft.Key(ep.Addr(), ep.Port())
			if b.Affinity == 0 {
				add(setSlots, key+nft.Key(uint32(i)), value)
				continue
			}
			n := number(ep.Addr())
			for numbers[n].IsValid() && numbers[n] != ep {
				n = (n + 1) | 1<<31
			}
			if !numbers[n].IsValid() {
				numbers[n] = ep
				add(setSticky, key+nft.Key(n), value)
			}
			add(setNumbers, key+nft.Key(uint32(i)), nft.Key(n))
		}
	}
	for _, ip := range p.Hairpin {
		if ip.Is6() == f.v6 {
			add(setHairpin, nft.Key(ip, ip), "")
		}
	}
	return elements, used
}
