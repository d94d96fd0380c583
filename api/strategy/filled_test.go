package strategy

import (
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestPortsArePatchedByName(t *testing.T) {
	s := For(schema.GroupVersionKind{Version: "v1", Kind: "Service"})
	old := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: "10.0.0.5", ClusterIPs: []string{"10.0.0.5"},
		Ports: []corev1.ServicePort{{Name: "a", Port: 80, NodePort: 30080}, {Name: "b", Port: 81, NodePort: 30081}}}}
	for _, c := range []struct {
		name string
		sent []corev1.ServicePort
		want []int32
	}{
		{"other numbers", []corev1.ServicePort{{Name: "b", Port: 80}, {Name: "a", Port: 81}}, []int32{30081, 30080}},
		{"another name", []corev1.ServicePort{{Name: "c", Port: 80}}, []int32{0}},
		{"taken by its neighbour", []corev1.ServicePort{{Name: "a", Port: 80}, {Name: "c", Port: 82, NodePort: 30080}}, []int32{0, 30080}},
	} {
		n := old.DeepCopy()
		n.Spec.Ports = c.sent
		s.PrepareUpdate(n, old)
		for i, w := range c.want {
			if got := n.Spec.Ports[i].NodePort; got != w {
				t.Errorf("%s: port %d is %d, want %d", c.name, i, got, w)
			}
		}
	}
}

func TestAddressesFollowEachOther(t *testing.T) {
	s := For(schema.GroupVersionKind{Version: "v1", Kind: "Service"})
	old := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.0.0.5", ClusterIPs: []string{"10.0.0.5"}}}
	for _, c := range []struct {
		name string
		ip   string
		ips  []string
		want string // both, as they are then
	}{
		{"neither", "", nil, "10.0.0.5 [10.0.0.5]"},
		{"the single one", "10.0.0.5", nil, "10.0.0.5 [10.0.0.5]"},
		{"the list", "", []string{"10.0.0.5"}, "10.0.0.5 [10.0.0.5]"},
		{"another single one", "10.0.0.6", nil, "10.0.0.6 []"}, // validation refuses it
	} {
		n := old.DeepCopy()
		n.Spec.ClusterIP, n.Spec.ClusterIPs = c.ip, c.ips
		s.PrepareUpdate(n, old)
		if got := n.Spec.ClusterIP + " " + list(n.Spec.ClusterIPs); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func list(s []string) string {
	text := "["
	for i, x := range s {
		if i > 0 {
			text += " "
		}
		text += x
	}
	return text + "]"
}

func TestDataSources(t *testing.T) {
	s := For(schema.GroupVersionKind{Version: "v1", Kind: "PersistentVolumeClaim"})
	snapshots, other := "snapshot.storage.k8s.io", "other.io"
	for _, c := range []struct {
		name string
		sent corev1.TypedLocalObjectReference
		kept bool
	}{
		{"a claim", corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "x"}, true},
		{"a snapshot", corev1.TypedLocalObjectReference{APIGroup: &snapshots, Kind: "VolumeSnapshot", Name: "x"}, true},
		{"anything", corev1.TypedLocalObjectReference{APIGroup: &other, Kind: "Thing", Name: "x"}, false},
	} {
		n := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{DataSource: &c.sent}}
		s.PrepareCreate(n)
		if (n.Spec.DataSource != nil) != c.kept || (n.Spec.DataSourceRef != nil) != c.kept {
			t.Errorf("%s: %+v and %+v", c.name, n.Spec.DataSource, n.Spec.DataSourceRef)
		}
	}
	elsewhere := "ns"
	n := &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{DataSourceRef: &corev1.TypedObjectReference{APIGroup: &other, Kind: "Thing", Name: "x", Namespace: &elsewhere}}}
	s.PrepareCreate(n)
	if n.Spec.DataSourceRef == nil || n.Spec.DataSourceRef.Namespace != nil {
		t.Errorf("the namespace of a source is no field yet: %+v", n.Spec.DataSourceRef)
	}
}

func TestObservedGenerationsStay(t *testing.T) {
	s := For(schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	old := &corev1.Pod{Status: corev1.PodStatus{ObservedGeneration: 3, Conditions: []corev1.PodCondition{{Type: "Ready", ObservedGeneration: 2}, {Type: "Other"}}}}
	n := old.DeepCopy()
	n.Status.ObservedGeneration, n.Status.Conditions = 0, []corev1.PodCondition{{Type: "New"}, {Type: "Ready"}, {Type: "Other", ObservedGeneration: 4}}
	s.Sub["status"](n, old)
	got := []int64{n.Status.ObservedGeneration}
	for _, c := range n.Status.Conditions {
		got = append(got, c.ObservedGeneration)
	}
	for i, want := range []int64{3, 0, 2, 4} {
		if got[i] != want {
			t.Errorf("observed %v at %d, want %d", got, i, want)
		}
	}
}

func TestCanonical(t *testing.T) {
	capacity := corev1.ResourceList{"cpu": resource.MustParse("4")}
	n := &corev1.Node{Status: corev1.NodeStatus{Capacity: capacity, Allocatable: corev1.ResourceList{}}}
	For(schema.GroupVersionKind{Version: "v1", Kind: "Node"}).Canonicalize(n)
	if got := n.Status.Allocatable["cpu"]; got.String() != "4" {
		t.Errorf("allocatable %v", n.Status.Allocatable)
	}
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", UID: "u"}}
	s := For(schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"})
	s.PrepareCreate(j)
	s.Canonicalize(j)
	if j.Labels["job-name"] != "j" {
		t.Errorf("labels %v", j.Labels)
	}
}
