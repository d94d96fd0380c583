package nodelifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/controller/pods"
)

// heartbeat is the last sign of life of a node, and when this process noticed it: clocks of nodes are not trusted.
type heartbeat struct {
	lease   metav1.MicroTime
	ready   metav1.Time // lastHeartbeatTime of the Ready condition
	noticed time.Time
}

// beat returns the heartbeat after a look at the node and its lease.
func beat(prev heartbeat, known bool, ready *corev1.NodeCondition, renewed metav1.MicroTime, now time.Time) heartbeat {
	next := heartbeat{lease: renewed, noticed: prev.noticed}
	if ready != nil {
		next.ready = ready.LastHeartbeatTime
	}
	if !known || !next.lease.Equal(&prev.lease) || !next.ready.Equal(&prev.ready) {
		next.noticed = now
	}
	return next
}

func condition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

// silent returns the conditions of a node that has been silent for too long, or nil when they say so already.
func silent(n *corev1.Node, now time.Time) []corev1.NodeCondition {
	out := slices.Clone(n.Status.Conditions)
	changed := false
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		i := slices.IndexFunc(out, func(c corev1.NodeCondition) bool { return c.Type == t })
		switch {
		case i < 0:
			out = append(out, corev1.NodeCondition{Type: t, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: metav1.NewTime(now)})
			changed = true
		case out[i].Status != corev1.ConditionUnknown:
			out[i].Status, out[i].Reason, out[i].Message = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status."
			out[i].LastTransitionTime = metav1.NewTime(now)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return out
}

// byCondition lists the taints that conditions ask for.
var byCondition = []struct {
	condition corev1.NodeConditionType
	status    corev1.ConditionStatus
	key       string
	execute   bool // also NoExecute
}{
	{corev1.NodeReady, corev1.ConditionFalse, corev1.TaintNodeNotReady, true},
	{corev1.NodeReady, corev1.ConditionUnknown, corev1.TaintNodeUnreachable, true},
	{corev1.NodeMemoryPressure, corev1.ConditionTrue, corev1.TaintNodeMemoryPressure, false},
	{corev1.NodeDiskPressure, corev1.ConditionTrue, corev1.TaintNodeDiskPressure, false},
	{corev1.NodeNetworkUnavailable, corev1.ConditionTrue, corev1.TaintNodeNetworkUnavailable, false},
	{corev1.NodePIDPressure, corev1.ConditionTrue, corev1.TaintNodePIDPressure, false},
}

// taints returns the taints that n should have, and whether they differ from those it has. Taints of other keys are left
// alone. With evict false no pod is to be driven off, so NoExecute is not added, and taken away where it is.
func taints(n *corev1.Node, evict bool, now time.Time) (out []corev1.Taint, changed bool) {
	type id struct {
		key    string
		effect corev1.TaintEffect
	}
	want, ours := map[id]bool{}, map[id]bool{}
	var order []id
	add := func(k id, on bool) {
		ours[k] = true
		if on {
			want[k] = true
			order = append(order, k)
		}
	}
	for _, r := range byCondition {
		c := condition(n, r.condition)
		on := c != nil && c.Status == r.status
		add(id{r.key, corev1.TaintEffectNoSchedule}, on)
		if r.execute {
			add(id{r.key, corev1.TaintEffectNoExecute}, on && evict)
		}
	}
	add(id{corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule}, n.Spec.Unschedulable)
	for _, t := range n.Spec.Taints {
		k := id{t.Key, t.Effect}
		if ours[k] && !want[k] {
			changed = true
			continue
		}
		delete(want, k)
		out = append(out, t)
	}
	for _, k := range order {
		if want[k] {
			stamp := metav1.NewTime(now)
			out = append(out, corev1.Taint{Key: k.key, Effect: k.effect, TimeAdded: &stamp})
			changed = true
		}
	}
	return out, changed
}

// evictable says for which nodes eviction is allowed: not in a zone where no node is ready, nor where most of them are not
// (more than two, and at least 55 %), since then it is more likely that this process is cut off. One lone cluster that is all
// silent is left alone.
func evictable(nodes []*corev1.Node) map[string]bool {
	type tally struct{ ready, not int }
	zones := map[string]*tally{}
	zoneOf := func(n *corev1.Node) string {
		return n.Labels[corev1.LabelTopologyRegion] + "\x00" + n.Labels[corev1.LabelTopologyZone]
	}
	for _, n := range nodes {
		z := zones[zoneOf(n)]
		if z == nil {
			z = &tally{}
			zones[zoneOf(n)] = z
		}
		if c := condition(n, corev1.NodeReady); c != nil && c.Status == corev1.ConditionTrue {
			z.ready++
		} else {
			z.not++
		}
	}
	out := map[string]bool{}
	anyReady := false
	for _, z := range zones {
		anyReady = anyReady || z.ready > 0
	}
	for _, n := range nodes {
		z := zones[zoneOf(n)]
		switch {
		case !anyReady:
		case z.ready == 0:
			out[n.Name] = len(zones) > 1 // a whole zone is down while others live
		case z.not > 2 && float64(z.not)/float64(z.not+z.ready) >= 0.55:
		default:
			out[n.Name] = true
		}
	}
	return out
}

// eviction says when p has to leave a node with these taints: never (false), or at a time, which may be past.
func eviction(p *corev1.Pod, list []corev1.Taint, now time.Time) (at time.Time, leave bool) {
	for i := range list {
		t := &list[i]
		if t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		tolerated := false
		var seconds *int64
		for j := range p.Spec.Tolerations {
			tol := &p.Spec.Tolerations[j]
			if !tolerates(tol, t) {
				continue
			}
			if s := tol.TolerationSeconds; s == nil {
				if !tolerated {
					seconds = nil
				}
			} else if seconds == nil || *s < *seconds {
				seconds = s
			}
			tolerated = true
		}
		if !tolerated {
			return now, true
		}
		if seconds == nil {
			continue
		}
		from := p.CreationTimestamp.Time
		if s := p.Status.StartTime; s != nil && s.After(from) {
			from = s.Time
		}
		if t.TimeAdded != nil && t.TimeAdded.After(from) {
			from = t.TimeAdded.Time
		}
		if end := from.Add(time.Duration(max(*seconds, 0)) * time.Second); !leave || end.Before(at) {
			at, leave = end, true
		}
	}
	return at, leave
}

func tolerates(tol *corev1.Toleration, t *corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect || tol.Key != "" && tol.Key != t.Key {
		return false
	}
	switch tol.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return tol.Key != "" && tol.Value == t.Value
	}
	return false
}

// unready returns a copy of p with Ready false, or nil when it is not ready anyway.
func unready(p *corev1.Pod, now time.Time) *corev1.Pod {
	if !pods.Ready(p) {
		return nil
	}
	c := p.DeepCopy()
	pods.SetCondition(c, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(now),
		ObservedGeneration: pods.Condition(p, corev1.PodReady).ObservedGeneration})
	return c
}
