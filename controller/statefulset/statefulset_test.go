package statefulset

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
	"karve/controller/controllertest"
	"karve/controller/loop"
)

func TestOrdinal(t *testing.T) {
	for pod, want := range map[string]int{"db-0": 0, "db-12": 12, "db": -1, "db-x": -1, "db-01": -1, "other-1": -1, "db-1-2": -1} {
		if got := ordinal("db", pod); got != want {
			t.Errorf("%s: %d", pod, got)
		}
	}
}

func newSet(n int32) *appsv1.StatefulSet {
	l := map[string]string{"app": "db"}
	return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db", Namespace: "a"}, Spec: appsv1.StatefulSetSpec{Replicas: &n, ServiceName: "svc",
		Selector:             &metav1.LabelSelector{MatchLabels: l},
		PodManagementPolicy:  appsv1.OrderedReadyPodManagement,
		UpdateStrategy:       appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType},
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
		Template:             corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}}}}
}

func pod(n int, rev string, ready, deleted bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("db-%d", n), Labels: map[string]string{appsv1.ControllerRevisionHashLabelKey: rev}}, Status: corev1.PodStatus{Phase: corev1.PodPending}}
	if ready {
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	}
	if deleted {
		p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	}
	return p
}

func TestPlan(t *testing.T) {
	parallel := func(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = appsv1.ParallelPodManagement }
	partition := func(s *appsv1.StatefulSet) {
		n := int32(2)
		s.Spec.UpdateStrategy.RollingUpdate = &appsv1.RollingUpdateStatefulSetStrategy{Partition: &n}
	}
	start := func(s *appsv1.StatefulSet) { s.Spec.Ordinals = &appsv1.StatefulSetOrdinals{Start: 5} }
	for _, c := range []struct {
		name   string
		change func(*appsv1.StatefulSet)
		pods   []*corev1.Pod
		create string
		delete string
	}{
		{"first one only", nil, nil, "[{0 true}]", "[]"},
		{"waits until it is ready", nil, []*corev1.Pod{pod(0, "new", false, false)}, "[]", "[]"},
		{"then the next", nil, []*corev1.Pod{pod(0, "new", true, false)}, "[{1 true}]", "[]"},
		{"all at once", parallel, nil, "[{0 true} {1 true} {2 true}]", "[]"},
		{"from another start", start, nil, "[{5 true}]", "[]"},
		{"a gap is filled first", nil, []*corev1.Pod{pod(0, "new", true, false), pod(2, "new", true, false)}, "[{1 true}]", "[]"},
		{"shrinks from the top", nil, []*corev1.Pod{pod(0, "new", true, false), pod(1, "new", true, false), pod(2, "new", true, false), pod(3, "new", true, false), pod(4, "new", true, false)}, "[]", "[db-4]"},
		{"one at a time", nil, []*corev1.Pod{pod(0, "new", true, false), pod(1, "new", true, false), pod(2, "new", true, false), pod(3, "new", true, false), pod(4, "new", true, true)}, "[]", "[]"},
		{"updates from the top", nil, []*corev1.Pod{pod(0, "old", true, false), pod(1, "old", true, false), pod(2, "old", true, false)}, "[]", "[db-2]"},
		{"continues when that is well", nil, []*corev1.Pod{pod(0, "old", true, false), pod(1, "old", true, false), pod(2, "new", true, false)}, "[]", "[db-1]"},
		{"waits while it is not", nil, []*corev1.Pod{pod(0, "old", true, false), pod(1, "old", true, false), pod(2, "new", false, false)}, "[]", "[]"},
		{"what dies below the update stays old", nil, []*corev1.Pod{pod(1, "old", true, false), pod(2, "new", true, false)}, "[{0 false}]", "[]"},
		{"what was deleted for the update comes back new", nil, []*corev1.Pod{pod(0, "old", true, false), pod(1, "old", true, false)}, "[{2 true}]", "[]"},
		{"stops at the partition", partition, []*corev1.Pod{pod(0, "old", true, false), pod(1, "old", true, false), pod(2, "new", true, false)}, "[]", "[]"},
		{"below the partition the old template is used", partition, []*corev1.Pod{pod(0, "old", true, false)}, "[{1 false}]", "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := newSet(3)
			if c.change != nil {
				c.change(set)
			}
			p := plan(set, c.pods, "old", "new", time.Unix(9, 0))
			names := []string{}
			for _, d := range p.Delete {
				names = append(names, d.Name)
			}
			if got := fmt.Sprint(p.Create); got != c.create {
				t.Errorf("creates %s", got)
			}
			if got := fmt.Sprint(names); got != c.delete {
				t.Errorf("deletes %s", got)
			}
		})
	}
}

func TestUpdateKeepsClaimsAndOrder(t *testing.T) {
	s := controllertest.New(newSet(3))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // the node
		defer close(done)
		res := client.Of[*corev1.Pod](s)
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			down := 0
			list := controllertest.All[*corev1.Pod](s, "a")
			for _, p := range list {
				if p.DeletionTimestamp != nil {
					down++
					zero := int64(0)
					_ = res.Delete(ctx, "a", p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
				} else if p.Status.Phase == "" {
					down++
					c := p.DeepCopy()
					c.Status = pod(0, "", true, false).Status
					_, _ = res.UpdateStatus(ctx, c)
				}
			}
			if down > 1 {
				t.Errorf("%d pods are down at once", down)
			}
		}
	}()
	events := controllertest.Run(t, s, func(e *loop.Env) []*loop.Controller { return []*loop.Controller{New(e)} })
	t.Cleanup(func() { cancel(); <-done })
	settled := func() bool {
		set := controllertest.MustGet[*appsv1.StatefulSet](s, "a", "db")
		st := set.Status
		return st.ObservedGeneration == set.Generation && st.UpdatedReplicas == 3 && st.ReadyReplicas == 3 && st.CurrentRevision == st.UpdateRevision
	}
	controllertest.Eventually(t, "3 pods", settled)
	first := controllertest.All[*corev1.PersistentVolumeClaim](s, "a")
	if len(first) != 3 || !events.Has("statefulset-controller SuccessfulCreate create Claim data-db-0 Pod db-0 in StatefulSet db success") ||
		!events.Has("statefulset-controller SuccessfulCreate create Pod db-0 in StatefulSet db successful") {
		t.Errorf("%d claims, events %q", len(first), events.List())
	}
	body := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"v2"}]}}}}`)
	if _, err := client.Of[*appsv1.StatefulSet](s).Patch(ctx, "a", "db", types.MergePatchType, body); err != nil {
		t.Fatal(err)
	}
	controllertest.Eventually(t, "the update", settled)
	for _, p := range controllertest.All[*corev1.Pod](s, "a") {
		if p.Spec.Containers[0].Image != "v2" || p.Spec.Hostname != p.Name || p.Spec.Subdomain != "svc" ||
			p.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "data-"+p.Name {
			t.Errorf("pod %+v", p.Spec)
		}
	}
	if n := s.Calls("create persistentvolumeclaims"); n != 3 {
		t.Errorf("%d claims were made", n)
	}
}
