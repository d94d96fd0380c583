// Package pods is what the workload controllers know about pods: whether one is ready, available or finished, how to make
// one from a template, and which of many should go first. All of it is pure except Create, which sends requests.
package pods

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/client"
)

// Condition returns the pod's condition of that type, or nil.
func Condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// SetCondition puts c in the pod's status, which must be the caller's own copy. The transition time of an unchanged status
// is kept.
func SetCondition(p *corev1.Pod, c corev1.PodCondition) {
	prev := Condition(p, c.Type)
	if prev == nil {
		p.Status.Conditions = append(p.Status.Conditions, c)
		return
	}
	if prev.Status == c.Status {
		c.LastTransitionTime = prev.LastTransitionTime
	}
	*prev = c
}

// Ready reports whether the pod's Ready condition is true.
func Ready(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// Available reports whether the pod has been ready for minReadySeconds; when only time is missing, wait says how much.
func Available(p *corev1.Pod, minReadySeconds int32, now time.Time) (ok bool, wait time.Duration) {
	c := Condition(p, corev1.PodReady)
	if c == nil || c.Status != corev1.ConditionTrue {
		return false, 0
	}
	if minReadySeconds == 0 {
		return true, 0
	}
	if c.LastTransitionTime.IsZero() {
		return false, 0
	}
	wait = c.LastTransitionTime.Add(time.Duration(minReadySeconds) * time.Second).Sub(now)
	return wait <= 0, max(wait, 0)
}

// Finished reports whether the pod will never run again.
func Finished(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Active reports whether the pod counts as a replica: neither finished nor being deleted.
func Active(p *corev1.Pod) bool { return !Finished(p) && p.DeletionTimestamp == nil }

// FromTemplate returns the pod that owner makes from tpl. It shares the template's spec: read only, except to replace a
// field of its own.
func FromTemplate(tpl *corev1.PodTemplateSpec, owner client.Object, kind schema.GroupVersionKind) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: owner.GetName() + "-", Namespace: owner.GetNamespace(), Labels: tpl.Labels, Annotations: tpl.Annotations,
			Finalizers: tpl.Finalizers, OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, kind)},
		},
		Spec: tpl.Spec,
	}
}

// Rank orders pods by who should be deleted first: unassigned, pending, not ready, of the lowest deletion cost, on the node
// with the most companions (perNode), ready for the shortest time, restarted most, youngest. Times are compared by order of
// magnitude, so that pods of about one age are told apart by uid, which is as good as chance.
func Rank(list []*corev1.Pod, perNode map[string]int, now time.Time) {
	slices.SortFunc(list, func(a, b *corev1.Pod) int {
		if c := cmp.Or(
			first(a.Spec.NodeName == "", b.Spec.NodeName == ""),
			cmp.Compare(phaseRank[a.Status.Phase], phaseRank[b.Status.Phase]),
			first(!Ready(a), !Ready(b)),
			cmp.Compare(cost(a), cost(b)),
			cmp.Compare(perNode[b.Spec.NodeName], perNode[a.Spec.NodeName]),
		); c != 0 {
			return c
		}
		if ra, rb := readyTime(a), readyTime(b); Ready(a) && Ready(b) && !ra.Equal(rb) {
			return cmp.Or(cmp.Compare(magnitude(ra, now), magnitude(rb, now)), cmp.Compare(a.UID, b.UID))
		}
		if c := cmp.Compare(restarts(b), restarts(a)); c != 0 {
			return c
		}
		if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
			return cmp.Compare(a.UID, b.UID)
		}
		return cmp.Or(cmp.Compare(magnitude(a.CreationTimestamp.Time, now), magnitude(b.CreationTimestamp.Time, now)), cmp.Compare(a.UID, b.UID))
	})
}

var phaseRank = map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func cost(p *corev1.Pod) int32 {
	n, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

func readyTime(p *corev1.Pod) time.Time {
	if c := Condition(p, corev1.PodReady); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}

func magnitude(t, now time.Time) int {
	if t.IsZero() {
		return math.MaxInt // never: the oldest of all
	}
	if d := now.Sub(t); d > 0 {
		return int(math.Log2(float64(d)))
	}
	return -1
}

func restarts(p *corev1.Pod) (n int32) {
	for i := range p.Status.ContainerStatuses {
		n = max(n, p.Status.ContainerStatuses[i].RestartCount)
	}
	return n
}
