package podgc

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPlan(t *testing.T) {
	deleted := &metav1.Time{Time: time.Unix(9, 0)}
	pod := func(name, node string, phase corev1.PodPhase, del *metav1.Time, age int64) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, DeletionTimestamp: del, CreationTimestamp: metav1.Unix(100-age, 0)},
			Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase}}
	}
	all := []*corev1.Pod{
		pod("runs", "n1", corev1.PodRunning, nil, 1), pod("lost", "gone", corev1.PodRunning, nil, 1), pod("maybe", "new", corev1.PodRunning, nil, 1),
		pod("waits", "", corev1.PodPending, nil, 1), pod("unbound", "", corev1.PodPending, deleted, 1), pod("ending", "n1", corev1.PodRunning, deleted, 1),
		pod("stuck", "broken", corev1.PodRunning, deleted, 1), pod("old", "n1", corev1.PodSucceeded, nil, 50), pod("newer", "n1", corev1.PodFailed, nil, 5),
	}
	var got []string
	for _, v := range plan(all, map[string]node{"n1": {}, "broken": {outOfService: true}}, map[string]bool{"gone": true}, 1) {
		got = append(got, v.pod.Name)
	}
	slices.Sort(got)
	if s := strings.Join(got, " "); s != "lost old stuck unbound" {
		t.Errorf("deletes %s", s)
	}
}
