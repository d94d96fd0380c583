package pods

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var now = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)

func made(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(now.Add(-24 * time.Hour))}}
	p.Spec.NodeName, p.Status.Phase = "n", corev1.PodRunning
	ready(24 * time.Hour)(p)
	for _, c := range change {
		c(p)
	}
	return p
}

func ready(since time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-since))}}
	}
}

func unready(p *corev1.Pod) {
	SetCondition(p, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(now)})
}

func on(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }

func phase(ph corev1.PodPhase) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Phase = ph; p.Status.Conditions = nil }
}

func costs(n string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: n} }
}

func restarted(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{}, {RestartCount: n}}
	}
}

// Each is to go before all that follow.
func TestRank(t *testing.T) {
	want := []*corev1.Pod{
		made("unassigned", phase(corev1.PodPending), on("")),
		made("pending", phase(corev1.PodPending)),
		made("unknown", phase(corev1.PodUnknown)),
		made("not-ready-restarted", unready, restarted(5)),
		made("not-ready", unready),
		made("cheap", costs("-10")),
		made("crowded", on("crowded")),
		made("just-ready", ready(time.Second)),
		made("restarted", restarted(3)),
		made("young", func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now.Add(-time.Minute)) }),
		made("z-old"),
		made("dear", costs("10")),
	}
	names := func(list []*corev1.Pod) string {
		var out []string
		for _, p := range list {
			out = append(out, p.Name)
		}
		return strings.Join(out, " ")
	}
	for shift := range want { // from several orders
		list := append(append([]*corev1.Pod(nil), want[shift:]...), want[:shift]...)
		Rank(list, map[string]int{"crowded": 7, "n": 2}, now)
		if names(list) != names(want) {
			t.Fatalf("\n got %s\nwant %s", names(list), names(want))
		}
	}
}

func TestAvailable(t *testing.T) {
	for _, c := range []struct {
		pod  *corev1.Pod
		min  int32
		ok   bool
		wait time.Duration
	}{
		{made("p", ready(0)), 0, true, 0},
		{made("p", ready(9*time.Second)), 10, false, time.Second},
		{made("p", ready(10*time.Second)), 10, true, 0},
		{made("p", unready), 0, false, 0},
		{made("p", phase(corev1.PodPending)), 10, false, 0},
	} {
		if ok, wait := Available(c.pod, c.min, now); ok != c.ok || wait != c.wait {
			t.Errorf("ready since %v, at least %ds: %t, %v, want %t, %v", Condition(c.pod, corev1.PodReady), c.min, ok, wait, c.ok, c.wait)
		}
	}
	for ph, want := range map[corev1.PodPhase]bool{corev1.PodSucceeded: true, corev1.PodFailed: true, corev1.PodRunning: false, corev1.PodPending: false} {
		if p := made("p", phase(ph)); Finished(p) != want || Active(p) == want {
			t.Errorf("%s: finished %t, active %t", ph, Finished(p), Active(p))
		}
	}
	if Active(made("p", func(p *corev1.Pod) { p.DeletionTimestamp = &p.CreationTimestamp })) {
		t.Error("a pod that is being deleted is active")
	}
}

func TestConditionKeepsItsTime(t *testing.T) {
	p := made("p")
	SetCondition(p, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, Reason: "again", LastTransitionTime: metav1.NewTime(now)})
	if c := Condition(p, corev1.PodReady); !c.LastTransitionTime.Equal(&metav1.Time{Time: now.Add(-24 * time.Hour)}) || len(p.Status.Conditions) != 1 || c.Reason != "again" {
		t.Errorf("set to the same status: %v", p.Status.Conditions)
	}
	unready(p)
	if c := Condition(p, corev1.PodReady); !c.LastTransitionTime.Time.Equal(now) {
		t.Errorf("set to another status: %v", c)
	}
}

func TestFromTemplate(t *testing.T) {
	owner := &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "rc", Namespace: "ns", UID: "u"}}
	tpl := &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Name: "ignored", Labels: map[string]string{"a": "b"}, Finalizers: []string{"f"}}, Spec: corev1.PodSpec{NodeName: "n"}}
	p := FromTemplate(tpl, owner, schema.GroupVersionKind{Version: "v1", Kind: "ReplicationController"})
	ref := metav1.GetControllerOf(p)
	if p.Name != "" || p.GenerateName != "rc-" || p.Namespace != "ns" || p.Labels["a"] != "b" || len(p.Finalizers) != 1 || p.Spec.NodeName != "n" ||
		ref == nil || ref.UID != "u" || ref.Kind != "ReplicationController" || !*ref.BlockOwnerDeletion {
		t.Errorf("made %+v of %+v", p.ObjectMeta, ref)
	}
}

func TestSlowStart(t *testing.T) {
	for _, c := range []struct{ n, failFrom, done, calls int }{
		{0, 99, 0, 0}, {1, 99, 1, 1}, {10, 99, 10, 10},
		{100, 0, 0, 1}, // refused at once: one call
		{100, 3, 3, 7}, // 1, 2, then a batch of 4, all of which are refused
	} {
		var calls atomic.Int32
		done, err := SlowStart(c.n, func() error {
			if n := int(calls.Add(1)); n > c.failFrom {
				return errors.New("refused")
			}
			return nil
		})
		if done != c.done || int(calls.Load()) != c.calls || (err != nil) != (c.done < c.n) {
			t.Errorf("%d, refused after %d: %d done in %d calls, %v, want %d in %d", c.n, c.failFrom, done, calls.Load(), err, c.done, c.calls)
		}
	}
}
