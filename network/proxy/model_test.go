package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

var here = View{NodeName: "n1", Zone: "z1", NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	Skip: map[netip.Addr]bool{netip.MustParseAddr("10.96.0.10"): true}}

func text(p Plan) string {
	var lines []string
	for f, b := range p.Fronts {
		l := fmt.Sprintf("%s/%d/%d %s", f.Addr, f.Proto, f.Port, [...]string{"in", "ex", "lo"}[b.Kind])
		for _, e := range b.All {
			l += " " + e.String()
		}
		if b.Kind == ExternalLocal {
			l += fmt.Sprint(" local", b.Local)
		}
		if b.Drop {
			l += " drop"
		}
		if b.Affinity > 0 {
			l += fmt.Sprint(" sticky ", b.Affinity)
		}
		lines = append(lines, l)
	}
	slices.Sort(lines)
	if len(p.Hairpin) > 0 {
		lines = append(lines, fmt.Sprint("hairpin ", p.Hairpin))
	}
	return strings.Join(lines, "\n")
}

func TestMake(t *testing.T) {
	one := func(eps ...string) []*discoveryv1.EndpointSlice {
		return []*discoveryv1.EndpointSlice{slice("s", "/TCP/8080", eps...)}
	}
	local := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	inLocal := corev1.ServiceInternalTrafficPolicyLocal
	zone := func(eps []*discoveryv1.EndpointSlice, zones ...string) []*discoveryv1.EndpointSlice {
		for i, z := range zones {
			eps[0].Endpoints[i].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: z}}}
		}
		return eps
	}
	for _, c := range []struct {
		name   string
		svc    *corev1.Service
		slices []*discoveryv1.EndpointSlice
		want   string
	}{
		{"two endpoints", service("s", "10.96.0.1", nil, "/TCP/80"), one("10.0.0.2@n2", "10.0.0.1@n1"),
			"10.96.0.1/6/80 in 10.0.0.1:8080 10.0.0.2:8080\nhairpin [10.0.0.1]"},
		{"none", service("s", "10.96.0.1", nil, "/TCP/80"), nil, "10.96.0.1/6/80 in"},
		{"not ready", service("s", "10.96.0.1", nil, "/TCP/80"), one("10.0.0.1!n", "10.0.0.2"), "10.96.0.1/6/80 in 10.0.0.2:8080"},
		{"all terminating", service("s", "10.96.0.1", nil, "/TCP/80"), one("10.0.0.1!nst", "10.0.0.2!nt"), "10.96.0.1/6/80 in 10.0.0.1:8080"},
		{"some terminating", service("s", "10.96.0.1", nil, "/TCP/80"), one("10.0.0.1!nst", "10.0.0.2"), "10.96.0.1/6/80 in 10.0.0.2:8080"},
		{"serving, not terminating, not ready", service("s", "10.96.0.1", nil, "/TCP/80"), one("10.0.0.1!ns"), "10.96.0.1/6/80 in"},
		{"headless", service("s", "None", nil, "/TCP/80"), one("10.0.0.1@n1"), ""},
		{"external name", service("s", "", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, "/TCP/80"), nil, ""},
		{"not yet allocated", service("s", "", nil, "/TCP/80"), nil, ""},
		{"answered by the node", service("s", "10.96.0.10", nil, "/UDP/53"), one("10.0.0.1"), ""},
		{"ports", service("s", "10.96.0.1", nil, "a/TCP/80", "b/UDP/53", "c/SCTP/9"),
			[]*discoveryv1.EndpointSlice{slice("s", "a/TCP/8080 b/UDP/5353 x/SCTP/9", "10.0.0.1")},
			"10.96.0.1/132/9 in\n10.96.0.1/17/53 in 10.0.0.1:5353\n10.96.0.1/6/80 in 10.0.0.1:8080"},
		{"slices with other port numbers", service("s", "10.96.0.1", nil, "/TCP/80"),
			[]*discoveryv1.EndpointSlice{slice("s", "/TCP/8080", "10.0.0.1"), slice("s", "/TCP/9090", "10.0.0.2")},
			"10.96.0.1/6/80 in 10.0.0.1:8080 10.0.0.2:9090"},
		{"in two slices", service("s", "10.96.0.1", nil, "/TCP/80"),
			[]*discoveryv1.EndpointSlice{slice("s", "/TCP/80", "10.0.0.1!n"), slice("s", "/TCP/80", "10.0.0.1")},
			"10.96.0.1/6/80 in 10.0.0.1:80"},
		{"node port", service("s", "10.96.0.1", nil, "/TCP/80/30000"), one("10.0.0.1"),
			"10.96.0.1/6/80 in 10.0.0.1:8080\n192.0.2.1/6/30000 ex 10.0.0.1:8080"},
		{"node port, local", service("s", "10.96.0.1", local, "/TCP/80/30000"), one("10.0.0.1@n1", "10.0.0.2@n2"),
			"10.96.0.1/6/80 in 10.0.0.1:8080 10.0.0.2:8080\n192.0.2.1/6/30000 lo 10.0.0.1:8080 10.0.0.2:8080 local[10.0.0.1:8080]\nhairpin [10.0.0.1]"},
		{"node port, local, the own ones leaving", service("s", "10.96.0.1", local, "/TCP/80/30000"), one("10.0.0.1@n1!nst", "10.0.0.2@n2"),
			"10.96.0.1/6/80 in 10.0.0.2:8080\n192.0.2.1/6/30000 lo 10.0.0.2:8080 local[10.0.0.1:8080]\nhairpin [10.0.0.1]"},
		{"node port, local, none anywhere", service("s", "10.96.0.1", local, "/TCP/80/30000"), nil,
			"10.96.0.1/6/80 in\n192.0.2.1/6/30000 ex"},
		{"internal local", service("s", "10.96.0.1", func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &inLocal }, "/TCP/80"),
			one("10.0.0.1@n1", "10.0.0.2@n2"), "10.96.0.1/6/80 in 10.0.0.1:8080\nhairpin [10.0.0.1]"},
		{"internal local, none here", service("s", "10.96.0.1", func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &inLocal }, "/TCP/80"),
			one("10.0.0.2@n2"), "10.96.0.1/6/80 in drop"},
		{"balancer", service("s", "10.96.0.1", func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeLoadBalancer
			proxied := corev1.LoadBalancerIPModeProxy
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}, {IP: "203.0.113.2", IPMode: &proxied}, {Hostname: "x"}}
		}, "/TCP/80"), one("10.0.0.1"), "10.96.0.1/6/80 in 10.0.0.1:8080\n203.0.113.1/6/80 ex 10.0.0.1:8080"},
		{"affinity", service("s", "10.96.0.1", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }, "/TCP/80"),
			one("10.0.0.1"), "10.96.0.1/6/80 in 10.0.0.1:8080 sticky 10800"},
		{"dual stack", service("s", "10.96.0.1", func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.1", "fd00::1"} }, "/TCP/80/30000"),
			append(one("10.0.0.1"), slice("s", "/TCP/8080", "fd01::1")),
			"10.96.0.1/6/80 in 10.0.0.1:8080\n192.0.2.1/6/30000 ex 10.0.0.1:8080\n2001:db8::1/6/30000 ex [fd01::1]:8080\nfd00::1/6/80 in [fd01::1]:8080"},
		{"zone hints", service("s", "10.96.0.1", nil, "/TCP/80"), zone(one("10.0.0.1", "10.0.0.2"), "z1", "z2"), "10.96.0.1/6/80 in 10.0.0.1:8080"},
		{"a hint missing", service("s", "10.96.0.1", nil, "/TCP/80"), zone(one("10.0.0.1", "10.0.0.2"), "z1"), "10.96.0.1/6/80 in 10.0.0.1:8080 10.0.0.2:8080"},
		{"no hint for here", service("s", "10.96.0.1", nil, "/TCP/80"), zone(one("10.0.0.1", "10.0.0.2"), "z2", "z2"), "10.96.0.1/6/80 in 10.0.0.1:8080 10.0.0.2:8080"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := text(Make(here, c.svc, c.slices)); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestLedger(t *testing.T) {
	f := family{w: 1}
	l := newLedger()
	put := func(name string, p Plan) string {
		e, _ := f.lower(p)
		del, add := l.set(name, e)
		return fmt.Sprintf("-%d +%d", len(del), len(add))
	}
	plan := func(vip string, eps ...string) Plan {
		return Make(here, service("s", vip, nil, "/TCP/80"), []*discoveryv1.EndpointSlice{slice("s", "/TCP/8080", eps...)})
	}
	for i, c := range []struct {
		service string
		plan    Plan
		want    string
	}{
		{"a", plan("10.96.0.1", "10.0.0.1", "10.0.0.2"), "-0 +3"},
		{"a", plan("10.96.0.1", "10.0.0.1", "10.0.0.2"), "-0 +0"},
		{"a", plan("10.96.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"), "-1 +2"}, // the chain's name, a slot
		{"a", plan("10.96.0.1", "10.0.0.1", "10.0.0.3"), "-3 +2"},             // the name, slot 1 and 2
		{"b", plan("10.96.0.2", "10.0.0.1@n1"), "-0 +3"},
		{"c", plan("10.96.0.3", "10.0.0.1@n1"), "-0 +2"}, // the hairpin is there
		{"b", Plan{}, "-2 +0"},
		{"c", Plan{}, "-3 +0"},
		{"d", plan("10.96.0.1", "10.0.0.9"), "-0 +0"}, // contested
		{"a", Plan{}, "-3 +0"},
		{"d", plan("10.96.0.1", "10.0.0.9"), "-0 +2"},
	} {
		if got := put(c.service, c.plan); got != c.want {
			t.Errorf("step %d, service %s: %s, want %s", i, c.service, got, c.want)
		}
	}
	del, add := l.against(nil)
	if len(del) != 0 || len(add) != 2 {
		t.Errorf("against an empty table: -%d +%d", len(del), len(add))
	}
	if del, add = l.against(l.elements()); len(del)+len(add) != 0 {
		t.Errorf("against itself: %v %v", del, add)
	}
}

func TestLostFlows(t *testing.T) {
	f := family{w: 1}
	l := newLedger()
	put := func(eps ...string) []flow {
		e, _ := f.lower(Make(here, service("s", "10.96.0.1", nil, "/UDP/53"), []*discoveryv1.EndpointSlice{slice("s", "/UDP/5353", eps...)}))
		del, add := l.set("s", e)
		return lost(false, del, add)
	}
	if got := put("10.0.0.1", "10.0.0.2"); len(got) != 0 {
		t.Error("lost at the start:", got)
	}
	want := flow{netip.MustParseAddrPort("10.96.0.1:53"), netip.MustParseAddrPort("10.0.0.1:5353")}
	if got := put("10.0.0.2"); len(got) != 1 || got[0] != want { // the other one moved to another slot only
		t.Errorf("got %v, want %v", got, want)
	}
}
