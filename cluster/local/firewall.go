package local

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// forward is one port of the host's loopback that leads to a node.
type forward struct {
	host  uint16
	proto byte
	to    netip.AddrPort
}

func (s *State) forwards() ([]forward, error) {
	ip, err := netip.ParseAddr(s.Nodes[0].IP)
	if err != nil {
		return nil, err
	}
	out := []forward{{host: uint16(s.APIPort), proto: unix.IPPROTO_TCP, to: netip.AddrPortFrom(ip, apiPort)}}
	for _, p := range s.Publish {
		proto := byte(unix.IPPROTO_TCP)
		if p.Protocol == "udp" {
			proto = unix.IPPROTO_UDP
		}
		out = append(out, forward{host: uint16(p.Host), proto: proto, to: netip.AddrPortFrom(ip, uint16(p.NodePort))})
	}
	return out, nil
}

// ensureFirewall replaces the cluster's table in the host's network in one step:
//
//	raw         from the cluster to 127.0.0.0/8: dropped, before the answers to our own connections get that address back
//	input       from the cluster: answers only
//	forward     from and to the cluster: dropped, it is reached from this machine alone
//	output      to 127.0.0.1 and a published port: sent to the first node
//	postrouting to the cluster from 127.0.0.0/8: with the host's address in the fabric, or no answer could come back
func (s *State) ensureFirewall() error {
	fwd, err := s.forwards()
	if err != nil {
		return err
	}
	c := &nftables.Conn{}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: s.table()}
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Name: name, Table: t, Type: kind, Hooknum: hook, Priority: prio})
	}
	rule := func(ch *nftables.Chain, parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: all})
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	drop := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}

	raw := chain("raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	rule(raw, link(expr.MetaKeyIIFNAME, s.HostLink), address(dstOffset, loopback), drop)

	in := chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	rule(in, link(expr.MetaKeyIIFNAME, s.HostLink), answers(), accept)
	rule(in, link(expr.MetaKeyIIFNAME, s.HostLink), drop)

	fw := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	rule(fw, link(expr.MetaKeyIIFNAME, s.HostLink), drop)
	rule(fw, link(expr.MetaKeyOIFNAME, s.HostLink), drop)

	out := chain("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	for _, f := range fwd {
		rule(out, address(dstOffset, netip.MustParsePrefix("127.0.0.1/32")), port(f.proto, f.host), dnat(f.to))
	}
	post := chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	rule(post, link(expr.MetaKeyOIFNAME, s.HostLink), address(srcOffset, loopback), []expr.Any{&expr.Masq{}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", t.Name, err)
	}
	return nil
}

func (s *State) dropFirewall() error {
	c := &nftables.Conn{}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: s.table()}
	c.AddTable(t) // so that the next line cannot fail for want of it
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", t.Name, err)
	}
	return nil
}

// Offsets of the addresses in an IPv4 header.
const srcOffset, dstOffset = 12, 16

func link(key expr.MetaKey, name string) []expr.Any {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b}}
}

func address(offset uint32, p netip.Prefix) []expr.Any {
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Addr().AsSlice()},
	}
}

func port(proto byte, n uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, n)},
	}
}

func answers() []expr.Any {
	mask := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func dnat(to netip.AddrPort) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}
}
