package daemonset

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	schedulingcorev1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"karve/controller/pods"
)

const (
	hashLabel = appsv1.ControllerRevisionHashLabelKey
	burst     = 250
)

// Plan is what to do next.
type Plan struct {
	Create  []string // nodes
	Delete  []*corev1.Pod
	Failed  []*corev1.Pod // of Delete, those that failed
	Status  appsv1.DaemonSetStatus
	Recheck time.Duration
}

// tolerations are what every daemon pod tolerates.
var tolerations = []corev1.Toleration{
	{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	{Key: corev1.TaintNodeDiskPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodePIDPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
}

// tolerating returns the tolerations of ds's pods.
func tolerating(spec *corev1.PodSpec) []corev1.Toleration {
	out := slices.Clone(spec.Tolerations)
	add := tolerations
	if spec.HostNetwork {
		add = append(slices.Clone(add), corev1.Toleration{Key: corev1.TaintNodeNetworkUnavailable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})
	}
	for _, t := range add {
		if !slices.ContainsFunc(out, func(x corev1.Toleration) bool {
			return x.Key == t.Key && x.Operator == t.Operator && x.Effect == t.Effect && x.Value == t.Value
		}) {
			out = append(out, t)
		}
	}
	return out
}

// wanted reports whether a pod of ds should start on node, and whether one that is there may stay.
func wanted(ds *appsv1.DaemonSet, affinity nodeaffinity.RequiredNodeAffinity, tolerated []corev1.Toleration, node *corev1.Node) (start, stay bool) {
	if n := ds.Spec.Template.Spec.NodeName; n != "" && n != node.Name {
		return false, false
	}
	if ok, err := affinity.Match(node); err != nil || !ok {
		return false, false
	}
	untolerated := func(effects ...corev1.TaintEffect) bool {
		_, found := schedulingcorev1.FindMatchingUntoleratedTaint(klog.Background(), node.Spec.Taints, tolerated, func(t *corev1.Taint) bool { return slices.Contains(effects, t.Effect) }, false)
		return found
	}
	if untolerated(corev1.TaintEffectNoExecute) {
		return false, false
	}
	return !untolerated(corev1.TaintEffectNoSchedule), true
}

// target returns the node a pod is on, or is meant for.
func target(p *corev1.Pod) string {
	if p.Spec.NodeName != "" || p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil {
		return p.Spec.NodeName
	}
	r := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if r == nil {
		return ""
	}
	for _, t := range r.NodeSelectorTerms {
		for _, f := range t.MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

// current reports whether p was made from the template that hash and generation name.
func current(p *corev1.Pod, hash string, generation *int64) bool {
	return hash != "" && p.Labels[hashLabel] == hash ||
		generation != nil && p.Labels[appsv1.DeprecatedTemplateGeneration] == strconv.FormatInt(*generation, 10)
}

// plan compares the pods that ds owns with the nodes there are. hash names the present template.
func plan(ds *appsv1.DaemonSet, owned []*corev1.Pod, nodes []*corev1.Node, hash string, generation *int64, now time.Time) Plan {
	var out Plan
	byNode := map[string][]*corev1.Pod{}
	for _, p := range owned {
		if n := target(p); n != "" {
			byNode[n] = append(byNode[n], p)
		}
	}
	nodes = slices.Clone(nodes)
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	affinity := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: ds.Spec.Template.Spec})
	tolerated := tolerating(&ds.Spec.Template.Spec)
	exists := map[string]bool{}
	surge, unavailable := limits(ds, nodes, affinity, tolerated)
	st := appsv1.DaemonSetStatus{ObservedGeneration: ds.Generation, CollisionCount: ds.Status.CollisionCount, Conditions: ds.Status.Conditions}
	var runs []string
	for _, n := range nodes {
		exists[n.Name] = true
		start, stay := wanted(ds, affinity, tolerated, n)
		out.place(n.Name, byNode[n.Name], start, stay, surge > 0, func(p *corev1.Pod) bool { return current(p, hash, generation) })
		if start {
			runs = append(runs, n.Name)
		}
		out.count(&st, byNode[n.Name], start, func(p *corev1.Pod) bool { return current(p, hash, generation) }, ds.Spec.MinReadySeconds, now)
	}
	for n, list := range byNode {
		if !exists[n] {
			for _, p := range list {
				if p.Spec.NodeName == "" && p.DeletionTimestamp == nil { // bound ones are the pod collector's
					out.Delete = append(out.Delete, p)
				}
			}
		}
	}
	st.NumberUnavailable = st.DesiredNumberScheduled - st.NumberAvailable
	out.Status = st
	if ds.DeletionTimestamp != nil {
		out.Create, out.Delete = nil, nil
		return out
	}
	if ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		out.update(ds, byNode, runs, surge, unavailable, func(p *corev1.Pod) bool { return current(p, hash, generation) }, now)
	}
	out.Create = out.Create[:min(len(out.Create), burst)]
	return out
}

// place decides about one node, updates aside.
func (o *Plan) place(node string, list []*corev1.Pod, start, stay, surging bool, isNew func(*corev1.Pod) bool) {
	var live []*corev1.Pod
	for _, p := range list {
		switch {
		case p.DeletionTimestamp != nil:
			if start && !surging { // it has to be gone before the next one may start
				start = false
			}
		case p.Status.Phase == corev1.PodFailed && stay:
			o.Delete, o.Failed = append(o.Delete, p), append(o.Failed, p)
			start = false // the next pass, so that a pod that fails at once is made anew at the pace of retries
		default:
			live = append(live, p)
		}
	}
	switch {
	case !stay:
		o.Delete = append(o.Delete, live...)
	case start && len(live) == 0:
		o.Create = append(o.Create, node)
	case len(live) > 1:
		slices.SortFunc(live, func(a, b *corev1.Pod) int {
			return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
		kept := map[bool]bool{} // while surging one old and one new pod live side by side
		for _, p := range live {
			k := surging && isNew(p)
			if kept[k] {
				o.Delete = append(o.Delete, p)
			}
			kept[k] = true
		}
	}
}

func (o *Plan) count(st *appsv1.DaemonSetStatus, list []*corev1.Pod, start bool, isNew func(*corev1.Pod) bool, minReady int32, now time.Time) {
	if !start {
		if len(list) > 0 {
			st.NumberMisscheduled++
		}
		return
	}
	st.DesiredNumberScheduled++
	if len(list) == 0 {
		return
	}
	st.CurrentNumberScheduled++
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	ready, available := false, false
	for _, p := range list {
		if p.DeletionTimestamp != nil || !pods.Ready(p) {
			continue
		}
		ready = true
		ok, wait := pods.Available(p, minReady, now)
		available = available || ok
		if wait > 0 && (o.Recheck == 0 || wait < o.Recheck) {
			o.Recheck = wait
		}
	}
	if ready {
		st.NumberReady++
	}
	if available {
		st.NumberAvailable++
	}
	if slices.ContainsFunc(list, func(p *corev1.Pod) bool { return p.DeletionTimestamp == nil && isNew(p) }) {
		st.UpdatedNumberScheduled++
	}
}

func limits(ds *appsv1.DaemonSet, nodes []*corev1.Node, affinity nodeaffinity.RequiredNodeAffinity, tolerated []corev1.Toleration) (surge, unavailable int) {
	r := ds.Spec.UpdateStrategy.RollingUpdate
	if ds.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || r == nil {
		return 0, 0
	}
	n := 0
	for _, node := range nodes {
		if start, _ := wanted(ds, affinity, tolerated, node); start {
			n++
		}
	}
	one, zero := intstr.FromInt32(1), intstr.FromInt32(0)
	if r.MaxSurge != nil {
		zero = *r.MaxSurge
	}
	if r.MaxUnavailable != nil {
		one = *r.MaxUnavailable
	}
	surge, _ = intstr.GetScaledValueFromIntOrPercent(&zero, n, true)
	unavailable, _ = intstr.GetScaledValueFromIntOrPercent(&one, n, true)
	if surge == 0 {
		unavailable = max(unavailable, 1)
	}
	return surge, unavailable
}

// update replaces pods of former templates: without surge by deleting as many as may be unavailable, with surge by making new
// ones beside them and deleting an old one when its successor is available.
func (o *Plan) update(ds *appsv1.DaemonSet, byNode map[string][]*corev1.Pod, runs []string, surge, unavailable int, isNew func(*corev1.Pod) bool, now time.Time) {
	gone := map[*corev1.Pod]bool{}
	for _, p := range o.Delete {
		gone[p] = true
	}
	var replace, broken []*corev1.Pod
	var beside []string
	down, side := 0, 0
	for _, n := range runs {
		var oldPod, newPod *corev1.Pod
		for _, p := range byNode[n] {
			switch {
			case gone[p] || p.DeletionTimestamp != nil:
			case isNew(p):
				newPod = p
			default:
				oldPod = p
			}
		}
		up := func(p *corev1.Pod) bool {
			if p == nil {
				return false
			}
			ok, _ := pods.Available(p, ds.Spec.MinReadySeconds, now)
			return ok
		}
		switch {
		case oldPod == nil && newPod == nil:
			down++
		case oldPod == nil:
			if !up(newPod) {
				down++
			}
		case surge == 0 && !up(oldPod):
			down++
			broken = append(broken, oldPod)
		case surge == 0:
			replace = append(replace, oldPod)
		case newPod != nil && up(newPod):
			replace = append(replace, oldPod)
		case newPod != nil:
			side++
			if !up(oldPod) {
				broken = append(broken, oldPod)
			}
		case !up(oldPod):
			broken = append(broken, oldPod)
		default:
			beside = append(beside, n)
		}
	}
	if surge == 0 {
		o.Delete = append(o.Delete, broken...) // they are down anyway
		o.Delete = append(o.Delete, replace[:max(0, min(len(replace), unavailable-down))]...)
		return
	}
	o.Delete = append(o.Delete, broken...)
	o.Delete = append(o.Delete, replace...)
	o.Create = append(o.Create, beside[:max(0, min(len(beside), surge-side))]...)
}
