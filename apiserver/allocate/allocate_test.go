package allocate

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/api/strategy"
)

func service(name string, change func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}}}
	if change != nil {
		change(&s.Spec)
	}
	return s
}

func typed(kind corev1.ServiceType) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.Type = kind }
}

// update claims for a Service that replaces old, after the strategy of Services as the door does it.
func update(s *Services, svc, old *corev1.Service) error {
	strategy.For(corev1.SchemeGroupVersion.WithKind("Service")).PrepareUpdate(svc, old)
	_, err := s.Claim(svc, old, false)
	return err
}

func small() *Services { return New(netip.MustParsePrefix("10.0.0.0/29"), 30000, 30001) }

func TestAddresses(t *testing.T) {
	s := small()
	given := map[string]bool{}
	var last *corev1.Service
	for i := range 5 { // eight addresses: the network, the API server's own, the broadcast address, and five
		last = service(string(rune('a'+i)), nil)
		if _, err := s.Claim(last, nil, false); err != nil {
			t.Fatal(err)
		}
		a := netip.MustParseAddr(last.Spec.ClusterIP)
		if given[a.String()] || !s.cidr.Contains(a) || a == s.cidr.Addr() || a == s.cidr.Addr().Next() {
			t.Errorf("gave %s", a)
		}
		given[a.String()] = true
	}
	if _, err := s.Claim(service("full", nil), nil, false); err == nil || !strings.Contains(err.Error(), "is full") {
		t.Errorf("a full range: %v", err)
	}
	s.Release(last)
	again := service("again", nil)
	if _, err := s.Claim(again, nil, false); err != nil || again.Spec.ClusterIP != last.Spec.ClusterIP {
		t.Errorf("the only free address is %s, got %s: %v", last.Spec.ClusterIP, again.Spec.ClusterIP, err)
	}
}

func TestRefused(t *testing.T) {
	s := small()
	at := func(ip string) func(*corev1.ServiceSpec) {
		return func(sp *corev1.ServiceSpec) { sp.ClusterIP, sp.ClusterIPs = ip, []string{ip} }
	}
	if _, err := s.Claim(service("a", at("10.0.0.2")), nil, false); err != nil {
		t.Fatal(err)
	}
	port := func(n int32) func(*corev1.ServiceSpec) {
		return func(sp *corev1.ServiceSpec) { sp.Type, sp.Ports[0].NodePort = corev1.ServiceTypeNodePort, n }
	}
	if _, err := s.Claim(service("p", port(30000)), nil, false); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*corev1.ServiceSpec)
		want   string
	}{
		{at("10.0.0.2"), "already allocated"},
		{at("10.9.9.9"), "does not match the current range"},
		{port(30000), "already allocated"},
		{port(1000), "not in the valid range"},
	} {
		before := len(s.addrs) + len(s.ports)
		if _, err := s.Claim(service("other", c.change), nil, false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q: %v", c.want, err)
		}
		if after := len(s.addrs) + len(s.ports); after != before {
			t.Errorf("a refused claim keeps %d things", after-before)
		}
	}
}

func TestUndoAndChange(t *testing.T) {
	s := small()
	a := service("a", typed(corev1.ServiceTypeNodePort))
	undo, err := s.Claim(a, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	if undo(); len(s.addrs) != 0 || len(s.ports) != 0 {
		t.Fatalf("left after undo: %v %v", s.addrs, s.ports)
	}
	a = service("a", typed(corev1.ServiceTypeNodePort))
	if _, err := s.Claim(a, nil, false); err != nil {
		t.Fatal(err)
	}
	// An update that leaves address and port out keeps them.
	b := service("a", typed(corev1.ServiceTypeNodePort))
	if err := update(s, b, a); err != nil || b.Spec.ClusterIP != a.Spec.ClusterIP || b.Spec.Ports[0].NodePort != a.Spec.Ports[0].NodePort {
		t.Errorf("kept %v: %v", b.Spec, err)
	}
	// One that needs neither gives them back.
	c := service("a", typed(corev1.ServiceTypeExternalName))
	c.Spec.ExternalName = "example.com"
	if err := update(s, c, b); err != nil || len(s.addrs) != 0 || len(s.ports) != 0 || c.Spec.ClusterIP != "" {
		t.Errorf("left: %v %v %q: %v", s.addrs, s.ports, c.Spec.ClusterIP, err)
	}
}

func TestHealthCheckPort(t *testing.T) {
	s := small()
	local := func(sp *corev1.ServiceSpec) {
		sp.Type, sp.ExternalTrafficPolicy = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal
	}
	a := service("a", local)
	if _, err := s.Claim(a, nil, false); err != nil {
		t.Fatal(err)
	}
	if n := a.Spec.HealthCheckNodePort; n == 0 || n == a.Spec.Ports[0].NodePort {
		t.Fatalf("health check at %d, service at %d", n, a.Spec.Ports[0].NodePort)
	}
	if _, err := s.Claim(service("b", local), nil, false); err == nil {
		t.Error("two ports were enough for two services and their health checks")
	}
	b := service("a", local)
	if err := update(s, b, a); err != nil || b.Spec.HealthCheckNodePort != a.Spec.HealthCheckNodePort {
		t.Errorf("not kept: %d: %v", b.Spec.HealthCheckNodePort, err)
	}
	c := service("a", typed(corev1.ServiceTypeLoadBalancer))
	c.Spec.HealthCheckNodePort = b.Spec.HealthCheckNodePort
	if err := update(s, c, b); err != nil || c.Spec.HealthCheckNodePort != 0 || len(s.ports) != 1 {
		t.Errorf("not given up: %d, %v: %v", c.Spec.HealthCheckNodePort, s.ports, err)
	}
	if s.Release(c); len(s.ports) != 0 {
		t.Errorf("left: %v", s.ports)
	}
	fresh := small()
	if fresh.Adopt(a); len(fresh.ports) != 2 || len(fresh.addrs) != 1 {
		t.Errorf("adopted %v %v", fresh.ports, fresh.addrs)
	}
}

func TestMany(t *testing.T) {
	s := New(netip.MustParsePrefix("10.0.0.0/24"), 30000, 30199)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]bool{}
	for i := range 100 {
		wg.Go(func() {
			svc := service(string(rune('A'+i%26))+string(rune('a'+i/26)), typed(corev1.ServiceTypeNodePort))
			if _, err := s.Claim(svc, nil, false); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[svc.Spec.ClusterIP] {
				t.Errorf("%s was given twice", svc.Spec.ClusterIP)
			}
			seen[svc.Spec.ClusterIP] = true
		})
	}
	wg.Wait()
	if len(s.ports) != 100 {
		t.Errorf("%d ports for 100 services", len(s.ports))
	}
}

