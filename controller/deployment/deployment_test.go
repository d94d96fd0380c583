package deployment_test

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
	"karve/controller/deployment"
	"karve/controller/loop"
	"karve/controller/replicaset"
)

func web(n int32, change func(*appsv1.Deployment)) *appsv1.Deployment {
	one, zero := intstr.FromInt32(1), intstr.FromInt32(0)
	deadline, limit := int32(600), int32(2)
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "a", Annotations: map[string]string{"note": "x"}},
		Spec: appsv1.DeploymentSpec{Replicas: &n, ProgressDeadlineSeconds: &deadline, RevisionHistoryLimit: &limit,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "v1"}}}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &one, MaxUnavailable: &zero}}},
	}
	if change != nil {
		change(d)
	}
	return d
}

// kubelet makes every pod ready, and pods being deleted go, until the test ends.
func kubelet(t *testing.T, s *controllertest.Server, check func(pods []*corev1.Pod)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	res := client.Of[*corev1.Pod](s)
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			pods := controllertest.All[*corev1.Pod](s, "")
			if check != nil {
				check(pods)
			}
			for _, p := range pods {
				if p.DeletionTimestamp != nil {
					zero := int64(0)
					_ = res.Delete(ctx, p.Namespace, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
				} else if p.Status.Phase != corev1.PodRunning {
					c := p.DeepCopy()
					c.Status.Phase = corev1.PodRunning
					c.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
					_, _ = res.UpdateStatus(ctx, c)
				}
			}
		}
	}()
}

func start(t *testing.T, s *controllertest.Server) *controllertest.Events {
	return controllertest.Run(t, s, func(e *loop.Env) []*loop.Controller {
		return []*loop.Controller{deployment.New(e), replicaset.New(e)}
	})
}

func rolledOut(s *controllertest.Server, n int32) func() bool {
	return func() bool {
		d := controllertest.MustGet[*appsv1.Deployment](s, "a", "web")
		st := d.Status
		progressed := false
		for _, c := range st.Conditions {
			progressed = progressed || c.Type == appsv1.DeploymentProgressing && c.Reason == "NewReplicaSetAvailable"
		}
		return st.ObservedGeneration == d.Generation && st.UpdatedReplicas == n && st.Replicas == n && st.AvailableReplicas == n && progressed
	}
}

func patch(t *testing.T, s *controllertest.Server, body string) {
	t.Helper()
	if _, err := client.Of[*appsv1.Deployment](s).Patch(context.Background(), "a", "web", types.MergePatchType, []byte(body)); err != nil {
		t.Fatal(err)
	}
}

func image(v string) string {
	return fmt.Sprintf(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":%q}]}}}}`, v)
}

func TestRolloutAndRollback(t *testing.T) {
	s := controllertest.New(web(4, nil))
	kubelet(t, s, nil)
	events := start(t, s)
	controllertest.Eventually(t, "first rollout", rolledOut(s, 4))
	first := controllertest.All[*appsv1.ReplicaSet](s, "a")[0]
	if !events.Has(fmt.Sprintf("deployment-controller ScalingReplicaSet Scaled up replica set %s from 0 to 4", first.Name)) {
		t.Errorf("no event of the first scaling in %q", events.List())
	}
	if first.Annotations["note"] != "x" || first.Annotations["deployment.kubernetes.io/desired-replicas"] != "4" ||
		first.Annotations["deployment.kubernetes.io/max-replicas"] != "5" || first.Annotations["deployment.kubernetes.io/revision"] != "1" {
		t.Errorf("annotations of the first set: %v", first.Annotations)
	}

	patch(t, s, image("v2"))
	controllertest.Eventually(t, "second rollout", rolledOut(s, 4))
	for _, p := range controllertest.All[*corev1.Pod](s, "a") {
		if p.DeletionTimestamp == nil && p.Spec.Containers[0].Image != "v2" {
			t.Errorf("pod %s still runs %s", p.Name, p.Spec.Containers[0].Image)
		}
	}
	if !events.Has(fmt.Sprintf("deployment-controller ScalingReplicaSet Scaled down replica set %s from 1 to 0", first.Name)) {
		t.Errorf("no event of the last scaling down in %q", events.List())
	}

	patch(t, s, image("v1"))
	controllertest.Eventually(t, "rollback", rolledOut(s, 4))
	d := controllertest.MustGet[*appsv1.Deployment](s, "a", "web")
	again := controllertest.MustGet[*appsv1.ReplicaSet](s, "a", first.Name)
	if again.UID != first.UID || d.Annotations["deployment.kubernetes.io/revision"] != "3" ||
		again.Annotations["deployment.kubernetes.io/revision"] != "3" || again.Annotations["deployment.kubernetes.io/revision-history"] != "1" {
		t.Errorf("after rollback: deployment %v, replica set %v", d.Annotations, again.Annotations)
	}

	for _, v := range []string{"v3", "v4", "v5"} {
		patch(t, s, image(v))
		controllertest.Eventually(t, "rollout of "+v, rolledOut(s, 4))
	}
	controllertest.Eventually(t, "history is cut to 2 old sets", func() bool { return len(controllertest.All[*appsv1.ReplicaSet](s, "a")) == 3 })
}

func TestRollingUpdateKeepsWithinLimits(t *testing.T) {
	s := controllertest.New(web(6, func(d *appsv1.Deployment) {
		two, half := intstr.FromInt32(2), intstr.FromString("50%")
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &half, MaxUnavailable: &two}
	}))
	var checking bool
	phase := make(chan bool, 1)
	kubelet(t, s, func(pods []*corev1.Pod) {
		select {
		case checking = <-phase:
		default:
		}
		live, ready := 0, 0
		for _, p := range pods {
			if p.DeletionTimestamp == nil {
				live++
				if p.Status.Phase == corev1.PodRunning {
					ready++
				}
			}
		}
		if checking {
			if live > 9 || ready < 4 {
				t.Errorf("%d pods, %d ready: outside of 9 and 4", live, ready)
			}
		}
	})
	start(t, s)
	controllertest.Eventually(t, "first rollout", rolledOut(s, 6))
	phase <- true
	patch(t, s, image("v2"))
	controllertest.Eventually(t, "second rollout", rolledOut(s, 6))
}

