package nft

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// R0 is the first of the sixteen 32-bit registers; the others follow it.
const R0 = unix.NFT_REG32_00

// Width returns how many registers an address of the family takes.
func Width(v6 bool) uint32 {
	if v6 {
		return 4
	}
	return 1
}

// Rule joins parts into one rule.
func Rule(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// One is a part made of single expressions.
func One(e ...expr.Any) []expr.Any { return e }

func addrAt(v6, source bool, reg uint32) expr.Any {
	p := &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
	if v6 {
		p.Offset, p.Len = 24, 16
	}
	if source {
		p.Offset -= p.Len
	}
	return p
}

// Source loads the source address into reg and the following registers.
func Source(v6 bool, reg uint32) []expr.Any { return One(addrAt(v6, true, reg)) }

// Dest loads the destination address.
func Dest(v6 bool, reg uint32) []expr.Any { return One(addrAt(v6, false, reg)) }

// Protocol loads the transport protocol number.
func Protocol(reg uint32) []expr.Any {
	return One(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg})
}

// DestPort loads the destination port of TCP, UDP and SCTP alike.
func DestPort(reg uint32) []expr.Any {
	return One(&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
}

// Random loads a number below n.
func Random(n int, offset int, reg uint32) []expr.Any {
	return One(&expr.Numgen{Register: reg, Modulus: uint32(n), Offset: uint32(offset), Type: unix.NFT_NG_RANDOM})
}

// In goes on only if the key at reg is in the set.
func In(set string, reg uint32) []expr.Any {
	return One(&expr.Lookup{SourceRegister: reg, SetName: set})
}

// NotIn goes on only if the key at reg is not in the set.
func NotIn(set string, reg uint32) []expr.Any {
	return One(&expr.Lookup{SourceRegister: reg, SetName: set, Invert: true})
}

// Lookup loads what the map holds for the key at reg into dest, and goes on only if it holds anything.
func Lookup(set string, reg, dest uint32) []expr.Any {
	return One(&expr.Lookup{SourceRegister: reg, SetName: set, DestRegister: dest, IsDestRegSet: true})
}

// Vmap takes the verdict that the map holds for the key at reg.
func Vmap(set string, reg uint32) []expr.Any {
	return One(&expr.Lookup{SourceRegister: reg, SetName: set, IsDestRegSet: true})
}

// Prefix goes on only if the address at reg is (or, with negate, is not) in p.
func Prefix(p netip.Prefix, negate bool, reg uint32) []expr.Any {
	base := p.Masked().Addr().AsSlice()
	mask := make([]byte, len(base))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	op := expr.CmpOpEq
	if negate {
		op = expr.CmpOpNeq
	}
	return One(
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(base)), Mask: mask, Xor: make([]byte, len(base))},
		&expr.Cmp{Op: op, Register: reg, Data: base})
}

// Equal goes on only if the register holds these bytes.
func Equal(reg uint32, data []byte) []expr.Any {
	return One(&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data})
}

// SourceLocal goes on only if the source is (negate: is not) an address of this namespace.
func SourceLocal(negate bool, reg uint32) []expr.Any {
	return local(&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagSADDR: true}, negate, reg)
}

// DestLocal is SourceLocal for the destination.
func DestLocal(negate bool, reg uint32) []expr.Any {
	return local(&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true}, negate, reg)
}

func local(f *expr.Fib, negate bool, reg uint32) []expr.Any {
	op := expr.CmpOpEq
	if negate {
		op = expr.CmpOpNeq
	}
	return One(f, &expr.Cmp{Op: op, Register: reg, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)})
}

// OutInterface goes on only for packets that leave by (negate: by another than) the interface of that name.
func OutInterface(name string, negate bool, reg uint32) []expr.Any {
	op := expr.CmpOpEq
	if negate {
		op = expr.CmpOpNeq
	}
	return One(&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg},
		&expr.Cmp{Op: op, Register: reg, Data: append([]byte(name), make([]byte, 16-len(name))...)})
}

// InInterface loads the name of the interface a packet came in by into reg and the three registers after it.
func InInterface(reg uint32) []expr.Any {
	return One(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg})
}

// New goes on only for the first packets of a connection.
func New(reg uint32) []expr.Any {
	mask := binary.NativeEndian.AppendUint32(nil, expr.CtStateBitNEW)
	return One(&expr.Ct{Key: expr.CtKeySTATE, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)})
}

