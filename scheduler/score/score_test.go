package score

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

func parsed[T any](t *testing.T, text string) (out T) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func podOf(t *testing.T, name, owner, spec string) *snapshot.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name)}, Spec: parsed[corev1.PodSpec](t, spec)}
	if owner != "" {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: owner, UID: types.UID(owner), Controller: &yes}}
	}
	return snapshot.NewPod(p)
}

func stateOf(nodes ...*corev1.Node) *snapshot.State {
	s := snapshot.New()
	for _, n := range nodes {
		n.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")}
		s.SetNode(n)
	}
	return s
}

func nodeOf(name string, labels map[string]string, taints ...corev1.Taint) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: corev1.NodeSpec{Taints: taints}}
}

const asks = "containers: [{name: c, resources: {requests: {cpu: %s, memory: %s}}}]"

// The points of one node with 4 cores and 8 GiB, on which a pod that asks for 1 core and 2 GiB runs already.
func TestPoints(t *testing.T) {
	soft := corev1.Taint{Key: "k", Effect: corev1.TaintEffectPreferNoSchedule}
	s := stateOf(nodeOf("n", map[string]string{"disk": "ssd"}, soft, corev1.Taint{Key: "hard", Effect: corev1.TaintEffectNoSchedule}))
	s.Place(podOf(t, "there", "rs", fmt.Sprintf(asks, "1", "2Gi")), "n")
	prefers := func(weight int, disk string) string {
		return fmt.Sprintf("affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: %d, preference: {matchExpressions: [{key: disk, operator: In, values: [%s]}]}}]}}", weight, disk)
	}
	for _, c := range []struct {
		score, owner, spec string
		want               float64
	}{
		{"NodeResourcesFit", "", fmt.Sprintf(asks, "1", "2Gi"), 50},
		{"NodeResourcesFit", "", fmt.Sprintf(asks, "3", "2Gi"), 25}, // (0 + 50) / 2
		{"NodeResourcesFit", "", "containers: [{name: c}]", 72},     // as if it asked for 100m and 200 MiB: (72 + 72) / 2
		{"NodeResourcesFit", "", fmt.Sprintf(asks, "4", "7Gi"), 0},  // more than is left
		{"NodeResourcesBalancedAllocation", "", fmt.Sprintf(asks, "1", "2Gi"), 100},
		{"NodeResourcesBalancedAllocation", "", fmt.Sprintf(asks, "3", "2Gi"), 75}, // all of the one, half of the other
		{"PodTopologySpread", "rs", "", 1},
		{"PodTopologySpread", "other", "", 0},
		{"PodTopologySpread", "", "", 0},
		{"TaintToleration", "", "", 1}, // a hard taint is the filter's
		{"TaintToleration", "", "tolerations: [{key: k, operator: Exists}]", 0},
		{"NodeAffinity", "", prefers(7, "ssd"), 7},
		{"NodeAffinity", "", prefers(7, "hdd"), 0},
		{"NodeAffinity", "", "", 0},
	} {
		for i := range All {
			if All[i].Name != c.score {
				continue
			}
			if got := All[i].Points(NewQuery(podOf(t, "p", c.owner, c.spec)), s.Nodes()[0]); got != c.want {
				t.Errorf("%s of %q %s: %v, want %v", c.score, c.owner, c.spec, got, c.want)
			}
		}
	}
}

func TestBest(t *testing.T) {
	soft := corev1.Taint{Key: "k", Effect: corev1.TaintEffectPreferNoSchedule}
	s := stateOf(nodeOf("a", nil), nodeOf("b", map[string]string{"disk": "ssd"}), nodeOf("c", nil, soft), nodeOf("d", nil))
	s.Place(podOf(t, "x", "rs", fmt.Sprintf(asks, "1", "2Gi")), "d")
	for _, c := range []struct{ name, owner, spec, want string }{
		{"ties are all returned", "", fmt.Sprintf(asks, "1", "2Gi"), "a b"},
		{"a preference decides", "", fmt.Sprintf(asks, "1", "2Gi") + "\naffinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: disk, operator: Exists}]}}]}}", "b"},
		{"a tolerated taint does not count", "", fmt.Sprintf(asks, "1", "2Gi") + "\ntolerations: [{key: k, operator: Exists}]", "a b c"},
	} {
		var names []string
		for _, n := range Best(NewQuery(podOf(t, "p", c.owner, c.spec)), s.Nodes()) {
			names = append(names, n.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if len(Best(NewQuery(podOf(t, "p", "", "")), nil)) != 0 {
		t.Error("there is a best of no nodes")
	}
}
