package nft

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables/expr"

	"karve/network/testnet"
)

func TestMain(m *testing.M) { testnet.Main(m) }

func layout(v6 bool) Layout {
	return Layout{
		Sets: []Set{
			{Name: "verdicts", Key: []Field{Addr, Proto, Port}, Verdict: true},
			{Name: "targets", Key: []Field{Addr, Mark}, Data: []Field{Addr, Port}},
			{Name: "members", Key: []Field{Addr}},
			{Name: "filled", Key: []Field{Addr}, Data: []Field{Mark}, Dynamic: true, Size: 100},
		},
		Chains: []Chain{
			{Name: "one", Rules: [][]expr.Any{Drop()}},
			{Name: "base", Hook: Prerouting(), Rules: [][]expr.Any{Rule(Dest(v6, R0), Protocol(R0+Width(v6)), DestPort(R0+Width(v6)+1), Vmap("verdicts", R0))}},
		},
	}
}

func sorted(e []Element) []Element {
	slices.SortFunc(e, func(a, b Element) int { return strings.Compare(a.Set+a.Key+a.Value, b.Set+b.Key+b.Value) })
	return e
}

func TestTable(t *testing.T) {
	for _, c := range []struct {
		v6   bool
		addr string
	}{{false, "10.0.0.%d"}, {true, "fd00::%d"}} {
		t.Run(fmt.Sprintf("v6=%t", c.v6), func(t *testing.T) {
			testnet.New(t).Must(func() error {
				return work(c.v6, func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(c.addr, i)) })
			})
		})
	}
}

// work takes a table through its life and compares what the kernel has at each step.
func work(v6 bool, addr func(int) netip.Addr) error {
	tb, err := Open("karve-test", v6, layout(v6))
	if err != nil {
		return err
	}
	defer tb.Close()
	same := func(step string, want ...Element) error {
		_, got, ok, err := tb.Load()
		if err != nil || !ok || !slices.Equal(sorted(got), sorted(want)) {
			return fmt.Errorf("%s: have %q, want %q (%t, %v)", step, got, want, ok, err)
		}
		return nil
	}
	if ok, err := tb.Intact(); ok || err != nil {
		return fmt.Errorf("before it is made: intact %t, %v", ok, err)
	}
	front := Element{"verdicts", Key(addr(1), uint8(6), uint16(80)), "one"}
	drop := Element{"verdicts", Key(addr(2), uint8(17), uint16(53)), "drop"}
	target := Element{"targets", Key(addr(1), uint32(0)), Key(addr(9), uint16(8080))}
	member := Element{"members", Key(addr(3)), ""}
	if err := tb.Replace(nil, []Element{front, drop, target, member}); err != nil {
		return err
	}
	if err := same("made", front, drop, target, member); err != nil {
		return err
	}
	// A value changes in place, with a chain of its own, in one transaction.
	moved := Element{front.Set, front.Key, "two"}
	retarget := Element{target.Set, target.Key, Key(addr(8), uint16(8081))}
	two := Chain{Name: "two", Rules: [][]expr.Any{Accept()}}
	if err := tb.Apply(Change{Chains: []Chain{two}, Del: []Element{front, target, member}, Add: []Element{moved, retarget}}); err != nil {
		return err
	}
	if err := same("changed", moved, drop, retarget); err != nil {
		return err
	}
	chains, _, _, err := tb.Load()
	if err != nil || !slices.Equal(chains, []string{"two"}) {
		return fmt.Errorf("chains %q, %v", chains, err)
	}
	// Of a transaction that fails nothing happens, and the handle is as good as before.
	if tb.Apply(Change{Add: []Element{member}, Del: []Element{front, {"members", Key(addr(7)), ""}}}) == nil {
		return fmt.Errorf("the deletion of what is not there succeeded")
	}
	if err := same("after a failure", moved, drop, retarget); err != nil {
		return err
	}
	var many []Element
	for i := range 3000 {
		ip := addr(1).AsSlice()
		ip[len(ip)-2], ip[len(ip)-1] = byte(i>>8), byte(i)
		many = append(many, Element{"members", string(ip), ""})
	}
	if err := tb.Replace(nil, many); err != nil {
		return err
	}
	if err := same("replaced by many", many...); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := tb.Dump(&text); err != nil || !strings.Contains(text.String(), "members  ") {
		return fmt.Errorf("dump: %v", err)
	}
	other, err := Open("karve-test", v6, Layout{})
	if err != nil {
		return err
	}
	defer other.Close()
	if ok, err := other.Intact(); ok || err != nil {
		return fmt.Errorf("a table of another layout counts as intact: %v", err)
	}
	for range 2 {
		if err := tb.Delete(); err != nil {
			return err
		}
	}
	ok, err := tb.Intact()
	if ok || err != nil {
		return fmt.Errorf("after its deletion: intact %t, %v", ok, err)
	}
	return nil
}
