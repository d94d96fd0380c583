package proxy

import (
	"encoding/binary"
	"net/netip"

	"karve/network/nft"
)

// ledger knows which elements each Service wants in one table, and so what a change of one Service changes there. Two
// Services may want the same element (a pod behind both); of two that want different values for one key the first keeps
// it, and the other is contested until the key is free. It is pure.
type ledger struct {
	own       map[string]map[ident]string
	held      map[ident]*holding
	contested map[string]bool
}

type ident struct{ set, key string }

type holding struct {
	value string
	count int
}

func newLedger() *ledger {
	return &ledger{own: map[string]map[ident]string{}, held: map[ident]*holding{}, contested: map[string]bool{}}
}

// set records what the Service wants now and returns the elements that go and come by it.
func (l *ledger) set(service string, elements []nft.Element) (del, add []nft.Element) {
	want := make(map[ident]string, len(elements))
	for _, e := range elements {
		want[ident{e.Set, e.Key}] = e.Value
	}
	had := l.own[service]
	delete(l.contested, service)
	for id, value := range had {
		if v, ok := want[id]; ok && v == value {
			continue
		}
		delete(had, id)
		if h := l.held[id]; h.count > 1 {
			h.count--
		} else {
			delete(l.held, id)
			del = append(del, nft.Element{Set: id.set, Key: id.key, Value: value})
		}
	}
	if had == nil && len(want) > 0 {
		had = make(map[ident]string, len(want))
		l.own[service] = had
	}
	for id, value := range want {
		if _, ok := had[id]; ok {
			continue
		}
		switch h := l.held[id]; {
		case h == nil:
			l.held[id] = &holding{value: value, count: 1}
			add = append(add, nft.Element{Set: id.set, Key: id.key, Value: value})
		case h.value == value:
			h.count++
		default:
			l.contested[service] = true
			continue
		}
		had[id] = value
	}
	if len(had) == 0 {
		delete(l.own, service)
	}
	return del, add
}

// elements returns everything that is wanted.
func (l *ledger) elements() []nft.Element {
	out := make([]nft.Element, 0, len(l.held))
	for id, h := range l.held {
		out = append(out, nft.Element{Set: id.set, Key: id.key, Value: h.value})
	}
	return out
}

// against returns what must go from and come to a table that holds the elements of loaded.
func (l *ledger) against(loaded []nft.Element) (del, add []nft.Element) {
	there := make(map[ident]string, len(loaded))
	for _, e := range loaded {
		id := ident{e.Set, e.Key}
		if h := l.held[id]; h != nil && h.value == e.Value {
			there[id] = e.Value
			continue
		}
		del = append(del, e)
	}
	for id, h := range l.held {
		if _, ok := there[id]; !ok {
			add = append(add, nft.Element{Set: id.set, Key: id.key, Value: h.value})
		}
	}
	return del, add
}

// flow is an endpoint that a UDP front no longer leads to: what the kernel remembers of such conversations must go, as
// nothing else ends them.
type flow struct {
	front    netip.AddrPort
	endpoint netip.AddrPort
}

const udp = 17

// lost returns the UDP flows that end with a change: endpoints that went and did not come back in another slot.
func lost(v6 bool, del, add []nft.Element) []flow {
	width := int(4 * nft.Width(v6))
	read := func(s string) netip.AddrPort {
		a, _ := netip.AddrFromSlice([]byte(s[:width]))
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16([]byte(s[len(s)-4:])))
	}
	gone := map[flow]bool{}
	each := func(elements []nft.Element, do func(flow)) {
		for _, e := range elements {
			if e.Set != setSlots && e.Set != setSticky || e.Key[width] != udp {
				continue
			}
			do(flow{front: read(e.Key[:width+8]), endpoint: read(e.Value)})
		}
	}
	each(del, func(f flow) { gone[f] = true })
	if len(gone) == 0 {
		return nil
	}
	each(add, func(f flow) { delete(gone, f) })
	out := make([]flow, 0, len(gone))
	for f := range gone {
		out = append(out, f)
	}
	return out
}
