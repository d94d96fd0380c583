// Package nodelifecycle watches over nodes: one that falls silent becomes Unknown, its conditions become taints, its pods stop
// being ready, and pods that do not tolerate a NoExecute taint are deleted when their time is up. It is run by package
// controller as two controllers, of nodes and of taints. It does not reach nodes itself: it knows what the API knows.
package nodelifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/controller/loop"
)

// Name is the name of the controller of nodes.
const Name = "node-lifecycle-controller"

// startGrace is how long a node that never reported may take to do so.
const startGrace = 60 * time.Second

// Times of the controller; zero values mean 40 s and 5 s.
type Times struct{ Grace, Period time.Duration }

type shell struct {
	env    *loop.Env
	queue  *loop.Queue
	events loop.Events
	times  Times
	nodes  *client.Cache[*corev1.Node]
	leases *client.Cache[*coordv1.Lease]
	pods   *client.Cache[*corev1.Pod]

	mu    sync.Mutex
	beats map[string]heartbeat
	known map[string]bool
	allow map[string]bool // nodes whose pods may be driven off
}

const byNode = "node"

// IndexByNode lets pods be found by the node they are bound to.
func IndexByNode(c *client.Cache[*corev1.Pod]) {
	c.Index(byNode, func(p *corev1.Pod) []string {
		if p.Spec.NodeName == "" {
			return nil
		}
		return []string{p.Spec.NodeName}
	})
}

// New returns the controller of nodes.
func New(env *loop.Env, times Times) *loop.Controller {
	if times.Grace == 0 {
		times.Grace = 40 * time.Second
	}
	if times.Period == 0 {
		times.Period = 5 * time.Second
	}
	s := &shell{env: env, queue: loop.NewQueue(), events: env.Events("node-controller"), times: times,
		nodes:  client.CacheOf[*corev1.Node](env.Caches),
		leases: loop.Cache(env, client.CacheOptions[*coordv1.Lease]{Namespace: corev1.NamespaceNodeLease}),
		pods:   client.CacheOf[*corev1.Pod](env.Caches), beats: map[string]heartbeat{}, known: map[string]bool{}, allow: map[string]bool{}}
	IndexByNode(s.pods)
	s.nodes.Handle(func(old, now *corev1.Node) {
		if now == nil {
			now = old
		}
		s.queue.Add(now.Name)
	})
	return &loop.Controller{Name: Name, Queue: s.queue, Workers: 4, Sync: s.sync, Every: times.Period, Tick: s.tick}
}

// tick looks at every heartbeat, and wakes what has fallen silent or may be treated differently now.
func (s *shell) tick(context.Context) {
	now := s.env.Now()
	nodes := s.nodes.List()
	allow := evictable(nodes)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range nodes {
		if s.overdue(n, now) > 0 || s.allow[n.Name] != allow[n.Name] {
			s.queue.Add(n.Name)
		}
	}
	s.allow = allow
}

// overdue notes the node's heartbeat and returns by how much it is late (0 or less: it is not). The caller holds mu.
func (s *shell) overdue(n *corev1.Node, now time.Time) time.Duration {
	var renewed metav1.MicroTime
	if l, ok := s.leases.Get(corev1.NamespaceNodeLease, n.Name); ok && l.Spec.RenewTime != nil {
		renewed = *l.Spec.RenewTime
	}
	ready := condition(n, corev1.NodeReady)
	prev, known := s.beats[n.Name]
	b := beat(prev, known, ready, renewed, now)
	s.beats[n.Name] = b
	grace := s.times.Grace
	if ready == nil && renewed.IsZero() {
		grace = startGrace
		if !known {
			b.noticed = n.CreationTimestamp.Time
			s.beats[n.Name] = b
		}
	}
	return now.Sub(b.noticed) - grace
}

func (s *shell) sync(ctx context.Context, name string) error {
	n, ok := s.nodes.Get("", name)
	now := s.env.Now()
	s.mu.Lock()
	was := s.known[name]
	if !ok {
		delete(s.beats, name)
		delete(s.known, name)
		s.mu.Unlock()
		return s.removed(ctx, name, was)
	}
	s.known[name] = true
	late := s.overdue(n, now) > 0
	evict := s.allow[name] || s.allowNow(n)
	s.mu.Unlock()
	if !was {
		s.events.Event(n, corev1.EventTypeNormal, "RegisteredNode", "Node %s event: Registered Node %s in Controller", name, name)
	}
	if late {
		if conds := silent(n, now); conds != nil {
			if c := condition(n, corev1.NodeReady); c != nil && c.Status == corev1.ConditionTrue {
				s.events.Event(n, corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: NodeNotReady", name)
			}
			c := *n
			c.Status.Conditions = conds
			got, err := client.Of[*corev1.Node](s.env.T()).UpdateStatus(ctx, &c)
			if err != nil {
				return fmt.Errorf("update status of node %s: %w", name, err)
			}
			n = got
		}
	}
	if list, changed := taints(n, evict, now); changed {
		c := *n
		c.Spec.Taints = list
		got, err := client.Of[*corev1.Node](s.env.T()).Update(ctx, &c)
		if err != nil {
			return fmt.Errorf("taint node %s: %w", name, err)
		}
		n = got
		if err := loop.See(ctx, s.nodes, got); err != nil {
			return err
		}
	}
	if c := condition(n, corev1.NodeReady); c != nil && c.Status != corev1.ConditionTrue {
		return s.markPods(ctx, name, now)
	}
	return nil
}

// allowNow decides for a node that no tick has seen yet.
func (s *shell) allowNow(n *corev1.Node) bool {
	if _, seen := s.allow[n.Name]; seen {
		return false
	}
	return evictable(s.nodes.List())[n.Name]
}

func (s *shell) removed(ctx context.Context, name string, was bool) error {
	if was {
		gone := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		s.events.Event(gone, corev1.EventTypeNormal, "RemovingNode", "Node %s event: Removing Node %s from Controller", name, name)
	}
	if _, ok := s.leases.Get(corev1.NamespaceNodeLease, name); !ok {
		return nil
	}
	// Leases are not garbage collected (too many changes to watch), so the node's own goes here.
	err := client.Of[*coordv1.Lease](s.env.T()).Delete(ctx, corev1.NamespaceNodeLease, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete lease of node %s: %w", name, err)
	}
	return nil
}

// markPods makes the pods of a node that is not ready not ready.
func (s *shell) markPods(ctx context.Context, node string, now time.Time) error {
	var errs []error
	for _, p := range s.pods.ByIndex(byNode, node) {
		c := unready(p, now)
		if c == nil {
			continue
		}
		s.events.Event(p, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
		if _, err := client.Of[*corev1.Pod](s.env.T()).UpdateStatus(ctx, c); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("mark pod %s not ready: %w", client.Key(p), err))
		} else if apierrors.IsConflict(err) {
			s.queue.AddAfter(node, time.Second)
		}
	}
	return errors.Join(errs...)
}
