package nodelifecycle

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/controller/loop"
	"karve/controller/pods"
)

// NameTaint is the name of the controller that deletes pods from tainted nodes.
const NameTaint = "taint-eviction-controller"

type evictor struct {
	env    *loop.Env
	queue  *loop.Queue
	events loop.Events
	nodes  *client.Cache[*corev1.Node]
	pods   *client.Cache[*corev1.Pod]
}

// NewTaint returns the controller of taints. Its keys are pods.
func NewTaint(env *loop.Env) *loop.Controller {
	e := &evictor{env: env, queue: loop.NewQueue(), events: env.Events(NameTaint), nodes: client.CacheOf[*corev1.Node](env.Caches),
		pods: client.CacheOf[*corev1.Pod](env.Caches)}
	IndexByNode(e.pods)
	e.nodes.Handle(func(old, now *corev1.Node) {
		if now != nil && (executes(now) || old != nil && executes(old)) {
			for _, p := range e.pods.ByIndex(byNode, now.Name) {
				e.queue.Add(client.Key(p))
			}
		}
	})
	e.pods.Handle(func(old, now *corev1.Pod) {
		if now == nil || now.Spec.NodeName == "" || old != nil && old.Spec.NodeName != "" && len(old.Spec.Tolerations) == len(now.Spec.Tolerations) {
			return
		}
		if n, ok := e.nodes.Get("", now.Spec.NodeName); ok && executes(n) {
			e.queue.Add(client.Key(now))
		}
	})
	return &loop.Controller{Name: NameTaint, Queue: e.queue, Workers: 4, Sync: e.sync}
}

func executes(n *corev1.Node) bool {
	for i := range n.Spec.Taints {
		if n.Spec.Taints[i].Effect == corev1.TaintEffectNoExecute {
			return true
		}
	}
	return false
}

func (e *evictor) sync(ctx context.Context, key string) error {
	p, ok := e.pods.GetKey(key)
	if !ok || p.DeletionTimestamp != nil || p.Spec.NodeName == "" || pods.Finished(p) {
		return nil
	}
	n, ok := e.nodes.Get("", p.Spec.NodeName)
	if !ok {
		return nil
	}
	now := e.env.Now()
	at, leave := eviction(p, n.Spec.Taints, now)
	if !leave {
		return nil
	}
	if wait := at.Sub(now); wait > 0 {
		e.queue.AddAfter(key, wait)
		return nil
	}
	e.events.Event(p, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s", key)
	c := p.DeepCopy()
	pods.SetCondition(c, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
		Reason: "DeletionByTaintManager", Message: "Taint manager: deleting due to NoExecute taint"})
	res := client.Of[*corev1.Pod](e.env.T())
	if _, err := res.UpdateStatus(ctx, c); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("mark pod %s as disrupted: %w", key, err)
	}
	if err := res.Delete(ctx, p.Namespace, p.Name, loop.OfUID(p)); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete pod %s: %w", key, err)
	}
	return nil
}
