package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// memory is a directory of tests.
type memory struct {
	svcs map[string]*corev1.Service
	eps  map[string][]*discoveryv1.EndpointSlice
}

func (m *memory) service(ns, name string) *corev1.Service { return m.svcs[ns+"/"+name] }
func (m *memory) slices(ns, name string) []*discoveryv1.EndpointSlice {
	return m.eps[ns+"/"+name]
}
func (m *memory) namespace(name string) bool { return name == "ns" || name == "empty" }
func (m *memory) byIP(ip netip.Addr) (found *corev1.Service) {
	for _, s := range m.svcs {
		eachClusterIP(s, func(a netip.Addr) {
			if a == ip {
				found = s
			}
		})
	}
	return found
}
func (m *memory) slicesByIP(ip netip.Addr) (out []*discoveryv1.EndpointSlice) {
	for _, l := range m.eps {
		for _, s := range l {
			for _, e := range s.Endpoints {
				if slices.Contains(e.Addresses, ip.String()) {
					out = append(out, s)
				}
			}
		}
	}
	return out
}

func serviceOf(name, ip string, change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip},
		Ports: []corev1.ServicePort{{Name: "web", Port: 80, Protocol: corev1.ProtocolTCP}, {Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}}}
	if change != nil {
		change(s)
	}
	return s
}

func sliceOf(svc string, kind discoveryv1.AddressType, eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	name, port, proto := "web", int32(8080), corev1.ProtocolTCP
	return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: svc + "-" + string(kind),
		Labels: map[string]string{discoveryv1.LabelServiceName: svc, corev1.IsHeadlessService: ""}},
		AddressType: kind, Endpoints: eps, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &proto}}}
}

func endpointOf(ip, hostname string, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	if hostname != "" {
		e.Hostname = &hostname
	}
	return e
}

func objects() *memory {
	m := &memory{svcs: map[string]*corev1.Service{}, eps: map[string][]*discoveryv1.EndpointSlice{}}
	for _, s := range []*corev1.Service{
		serviceOf("plain", "10.96.0.1", nil),
		serviceOf("dual", "10.96.0.2", func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.2", "fd00::2"} }),
		serviceOf("headless", "None", nil),
		serviceOf("early", "None", func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }),
		serviceOf("lonely", "None", nil),
		serviceOf("alias", "", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalName, s.Spec.ClusterIPs = corev1.ServiceTypeExternalName, "Example.COM.", nil
		}),
		serviceOf("inner", "", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalName, s.Spec.ClusterIPs = corev1.ServiceTypeExternalName, "plain.ns.svc.cluster.local", nil
		}),
		serviceOf("circle", "", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalName, s.Spec.ClusterIPs = corev1.ServiceTypeExternalName, "circle.ns.svc.cluster.local", nil
		}),
	} {
		m.svcs["ns/"+s.Name] = s
	}
	m.eps["ns/headless"] = []*discoveryv1.EndpointSlice{
		sliceOf("headless", discoveryv1.AddressTypeIPv4, endpointOf("10.244.0.1", "web-0", true), endpointOf("10.244.0.2", "", true), endpointOf("10.244.0.3", "web-2", false)),
		sliceOf("headless", discoveryv1.AddressTypeIPv6, endpointOf("fd01::1", "web-0", true))}
	m.eps["ns/early"] = []*discoveryv1.EndpointSlice{sliceOf("early", discoveryv1.AddressTypeIPv4, endpointOf("10.244.0.9", "web-0", false))}
	return m
}

