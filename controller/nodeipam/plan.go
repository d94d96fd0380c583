package nodeipam

import (
	"fmt"
	"math/big"
	"net/netip"
	"slices"
)

// next returns the first subnet of size bits inside cluster, from position from on and wrapping round, that overlaps none of
// used. It reports false when all are taken.
func next(cluster netip.Prefix, bits int, used map[netip.Prefix]bool, from uint64) (netip.Prefix, uint64, bool) {
	cluster = cluster.Masked()
	if bits < cluster.Bits() || bits > cluster.Addr().BitLen() {
		return netip.Prefix{}, 0, false
	}
	var odd []netip.Prefix
	for q := range used {
		if q.Bits() > bits {
			odd = append(odd, q)
		}
	}
	total := uint64(1) << min(bits-cluster.Bits(), 32)
	for i := range total {
		at := (from + i) % total
		p := subnet(cluster, bits, at)
		if !taken(p, used, odd) {
			return p, at, true
		}
	}
	return netip.Prefix{}, 0, false
}

// taken reports whether p overlaps a used prefix. Ranges of p's size or larger are found by lookup; odd holds the smaller
// ones, which only a former mask size leaves behind.
func taken(p netip.Prefix, used map[netip.Prefix]bool, odd []netip.Prefix) bool {
	for b := p.Bits(); b >= 0; b-- {
		if q, err := p.Addr().Prefix(b); err == nil && used[q] {
			return true
		}
	}
	return slices.ContainsFunc(odd, p.Overlaps)
}

// subnet returns the i-th subnet of size bits in cluster.
func subnet(cluster netip.Prefix, bits int, i uint64) netip.Prefix {
	n := new(big.Int).SetBytes(cluster.Addr().AsSlice())
	n.Add(n, new(big.Int).Lsh(new(big.Int).SetUint64(i), uint(cluster.Addr().BitLen()-bits)))
	a, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, cluster.Addr().BitLen()/8)))
	return netip.PrefixFrom(a, bits)
}

// validate reports a configuration that could give no node a range.
func validate(cluster netip.Prefix, bits int) error {
	if bits < cluster.Bits() || bits > cluster.Addr().BitLen() {
		return fmt.Errorf("node mask /%d does not fit in the cluster range %s", bits, cluster)
	}
	return nil
}
