package filter

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"karve/scheduler/snapshot"
)

func podOf(t *testing.T, name, spec string) *snapshot.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name)}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return snapshot.NewPod(p)
}

// The node one has 2 cores, 4 GiB, two gadgets and room for three pods; the pod "there" runs on it.
func TestCheck(t *testing.T) {
	const cpu, taint, node = "resources: {requests: {cpu: %s}}", `taints: [{key: k, value: v, effect: %s}]`, "NodeAffinity: node(s) didn't match Pod's node affinity/selector !"
	port := func(host string) string {
		return "containers: [{name: c, ports: [{hostPort: 80, containerPort: 80, protocol: TCP" + host + "}]}]"
	}
	taken := "NodePorts: node(s) didn't have free ports for the requested pod ports"
	for _, c := range []struct{ name, node, there, pod, want string }{
		{"fits", "", "", "", ""},
		{"cordoned", "unschedulable: true", "", "", "NodeUnschedulable: node(s) were unschedulable !"},
		{"cordoned, tolerated", "unschedulable: true", "", "tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]", ""},
		{"this node", "", "", "nodeName: one", ""},
		{"another node", "", "", "nodeName: two", "NodeName: node(s) didn't match the requested node name !"},
		{"tainted", fmt.Sprintf(taint, "NoSchedule"), "", "", "TaintToleration: node(s) had untolerated taint(s) !"},
		{"tainted to evict", fmt.Sprintf(taint, "NoExecute"), "", "", "TaintToleration: node(s) had untolerated taint(s) !"},
		{"a wish only", fmt.Sprintf(taint, "PreferNoSchedule"), "", "", ""},
		{"tolerated", fmt.Sprintf(taint, "NoSchedule"), "", "tolerations: [{key: k, value: v}]", ""},
		{"tolerated with another value", fmt.Sprintf(taint, "NoSchedule"), "", "tolerations: [{key: k, value: w}]", "TaintToleration: node(s) had untolerated taint(s) !"},
		{"label", "", "", "nodeSelector: {disk: ssd}", ""},
		{"no such label", "", "", "nodeSelector: {disk: hdd}", node},
		{"affinity, one term of two", "", "", "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: In, values: [hdd]}]}, {matchFields: [{key: metadata.name, operator: In, values: [one]}]}]}}}", ""},
		{"affinity that no node has", "", "", "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: gpu, operator: Exists}]}]}}}", node},
		{"port taken", "", port(""), port(""), taken},
		{"port taken at one address", "", port(", hostIP: 192.0.2.1"), port(""), taken},
		{"port of two addresses", "", port(", hostIP: 192.0.2.1"), port(", hostIP: 192.0.2.2"), ""},
		{"port of another protocol", "", port(""), strings.Replace(port(""), "TCP", "UDP", 1), ""},
		{"cpu taken", "", "containers: [{name: c, resources: {requests: {cpu: 1500m}}}]", "containers: [{name: c, resources: {requests: {cpu: 501m}}}]", "NodeResourcesFit: Insufficient cpu"},
		{"cpu left", "", "containers: [{name: c, resources: {requests: {cpu: 1500m}}}]", "containers: [{name: c, resources: {requests: {cpu: 500m}}}]", ""},
		{"never enough of two", "", "", "containers: [{name: c, resources: {requests: {cpu: 3, memory: 5Gi}}}]", "NodeResourcesFit: Insufficient cpu ! Insufficient memory !"},
		{"gadgets", "", "containers: [{name: c, resources: {requests: {example.com/gadget: 1}}}]", "containers: [{name: c, resources: {requests: {example.com/gadget: 2}}}]", "NodeResourcesFit: Insufficient example.com/gadget"},
		{"gizmos", "", "", "containers: [{name: c, resources: {requests: {example.com/gizmo: 1}}}]", "NodeResourcesFit: Insufficient example.com/gizmo !"},
		{"the first filter speaks", "unschedulable: true", "", "nodeSelector: {disk: hdd}", "NodeUnschedulable: node(s) were unschedulable !"},
	} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one", Labels: map[string]string{"disk": "ssd"}}}
		if err := yaml.UnmarshalStrict([]byte(c.node), &n.Spec); err != nil {
			t.Fatal(err)
		}
		n.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("4Gi"), "pods": resource.MustParse("3"), "example.com/gadget": resource.MustParse("2")}
		s := snapshot.New()
		s.SetNode(n)
		s.Place(podOf(t, "there", c.there), "one")
		plugin, reasons := Check(NewQuery(podOf(t, "p", c.pod)), s.Nodes()[0])
		got := ""
		if plugin != "" {
			got = plugin + ":"
		}
		for _, r := range reasons {
			got += " " + r.Text
			if r.Unresolvable {
				got += " !"
			}
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestTooManyPods(t *testing.T) {
	s := snapshot.New()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "one"}}
	n.Status.Allocatable = corev1.ResourceList{"pods": resource.MustParse("2")}
	s.SetNode(n)
	for i, want := range []string{"", "", "NodeResourcesFit"} {
		p := podOf(t, fmt.Sprint(i), "")
		if plugin, reasons := Check(NewQuery(p), s.Nodes()[0]); plugin != want {
			t.Errorf("pod %d: refused by %q (%v), want %q", i, plugin, reasons, want)
		}
		s.Place(p, "one")
	}
}
