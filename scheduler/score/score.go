// Package score ranks the nodes that passed the filters. Every score is a pure function that gives each node a number; the
// ranking normalises it to 0..100 and weighs it, under upstream's plugin names and default weights. The scheduler calls
// Best once per pod.
package score

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	v1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"karve/scheduler/snapshot"
)

// Score is one ranking. Points are 0..100 as they are (Raw), or scaled to that by the largest of all nodes, Reverse
// meaning that the fewest points are best.
type Score struct {
	Name    string
	Weight  float64
	Points  func(p *Query, n *snapshot.Node) float64
	Raw     bool
	Reverse bool
}

// Query is a pod with what scores derive from it once.
type Query struct {
	Pod       *snapshot.Pod
	preferred *nodeaffinity.PreferredSchedulingTerms
}

// NewQuery prepares a pod for the scores.
func NewQuery(p *snapshot.Pod) *Query {
	q := &Query{Pod: p}
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		if t, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution); err == nil {
			q.preferred = t
		}
	}
	return q
}

// All are the scores.
var All = []Score{
	{Name: "NodeResourcesFit", Weight: 1, Points: leastAllocated, Raw: true},
	{Name: "NodeResourcesBalancedAllocation", Weight: 1, Points: balanced, Raw: true},
	{Name: "PodTopologySpread", Weight: 2, Points: siblings, Reverse: true},
	{Name: "TaintToleration", Weight: 3, Points: softTaints, Reverse: true},
	{Name: "NodeAffinity", Weight: 2, Points: preference},
}

// Best returns the nodes with the highest sum; there are several when they tie.
func Best(p *Query, nodes []*snapshot.Node) []*snapshot.Node {
	if len(nodes) <= 1 {
		return nodes
	}
	total := make([]float64, len(nodes))
	points := make([]float64, len(nodes))
	for i := range All {
		s := &All[i]
		highest := 0.0
		for j, n := range nodes {
			points[j] = s.Points(p, n)
			highest = math.Max(highest, points[j])
		}
		for j := range nodes {
			v := points[j]
			if !s.Raw {
				if highest > 0 {
					v = v * 100 / highest
				}
				if s.Reverse {
					v = 100 - v
				}
			}
			total[j] += s.Weight * math.Floor(v)
		}
	}
	best := math.Inf(-1)
	var out []*snapshot.Node
	for j, n := range nodes {
		switch {
		case total[j] > best:
			best, out = total[j], append(out[:0], n)
		case total[j] == best:
			out = append(out, n)
		}
	}
	return out
}

func free(want, used, total int64) float64 {
	if total == 0 || used+want > total {
		return 0
	}
	return float64(total-used-want) * 100 / float64(total)
}

// leastAllocated prefers nodes with the most left.
func leastAllocated(q *Query, n *snapshot.Node) float64 {
	w := &q.Pod.Weight
	return math.Floor((math.Floor(free(w.CPU, n.Weight.CPU, n.Allocatable.CPU)) + math.Floor(free(w.Memory, n.Weight.Memory, n.Allocatable.Memory))) / 2)
}

// balanced prefers nodes on which CPU and memory are used alike.
func balanced(q *Query, n *snapshot.Node) float64 {
	share := func(want, used, total int64) float64 {
		if total == 0 {
			return 0
		}
		return math.Min(1, float64(want+used)/float64(total))
	}
	r := &q.Pod.Requests
	cpu := share(r.CPU, n.Requested.CPU, n.Allocatable.CPU)
	memory := share(r.Memory, n.Requested.Memory, n.Allocatable.Memory)
	return (1 - math.Abs(cpu-memory)/2) * 100
}

// siblings counts the pods of the same controller.
func siblings(q *Query, n *snapshot.Node) float64 {
	if q.Pod.Group == "" {
		return 0
	}
	return float64(n.Groups[q.Pod.Group])
}

// softTaints counts the taints that a pod would rather avoid.
func softTaints(q *Query, n *snapshot.Node) float64 {
	count := 0.0
	for i := range n.Spec.Taints {
		if t := &n.Spec.Taints[i]; t.Effect == corev1.TaintEffectPreferNoSchedule && !v1helper.TolerationsTolerateTaint(klog.Background(), q.Pod.Spec.Tolerations, t, true) {
			count++
		}
	}
	return count
}

func preference(q *Query, n *snapshot.Node) float64 {
	if q.preferred == nil {
		return 0
	}
	return float64(q.preferred.Score(n.Node))
}
