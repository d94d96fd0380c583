// Package rootca publishes the certificate authority of the API server in the ConfigMap kube-root-ca.crt of every live
// namespace, where the service account volume of pods takes it from. It is run by package controller.
package rootca

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/controller/loop"
)

// Name is the controller's name.
const Name = "root-ca-certificate-publisher-controller"

const (
	mapName     = "kube-root-ca.crt"
	field       = "ca.crt"
	annotation  = "kubernetes.io/description"
	description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)

// plan returns the ConfigMap to write for a namespace that has have (nil if none), or nil when it is right.
func plan(namespace string, have *corev1.ConfigMap, ca string) *corev1.ConfigMap {
	if have != nil && len(have.Data) == 1 && have.Data[field] == ca && len(have.BinaryData) == 0 && have.Annotations[annotation] != "" {
		return nil
	}
	want := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: mapName, Namespace: namespace}}
	if have != nil {
		want = have.DeepCopy()
	}
	if want.Annotations == nil {
		want.Annotations = map[string]string{}
	}
	want.Annotations[annotation] = description
	want.Data, want.BinaryData = map[string]string{field: ca}, nil
	return want
}

// New returns the controller, which publishes ca (PEM).
func New(env *loop.Env, ca []byte) *loop.Controller {
	q := loop.NewQueue()
	namespaces := client.CacheOf[*corev1.Namespace](env.Caches)
	maps := loop.Cache(env, client.CacheOptions[*corev1.ConfigMap]{FieldSelector: "metadata.name=" + mapName})
	namespaces.Handle(func(_, now *corev1.Namespace) {
		if now != nil {
			q.Add(now.Name)
		}
	})
	maps.Handle(func(old, now *corev1.ConfigMap) {
		if now == nil {
			now = old
		}
		q.Add(now.Namespace)
	})
	return &loop.Controller{Name: Name, Queue: q, Workers: 1, Sync: func(ctx context.Context, name string) error {
		ns, ok := namespaces.Get("", name)
		if !ok || ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
			return nil
		}
		have, exists := maps.Get(name, mapName)
		if !exists {
			have = nil
		}
		want := plan(name, have, string(ca))
		if want == nil {
			return nil
		}
		res := client.Of[*corev1.ConfigMap](env.T())
		var err error
		if have == nil {
			_, err = res.Create(ctx, want)
		} else {
			_, err = res.Update(ctx, want)
		}
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return fmt.Errorf("write config map %s/%s: %w", name, mapName, err)
		}
		return nil
	}}
}
