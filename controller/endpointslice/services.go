package endpointslice

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"

	"karve/client"
	"karve/controller/loop"
	"karve/controller/pods"
)

// Services wakes a queue with the keys of Services whose endpoints may have changed, and lists what they select. This
// controller and the one of Endpoints use it.
type Services struct {
	All   *client.Cache[*corev1.Service]
	Pods  *client.Cache[*corev1.Pod]
	queue *loop.Queue
}

// Follow returns Services over the caches of env that wake queue.
func Follow(env *loop.Env, queue *loop.Queue) *Services {
	s := &Services{All: client.CacheOf[*corev1.Service](env.Caches), Pods: client.CacheOf[*corev1.Pod](env.Caches), queue: queue}
	s.All.Index("namespace", func(o *corev1.Service) []string { return []string{o.Namespace} })
	s.Pods.Index("namespace", func(o *corev1.Pod) []string { return []string{o.Namespace} })
	s.All.Handle(func(old, now *corev1.Service) {
		if now == nil {
			now = old
		}
		queue.Add(client.Key(now))
	})
	s.Pods.Handle(func(old, now *corev1.Pod) {
		if old != nil && now != nil && same(old, now) {
			return
		}
		s.wake(old)
		if now != nil && (old == nil || !labels.Equals(old.Labels, now.Labels)) {
			s.wake(now)
		}
	})
	return s
}

// same reports whether no endpoint can tell two states of a pod apart.
func same(a, b *corev1.Pod) bool {
	return a.UID == b.UID && pods.Ready(a) == pods.Ready(b) && pods.Finished(a) == pods.Finished(b) && a.Spec.NodeName == b.Spec.NodeName &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) && labels.Equals(a.Labels, b.Labels) &&
		apiequality.Semantic.DeepEqual(a.Status.PodIPs, b.Status.PodIPs) && a.Status.PodIP == b.Status.PodIP
}

func (s *Services) wake(p *corev1.Pod) {
	if p == nil {
		return
	}
	for _, svc := range s.All.ByIndex("namespace", p.Namespace) {
		if Selects(svc) && labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(p.Labels)) {
			s.queue.Add(client.Key(svc))
		}
	}
}

// Selects reports whether svc has endpoints found by selector.
func Selects(svc *corev1.Service) bool {
	return svc.Spec.Type != corev1.ServiceTypeExternalName && len(svc.Spec.Selector) > 0
}

// Selected returns the pods that svc selects.
func (s *Services) Selected(svc *corev1.Service) (out []*corev1.Pod) {
	sel := labels.SelectorFromSet(svc.Spec.Selector)
	for _, p := range s.Pods.ByIndex("namespace", svc.Namespace) {
		if sel.Matches(labels.Set(p.Labels)) {
			out = append(out, p)
		}
	}
	return out
}

// Trigger returns when the newest cause of the present endpoints happened: the Service's creation or a pod's change of
// readiness. It is what last-change-trigger-time reports.
func Trigger(svc *corev1.Service, list []*corev1.Pod) time.Time {
	t := svc.CreationTimestamp.Time
	for _, p := range list {
		if c := pods.Condition(p, corev1.PodReady); c != nil && c.LastTransitionTime.After(t) {
			t = c.LastTransitionTime.Time
		}
	}
	return t
}
