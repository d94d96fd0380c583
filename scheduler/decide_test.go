package scheduler

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/scheduler/explain"
	"karve/scheduler/snapshot"
)

func node(name, cpu, memory string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}}}
	n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourcePods: resource.MustParse("3")}
	for _, c := range change {
		c(n)
	}
	return n
}

func pod(name, cpu, memory string, change ...func(*corev1.Pod)) *snapshot.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}}}}
	for _, c := range change {
		c(p)
	}
	return snapshot.NewPod(p)
}

func hostPort(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: n, ContainerPort: n, Protocol: corev1.ProtocolTCP}}
	}
}

func TestDecide(t *testing.T) {
	tainted := func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoSchedule}}
	}
	cordoned := func(n *corev1.Node) { n.Spec.Unschedulable = true }
	ssd := func(n *corev1.Node) { n.Labels["disk"] = "ssd" }
	for _, c := range []struct {
		name    string
		nodes   []*corev1.Node
		placed  map[string]*snapshot.Pod // by node
		pod     *snapshot.Pod
		want    string
		message string
	}{
		{name: "no nodes", pod: pod("p", "1", "1Gi"), message: "no nodes available to schedule pods"},
		{name: "the emptier node", nodes: []*corev1.Node{node("a", "4", "8Gi"), node("b", "4", "8Gi")}, placed: map[string]*snapshot.Pod{"a": pod("x", "2", "4Gi")}, pod: pod("p", "1", "1Gi"), want: "b"},
		{name: "selector", nodes: []*corev1.Node{node("a", "64", "64Gi"), node("b", "4", "8Gi", ssd)},
			pod: pod("p", "1", "1Gi", func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }), want: "b"},
		{name: "toleration", nodes: []*corev1.Node{node("a", "4", "8Gi", tainted)},
			pod: pod("p", "1", "1Gi", func(p *corev1.Pod) {
				p.Spec.Tolerations = []corev1.Toleration{{Key: "dedicated", Operator: corev1.TolerationOpExists}}
			}), want: "a"},
		{name: "host port taken", nodes: []*corev1.Node{node("a", "4", "8Gi")}, placed: map[string]*snapshot.Pod{"a": pod("x", "1", "1Gi", hostPort(80))}, pod: pod("p", "1", "1Gi", hostPort(80)),
			message: "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."},
		{name: "every reason once", nodes: []*corev1.Node{node("a", "1", "8Gi"), node("b", "4", "8Gi", tainted), node("c", "4", "8Gi", cordoned)}, pod: pod("p", "2", "1Gi"),
			message: "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."},
		{name: "full, but others could go", nodes: []*corev1.Node{node("a", "4", "8Gi")}, placed: map[string]*snapshot.Pod{"a": pod("x", "3", "1Gi")}, pod: pod("p", "2", "1Gi"),
			message: "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."},
	} {
		s := snapshot.New()
		for _, n := range c.nodes {
			s.SetNode(n)
		}
		for n, p := range c.placed {
			s.Place(p, n)
		}
		got, total, refusals := decide(s, c.pod)
		if got != c.want {
			t.Errorf("%s: node %q, want %q", c.name, got, c.want)
		}
		if c.want == "" {
			if m := explain.Message(total, refusals); m != c.message {
				t.Errorf("%s:\n got %s\nwant %s", c.name, m, c.message)
			}
		}
	}
}

func TestSiblingsSpread(t *testing.T) {
	s := snapshot.New()
	for _, n := range []string{"a", "b", "c"} {
		s.SetNode(node(n, "64", "64Gi"))
	}
	yes := true
	counts := map[string]int{}
	for i := range 9 {
		p := pod(fmt.Sprint("p", i), "100m", "64Mi", func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "rs", UID: "rs", Controller: &yes}}
		})
		n, _, _ := decide(s, p)
		if n == "" {
			break
		}
		s.Place(p, n)
		counts[n]++
	}
	for _, n := range []string{"a", "b", "c"} {
		if counts[n] != 3 {
			t.Fatalf("spread %v, want 3 each", counts)
		}
	}
}

func TestRemoveGivesBack(t *testing.T) {
	s := snapshot.New()
	s.SetNode(node("a", "2", "2Gi"))
	first, second := pod("x", "2", "1Gi", hostPort(80)), pod("y", "2", "1Gi", hostPort(80))
	s.Place(first, "a")
	if n, _, _ := decide(s, second); n != "" {
		t.Fatal("placed on a full node")
	}
	if !s.Remove(first.UID) || s.Remove(first.UID) {
		t.Fatal("Remove must say whether the pod was placed")
	}
	if n, _, _ := decide(s, second); n != "a" {
		t.Fatal("the room was not given back")
	}
	s.Place(second, "a")
	s.RemoveNode("a")
	s.SetNode(node("a", "2", "2Gi"))
	if n, _, _ := decide(s, first); n != "" {
		t.Fatal("a node that came back forgot the pod on it")
	}
}