func TestFamilies(t *testing.T) {
	dual, prefer, require := corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack
	four, six := corev1.IPv4Protocol, corev1.IPv6Protocol
	for name, c := range map[string]struct {
		change   func(*corev1.ServiceSpec)
		refused  string
		families []corev1.IPFamily
		policy   corev1.IPFamilyPolicy
	}{
		"nothing said":            {nil, "", []corev1.IPFamily{four}, dual},
		"prefers two":             {func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = &prefer }, "", []corev1.IPFamily{four}, prefer},
		"requires two":            {func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = &require }, "this cluster is not configured for dual-stack services", nil, ""},
		"the other":               {func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{six} }, "not configured on this cluster", nil, ""},
		"an address of the other": {func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "fd00::1", []string{"fd00::1"} }, "IPv6 is not configured on this cluster", nil, ""},
		"two of one stack":        {func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{four, six} }, "when multiple IP families are specified", nil, ""},
		"no address, no selector": {func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "None", []string{"None"} }, "", []corev1.IPFamily{four, six}, require},
		"no address, one stack": {func(s *corev1.ServiceSpec) {
			s.ClusterIP, s.ClusterIPs, s.IPFamilyPolicy = "None", []string{"None"}, &dual
		}, "", []corev1.IPFamily{four}, dual},
		"no address, a selector": {func(s *corev1.ServiceSpec) {
			s.ClusterIP, s.ClusterIPs, s.Selector = "None", []string{"None"}, map[string]string{"a": "b"}
		}, "", []corev1.IPFamily{four}, dual},
		"an address that is wrong": {func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "here", []string{"here"} }, "must be a valid IP address", nil, ""},
	} {
		s := small()
		svc := service("a", c.change)
		_, err := s.Claim(svc, nil, false)
		if c.refused != "" {
			if err == nil || !strings.Contains(err.Error(), c.refused) || len(s.addrs) != 0 {
				t.Errorf("%s: %v, want %q; holds %v", name, err, c.refused, s.addrs)
			}
			continue
		}
		if err != nil || !slices.Equal(svc.Spec.IPFamilies, c.families) || *svc.Spec.IPFamilyPolicy != c.policy {
			t.Errorf("%s: %v %v: %v", name, svc.Spec.IPFamilies, *svc.Spec.IPFamilyPolicy, err)
		}
	}
}

func TestPortsAreSharedAndTaken(t *testing.T) {
	s := New(netip.MustParsePrefix("10.0.0.0/24"), 30000, 30009)
	both := func(n, m int32) func(*corev1.ServiceSpec) {
		return func(sp *corev1.ServiceSpec) {
			sp.Type = corev1.ServiceTypeNodePort
			sp.Ports = []corev1.ServicePort{{Name: "t", Port: 53, Protocol: corev1.ProtocolTCP, NodePort: n}, {Name: "u", Port: 53, Protocol: corev1.ProtocolUDP, NodePort: m}}
		}
	}
	a := service("a", both(0, 30005))
	if _, err := s.Claim(a, nil, false); err != nil || a.Spec.Ports[0].NodePort != 30005 || a.Spec.Ports[1].NodePort != 30005 || len(s.ports) != 1 {
		t.Errorf("one number for one port: %v %v: %v", a.Spec.Ports, s.ports, err)
	}
	b := service("b", both(30006, 30007))
	if _, err := s.Claim(b, nil, false); err != nil || len(s.ports) != 3 {
		t.Errorf("two numbers: %v: %v", s.ports, err)
	}
	udp := service("c", func(sp *corev1.ServiceSpec) {
		sp.Type, sp.Ports[0].Protocol, sp.Ports[0].NodePort = corev1.ServiceTypeNodePort, corev1.ProtocolUDP, 30006
	})
	if _, err := s.Claim(udp, nil, false); err == nil || !strings.Contains(err.Error(), "already allocated") {
		t.Errorf("a number is taken for every protocol: %v", err)
	}
	next := service("b", both(30006, 30006))
	if err := update(s, next, b); err != nil || len(s.ports) != 2 {
		t.Errorf("one number given up: %v: %v", s.ports, err)
	}
	swapped := service("b", func(sp *corev1.ServiceSpec) {
		both(30006, 30005)(sp)
	})
	if err := update(s, swapped, next); err == nil || !strings.Contains(err.Error(), "spec.ports[1].nodePort") {
		t.Errorf("a number of another's: %v", err)
	}
}
