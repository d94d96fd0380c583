package authn

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
)

// cacheLookup answers from the shared caches of service accounts, pods and nodes, and asks the API when an object is
// missing there or has another uid: a token may be used before its object has arrived in a cache. Secrets are not cached:
// few tokens are bound to one.
type cacheLookup struct {
	accounts *client.Cache[*corev1.ServiceAccount]
	pods     *client.Cache[*corev1.Pod]
	nodes    *client.Cache[*corev1.Node]
	t        client.Transport
}

// NewLookup returns a Lookup over the shared caches. Call it before they run.
func NewLookup(c *client.Caches) Lookup {
	return &cacheLookup{accounts: client.CacheOf[*corev1.ServiceAccount](c), pods: client.CacheOf[*corev1.Pod](c),
		nodes: client.CacheOf[*corev1.Node](c), t: c.Transport()}
}

// Find implements Lookup.
func (l *cacheLookup) Find(ctx context.Context, kind Kind, namespace, name string, uid types.UID) (metav1.Object, error) {
	switch kind {
	case KindServiceAccount:
		return find(ctx, l.accounts, l.t, namespace, name, uid)
	case KindPod:
		if p, ok := l.pods.Get(namespace, name); ok && p.Spec.NodeName == "" { // its binding may be on the way
			return find[*corev1.Pod](ctx, nil, l.t, namespace, name, uid)
		}
		return find(ctx, l.pods, l.t, namespace, name, uid)
	case KindNode:
		return find(ctx, l.nodes, l.t, namespace, name, uid)
	case KindSecret:
		return find[*corev1.Secret](ctx, nil, l.t, namespace, name, uid)
	}
	return nil, fmt.Errorf("look up a %s: no such kind", kind)
}

func find[T client.Object](ctx context.Context, c *client.Cache[T], t client.Transport, namespace, name string, uid types.UID) (metav1.Object, error) {
	if c != nil {
		if o, ok := c.Get(namespace, name); ok && (uid == "" || o.GetUID() == uid) {
			return o, nil
		}
	}
	o, err := client.Of[T](t).Get(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}
