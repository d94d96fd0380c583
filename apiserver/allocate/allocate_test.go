package allocate

import (
	"net/netip"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
		return func(sp *corev1.ServiceSpec) { sp.ClusterIP = ip }
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
	if _, err := s.Claim(b, a, false); err != nil || b.Spec.ClusterIP != a.Spec.ClusterIP || b.Spec.Ports[0].NodePort != a.Spec.Ports[0].NodePort {
		t.Errorf("kept %v: %v", b.Spec, err)
	}
	// One that needs neither gives them back.
	c := service("a", typed(corev1.ServiceTypeExternalName))
	c.Spec.ExternalName = "example.com"
	if _, err := s.Claim(c, b, false); err != nil || len(s.addrs) != 0 || len(s.ports) != 0 || c.Spec.ClusterIP != "" {
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
	if _, err := s.Claim(b, a, false); err != nil || b.Spec.HealthCheckNodePort != a.Spec.HealthCheckNodePort {
		t.Errorf("not kept: %d: %v", b.Spec.HealthCheckNodePort, err)
	}
	c := service("a", typed(corev1.ServiceTypeLoadBalancer))
	c.Spec.HealthCheckNodePort = b.Spec.HealthCheckNodePort
	if _, err := s.Claim(c, b, false); err != nil || c.Spec.HealthCheckNodePort != 0 || len(s.ports) != 1 {
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
