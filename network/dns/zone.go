package dns

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

const (
	// ttl of every answer about the cluster, in seconds.
	ttl = 5
	// schema is the version of the Kubernetes DNS specification that the names follow.
	schema = "1.1.0"
)

// directory is what a zone reads. It is filled from caches, and by tests from memory.
type directory interface {
	service(namespace, name string) *corev1.Service
	slices(namespace, name string) []*discoveryv1.EndpointSlice
	// byIP returns the Service that has the cluster IP, or nil.
	byIP(ip netip.Addr) *corev1.Service
	// slicesByIP returns the slices with an endpoint of that address.
	slicesByIP(ip netip.Addr) []*discoveryv1.EndpointSlice
	namespace(name string) bool
}

// record is one answer; which of its fields count depends on kind.
type record struct {
	name   string // without the final dot
	kind   dnsmessage.Type
	addr   netip.Addr
	target string // CNAME, PTR, SRV, NS
	port   uint16
	text   string
}

// result is what a lookup finds. The zero value is "no such name".
type result struct {
	exists  bool
	answers []record
	extra   []record
	// alias is the target of a CNAME that leads out of the zone, still to be resolved.
	alias string
}

func (r *result) reset() { *r = result{answers: r.answers[:0], extra: r.extra[:0]} }

// zone answers for the cluster domain. It is safe for concurrent use.
type zone struct {
	domain string
	dir    directory
	self   []netip.Addr // the server's own addresses
}

// within returns the part of name before the cluster domain; ok is false for a name outside of it. Names are in lower case.
func (z *zone) within(name string) (rest string, ok bool) {
	if name == z.domain {
		return "", true
	}
	rest, ok = strings.CutSuffix(name, z.domain)
	if !ok || !strings.HasSuffix(rest, ".") {
		return "", false
	}
	return rest[:len(rest)-1], true
}

// lookup answers a question inside the domain. rest is what within returned for name.
func (z *zone) lookup(name, rest string, kind dnsmessage.Type, res *result) {
	// At most five labels mean anything: _port._proto.service.namespace.svc.
	var l [6]string
	n := 0
	for rest != "" {
		if n == len(l) {
			return
		}
		i := strings.LastIndexByte(rest, '.')
		l[n] = rest[i+1:]
		n++
		rest = rest[:max(i, 0)]
	}
	switch {
	case n == 0:
		z.apex(name, kind, res)
	case l[0] == "svc":
		z.services(name, l[1:n], kind, res)
	case l[0] == "pod":
		z.pods(name, l[1:n], kind, res)
	case l[0] == "dns-version" && n == 1:
		res.exists = true
		if kind == dnsmessage.TypeTXT {
			res.answers = append(res.answers, record{name: name, kind: kind, text: schema})
		}
	case l[0] == "dns" && n <= 2:
		res.exists = n == 1 || l[1] == "ns"
		if n == 2 && res.exists {
			for _, a := range z.self {
				addAddr(&res.answers, name, a, kind)
			}
		}
	}
}

func (z *zone) apex(name string, kind dnsmessage.Type, res *result) {
	res.exists = true
	switch kind {
	case dnsmessage.TypeSOA:
		res.answers = append(res.answers, record{name: name, kind: kind})
	case dnsmessage.TypeNS:
		res.answers = append(res.answers, record{name: name, kind: kind, target: "ns.dns." + z.domain})
		for _, a := range z.self {
			addAddr(&res.extra, "ns.dns."+z.domain, a, typeOf(a))
		}
	}
}

func typeOf(a netip.Addr) dnsmessage.Type {
	if a.Is4() {
		return dnsmessage.TypeA
	}
	return dnsmessage.TypeAAAA
}

// addAddr appends the address if it is of the kind asked for.
func addAddr(to *[]record, name string, a netip.Addr, kind dnsmessage.Type) {
	if kind == typeOf(a) || kind == dnsmessage.TypeALL {
		*to = append(*to, record{name: name, kind: typeOf(a), addr: a})
	}
}

