package resource

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestBudgetAllows(t *testing.T) {
	many := map[string]metav1.Time{}
	for i := range maxDisrupted + 1 {
		many[fmt.Sprint(i)] = metav1.Time{}
	}
	failed := []metav1.Condition{{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: "no scale"}}
	for _, c := range []struct {
		name   string
		status policyv1.PodDisruptionBudgetStatus
		code   int // 0: it allows
		cause  string
	}{
		{"one left", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, DisruptionsAllowed: 1}, 0, ""},
		{"not seen yet", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: 1}, 429, "still being processed"},
		{"negative", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, DisruptionsAllowed: -1}, 403, ""},
		{"too many unseen", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, DisruptionsAllowed: 1, DisruptedPods: many}, 403, ""},
		{"none left", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, DesiredHealthy: 2, CurrentHealthy: 1}, 429, "b needs 2 healthy pods and has 1 currently"},
		{"not worked out", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, DesiredHealthy: 1, CurrentHealthy: 2, Conditions: failed}, 429, "failed sync: no scale"},
		{"not worked out, but short anyway", policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, DesiredHealthy: 2, CurrentHealthy: 1, Conditions: failed}, 429, "needs 2 healthy"},
	} {
		err := allows(&policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b", Generation: 2}, Status: c.status})
		if c.code == 0 {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		st, ok := err.(apierrors.APIStatus)
		if !ok || int(st.Status().Code) != c.code {
			t.Errorf("%s: %v, want %d", c.name, err, c.code)
			continue
		}
		if d := st.Status().Details; c.cause != "" && (len(d.Causes) != 1 || !strings.Contains(d.Causes[0].Message, c.cause)) {
			t.Errorf("%s: causes %+v, want %q", c.name, d.Causes, c.cause)
		}
	}
}

func TestPodsThatAreNotReadyMayBeFree(t *testing.T) {
	always, healthy := policyv1.AlwaysAllow, policyv1.IfHealthyBudget
	for _, c := range []struct {
		name             string
		ready            bool
		policy           *policyv1.UnhealthyPodEvictionPolicyType
		current, desired int32
		want             bool
	}{
		{"ready", true, &always, 2, 1, false},
		{"always", false, &always, 0, 5, true},
		{"enough others", false, nil, 2, 2, true},
		{"enough others, said", false, &healthy, 2, 2, true},
		{"too few others", false, nil, 1, 2, false},
		{"nothing worked out yet", false, nil, 0, 0, false},
	} {
		pod := &corev1.Pod{}
		if c.ready {
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		pdb := &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{UnhealthyPodEvictionPolicy: c.policy},
			Status: policyv1.PodDisruptionBudgetStatus{CurrentHealthy: c.current, DesiredHealthy: c.desired}}
		if got := free(pdb, pod); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
