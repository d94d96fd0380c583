// Package podgc deletes pods that no node will ever finish: those of nodes that are gone, those deleted before they were
// bound, those on nodes declared out of service, and finished ones beyond a threshold. It is run by package controller.
package podgc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/controller/loop"
	"karve/controller/pods"
)

// Name is the controller's name.
const Name = "pod-garbage-collector-controller"

const (
	period     = 20 * time.Second
	quarantine = 40 * time.Second // how long a node has to be missed before its pods go
	threshold  = 12500
)

// victim is a pod to delete; a message, when set, is why the pod is disrupted.
type victim struct {
	pod     *corev1.Pod
	message string
}

// node is what matters of a node: whether it is out of service, which here means that its pods will not come back.
type node struct{ outOfService bool }

// plan lists the pods to delete. missing holds the nodes that are known to be gone for long enough.
func plan(all []*corev1.Pod, nodes map[string]node, missing map[string]bool, keep int) (out []victim) {
	var finished []*corev1.Pod
	for _, p := range all {
		n, exists := nodes[p.Spec.NodeName]
		switch {
		case p.Spec.NodeName != "" && missing[p.Spec.NodeName]:
			out = append(out, victim{p, "PodGC: node no longer exists"})
		case p.DeletionTimestamp != nil && p.Spec.NodeName == "":
			out = append(out, victim{p, ""})
		case p.DeletionTimestamp != nil && exists && n.outOfService && !pods.Ready(p):
			out = append(out, victim{p, "PodGC: node is out-of-service"})
		case p.DeletionTimestamp == nil && pods.Finished(p):
			finished = append(finished, p)
		}
	}
	if n := len(finished) - keep; keep > 0 && n > 0 {
		slices.SortFunc(finished, func(a, b *corev1.Pod) int {
			return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
		})
		for _, p := range finished[:n] {
			out = append(out, victim{p, ""})
		}
	}
	return out
}

type shell struct {
	env   *loop.Env
	pods  *client.Cache[*corev1.Pod]
	nodes *client.Cache[*corev1.Node]
	keep  int
	since map[string]time.Time // missing node → first missed
}

// New returns the controller, which keeps at most keep finished pods (0: 12,500).
func New(env *loop.Env, keep int) *loop.Controller {
	if keep == 0 {
		keep = threshold
	}
	s := &shell{env: env, pods: client.CacheOf[*corev1.Pod](env.Caches), nodes: client.CacheOf[*corev1.Node](env.Caches), keep: keep, since: map[string]time.Time{}}
	return &loop.Controller{Name: Name, Every: period, Tick: s.tick}
}

func (s *shell) tick(ctx context.Context) {
	all, nodes := s.pods.List(), map[string]node{}
	for _, n := range s.nodes.List() {
		nodes[n.Name] = node{outOfService: outOfService(n)}
	}
	for _, v := range plan(all, nodes, s.missing(ctx, all, nodes), s.keep) {
		if err := s.remove(ctx, v); err != nil && ctx.Err() == nil {
			s.env.Log.Warn("pod not collected, will retry", "pod", client.Key(v.pod), "err", err)
		}
	}
}

func outOfService(n *corev1.Node) bool {
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	return !ready && slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// missing returns the nodes that pods name, that have been missed for the quarantine, and that the server does not know.
func (s *shell) missing(ctx context.Context, all []*corev1.Pod, nodes map[string]node) map[string]bool {
	now := s.env.Now()
	named := map[string]bool{}
	for _, p := range all {
		if _, ok := nodes[p.Spec.NodeName]; !ok && p.Spec.NodeName != "" {
			named[p.Spec.NodeName] = true
		}
	}
	for n := range s.since {
		if !named[n] {
			delete(s.since, n)
		}
	}
	out := map[string]bool{}
	for n := range named {
		first, ok := s.since[n]
		if !ok {
			s.since[n] = now
			continue
		}
		if now.Sub(first) < quarantine {
			continue
		}
		if _, err := client.Of[*corev1.Node](s.env.T()).Get(ctx, "", n); apierrors.IsNotFound(err) {
			out[n] = true
		}
	}
	return out
}

func (s *shell) remove(ctx context.Context, v victim) error {
	p, res := v.pod, client.Of[*corev1.Pod](s.env.T())
	if !pods.Finished(p) { // whoever counts failures has to see one
		c := p.DeepCopy()
		c.Status.Phase = corev1.PodFailed
		if v.message != "" {
			pods.SetCondition(c, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(s.env.Now()),
				Reason: "DeletionByPodGC", Message: v.message})
		}
		if _, err := res.UpdateStatus(ctx, c); err != nil {
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("mark pod as failed: %w", err)
		}
	}
	opts, zero := loop.OfUID(p), int64(0)
	opts.GracePeriodSeconds = &zero
	if err := res.Delete(ctx, p.Namespace, p.Name, opts); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete pod: %w", err)
	}
	return nil
}
