package daemonset

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"karve/client"
	"karve/controller/controllertest"
	"karve/controller/loop"
)

func set(surge, unavailable int32) *appsv1.DaemonSet {
	s, u := intstr.FromInt32(surge), intstr.FromInt32(unavailable)
	l := map[string]string{"app": "d"}
	return &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "a", Generation: 1}, Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: l}, UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: &s, MaxUnavailable: &u}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}}}}
}

func node(name string, change func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if change != nil {
		change(n)
	}
	return n
}

func taint(key string, e corev1.TaintEffect) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: key, Effect: e}} }
}

func TestWhichNodes(t *testing.T) {
	for _, c := range []struct {
		name        string
		node        *corev1.Node
		start, stay bool
	}{
		{"plain", node("n", nil), true, true},
		{"not ready is tolerated", node("n", taint(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)), true, true},
		{"unschedulable is tolerated", node("n", taint(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)), true, true},
		{"NoSchedule keeps new ones away", node("n", taint("x", corev1.TaintEffectNoSchedule)), false, true},
		{"NoExecute drives off", node("n", taint("x", corev1.TaintEffectNoExecute)), false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ds := set(0, 1)
			running := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{NodeName: "n"}}
			if got := plan(ds, nil, []*corev1.Node{c.node}, "h", nil, time.Time{}); len(got.Create) == 1 != c.start {
				t.Errorf("creates %v", got.Create)
			}
			ds.Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType
			if got := plan(ds, []*corev1.Pod{running}, []*corev1.Node{c.node}, "h", nil, time.Time{}); len(got.Delete) == 0 != c.stay {
				t.Errorf("deletes %d", len(got.Delete))
			}
		})
	}
	ds := set(0, 1)
	ds.Spec.Template.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	if got := plan(ds, nil, []*corev1.Node{node("a", nil), node("b", func(n *corev1.Node) { n.Labels = map[string]string{"disk": "ssd"} })}, "h", nil, time.Time{}); len(got.Create) != 1 || got.Create[0] != "b" {
		t.Errorf("by selector: %v", got.Create)
	}
}

func TestRollingUpdate(t *testing.T) {
	for _, c := range []struct{ surge, unavailable int32 }{{0, 1}, {0, 2}, {1, 0}, {3, 0}} {
		t.Run(fmt.Sprintf("surge %d, unavailable %d", c.surge, c.unavailable), func(t *testing.T) {
			s := controllertest.New(set(c.surge, c.unavailable))
			for i := range 4 {
				if _, err := client.Of[*corev1.Node](s).Create(context.Background(), node(fmt.Sprintf("n%d", i), nil)); err != nil {
					t.Fatal(err)
				}
			}
			kubelet(t, s)
			controllertest.Run(t, s, func(e *loop.Env) []*loop.Controller { return []*loop.Controller{New(e)} })
			done := func() bool {
				d := controllertest.MustGet[*appsv1.DaemonSet](s, "a", "d")
				st := d.Status
				return st.ObservedGeneration == d.Generation && st.UpdatedNumberScheduled == 4 && st.NumberAvailable == 4 && len(controllertest.All[*corev1.Pod](s, "a")) == 4
			}
			controllertest.Eventually(t, "4 pods", done)
			for _, image := range []string{"v2", "v1"} {
				body := fmt.Appendf(nil, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":%q}]}}}}`, image)
				if _, err := client.Of[*appsv1.DaemonSet](s).Patch(context.Background(), "a", "d", types.MergePatchType, body); err != nil {
					t.Fatal(err)
				}
				controllertest.Eventually(t, "update to "+image, done)
				for _, p := range controllertest.All[*corev1.Pod](s, "a") {
					if p.Spec.Containers[0].Image != image {
						t.Errorf("pod %s runs %s", p.Name, p.Spec.Containers[0].Image)
					}
				}
			}
			top := int64(0)
			history := controllertest.All[*appsv1.ControllerRevision](s, "a")
			for _, r := range history {
				top = max(top, r.Revision)
			}
			if len(history) != 2 || top != 3 {
				t.Errorf("%d revisions up to %d", len(history), top)
			}
		})
	}
}

// kubelet binds pods to the nodes they name, makes them ready, and ends those being deleted.
func kubelet(t *testing.T, s *controllertest.Server) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	res := client.Of[*corev1.Pod](s)
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			for _, p := range controllertest.All[*corev1.Pod](s, "") {
				c := p.DeepCopy()
				switch {
				case p.DeletionTimestamp != nil:
					zero := int64(0)
					_ = res.Delete(ctx, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
				case p.Spec.NodeName == "":
					c.Spec.NodeName = target(p)
					_, _ = res.Update(ctx, c)
				case p.Status.Phase == "":
					c.Status.Phase = corev1.PodRunning
					c.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
					_, _ = res.UpdateStatus(ctx, c)
				}
			}
		}
	}()
}
