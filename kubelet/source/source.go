// Package source holds the ConfigMaps and Secrets that the pods of this node refer to, and nothing else: one watch of one
// name per object, begun by the first pod that asks and ended with the last. kubelet/podrun asks it for environments and
// volumes. A node may read what its pods refer to and no more, which is also all that is read here.
package source

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
)

// Objects is the set of watched objects. It is safe for concurrent use.
type Objects struct {
	ctx        context.Context
	configMaps kind[*corev1.ConfigMap]
	secrets    kind[*corev1.Secret]
}

type kind[T client.Object] struct {
	t       client.Transport
	log     *slog.Logger
	name    schema.GroupResource
	changed func(types.UID)

	mu  sync.Mutex
	all map[string]*watched[T]
}

type watched[T client.Object] struct {
	cache   *client.Cache[T]
	cancel  context.CancelFunc
	holders map[types.UID]bool
}

// New returns an empty set whose watches end with ctx. changed is called, and must return quickly, for each pod that holds
// an object that changed, came or went.
func New(ctx context.Context, t client.Transport, log *slog.Logger, changed func(pod types.UID)) *Objects {
	return &Objects{ctx: ctx,
		configMaps: kind[*corev1.ConfigMap]{t: t, log: log, name: corev1.Resource("configmaps"), changed: changed, all: map[string]*watched[*corev1.ConfigMap]{}},
		secrets:    kind[*corev1.Secret]{t: t, log: log, name: corev1.Resource("secrets"), changed: changed, all: map[string]*watched[*corev1.Secret]{}},
	}
}

// ConfigMap returns a ConfigMap and holds it for the pod. Its error is NotFound when there is none.
func (o *Objects) ConfigMap(ctx context.Context, pod types.UID, namespace, name string) (*corev1.ConfigMap, error) {
	return o.configMaps.get(ctx, o.ctx, pod, namespace, name)
}

// Secret returns a Secret and holds it for the pod. Its error is NotFound when there is none.
func (o *Objects) Secret(ctx context.Context, pod types.UID, namespace, name string) (*corev1.Secret, error) {
	return o.secrets.get(ctx, o.ctx, pod, namespace, name)
}

// Release ends what the pod holds.
func (o *Objects) Release(pod types.UID) {
	o.configMaps.release(pod)
	o.secrets.release(pod)
}

// Held returns how many objects are watched.
func (o *Objects) Held() int { return o.configMaps.held() + o.secrets.held() }

func (k *kind[T]) get(ctx, life context.Context, pod types.UID, namespace, name string) (T, error) {
	w := k.hold(life, pod, namespace, name)
	var zero T
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	select {
	case <-w.cache.Synced():
	case <-wait.Done():
		return zero, fmt.Errorf("read %s %s/%s: not known yet: %w", k.name.Resource, namespace, name, wait.Err())
	}
	if obj, ok := w.cache.Get(namespace, name); ok {
		return obj, nil
	}
	return zero, apierrors.NewNotFound(schema.GroupResource{Resource: singular(k.name.Resource)}, name)
}

func singular(s string) string { return s[:len(s)-1] }

func (k *kind[T]) hold(life context.Context, pod types.UID, namespace, name string) *watched[T] {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := namespace + "/" + name
	w := k.all[key]
	if w == nil {
		ctx, cancel := context.WithCancel(life)
		w = &watched[T]{cancel: cancel, holders: map[types.UID]bool{},
			cache: client.NewCache[T](k.t, k.log, client.CacheOptions[T]{Namespace: namespace, FieldSelector: "metadata.name=" + name})}
		w.cache.Handle(func(_, _ T) { k.tell(w) })
		k.all[key] = w
		go w.cache.Run(ctx)
	}
	w.holders[pod] = true
	return w
}

func (k *kind[T]) tell(w *watched[T]) {
	select {
	case <-w.cache.Synced():
	default:
		return // whoever holds it is about to read it
	}
	k.mu.Lock()
	pods := make([]types.UID, 0, len(w.holders))
	for p := range w.holders {
		pods = append(pods, p)
	}
	k.mu.Unlock()
	for _, p := range pods {
		k.changed(p)
	}
}

func (k *kind[T]) release(pod types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, w := range k.all {
		delete(w.holders, pod)
		if len(w.holders) == 0 {
			w.cancel()
			delete(k.all, key)
		}
	}
}

func (k *kind[T]) held() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.all)
}
