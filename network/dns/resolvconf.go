package dns

import (
	"bufio"
	"io"
	"net/netip"
	"strings"
)

// Upstreams returns the servers that a resolv.conf names, at port 53, each once. Lines it does not understand are skipped.
// A loopback server is one of the namespace that the file is from: whoever serves in another leaves it out.
func Upstreams(resolvConf io.Reader) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	seen := map[netip.AddrPort]bool{}
	lines := bufio.NewScanner(resolvConf)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		at := netip.AddrPortFrom(a.Unmap(), 53)
		if err == nil && !seen[at] {
			seen[at] = true
			out = append(out, at)
		}
	}
	return out, lines.Err()
}
