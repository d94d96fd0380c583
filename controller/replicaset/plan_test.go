package replicaset

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

var now = time.Unix(1_000_000, 0)

func at(ago time.Duration) metav1.Time { return metav1.NewTime(now.Add(-ago)) }

// pod returns a pod that has been ready on node for an hour.
func pod(name string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{"app": "x"}, CreationTimestamp: at(time.Hour)},
		Spec: corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: at(time.Hour)}}}}
	if change != nil {
		change(p)
	}
	return p
}

func notReady(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }

func TestDeletionOrder(t *testing.T) {
	for _, c := range []struct {
		name  string
		first func(*corev1.Pod)
		nodes map[string]int
	}{
		{"unassigned", func(p *corev1.Pod) { p.Spec.NodeName = "" }, nil},
		{"pending", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, nil},
		{"not ready", notReady, nil},
		{"cheap", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: "-5"} }, nil},
		{"on the crowded node", func(p *corev1.Pod) { p.Spec.NodeName = "n2" }, map[string]int{"n1": 1, "n2": 3}},
		{"ready for a short time", func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = at(time.Second) }, nil},
		{"restarted", func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 3}} }, nil},
		{"young", func(p *corev1.Pod) { p.CreationTimestamp = at(time.Second) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			owned := []*corev1.Pod{pod("a", nil), pod("z", c.first), pod("b", nil)}
			got := plan(Desired{Replicas: 2}, owned, c.nodes, now)
			if len(got.Delete) != 1 || got.Delete[0].Name != "z" {
				t.Errorf("deletes %v", got.Delete)
			}
		})
	}
}

func TestStatusAndCounts(t *testing.T) {
	deleted := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now} }
	failed := func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }
	fresh := func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = at(4 * time.Second) }
	d := Desired{Replicas: 5, MinReadySeconds: 10, Labels: labels.Set{"app": "x"}, Generation: 3, Terminating: true}
	got := plan(d, []*corev1.Pod{pod("a", nil), pod("b", notReady), pod("c", fresh), pod("d", deleted), pod("e", failed),
		pod("f", func(p *corev1.Pod) { p.Labels = nil })}, nil, now)
	s := got.Status
	if s.Replicas != 4 || s.FullyLabeledReplicas != 3 || s.ReadyReplicas != 3 || s.AvailableReplicas != 2 || *s.TerminatingReplicas != 1 || s.ObservedGeneration != 3 {
		t.Errorf("status %+v", s)
	}
	if got.Create != 1 || len(got.Delete) != 0 || got.Recheck != 6*time.Second {
		t.Errorf("create %d, delete %d, recheck %v", got.Create, len(got.Delete), got.Recheck)
	}
	d.Deleting = true
	if got := plan(d, nil, nil, now); got.Create != 0 {
		t.Error("a set that is being deleted makes pods")
	}
	d = Desired{Replicas: 3000}
	if got := plan(d, nil, nil, now); got.Create != burst {
		t.Errorf("creates %d at once", got.Create)
	}
	var many []*corev1.Pod
	for i := range 3 {
		many = append(many, pod(fmt.Sprint(i), nil))
	}
	if got := plan(Desired{}, many, nil, now); len(got.Delete) != 3 {
		t.Errorf("scaling to 0 deletes %d", len(got.Delete))
	}
}

func TestFailureCondition(t *testing.T) {
	c := withFailure(nil, "FailedCreate", "quota", now)
	if len(c) != 1 || c[0].Reason != "FailedCreate" || c[0].Message != "quota" || c[0].Status != corev1.ConditionTrue {
		t.Fatalf("%+v", c)
	}
	if again := withFailure(slices.Clone(c), "FailedDelete", "other", now); again[0].Reason != "FailedCreate" {
		t.Error("a later failure replaced the first")
	}
	if gone := withFailure(c, "", "", now); len(gone) != 0 {
		t.Error("the condition stays after success")
	}
}
