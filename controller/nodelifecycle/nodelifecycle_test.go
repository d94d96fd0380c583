package nodelifecycle_test

import (
	"context"
	"sync"
	"testing"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/controller/controllertest"
	"karve/controller/loop"
	"karve/controller/nodelifecycle"
	"karve/controller/pods"
)

func TestSilentNodeLosesItsPods(t *testing.T) {
	ready := func(name string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	}
	lease := func(name string) *coordv1.Lease {
		stamp := metav1.NowMicro()
		return &coordv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "kube-node-lease"}, Spec: coordv1.LeaseSpec{RenewTime: &stamp}}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "a"}, Spec: corev1.PodSpec{NodeName: "dead"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	s := controllertest.New(ready("dead"), ready("alive"), lease("dead"), lease("alive"), pod)

	// A clock that the test moves: the living node renews its lease at every step, the dead one does not.
	var mu sync.Mutex
	at := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return at }
	events := controllertest.Run(t, s, func(e *loop.Env) []*loop.Controller {
		e.Now = clock
		return []*loop.Controller{nodelifecycle.New(e, nodelifecycle.Times{Period: time.Millisecond}), nodelifecycle.NewTaint(e)}
	})
	controllertest.Eventually(t, "both nodes are known", func() bool {
		return events.Has("node-controller RegisteredNode Node dead event: Registered Node dead in Controller") &&
			events.Has("node-controller RegisteredNode Node alive event: Registered Node alive in Controller")
	})
	res := client.Of[*coordv1.Lease](s)
	for range 10 {
		l := controllertest.MustGet[*coordv1.Lease](s, "kube-node-lease", "alive").DeepCopy()
		mu.Lock()
		stamp := metav1.NewMicroTime(at)
		mu.Unlock()
		l.Spec.RenewTime = &stamp
		if _, err := res.Update(context.Background(), l); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // lets the watch deliver it before time goes on
		mu.Lock()
		at = at.Add(5 * time.Second)
		mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
	controllertest.Eventually(t, "the pod is deleted", func() bool {
		p := controllertest.MustGet[*corev1.Pod](s, "a", "p")
		c := pods.Condition(p, corev1.DisruptionTarget)
		return p.DeletionTimestamp != nil && c != nil && c.Reason == "DeletionByTaintManager" && !pods.Ready(p)
	})
	for _, c := range controllertest.MustGet[*corev1.Node](s, "", "alive").Status.Conditions {
		if c.Status == corev1.ConditionUnknown {
			t.Errorf("the living node is %s %s", c.Type, c.Reason)
		}
	}
	for _, want := range []string{"node-controller NodeNotReady Node dead status is now: NodeNotReady", "taint-eviction-controller TaintManagerEviction Marking for deletion Pod a/p"} {
		if !events.Has(want) {
			t.Errorf("no event %q in %q", want, events.List())
		}
	}
	if err := client.Of[*corev1.Node](s).Delete(context.Background(), "", "dead", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Eventually(t, "the lease goes with the node", func() bool { return len(controllertest.All[*coordv1.Lease](s, "")) == 1 })
}
