// Package snapshot is what the scheduler knows of the cluster: for every node what it can give, what is taken, and which
// pods are there, kept up to date pod by pod so that a decision reads counts instead of recounting. filter and score read
// it; scheduler changes it. It has no lock of its own: one goroutine at a time may use a State.
package snapshot

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Amounts are quantities of resources: CPU in thousandths of a core, memory and ephemeral storage in bytes, others in
// units of their own.
type Amounts struct {
	CPU, Memory, Storage int64
	Other                map[corev1.ResourceName]int64
}

func amounts(list corev1.ResourceList) Amounts {
	var a Amounts
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			a.CPU = q.MilliValue()
		case corev1.ResourceMemory:
			a.Memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			a.Storage = q.Value()
		case corev1.ResourcePods:
		default:
			if a.Other == nil {
				a.Other = map[corev1.ResourceName]int64{}
			}
			a.Other[name] = q.Value()
		}
	}
	return a
}

func (a *Amounts) add(b *Amounts, sign int64) {
	a.CPU += sign * b.CPU
	a.Memory += sign * b.Memory
	a.Storage += sign * b.Storage
	for k, v := range b.Other {
		if a.Other == nil {
			a.Other = map[corev1.ResourceName]int64{}
		}
		a.Other[k] += sign * v
	}
}

// What a container that asks for nothing counts as when nodes are compared, as upstream has it.
const (
	defaultCPU    = 100
	defaultMemory = 200 << 20
)

// Pod is a pod with what decisions need of it worked out once.
type Pod struct {
	*corev1.Pod
	Requests Amounts
	// Weight is Requests with a default for containers that ask for nothing: it is what scores compare.
	Weight Amounts
	Ports  []Port
	// Group identifies the pods that are to be spread: the controller's uid.
	Group types.UID
}

// Port is a port of the node itself that a pod takes.
type Port struct {
	IP       string
	Protocol corev1.Protocol
	Port     int32
}

// NewPod works a pod out. The object is shared and not changed.
func NewPod(p *corev1.Pod) *Pod {
	out := &Pod{Pod: p, Requests: amounts(resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{}))}
	out.Weight = amounts(resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{
		NonMissingContainerRequests: corev1.ResourceList{corev1.ResourceCPU: quantity(defaultCPU), corev1.ResourceMemory: bytes(defaultMemory)}}))
	collect := func(cs []corev1.Container) {
		for i := range cs {
			for _, port := range cs[i].Ports {
				if port.HostPort > 0 {
					out.Ports = append(out.Ports, Port{port.HostIP, port.Protocol, port.HostPort})
				}
			}
		}
	}
	collect(p.Spec.Containers)
	for i := range p.Spec.InitContainers {
		if r := p.Spec.InitContainers[i].RestartPolicy; r != nil && *r == corev1.ContainerRestartPolicyAlways {
			collect(p.Spec.InitContainers[i : i+1])
		}
	}
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil {
		out.Group = ref.UID
	}
	return out
}

// Node is a node with its sums.
type Node struct {
	*corev1.Node
	Allocatable Amounts
	Requested   Amounts
	Weight      Amounts
	MaxPods     int64
	Pods        int64
	Ports       map[Port]int
	Groups      map[types.UID]int
}

// State is every node and every placed pod.
type State struct {
	nodes  map[string]*Node
	list   []*Node
	placed map[types.UID]placement
}

type placement struct {
	pod  *Pod
	node string
}

// New returns an empty state.
func New() *State { return &State{nodes: map[string]*Node{}, placed: map[types.UID]placement{}} }

// Nodes returns the nodes that exist, in an order that is stable between changes. The caller must not keep the slice.
func (s *State) Nodes() []*Node { return s.list }

func (s *State) node(name string) *Node {
	n := s.nodes[name]
	if n == nil {
		n = &Node{Ports: map[Port]int{}, Groups: map[types.UID]int{}}
		s.nodes[name] = n
	}
	return n
}

// SetNode adds or replaces a node. Pods placed on it before it was known count already.
func (s *State) SetNode(o *corev1.Node) {
	n := s.node(o.Name)
	known := n.Node != nil
	n.Node = o
	n.Allocatable = amounts(o.Status.Allocatable)
	n.MaxPods = o.Status.Allocatable.Pods().Value()
	if !known {
		s.list = append(s.list, n)
	}
}

// RemoveNode forgets a node; pods that are still placed there are remembered for its return.
func (s *State) RemoveNode(name string) {
	n := s.nodes[name]
	if n == nil || n.Node == nil {
		return
	}
	n.Node = nil
	for i := range s.list {
		if s.list[i] == n {
			s.list = append(s.list[:i], s.list[i+1:]...)
			break
		}
	}
	if n.Pods == 0 {
		delete(s.nodes, name)
	}
}

// Place counts a pod on a node. A pod that is placed already is moved.
func (s *State) Place(p *Pod, node string) {
	s.Remove(p.UID)
	s.node(node).count(p, 1)
	s.placed[p.UID] = placement{p, node}
}

// Remove takes a pod off its node and reports whether it was on one.
func (s *State) Remove(uid types.UID) bool {
	at, ok := s.placed[uid]
	if !ok {
		return false
	}
	delete(s.placed, uid)
	n := s.nodes[at.node]
	n.count(at.pod, -1)
	if n.Node == nil && n.Pods == 0 {
		delete(s.nodes, at.node)
	}
	return true
}

func (n *Node) count(p *Pod, sign int) {
	n.Requested.add(&p.Requests, int64(sign))
	n.Weight.add(&p.Weight, int64(sign))
	n.Pods += int64(sign)
	for _, port := range p.Ports {
		if n.Ports[port] += sign; n.Ports[port] == 0 {
			delete(n.Ports, port)
		}
	}
	if p.Group != "" {
		if n.Groups[p.Group] += sign; n.Groups[p.Group] == 0 {
			delete(n.Groups, p.Group)
		}
	}
}
