package kubelet

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAdmit(t *testing.T) {
	asks := func(cpu string, port int32) *corev1.Pod {
		return newPod("x", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse(cpu)}
			if port > 0 {
				p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: port, ContainerPort: port, Protocol: corev1.ProtocolTCP}}
			}
		})
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"zone": "a"}}}
	room := corev1.ResourceList{"cpu": resource.MustParse("2"), "pods": resource.MustParse("2")}
	picky := asks("1", 0)
	picky.Spec.NodeSelector = map[string]string{"zone": "b"}
	for _, tc := range []struct {
		name   string
		pod    *corev1.Pod
		others []*corev1.Pod
		want   string
	}{
		{"fits", asks("1", 0), []*corev1.Pod{asks("1", 0)}, ""},
		{"cpu", asks("1500m", 0), []*corev1.Pod{asks("1", 0)}, "OutOfcpu"},
		{"pods", asks("1m", 0), []*corev1.Pod{asks("1m", 0), asks("1m", 0)}, "OutOfpods"},
		{"port", asks("1m", 80), []*corev1.Pod{asks("1m", 80)}, "NodePorts"},
		{"other port", asks("1m", 81), []*corev1.Pod{asks("1m", 80)}, ""},
		{"selector", picky, nil, "NodeAffinity"},
	} {
		got := ""
		if v := admit(tc.pod, tc.others, room, node); v != nil {
			got = v.Reason
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