// services answers below svc; l are the labels in front of it, the nearest first.
func (z *zone) services(name string, l []string, kind dnsmessage.Type, res *result) {
	if len(l) < 2 {
		res.exists = len(l) == 0 || z.dir.namespace(l[0])
		return
	}
	svc := z.dir.service(l[0], l[1])
	if svc == nil {
		return
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		z.external(name, svc, l, kind, res)
		return
	}
	switch len(l) {
	case 2:
		res.exists = true
		z.service(name, svc, kind, res)
	case 3:
		if strings.HasPrefix(l[2], "_") { // a protocol: only its ports have records
			z.ports(name, svc, "", l[2], 0, res)
			return
		}
		z.endpoint(name, svc, l[2], kind, res)
	case 4:
		if strings.HasPrefix(l[2], "_") && strings.HasPrefix(l[3], "_") {
			z.ports(name, svc, l[3][1:], l[2], kind, res)
		}
	}
}

func (z *zone) external(name string, svc *corev1.Service, l []string, kind dnsmessage.Type, res *result) {
	if len(l) != 2 || svc.Spec.ExternalName == "" {
		return
	}
	res.exists = true
	target := strings.ToLower(strings.TrimSuffix(svc.Spec.ExternalName, "."))
	res.answers = append(res.answers, record{name: name, kind: dnsmessage.TypeCNAME, target: target})
	if kind != dnsmessage.TypeCNAME {
		res.alias = target
	}
}

func headless(svc *corev1.Service) bool { return svc.Spec.ClusterIP == corev1.ClusterIPNone }

func eachClusterIP(svc *corev1.Service, do func(netip.Addr)) {
	if len(svc.Spec.ClusterIPs) == 0 {
		if a, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil {
			do(a.Unmap())
		}
	}
	for _, s := range svc.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(s); err == nil {
			do(a.Unmap())
		}
	}
}

func (z *zone) service(name string, svc *corev1.Service, kind dnsmessage.Type, res *result) {
	if kind == dnsmessage.TypeSRV {
		z.ports(name, svc, "", "", kind, res)
		res.exists = true
		return
	}
	if !headless(svc) {
		eachClusterIP(svc, func(a netip.Addr) { addAddr(&res.answers, name, a, kind) })
		return
	}
	z.eachEndpoint(svc, func(a netip.Addr, _ string, _ *discoveryv1.EndpointSlice) {
		for _, r := range res.answers {
			if r.addr == a {
				return
			}
		}
		addAddr(&res.answers, name, a, kind)
	})
}

// eachEndpoint calls do for every published endpoint of the Service with its address and its name below the Service.
func (z *zone) eachEndpoint(svc *corev1.Service, do func(netip.Addr, string, *discoveryv1.EndpointSlice)) {
	for _, s := range z.dir.slices(svc.Namespace, svc.Name) {
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if ready := e.Conditions.Ready; ready != nil && !*ready && !svc.Spec.PublishNotReadyAddresses {
				continue
			}
			for _, text := range e.Addresses {
				if a, err := netip.ParseAddr(text); err == nil {
					do(a.Unmap(), endpointName(e, a.Unmap()), s)
				}
			}
		}
	}
}

func endpointName(e *discoveryv1.Endpoint, a netip.Addr) string {
	if e.Hostname != nil && *e.Hostname != "" {
		return strings.ToLower(*e.Hostname)
	}
	if a.Is4() {
		return strings.ReplaceAll(a.String(), ".", "-")
	}
	return strings.ReplaceAll(a.StringExpanded(), ":", "-")
}

func (z *zone) endpoint(name string, svc *corev1.Service, want string, kind dnsmessage.Type, res *result) {
	z.eachEndpoint(svc, func(a netip.Addr, is string, _ *discoveryv1.EndpointSlice) {
		if is != want {
			return
		}
		res.exists = true
		for _, r := range res.answers {
			if r.addr == a {
				return
			}
		}
		addAddr(&res.answers, name, a, kind)
	})
}

