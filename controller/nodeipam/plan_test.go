package nodeipam

import (
	"net/netip"
	"testing"
)

func TestNext(t *testing.T) {
	for _, c := range []struct {
		name, cluster string
		bits          int
		used          []string
		from          uint64
		want          string
	}{
		{"first", "10.42.0.0/16", 24, nil, 0, "10.42.0.0/24"},
		{"skips used", "10.42.0.0/16", 24, []string{"10.42.0.0/24", "10.42.1.0/24"}, 0, "10.42.2.0/24"},
		{"continues", "10.42.0.0/16", 24, nil, 7, "10.42.7.0/24"},
		{"wraps round", "10.42.0.0/23", 24, []string{"10.42.1.0/24"}, 1, "10.42.0.0/24"},
		{"none left", "10.42.0.0/23", 24, []string{"10.42.0.0/24", "10.42.1.0/24"}, 0, ""},
		{"a larger range is taken whole", "10.42.0.0/16", 24, []string{"10.42.0.0/22"}, 0, "10.42.4.0/24"},
		{"a smaller range blocks what holds it", "10.42.0.0/16", 24, []string{"10.42.0.128/25"}, 0, "10.42.1.0/24"},
		{"odd bits", "10.42.0.0/16", 26, []string{"10.42.0.0/26"}, 0, "10.42.0.64/26"},
		{"v6", "fd00:1::/48", 64, []string{"fd00:1::/64"}, 0, "fd00:1:0:1::/64"},
		{"host bits are ignored", "10.42.3.1/16", 24, nil, 0, "10.42.0.0/24"},
		{"mask larger than cluster", "10.42.0.0/16", 12, nil, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			used := map[netip.Prefix]bool{}
			for _, u := range c.used {
				used[netip.MustParsePrefix(u)] = true
			}
			got, _, ok := next(netip.MustParsePrefix(c.cluster), c.bits, used, c.from)
			if ok != (c.want != "") || ok && got.String() != c.want {
				t.Fatalf("got %v %v, want %q", got, ok, c.want)
			}
		})
	}
}
