package admission

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	schedv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const tolerateSeconds = int64(300)

// defaultTolerationSeconds keeps pods for five minutes on nodes that are not ready or out of reach.
func defaultTolerationSeconds() Plugin {
	return Plugin{Name: "DefaultTolerationSeconds", Mutate: when(writes, func(_ context.Context, a *Attributes) error {
		pod, err := object[*corev1.Pod](a.Object, "pod")
		if err != nil {
			return err
		}
		for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
			if !tolerates(pod, key) {
				s := tolerateSeconds
				pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &s})
			}
		}
		return nil
	}, "", pods)}
}

func tolerates(pod *corev1.Pod, key string) bool {
	for i := range pod.Spec.Tolerations {
		t := &pod.Spec.Tolerations[i]
		if (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true
		}
	}
	return false
}

// taintNodesByCondition keeps a new node free of pods until it is known to be ready.
func taintNodesByCondition() Plugin {
	return Plugin{Name: "TaintNodesByCondition", Mutate: when(creates, func(_ context.Context, a *Attributes) error {
		node, err := object[*corev1.Node](a.Object, "node")
		if err != nil {
			return err
		}
		for i := range node.Spec.Taints {
			if t := &node.Spec.Taints[i]; t.Key == corev1.TaintNodeNotReady && t.Effect == corev1.TaintEffectNoSchedule {
				return nil
			}
		}
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule})
		return nil
	}, "", nodes)}
}

// SystemPriorityClasses returns the classes every cluster has.
func SystemPriorityClasses() []*schedv1.PriorityClass {
	class := func(name string, value int32, text string) *schedv1.PriorityClass {
		lower := corev1.PreemptLowerPriority
		return &schedv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, Description: text, PreemptionPolicy: &lower}
	}
	return []*schedv1.PriorityClass{
		class("system-node-critical", 2000001000, "Used for system critical pods that must not be moved from their current node."),
		class("system-cluster-critical", 2000000000, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
	}
}

// priorities turns the class a pod names into a number, and allows one default class.
type priorities struct {
	classes source[*schedv1.PriorityClass]
}

func priority(d Deps) Plugin {
	p := &priorities{from[*schedv1.PriorityClass](d.Caches)}
	return Plugin{Name: "Priority", Mutate: when(writes, p.admit, "", pods),
		Validate: when(writes, p.validate, "", schema.GroupResource{Group: schedv1.GroupName, Resource: "priorityclasses"})}
}

