package nodelifecycle

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Unix(1_000_000, 0)

func node(name string, ready corev1.ConditionStatus) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if ready != "" {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	}
	return n
}

func TestSilentNode(t *testing.T) {
	got := silent(node("a", corev1.ConditionTrue), now)
	if len(got) != 4 || got[0].Status != corev1.ConditionUnknown || got[0].Reason != "NodeStatusUnknown" || got[0].Message != "Kubelet stopped posting node status." ||
		got[1].Reason != "NodeStatusNeverUpdated" || got[1].Message != "Kubelet never posted node status." {
		t.Errorf("%+v", got)
	}
	n := node("a", "")
	n.Status.Conditions = got
	if again := silent(n, now.Add(time.Minute)); again != nil {
		t.Errorf("the conditions change again: %+v", again)
	}
}

func TestBeatUsesOwnClock(t *testing.T) {
	lease := metav1.NewMicroTime(time.Unix(5, 0)) // the node's clock is far off
	b := beat(heartbeat{}, false, nil, lease, now)
	if !b.noticed.Equal(now) {
		t.Fatal("a first look is a sign of life")
	}
	if again := beat(b, true, nil, lease, now.Add(time.Hour)); !again.noticed.Equal(now) {
		t.Error("an unchanged lease counts as a sign of life")
	}
	if next := beat(b, true, nil, metav1.NewMicroTime(time.Unix(6, 0)), now.Add(time.Hour)); !next.noticed.Equal(now.Add(time.Hour)) {
		t.Error("a renewed lease does not count")
	}
}

func TestTaints(t *testing.T) {
	own := corev1.Taint{Key: "mine", Effect: corev1.TaintEffectNoExecute}
	for _, c := range []struct {
		name  string
		node  *corev1.Node
		evict bool
		have  []corev1.Taint
		want  string
	}{
		{"ready", node("a", corev1.ConditionTrue), true, []corev1.Taint{own}, "mine:NoExecute"},
		{"not ready", node("a", corev1.ConditionFalse), true, nil, "node.kubernetes.io/not-ready:NoSchedule node.kubernetes.io/not-ready:NoExecute"},
		{"unknown", node("a", corev1.ConditionUnknown), true, []corev1.Taint{own}, "mine:NoExecute node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute"},
		{"unknown, nobody to be driven off", node("a", corev1.ConditionUnknown), false, nil, "node.kubernetes.io/unreachable:NoSchedule"},
		{"ready again", node("a", corev1.ConditionTrue), true, []corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute}, own}, "mine:NoExecute"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.node.Spec.Taints = c.have
			list, _ := taints(c.node, c.evict, now)
			got := ""
			for i, x := range list {
				if i > 0 {
					got += " "
				}
				got += x.Key + ":" + string(x.Effect)
			}
			if got != c.want {
				t.Errorf("got %s", got)
			}
			c.node.Spec.Taints = list
			if _, changed := taints(c.node, c.evict, now); changed {
				t.Error("not stable")
			}
		})
	}
	n := node("a", corev1.ConditionTrue)
	n.Spec.Unschedulable = true
	if list, changed := taints(n, true, now); !changed || list[0].Key != corev1.TaintNodeUnschedulable {
		t.Errorf("unschedulable: %v", list)
	}
}

func TestEvictable(t *testing.T) {
	for _, c := range []struct {
		ready, not int
		want       bool
	}{{0, 1, false}, {0, 5, false}, {1, 1, true}, {1, 2, true}, {1, 3, false}, {5, 3, true}} {
		var nodes []*corev1.Node
		for i := range c.ready {
			nodes = append(nodes, node(fmt.Sprintf("r%d", i), corev1.ConditionTrue))
		}
		for i := range c.not {
			nodes = append(nodes, node(fmt.Sprintf("n%d", i), corev1.ConditionUnknown))
		}
		if got := evictable(nodes)["n0"]; got != c.want {
			t.Errorf("%d ready, %d not: %v", c.ready, c.not, got)
		}
	}
}

func TestEviction(t *testing.T) {
	added := metav1.NewTime(now.Add(-time.Minute))
	taint := []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute, TimeAdded: &added}}
	secs := func(n int64) *int64 { return &n }
	tol := func(s *int64) corev1.Toleration {
		return corev1.Toleration{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: s}
	}
	for _, c := range []struct {
		name  string
		list  []corev1.Toleration
		taint []corev1.Taint
		leave bool
		after time.Duration
	}{
		{"no taint", nil, nil, false, 0},
		{"not tolerated", nil, taint, true, 0},
		{"for ever", []corev1.Toleration{tol(nil)}, taint, false, 0},
		{"for a while", []corev1.Toleration{tol(secs(300))}, taint, true, 240 * time.Second},
		{"the shortest counts", []corev1.Toleration{tol(secs(300)), tol(secs(90))}, taint, true, 30 * time.Second},
		{"over", []corev1.Toleration{tol(secs(30))}, taint, true, -30 * time.Second},
		{"another key", []corev1.Toleration{{Key: "x", Operator: corev1.TolerationOpExists}}, taint, true, 0},
		{"everything", []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, taint, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &corev1.Pod{Spec: corev1.PodSpec{Tolerations: c.list}}
			at, leave := eviction(p, c.taint, now)
			if leave != c.leave || leave && at.Sub(now) != c.after {
				t.Errorf("leave %v after %v", leave, at.Sub(now))
			}
		})
	}
}
