package status

import (
	"encoding/json"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// A patch applied to the server's status gives what was wanted, and leaves the conditions of others alone.
func TestPatch(t *testing.T) {
	at := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	gate := corev1.PodCondition{Type: "x/gate", Status: corev1.ConditionTrue}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Status: corev1.PodStatus{Phase: corev1.PodPending, Reason: "old", PodIP: "1.1.1.1", PodIPs: []corev1.PodIP{{IP: "1.1.1.1"}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "R", LastTransitionTime: at}}}}
	want := pod.Status.DeepCopy()
	want.Phase, want.Reason, want.PodIP, want.PodIPs = corev1.PodRunning, "", "2.2.2.2", []corev1.PodIP{{IP: "2.2.2.2"}}
	want.Conditions[0] = corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: at}
	patch, err := Patch(pod, want)
	if err != nil {
		t.Fatal(err)
	}
	server := pod.DeepCopy()
	server.Status.Conditions = append(server.Status.Conditions, gate)
	before, err := json.Marshal(server)
	if err != nil {
		t.Fatal(err)
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	var got corev1.Pod
	if err := json.Unmarshal(after, &got); err != nil {
		t.Fatal(err)
	}
	st := got.Status
	if st.Phase != corev1.PodRunning || st.Reason != "" || len(st.PodIPs) != 1 || st.PodIPs[0].IP != "2.2.2.2" || len(st.Conditions) != 2 {
		t.Errorf("%+v", st)
	}
	for _, c := range st.Conditions {
		if c.Status != corev1.ConditionTrue || c.Reason != "" {
			t.Errorf("%+v", c)
		}
	}
	if again, err := Patch(&got, want); err != nil || again != nil {
		t.Errorf("a second patch: %s %v", again, err)
	}
}
