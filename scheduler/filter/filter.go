// Package filter says which nodes a pod can run on and why not on the others. Every filter is a pure function of one pod
// and one node under the name Kubernetes knows it by; adding one is a line in All. The scheduler calls it for every node.
package filter

import (
	"fmt"
	"sort"

	corev1 "k8s.io/api/core/v1"
	v1helper "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"karve/scheduler/snapshot"
)

// Reason is why a node is not usable, in the words people see.
type Reason struct {
	Text string
	// Unresolvable means that removing pods from the node would not help.
	Unresolvable bool
}

// Filter is one rule. Fits returns no reasons for a node that passes.
type Filter struct {
	Name string
	Fits func(q *Query, n *snapshot.Node) []Reason
}

// Query is a pod with what filters derive from it once.
type Query struct {
	Pod      *snapshot.Pod
	affinity nodeaffinity.RequiredNodeAffinity
}

// NewQuery prepares a pod for the filters.
func NewQuery(p *snapshot.Pod) *Query {
	return &Query{Pod: p, affinity: nodeaffinity.GetRequiredNodeAffinity(p.Pod)}
}

// All are the filters in the order they are asked; the first that refuses decides what is said about a node.
var All = []Filter{
	{"NodeUnschedulable", unschedulable},
	{"NodeName", nodeName},
	{"TaintToleration", taints},
	{"NodeAffinity", affinity},
	{"NodePorts", ports},
	{"NodeResourcesFit", resources},
}

// Check asks all filters about one node.
func Check(q *Query, n *snapshot.Node) (plugin string, reasons []Reason) {
	for i := range All {
		if r := All[i].Fits(q, n); len(r) > 0 {
			return All[i].Name, r
		}
	}
	return "", nil
}

func one(text string, unresolvable bool) []Reason { return []Reason{{text, unresolvable}} }

func unschedulable(q *Query, n *snapshot.Node) []Reason {
	if !n.Spec.Unschedulable {
		return nil
	}
	taint := corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	if v1helper.TolerationsTolerateTaint(klog.Background(), q.Pod.Spec.Tolerations, &taint, true) {
		return nil
	}
	return one("node(s) were unschedulable", true)
}

func nodeName(q *Query, n *snapshot.Node) []Reason {
	if q.Pod.Spec.NodeName == "" || q.Pod.Spec.NodeName == n.Name {
		return nil
	}
	return one("node(s) didn't match the requested node name", true)
}

func taints(q *Query, n *snapshot.Node) []Reason {
	if len(n.Spec.Taints) == 0 {
		return nil
	}
	_, refused := v1helper.FindMatchingUntoleratedTaint(klog.Background(), n.Spec.Taints, q.Pod.Spec.Tolerations, func(t *corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}, true)
	if !refused {
		return nil
	}
	return one("node(s) had untolerated taint(s)", true)
}

func affinity(q *Query, n *snapshot.Node) []Reason {
	if ok, err := q.affinity.Match(n.Node); ok && err == nil {
		return nil
	}
	return one("node(s) didn't match Pod's node affinity/selector", true)
}

func ports(q *Query, n *snapshot.Node) []Reason {
	for _, want := range q.Pod.Ports {
		for have := range n.Ports {
			if have.Port == want.Port && have.Protocol == want.Protocol && (any(have.IP) || any(want.IP) || have.IP == want.IP) {
				return one("node(s) didn't have free ports for the requested pod ports", false)
			}
		}
	}
	return nil
}

func any(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }

func resources(q *Query, n *snapshot.Node) []Reason {
	var out []Reason
	if n.Pods+1 > n.MaxPods {
		out = append(out, Reason{"Too many pods", n.MaxPods == 0})
	}
	want := &q.Pod.Requests
	check := func(name string, want, total, used int64) {
		if want > 0 && want > total-used {
			out = append(out, Reason{"Insufficient " + name, want > total})
		}
	}
	check("cpu", want.CPU, n.Allocatable.CPU, n.Requested.CPU)
	check("memory", want.Memory, n.Allocatable.Memory, n.Requested.Memory)
	check("ephemeral-storage", want.Storage, n.Allocatable.Storage, n.Requested.Storage)
	if len(want.Other) > 0 {
		names := make([]string, 0, len(want.Other))
		for name := range want.Other {
			names = append(names, string(name))
		}
		sort.Strings(names)
		for _, name := range names {
			r := corev1.ResourceName(name)
			check(fmt.Sprint(r), want.Other[r], n.Allocatable.Other[r], n.Requested.Other[r])
		}
	}
	return out
}