// SetMark sets bits of the packet mark.
func SetMark(bits, reg uint32) []expr.Any { return writeMark(^bits, bits, reg) }

// Marked loads the packet mark.
func Marked(reg uint32) []expr.Any { return One(&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}) }

// MarkFrom writes the packet mark from a register.
func MarkFrom(reg uint32) []expr.Any {
	return One(&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg})
}

// MarkAs writes the packet mark.
func MarkAs(value, reg uint32) []expr.Any {
	return Rule(One(&expr.Immediate{Register: reg, Data: binary.NativeEndian.AppendUint32(nil, value)}), MarkFrom(reg))
}

// ClearMark clears bits of the packet mark.
func ClearMark(bits, reg uint32) []expr.Any { return writeMark(^bits, 0, reg) }

func writeMark(keep, flip, reg uint32) []expr.Any {
	ne := binary.NativeEndian
	return One(&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: ne.AppendUint32(nil, keep), Xor: ne.AppendUint32(nil, flip)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg})
}

// HasMark goes on only if any of the bits is set.
func HasMark(bits, reg uint32) []expr.Any {
	return One(&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)})
}

// DNAT sends the connection to the address at reg and the port at portReg.
func DNAT(v6 bool, reg, portReg uint32) []expr.Any {
	fam := uint32(unix.NFPROTO_IPV4)
	if v6 {
		fam = unix.NFPROTO_IPV6
	}
	return One(&expr.NAT{Type: expr.NATTypeDestNAT, Family: fam, RegAddrMin: reg, RegProtoMin: portReg})
}

// Masquerade gives the connection the source address of the interface it leaves by.
func Masquerade() []expr.Any { return One(&expr.Masq{FullyRandom: true}) }

// Drop ends the packet.
func Drop() []expr.Any { return One(&expr.Verdict{Kind: expr.VerdictDrop}) }

// Accept ends the chain's hook for the packet.
func Accept() []expr.Any { return One(&expr.Verdict{Kind: expr.VerdictAccept}) }

// Jump calls a chain.
func Jump(chain string) []expr.Any {
	return One(&expr.Verdict{Kind: expr.VerdictJump, Chain: chain})
}

// Goto continues in a chain.
func Goto(chain string) []expr.Any {
	return One(&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

// Reject returns the two rules that refuse a packet: a reset for TCP, port unreachable for all else.
func Reject(v6 bool) [][]expr.Any {
	code := uint8(3)
	if v6 {
		code = 4
	}
	return [][]expr.Any{
		Rule(Protocol(R0), Equal(R0, []byte{unix.IPPROTO_TCP}), One(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})),
		One(&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}),
	}
}

// Key packs the parts of a key or value into registers: netip.Addr, uint8 (protocol), uint16 (port), uint32 (mark, slot),
// string (interface name, of at most 15 bytes).
func Key(parts ...any) string {
	var b strings.Builder
	for _, p := range parts {
		switch p := p.(type) {
		case netip.Addr:
			b.Write(p.AsSlice())
		case uint8:
			b.Write([]byte{p, 0, 0, 0})
		case uint16:
			b.Write([]byte{byte(p >> 8), byte(p), 0, 0})
		case string:
			b.WriteString(p)
			b.Write(make([]byte, 16-len(p)))
		case uint32:
			b.Write(binary.NativeEndian.AppendUint32(nil, p))
		default:
			panic("nft: no such key part")
		}
	}
	return b.String()
}

func natHook(at *nftables.ChainHook, priority int32) *Hook {
	return &Hook{Type: nftables.ChainTypeNAT, At: at, Priority: priority}
}

// Prerouting is where connections that come in are translated.
func Prerouting() *Hook { return natHook(nftables.ChainHookPrerouting, -100) }

// Output is where connections made in this namespace are translated.
func Output() *Hook { return natHook(nftables.ChainHookOutput, -100) }

// Postrouting is where source addresses are translated.
func Postrouting() *Hook { return natHook(nftables.ChainHookPostrouting, 100) }

// Raw is the first hook of packets that come in: before connections are known and addresses translated.
func Raw() *Hook {
	return &Hook{Type: nftables.ChainTypeFilter, At: nftables.ChainHookPrerouting, Priority: -300}
}

// Filter is a filter hook just before the usual place of firewalls.
func Filter(at *nftables.ChainHook) *Hook {
	return &Hook{Type: nftables.ChainTypeFilter, At: at, Priority: -1}
}