func (p *priorities) admit(ctx context.Context, a *Attributes) error {
	pod, err := object[*corev1.Pod](a.Object, "pod")
	if err != nil {
		return err
	}
	if a.Operation == Update {
		if old, ok := a.Old.(*corev1.Pod); ok {
			if pod.Spec.Priority == nil && old.Spec.Priority != nil {
				v := *old.Spec.Priority
				pod.Spec.Priority = &v
			}
			if pod.Spec.PreemptionPolicy == nil && old.Spec.PreemptionPolicy != nil {
				v := *old.Spec.PreemptionPolicy
				pod.Spec.PreemptionPolicy = &v
			}
		}
		return nil
	}
	value, policy := int32(0), corev1.PreemptLowerPriority
	class, err := p.classOf(ctx, a, pod)
	if err != nil {
		return err
	}
	if class != nil {
		pod.Spec.PriorityClassName, value = class.Name, class.Value
		if class.PreemptionPolicy != nil {
			policy = *class.PreemptionPolicy
		}
	}
	if v := pod.Spec.Priority; v != nil && *v != value {
		return a.forbidden("the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *v, value)
	}
	if v := pod.Spec.PreemptionPolicy; v != nil && *v != policy {
		return a.forbidden("the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *v, policy)
	}
	pod.Spec.Priority, pod.Spec.PreemptionPolicy = &value, &policy
	return nil
}

func (p *priorities) classOf(ctx context.Context, a *Attributes, pod *corev1.Pod) (*schedv1.PriorityClass, error) {
	name := pod.Spec.PriorityClassName
	if name == "" {
		return p.fallback(), nil
	}
	c, err := p.classes.get(ctx, "", name)
	if err == nil {
		return c, nil
	}
	for _, c := range SystemPriorityClasses() {
		if c.Name == name {
			return c, nil
		}
	}
	if apierrors.IsNotFound(err) {
		return nil, a.forbidden("no PriorityClass with name %v was found", name)
	}
	return nil, fmt.Errorf("failed to get PriorityClass with name %s: %w", name, err)
}

// fallback is the default class, the lowest should there be several.
func (p *priorities) fallback() *schedv1.PriorityClass {
	var least *schedv1.PriorityClass
	for _, c := range p.classes.cache.List() {
		if c.GlobalDefault && (least == nil || c.Value < least.Value || c.Value == least.Value && c.Name < least.Name) {
			least = c
		}
	}
	return least
}

func (p *priorities) validate(_ context.Context, a *Attributes) error {
	pc, err := object[*schedv1.PriorityClass](a.Object, "priority class")
	if err != nil || !pc.GlobalDefault {
		return err
	}
	if d := p.fallback(); d != nil && d.Name != pc.Name {
		return a.forbidden("PriorityClass %v is already marked as default. Only one default can exist", d.Name)
	}
	return nil
}

// runtimeClasses charges pods with the overhead of the runtime they name, and sends them where it is.
type runtimeClasses struct{ classes source[*nodev1.RuntimeClass] }

func runtimeClass(d Deps) Plugin {
	r := &runtimeClasses{from[*nodev1.RuntimeClass](d.Caches)}
	return Plugin{Name: "RuntimeClass", Mutate: when(creates, r.admit, "", pods), Validate: when(creates, r.validate, "", pods)}
}

func (r *runtimeClasses) of(ctx context.Context, a *Attributes) (*corev1.Pod, *nodev1.RuntimeClass, error) {
	pod, err := object[*corev1.Pod](a.Object, "pod")
	if err != nil || pod.Spec.RuntimeClassName == nil {
		return pod, nil, err
	}
	rc, err := r.classes.get(ctx, "", *pod.Spec.RuntimeClassName)
	if apierrors.IsNotFound(err) {
		return nil, nil, a.forbidden("pod rejected: RuntimeClass %q not found", *pod.Spec.RuntimeClassName)
	}
	return pod, rc, err
}

func (r *runtimeClasses) admit(ctx context.Context, a *Attributes) error {
	pod, rc, err := r.of(ctx, a)
	if err != nil || rc == nil {
		return err
	}
	if rc.Overhead != nil {
		if pod.Spec.Overhead != nil && !equality.Semantic.DeepEqual(pod.Spec.Overhead, rc.Overhead.PodFixed) {
			return a.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
		}
		pod.Spec.Overhead = rc.Overhead.PodFixed.DeepCopy()
	}
	if rc.Scheduling == nil {
		return nil
	}
	for key, want := range rc.Scheduling.NodeSelector {
		if got, ok := pod.Spec.NodeSelector[key]; ok && got != want {
			return a.forbidden("conflict: runtimeClass.scheduling.nodeSelector[%s] = %s; pod.spec.nodeSelector[%s] = %s", key, want, key, got)
		}
	}
	if len(rc.Scheduling.NodeSelector) > 0 && pod.Spec.NodeSelector == nil {
		pod.Spec.NodeSelector = map[string]string{}
	}
	for key, want := range rc.Scheduling.NodeSelector {
		pod.Spec.NodeSelector[key] = want
	}
next:
	for _, t := range rc.Scheduling.Tolerations {
		for i := range pod.Spec.Tolerations {
			if equality.Semantic.DeepEqual(pod.Spec.Tolerations[i], t) {
				continue next
			}
		}
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, *t.DeepCopy())
	}
	return nil
}

func (r *runtimeClasses) validate(ctx context.Context, a *Attributes) error {
	pod, rc, err := r.of(ctx, a)
	switch {
	case err != nil:
		return err
	case rc != nil && rc.Overhead != nil:
		if !equality.Semantic.DeepEqual(rc.Overhead.PodFixed, pod.Spec.Overhead) {
			return a.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
		}
	case pod.Spec.Overhead != nil:
		return a.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
	}
	return nil
}

// podTopologyLabels copies where a node is to the pods that get bound to it.
func podTopologyLabels(d Deps) Plugin {
	all := from[*corev1.Node](d.Caches)
	label := func(ctx context.Context, a *Attributes, node string, m *metav1.ObjectMeta) error {
		if node == "" {
			return nil
		}
		n, err := all.get(ctx, "", node)
		if apierrors.IsNotFound(err) {
			return nil // a pod may be ahead of its node
		}
		if err != nil {
			return err
		}
		for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion} {
			if v, ok := n.Labels[key]; ok {
				if m.Labels == nil {
					m.Labels = map[string]string{}
				}
				m.Labels[key] = v
			}
		}
		return nil
	}
	return Plugin{Name: "PodTopologyLabels", Mutate: when(creates, func(ctx context.Context, a *Attributes) error {
		switch o := a.Object.(type) {
		case *corev1.Pod:
			return label(ctx, a, o.Spec.NodeName, &o.ObjectMeta)
		case *corev1.Binding:
			if o.Target.Kind != "" && o.Target.Kind != "Node" {
				return nil
			}
			return label(ctx, a, o.Target.Name, &o.ObjectMeta)
		}
		return nil
	}, "*", pods, core("bindings"))}
}