// ports answers for the ports with that name ("" for all) and that protocol label, such as "_tcp" ("" for all).
func (z *zone) ports(name string, svc *corev1.Service, port, proto string, kind dnsmessage.Type, res *result) {
	match := func(n string, p corev1.Protocol) bool {
		if p == "" {
			p = corev1.ProtocolTCP
		}
		return (port == "" || strings.EqualFold(n, port)) && (proto == "" || strings.EqualFold(string(p), proto[1:]))
	}
	full := svc.Name + "." + svc.Namespace + ".svc." + z.domain
	srv := kind == dnsmessage.TypeSRV || kind == dnsmessage.TypeALL
	if !headless(svc) {
		for i := range svc.Spec.Ports {
			p := &svc.Spec.Ports[i]
			if !match(p.Name, p.Protocol) {
				continue
			}
			res.exists = true
			if srv {
				res.answers = append(res.answers, record{name: name, kind: dnsmessage.TypeSRV, target: full, port: uint16(p.Port)})
			}
		}
		if srv && len(res.answers) > 0 {
			eachClusterIP(svc, func(a netip.Addr) { addAddr(&res.extra, full, a, typeOf(a)) })
		}
		return
	}
	z.eachEndpoint(svc, func(a netip.Addr, is string, s *discoveryv1.EndpointSlice) {
		target := is + "." + full
		given := false
		for _, p := range s.Ports {
			n, pr := "", corev1.Protocol("")
			if p.Name != nil {
				n = *p.Name
			}
			if p.Protocol != nil {
				pr = *p.Protocol
			}
			if p.Port == nil || !match(n, pr) {
				continue
			}
			res.exists = true
			if srv {
				res.answers = append(res.answers, record{name: name, kind: dnsmessage.TypeSRV, target: target, port: uint16(*p.Port)})
				given = true
			}
		}
		if given {
			addAddr(&res.extra, target, a, typeOf(a))
		}
	})
}

// pods answers a-b-c-d.namespace.pod: the address is in the name, and is not checked against the pods there are.
func (z *zone) pods(name string, l []string, kind dnsmessage.Type, res *result) {
	if len(l) == 0 {
		res.exists = true
		return
	}
	if !z.dir.namespace(l[0]) || len(l) > 2 {
		return
	}
	if len(l) == 1 {
		res.exists = true
		return
	}
	text := strings.ReplaceAll(l[1], "-", ".")
	a, err := netip.ParseAddr(text)
	if err != nil {
		a, err = netip.ParseAddr(strings.ReplaceAll(l[1], "-", ":"))
	}
	if err == nil {
		res.exists = true
		addAddr(&res.answers, name, a, kind)
	}
}

// reverse answers a PTR question for an address of the cluster.
func (z *zone) reverse(name string, ip netip.Addr, kind dnsmessage.Type, res *result) {
	add := func(target string) {
		res.exists = true
		if kind == dnsmessage.TypePTR || kind == dnsmessage.TypeALL {
			res.answers = append(res.answers, record{name: name, kind: dnsmessage.TypePTR, target: target})
		}
	}
	if svc := z.dir.byIP(ip); svc != nil {
		add(svc.Name + "." + svc.Namespace + ".svc." + z.domain)
		return
	}
	seen := map[string]bool{}
	for _, s := range z.dir.slicesByIP(ip) {
		svc := z.dir.service(s.Namespace, s.Labels[discoveryv1.LabelServiceName])
		if svc == nil || !headless(svc) {
			continue
		}
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			for _, text := range e.Addresses {
				if a, err := netip.ParseAddr(text); err == nil && a.Unmap() == ip {
					t := endpointName(e, ip) + "." + svc.Name + "." + svc.Namespace + ".svc." + z.domain
					if !seen[t] {
						seen[t] = true
						add(t)
					}
				}
			}
		}
	}
}

// address reads the address that a name in in-addr.arpa or ip6.arpa stands for.
func address(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		l := strings.Split(rest, ".")
		if len(l) != 4 {
			return netip.Addr{}, false
		}
		var b [4]byte
		for i, s := range l {
			n, err := strconv.ParseUint(s, 10, 8)
			if err != nil {
				return netip.Addr{}, false
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		n, err := strconv.ParseUint(rest[2*i:2*i+1], 16, 4)
		if err != nil || i < 31 && rest[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