func TestRecreateWaitsForOldPods(t *testing.T) {
	s := controllertest.New(web(3, func(d *appsv1.Deployment) {
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	}))
	kubelet(t, s, func(pods []*corev1.Pod) {
		images := map[string]bool{}
		for _, p := range pods {
			images[p.Spec.Containers[0].Image] = true
		}
		if len(images) > 1 {
			t.Errorf("old and new pods at once: %v", images)
		}
	})
	start(t, s)
	controllertest.Eventually(t, "first rollout", rolledOut(s, 3))
	patch(t, s, image("v2"))
	controllertest.Eventually(t, "second rollout", rolledOut(s, 3))
}

func TestPauseScaleResume(t *testing.T) {
	s := controllertest.New(web(3, nil))
	kubelet(t, s, nil)
	start(t, s)
	controllertest.Eventually(t, "rollout", rolledOut(s, 3))
	patch(t, s, `{"spec":{"paused":true}}`)
	patch(t, s, image("v2"))
	patch(t, s, `{"spec":{"replicas":5}}`)
	controllertest.Eventually(t, "scaled while paused", func() bool {
		sets := controllertest.All[*appsv1.ReplicaSet](s, "a")
		return len(sets) == 1 && sets[0].Status.AvailableReplicas == 5
	})
	patch(t, s, `{"spec":{"paused":false}}`)
	controllertest.Eventually(t, "resumed", rolledOut(s, 5))
}

func TestNameCollision(t *testing.T) {
	d := web(1, nil)
	s := controllertest.New(d)
	stop := false
	var name string
	s.Fail = func(r *client.Request) error {
		// Somebody else takes the name just before the first create.
		if rs, ok := r.Object.(*appsv1.ReplicaSet); ok && r.Verb == "create" && !stop {
			stop, name = true, rs.Name
			other := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: rs.Name, Namespace: "a"},
				Spec: appsv1.ReplicaSetSpec{Replicas: new(int32), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}}}}
			if _, err := client.Of[*appsv1.ReplicaSet](s).Create(context.Background(), other); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	kubelet(t, s, nil)
	start(t, s)
	controllertest.Eventually(t, "rollout under another name", rolledOut(s, 1))
	got := controllertest.MustGet[*appsv1.Deployment](s, "a", "web")
	if got.Status.CollisionCount == nil || *got.Status.CollisionCount != 1 {
		t.Errorf("collisionCount = %v", got.Status.CollisionCount)
	}
	if n := controllertest.All[*appsv1.ReplicaSet](s, "a"); len(n) != 2 || name == "" {
		t.Errorf("%d replica sets", len(n))
	}
}
