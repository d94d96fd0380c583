package loops

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWanted(t *testing.T) {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "s"}, Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.0.0.7", "FD00::7"}}}
	if got := addresses(s); len(got) != 2 || got[0] != "10.0.0.7" || got[1] != "fd00::7" {
		t.Fatalf("addresses are called %q", got)
	}
	if got := addresses(&corev1.Service{Spec: corev1.ServiceSpec{ClusterIPs: []string{"None"}}}); got != nil {
		t.Errorf("none at all: %q", got)
	}
	for ip, family := range map[string]string{"10.0.0.7": "IPv4", "fd00::7": "IPv6"} {
		o := wanted(ip, []*corev1.Service{s})
		if o.Name != ip || o.Labels[netv1.LabelIPAddressFamily] != family || o.Labels[netv1.LabelManagedBy] != managedBy || *o.Spec.ParentRef != (netv1.ParentReference{Resource: "services", Namespace: "n", Name: "s"}) {
			t.Errorf("%s: %+v", ip, o)
		}
		if !same(o, o.DeepCopy()) {
			t.Error("it differs from itself")
		}
		other := o.DeepCopy()
		if other.Spec.ParentRef.Name = "else"; same(other, o) {
			t.Error("another owner is the same")
		}
	}
	if wanted("10.0.0.7", nil) != nil || wanted("here", []*corev1.Service{s}) != nil {
		t.Error("an address nobody holds, or that is none, has an object")
	}
}