func show(records []record) string {
	var out []string
	for _, r := range records {
		body := r.target + r.text
		if r.addr.IsValid() {
			body = r.addr.String()
		}
		if r.port != 0 {
			body = fmt.Sprintf("%d %s", r.port, body)
		}
		out = append(out, strings.TrimSpace(strings.TrimPrefix(r.kind.String(), "Type")+" "+body))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func TestLookup(t *testing.T) {
	z := &zone{domain: "cluster.local", dir: objects(), self: []netip.Addr{netip.MustParseAddr("10.96.0.10")}}
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want string // "-": no such name; empty: no such record
	}{
		{"plain.ns.svc", dnsmessage.TypeA, "A 10.96.0.1"},
		{"plain.ns.svc", dnsmessage.TypeAAAA, ""},
		{"plain.ns.svc", dnsmessage.TypeMX, ""},
		{"plain.ns.svc", dnsmessage.TypeSRV, "SRV 53 plain.ns.svc.cluster.local, SRV 80 plain.ns.svc.cluster.local + A 10.96.0.1"},
		{"dual.ns.svc", dnsmessage.TypeAAAA, "AAAA fd00::2"},
		{"dual.ns.svc", dnsmessage.TypeALL, "A 10.96.0.2, AAAA fd00::2"},
		{"none.ns.svc", dnsmessage.TypeA, "-"},
		{"plain.other.svc", dnsmessage.TypeA, "-"},
		{"ns.svc", dnsmessage.TypeA, ""},
		{"other.svc", dnsmessage.TypeA, "-"},
		{"svc", dnsmessage.TypeA, ""},
		{"", dnsmessage.TypeA, ""},
		{"", dnsmessage.TypeSOA, "SOA"},
		{"", dnsmessage.TypeNS, "NS ns.dns.cluster.local + A 10.96.0.10"},
		{"ns.dns", dnsmessage.TypeA, "A 10.96.0.10"},
		{"other", dnsmessage.TypeA, "-"},
		{"_web._tcp.plain.ns.svc", dnsmessage.TypeSRV, "SRV 80 plain.ns.svc.cluster.local + A 10.96.0.1"},
		{"_web._tcp.plain.ns.svc", dnsmessage.TypeA, ""},
		{"_web._udp.plain.ns.svc", dnsmessage.TypeSRV, "-"},
		{"_tcp.plain.ns.svc", dnsmessage.TypeSRV, ""},
		{"_sctp.plain.ns.svc", dnsmessage.TypeSRV, "-"},
		{"x._web._tcp.plain.ns.svc", dnsmessage.TypeSRV, "-"},
		{"a.b.c._web._tcp.plain.ns.svc", dnsmessage.TypeSRV, "-"},
		{"headless.ns.svc", dnsmessage.TypeA, "A 10.244.0.1, A 10.244.0.2"},
		{"headless.ns.svc", dnsmessage.TypeAAAA, "AAAA fd01::1"},
		{"web-0.headless.ns.svc", dnsmessage.TypeA, "A 10.244.0.1"},
		{"web-2.headless.ns.svc", dnsmessage.TypeA, "-"},
		{"10-244-0-2.headless.ns.svc", dnsmessage.TypeA, "A 10.244.0.2"},
		{"10-244-0-2.headless.ns.svc", dnsmessage.TypeAAAA, ""},
		{"_web._tcp.headless.ns.svc", dnsmessage.TypeSRV, "SRV 8080 10-244-0-2.headless.ns.svc.cluster.local, SRV 8080 web-0.headless.ns.svc.cluster.local, SRV 8080 web-0.headless.ns.svc.cluster.local + A 10.244.0.1, A 10.244.0.2, AAAA fd01::1"},
		{"early.ns.svc", dnsmessage.TypeA, "A 10.244.0.9"},
		{"lonely.ns.svc", dnsmessage.TypeA, ""},
		{"alias.ns.svc", dnsmessage.TypeA, "CNAME example.com"},
		{"x.alias.ns.svc", dnsmessage.TypeA, "-"},
		{"10-244-0-7.ns.pod", dnsmessage.TypeA, "A 10.244.0.7"},
		{"10-244-0-7.ns.pod", dnsmessage.TypeAAAA, ""},
		{"fd01--7.ns.pod", dnsmessage.TypeAAAA, "AAAA fd01::7"},
		{"10-244-0-7.other.pod", dnsmessage.TypeA, "-"},
		{"web.ns.pod", dnsmessage.TypeA, "-"},
		{"dns-version", dnsmessage.TypeTXT, "TXT 1.1.0"},
		{"dns-version", dnsmessage.TypeA, ""},
	} {
		t.Run(c.name+" "+c.kind.String(), func(t *testing.T) {
			full := strings.TrimPrefix(c.name+".cluster.local", ".")
			rest, ok := z.within(full)
			if !ok {
				t.Fatal("not in the zone")
			}
			var res result
			z.lookup(full, rest, c.kind, &res)
			got := show(res.answers)
			if len(res.extra) > 0 {
				got += " + " + show(res.extra)
			}
			if !res.exists {
				got += "-"
			}
			if got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
	for _, outside := range []string{"example.com", "xcluster.local", "local", ""} {
		if _, ok := z.within(outside); ok {
			t.Errorf("%q counts as in the zone", outside)
		}
	}
}

func TestReverse(t *testing.T) {
	z := &zone{domain: "cluster.local", dir: objects()}
	for _, c := range []struct{ name, want string }{
		{"1.0.96.10.in-addr.arpa", "PTR plain.ns.svc.cluster.local"},
		{"1.0.244.10.in-addr.arpa", "PTR web-0.headless.ns.svc.cluster.local"},
		{"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", "PTR dual.ns.svc.cluster.local"},
		{"9.9.9.9.in-addr.arpa", ""},
	} {
		ip, ok := address(c.name)
		if !ok {
			t.Errorf("%s is not read as an address", c.name)
			continue
		}
		var res result
		z.reverse(c.name, ip, dnsmessage.TypePTR, &res)
		if got := show(res.answers); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	for _, bad := range []string{"0.96.10.in-addr.arpa", "x.0.96.10.in-addr.arpa", "256.0.96.10.in-addr.arpa", "1.ip6.arpa", strings.Repeat("x.", 32) + "ip6.arpa"} {
		if a, ok := address(bad); ok {
			t.Errorf("%s is read as %s", bad, a)
		}
	}
}

// Clients take the first address: over many questions each of them has to be it.
func TestAnswersAreSpread(t *testing.T) {
	s := &Server{zone: &zone{domain: "cluster.local", dir: objects()}}
	q := &question{name: "headless.ns.svc.cluster.local", q: dnsmessage.Question{Type: dnsmessage.TypeA}}
	first := map[netip.Addr]bool{}
	for range 300 {
		var res result
		if !s.own(q, &res) || len(res.answers) != 2 {
			t.Fatalf("answers %v", res.answers)
		}
		first[res.answers[0].addr] = true
	}
	if len(first) != 2 {
		t.Errorf("of two addresses, %v came first", first)
	}
}
