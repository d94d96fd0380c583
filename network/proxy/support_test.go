package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/network/testnet"
)

// service makes a Service from "name vip" and ports "name/proto/port[/nodePort]"; change adjusts it.
func service(name, vip string, change func(*corev1.Service), ports ...string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
	s.Spec.ClusterIP = vip
	s.Spec.ClusterIPs = []string{vip}
	s.Spec.Type = corev1.ServiceTypeClusterIP
	for _, p := range ports {
		f := strings.Split(p, "/")
		sp := corev1.ServicePort{Name: f[0], Protocol: corev1.Protocol(f[1])}
		fmt.Sscan(f[2], &sp.Port)
		if len(f) > 3 {
			fmt.Sscan(f[3], &sp.NodePort)
			s.Spec.Type = corev1.ServiceTypeNodePort
		}
		s.Spec.Ports = append(s.Spec.Ports, sp)
	}
	if change != nil {
		change(s)
	}
	return s
}

// slice makes the EndpointSlice of a service. Each endpoint is "address[@node][!state]" where state has the letters
// n (not ready), s (serving), t (terminating); ports are "name/proto/port".
func slice(svc string, ports string, endpoints ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: svc + "-x",
		Labels: map[string]string{discoveryv1.LabelServiceName: svc}}, AddressType: discoveryv1.AddressTypeIPv4}
	for _, p := range strings.Fields(ports) {
		f := strings.Split(p, "/")
		proto := corev1.Protocol(f[1])
		port := int32(0)
		fmt.Sscan(f[2], &port)
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &f[0], Protocol: &proto, Port: &port})
	}
	for _, e := range endpoints {
		rest, state, _ := strings.Cut(e, "!")
		addr, node, _ := strings.Cut(rest, "@")
		ready, serving, term := !strings.Contains(state, "n"), strings.Contains(state, "s") || !strings.Contains(state, "n"), strings.Contains(state, "t")
		ep := discoveryv1.Endpoint{Addresses: []string{addr}, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &term}}
		if node != "" {
			ep.NodeName = &node
		}
		if strings.Contains(addr, ":") {
			s.AddressType = discoveryv1.AddressTypeIPv6
		}
		s.Endpoints = append(s.Endpoints, ep)
	}
	return s
}

func addAddr(t *testing.T, ns *testnet.NS, addr string) {
	t.Helper()
	ns.Must(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD // usable at once
		return netlink.AddrAdd(lo, a)
	})
}

func dialShort(to string) error {
	c, err := net.DialTimeout("tcp", to, 300*time.Millisecond)
	if err == nil {
		c.Close()
	}
	return err
}
