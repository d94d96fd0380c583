package snapshot

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

func podOf(t *testing.T, name, spec string) *Pod {
	t.Helper()
	yes := true
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), OwnerReferences: []metav1.OwnerReference{
		{UID: "not", Name: "not"}, {UID: "rs", Name: "rs", Controller: &yes}}}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return NewPod(p)
}

func TestNewPod(t *testing.T) {
	p := podOf(t, "p", `
containers:
- {name: a, resources: {requests: {cpu: 250m, memory: 64Mi, ephemeral-storage: 1Gi, example.com/gadget: 2}}, ports: [{containerPort: 1}, {containerPort: 2, hostPort: 80, hostIP: 192.0.2.1, protocol: UDP}]}
- {name: b}
initContainers:
- {name: once, resources: {requests: {cpu: 2}}, ports: [{containerPort: 3, hostPort: 81}]}
- {name: always, restartPolicy: Always, resources: {requests: {memory: 32Mi}}, ports: [{containerPort: 4, hostPort: 82, protocol: TCP}]}
overhead: {cpu: 10m}`)
	if want := (Amounts{CPU: 2010, Memory: 96 << 20, Storage: 1 << 30, Other: map[corev1.ResourceName]int64{"example.com/gadget": 2}}); !reflect.DeepEqual(p.Requests, want) {
		t.Errorf("requests %+v, want %+v", p.Requests, want)
	}
	// Where a container asks for nothing, 100m and 200 MiB count: b's memory, and always' beside both.
	if p.Weight.CPU != 2010 || p.Weight.Memory != (64+200+32)<<20 {
		t.Errorf("weight %+v", p.Weight)
	}
	if want := []Port{{"192.0.2.1", corev1.ProtocolUDP, 80}, {"", corev1.ProtocolTCP, 82}}; !reflect.DeepEqual(p.Ports, want) {
		t.Errorf("ports %v, want %v: those of a container that ends count for nothing", p.Ports, want)
	}
	if p.Group != "rs" {
		t.Errorf("group %q is not the controller", p.Group)
	}
}

// sums are what a node counts; nothing may be left of a pod that went.
func sums(n *Node) []any {
	return []any{n.Pods, n.Requested.CPU, n.Requested.Memory, n.Weight.CPU, len(n.Ports), n.Groups["rs"]}
}

func TestStateCounts(t *testing.T) {
	s := New()
	node := func(name string) *corev1.Node { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	check := func(step, name string, want ...any) {
		t.Helper()
		for _, n := range s.Nodes() {
			if n.Name == name && !reflect.DeepEqual(sums(n), want) {
				t.Errorf("%s: node %s has %v, want %v", step, name, sums(n), want)
			}
		}
	}
	a, b := podOf(t, "a", "containers: [{name: c, resources: {requests: {cpu: 1, memory: 1Mi}}, ports: [{containerPort: 1, hostPort: 80}]}]"), podOf(t, "b", "containers: [{name: c}]")
	s.Place(a, "n1") // before the node is known
	if len(s.Nodes()) != 0 {
		t.Fatal("a node that nobody made is listed")
	}
	s.SetNode(node("n1"))
	s.SetNode(node("n2"))
	s.Place(b, "n1")
	check("placed", "n1", int64(2), int64(1000), int64(1<<20), int64(1100), 1, 2)
	s.Place(a, "n1") // again
	check("placed twice", "n1", int64(2), int64(1000), int64(1<<20), int64(1100), 1, 2)
	s.Place(a, "n2")
	check("moved away", "n1", int64(1), int64(0), int64(0), int64(100), 0, 1)
	check("moved here", "n2", int64(1), int64(1000), int64(1<<20), int64(1000), 1, 1)
	s.SetNode(node("n2"))
	if len(s.Nodes()) != 2 {
		t.Errorf("%d nodes after an update, want 2", len(s.Nodes()))
	}
	s.RemoveNode("n1")
	s.RemoveNode("n1")
	if len(s.Nodes()) != 1 || s.Nodes()[0].Name != "n2" {
		t.Errorf("nodes %v, want n2 alone", s.Nodes())
	}
	if !s.Remove("b") || s.Remove("b") || s.Remove("nobody") {
		t.Error("Remove does not tell whether the pod was placed")
	}
	if len(s.nodes) != 1 {
		t.Errorf("a node that is gone, and its last pod, too, is remembered: %d", len(s.nodes))
	}
	s.Remove("a")
	check("empty", "n2", int64(0), int64(0), int64(0), int64(0), 0, 0)
}
