package endpointslice

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func service(change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "svc", Namespace: "a", UID: "svc-uid"},
		Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Selector: map[string]string{"app": "x"},
			Ports: []corev1.ServicePort{{Name: "web", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(8080)}}}}
	if change != nil {
		change(s)
	}
	return s
}

func pod(n int, ready bool, change func(*corev1.Pod)) *corev1.Pod {
	st := corev1.ConditionFalse
	if ready {
		st = corev1.ConditionTrue
	}
	name := fmt.Sprintf("p%03d", n)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", UID: types.UID("u-" + name)},
		Spec:   corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.1.%d.%d", n/250, n%250+1)}}, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: st}}}}
	p.Status.PodIP = p.Status.PodIPs[0].IP
	if change != nil {
		change(p)
	}
	return p
}

func zone(string) string { return "z1" }

func TestEndpointConditions(t *testing.T) {
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }
	publish := func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }
	for _, c := range []struct {
		name                        string
		svc                         *corev1.Service
		pod                         *corev1.Pod
		ready, serving, terminating bool
	}{
		{"ready", service(nil), pod(1, true, nil), true, true, false},
		{"not ready", service(nil), pod(1, false, nil), false, false, false},
		{"being deleted", service(nil), pod(1, true, deleted), false, true, true},
		{"published", service(publish), pod(1, false, nil), true, false, false},
		{"published, being deleted", service(publish), pod(1, false, deleted), true, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := plan(c.svc, []*corev1.Pod{c.pod}, zone, nil, time.Unix(5, 0))
			if len(p.Create) != 1 || len(p.Create[0].Endpoints) != 1 {
				t.Fatalf("plan %+v", p)
			}
			e := p.Create[0].Endpoints[0]
			if *e.Conditions.Ready != c.ready || *e.Conditions.Serving != c.serving || *e.Conditions.Terminating != c.terminating {
				t.Errorf("conditions %v %v %v", *e.Conditions.Ready, *e.Conditions.Serving, *e.Conditions.Terminating)
			}
			if *e.Zone != "z1" || *e.NodeName != "n1" || e.TargetRef.Name != "p001" {
				t.Errorf("endpoint %+v", e)
			}
		})
	}
}

// apply carries a plan out on named slices.
func apply(have []*discoveryv1.EndpointSlice, p Plan, serial *int) (out []*discoveryv1.EndpointSlice) {
	gone := map[string]bool{}
	for _, s := range append(p.Delete, p.Update...) {
		gone[s.Name] = true
	}
	for _, s := range have {
		if !gone[s.Name] {
			out = append(out, s)
		}
	}
	out = append(out, p.Update...)
	for _, s := range p.Create {
		*serial++
		s.Name = fmt.Sprintf("svc-%d", *serial)
		out = append(out, s)
	}
	return out
}

func TestSlicesFillAndShrink(t *testing.T) {
	var have []*discoveryv1.EndpointSlice
	serial := 0
	svc := service(nil)
	for step, n := range []int{0, 1, 99, 101, 350, 340, 120, 5, 0, 260} {
		var list []*corev1.Pod
		for i := range n {
			list = append(list, pod(i, true, nil))
		}
		have = apply(have, plan(svc, list, zone, have, time.Unix(5, 0)), &serial)
		got := map[string]bool{}
		for _, s := range have {
			if len(s.Endpoints) > Most {
				t.Errorf("step %d: slice of %d", step, len(s.Endpoints))
			}
			for _, e := range s.Endpoints {
				if got[e.Addresses[0]] {
					t.Errorf("step %d: %s is there twice", step, e.Addresses[0])
				}
				got[e.Addresses[0]] = true
			}
		}
		if len(got) != n || len(have) == 0 || n > 0 && len(have) > (n+Most-1)/Most+3 {
			t.Errorf("step %d: %d endpoints of %d in %d slices", step, len(got), n, len(have))
		}
		if again := plan(svc, list, zone, have, time.Unix(6, 0)); len(again.Create)+len(again.Update)+len(again.Delete) > 0 {
			t.Errorf("step %d: the plan is not stable: %+v", step, again)
		}
	}
}

func TestNamedPortsFamiliesAndFinishedPods(t *testing.T) {
	svc := service(func(s *corev1.Service) {
		s.Spec.Ports[0].TargetPort = intstr.FromString("http")
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		s.Spec.ClusterIP = corev1.ClusterIPNone
		s.Labels = map[string]string{"team": "t"}
	})
	port := func(n int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: n, Protocol: corev1.ProtocolTCP}}}}
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00::" + fmt.Sprint(n)})
		}
	}
	done := pod(9, false, port(1))
	done.Status.Phase = corev1.PodSucceeded
	p := plan(svc, []*corev1.Pod{pod(1, true, port(8080)), pod(2, true, port(8081)), done}, zone, nil, time.Time{})
	got := map[string]string{}
	for _, s := range p.Create {
		got[fmt.Sprintf("%s/%d", s.AddressType, *s.Ports[0].Port)] = s.Endpoints[0].Addresses[0]
		if _, ok := s.Labels[corev1.IsHeadlessService]; !ok || s.Labels["team"] != "t" || s.OwnerReferences[0].UID != "svc-uid" {
			t.Errorf("metadata %+v", s.ObjectMeta)
		}
	}
	want := map[string]string{"IPv4/8080": "10.1.0.2", "IPv4/8081": "10.1.0.3", "IPv6/8080": "fd00::8080", "IPv6/8081": "fd00::8081"}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: got %q, want %q", k, got[k], v)
		}
	}
}

func TestHints(t *testing.T) {
	for _, c := range []struct{ distribution, zones, nodes string }{
		{"PreferClose", "z1", ""}, {"PreferSameZone", "z1", ""}, {"PreferSameNode", "z1", "n1"},
	} {
		svc := service(func(s *corev1.Service) { s.Spec.TrafficDistribution = &c.distribution })
		e := plan(svc, []*corev1.Pod{pod(1, true, nil)}, zone, nil, time.Time{}).Create[0].Endpoints[0]
		if e.Hints == nil || e.Hints.ForZones[0].Name != c.zones || (c.nodes != "") != (len(e.Hints.ForNodes) == 1) {
			t.Errorf("%s: hints %+v", c.distribution, e.Hints)
		}
	}
}
