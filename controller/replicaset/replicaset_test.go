package replicaset_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
	"karve/controller/controllertest"
	"karve/controller/loop"
	"karve/controller/replicaset"
)

func set(n int32) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "rs", Namespace: "a"}, Spec: appsv1.ReplicaSetSpec{Replicas: &n,
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "x"}}}}}
}

func start(t *testing.T, s *controllertest.Server) *controllertest.Events {
	return controllertest.Run(t, s, func(e *loop.Env) []*loop.Controller {
		return []*loop.Controller{replicaset.New(e), replicaset.NewReplicationController(e)}
	})
}

func status(s *controllertest.Server) appsv1.ReplicaSetStatus {
	return controllertest.MustGet[*appsv1.ReplicaSet](s, "a", "rs").Status
}

func scale(t *testing.T, s *controllertest.Server, n int) {
	t.Helper()
	if _, err := client.Of[*appsv1.ReplicaSet](s).Patch(context.Background(), "a", "rs", types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n)); err != nil {
		t.Fatal(err)
	}
}

func TestScaleUpAndDown(t *testing.T) {
	s := controllertest.New(set(3))
	events := start(t, s)
	controllertest.Eventually(t, "3 pods", func() bool { return status(s).Replicas == 3 })
	p := controllertest.All[*corev1.Pod](s, "a")[0]
	if p.GenerateName != "rs-" || !metav1.IsControlledBy(p, controllertest.MustGet[*appsv1.ReplicaSet](s, "a", "rs")) {
		t.Errorf("pod %+v", p.ObjectMeta)
	}
	if !events.Has("replicaset-controller SuccessfulCreate Created pod: " + p.Name) {
		t.Errorf("events %q", events.List())
	}
	scale(t, s, 1)
	controllertest.Eventually(t, "1 pod", func() bool { return status(s).Replicas == 1 && len(controllertest.All[*corev1.Pod](s, "a")) == 1 })
	if n := s.Calls("create pods"); n != 3 {
		t.Errorf("%d pods were created for 3", n)
	}
	if n := s.Calls("delete pods"); n != 2 {
		t.Errorf("%d pods were deleted for 2", n)
	}
}

func TestNoMoreAndNoLessThanAskedFor(t *testing.T) {
	s := controllertest.New(set(2000))
	begin := time.Now()
	start(t, s)
	controllertest.Eventually(t, "2,000 pods", func() bool { return status(s).Replicas == 2000 })
	t.Logf("2,000 pods in %v", time.Since(begin))
	if n := s.Calls("create pods"); n != 2000 {
		t.Errorf("%d pods were created", n)
	}
}

func TestAdoptAndRelease(t *testing.T) {
	bare := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bare", Namespace: "a", Labels: map[string]string{"app": "x"}}}
	other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: "a", Labels: map[string]string{"app": "y"}}}
	s := controllertest.New(set(2), bare, other)
	start(t, s)
	controllertest.Eventually(t, "2 pods", func() bool { return status(s).Replicas == 2 })
	if n := s.Calls("create pods"); n != 1 {
		t.Errorf("%d pods created beside the adopted one", n)
	}
	p := controllertest.MustGet[*corev1.Pod](s, "a", "bare")
	if metav1.GetControllerOf(p) == nil {
		t.Fatal("not adopted")
	}
	if metav1.GetControllerOf(controllertest.MustGet[*corev1.Pod](s, "a", "other")) != nil {
		t.Fatal("adopted what does not match")
	}
	if _, err := client.Of[*corev1.Pod](s).Patch(context.Background(), "a", "bare", types.MergePatchType, []byte(`{"metadata":{"labels":{"app":"z"}}}`)); err != nil {
		t.Fatal(err)
	}
	controllertest.Eventually(t, "released and replaced", func() bool {
		return metav1.GetControllerOf(controllertest.MustGet[*corev1.Pod](s, "a", "bare")) == nil && len(controllertest.All[*corev1.Pod](s, "a")) == 4
	})
}

func TestRefusedPods(t *testing.T) {
	s := controllertest.New(set(100))
	var refuse atomic.Bool
	refuse.Store(true)
	s.Fail = func(r *client.Request) error {
		if r.Verb == "create" && r.Resource.Resource == "pods" && refuse.Load() {
			return errors.New("quota")
		}
		return nil
	}
	events := start(t, s)
	controllertest.Eventually(t, "the failure is reported", func() bool {
		c := status(s).Conditions
		return len(c) == 1 && c[0].Type == appsv1.ReplicaSetReplicaFailure && c[0].Reason == "FailedCreate" && c[0].Message == "quota"
	})
	if !events.Has("replicaset-controller FailedCreate Error creating: quota") {
		t.Errorf("events %q", events.List())
	}
	refuse.Store(false)
	controllertest.Eventually(t, "recovery", func() bool { return status(s).Replicas == 100 && len(status(s).Conditions) == 0 })
}

func TestReplicationController(t *testing.T) {
	n := int32(2)
	s := controllertest.New(&corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "rc", Namespace: "a"}, Spec: corev1.ReplicationControllerSpec{
		Replicas: &n, Selector: map[string]string{"app": "x"}, Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "x"}}}}})
	start(t, s)
	controllertest.Eventually(t, "2 pods", func() bool {
		return controllertest.MustGet[*corev1.ReplicationController](s, "a", "rc").Status.Replicas == 2
	})
}
