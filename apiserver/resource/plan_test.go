package resource

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/api"
)

func TestPlanDelete(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	num := func(n int64) *int64 { return &n }
	mark := func(seconds int64) (metav1.ObjectMeta, *metav1.Time) {
		at := metav1.NewTime(now.Add(time.Duration(seconds) * time.Second))
		return metav1.ObjectMeta{Generation: 2, DeletionTimestamp: &at, DeletionGracePeriodSeconds: &seconds}, &at
	}
	bound := corev1.PodSpec{NodeName: "n", TerminationGracePeriodSeconds: num(45)}
	going, _ := mark(45)
	policy := func(p metav1.DeletionPropagation) *metav1.DeleteOptions {
		return &metav1.DeleteOptions{PropagationPolicy: &p}
	}
	for _, c := range []struct {
		name  string
		obj   Object
		opts  *metav1.DeleteOptions
		want  ending
		grace string
		gen   int64
	}{
		{"plain", &corev1.ConfigMap{}, nil, endRemoved, "none", 0},
		{"held by a finalizer", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Generation: 1, Finalizers: []string{"x/y"}}}, nil, endMarked, "0", 2},
		{"held and marked already", &corev1.ConfigMap{ObjectMeta: func() metav1.ObjectMeta { m, _ := mark(0); m.Finalizers = []string{"x/y"}; return m }()}, nil, endMarked, "0", 2},
		{"foreground", &corev1.ConfigMap{}, policy(metav1.DeletePropagationForeground), endMarked, "0", 0},
		{"pod without a node", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Generation: 1}}, nil, endEnded, "0", 2},
		{"pod on a node", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Generation: 1}, Spec: bound}, nil, endMarked, "45", 2},
		{"pod on a node, at once", &corev1.Pod{Spec: bound}, &metav1.DeleteOptions{GracePeriodSeconds: num(0)}, endEnded, "0", 0},
		{"pod on a node, negative", &corev1.Pod{Spec: bound}, &metav1.DeleteOptions{GracePeriodSeconds: num(-5)}, endMarked, "1", 0},
		{"finished pod", &corev1.Pod{Spec: bound, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}, nil, endEnded, "0", 0},
		{"going pod, again", &corev1.Pod{ObjectMeta: going, Spec: bound}, nil, endPending, "45", 2},
		{"going pod, longer", &corev1.Pod{ObjectMeta: going, Spec: bound}, &metav1.DeleteOptions{GracePeriodSeconds: num(100)}, endPending, "45", 2},
		{"going pod, shorter", &corev1.Pod{ObjectMeta: going, Spec: bound}, &metav1.DeleteOptions{GracePeriodSeconds: num(10)}, endMarked, "10", 2},
		{"going pod, at once", &corev1.Pod{ObjectMeta: going, Spec: bound}, &metav1.DeleteOptions{GracePeriodSeconds: num(0)}, endEnded, "0", 2},
		{"pod whose removal failed", &corev1.Pod{ObjectMeta: func() metav1.ObjectMeta { m, _ := mark(0); return m }(), Spec: bound}, nil, endRemoved, "0", 2},
		{"namespace", &corev1.Namespace{}, nil, endMarked, "none", 0},
		{"emptied namespace", &corev1.Namespace{ObjectMeta: going}, nil, endRemoved, "45", 2},
		{"namespace with content", &corev1.Namespace{ObjectMeta: going, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}}}, nil, endPending, "45", 2},
	} {
		if c.opts == nil {
			c.opts = &metav1.DeleteOptions{}
		}
		o := c.obj.DeepCopyObject().(Object)
		got := planDelete(api.Of(o), o, c.opts, now)
		grace := "none"
		if g := o.GetDeletionGracePeriodSeconds(); g != nil {
			grace = fmt.Sprint(*g)
		}
		if got != c.want || grace != c.grace || o.GetGeneration() != c.gen {
			t.Errorf("%s: ending %d, grace %s, generation %d; want %d, %s, %d", c.name, got, grace, o.GetGeneration(), c.want, c.grace, c.gen)
		}
		if (got == endMarked || got == endEnded) && o.GetDeletionTimestamp() == nil {
			t.Errorf("%s: no mark", c.name)
		}
	}
}

func TestContinueTokens(t *testing.T) {
	ok := continueToken{Version: tokenVersion, Revision: 7, Start: "ns/a\x00"}
	if got, err := decodeToken(ok.encode()); err != nil || got != ok {
		t.Errorf("there and back: %v %v", got, err)
	}
	for _, bad := range []continueToken{{Version: "v2", Revision: 1, Start: "a"}, {Version: tokenVersion, Start: "a"}, {Version: tokenVersion, Revision: 1}, {Version: tokenVersion, Revision: -1, Start: "../secrets/a"}, {Version: tokenVersion, Revision: 1, Start: "a/../../b"}} {
		if _, err := decodeToken(bad.encode()); err == nil {
			t.Errorf("taken: %+v", bad)
		}
	}
}
