// Package serviceaccount makes sure that every live namespace has the ServiceAccount "default", which pods use unless they
// say otherwise. It is run by package controller.
package serviceaccount

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
const Name = "serviceaccount-controller"

const account = "default"

// New returns the controller.
func New(env *loop.Env) *loop.Controller {
	q := loop.NewQueue()
	namespaces := client.CacheOf[*corev1.Namespace](env.Caches)
	accounts := loop.Cache(env, client.CacheOptions[*corev1.ServiceAccount]{FieldSelector: "metadata.name=" + account})
	namespaces.Handle(func(_, now *corev1.Namespace) {
		if now != nil {
			q.Add(now.Name)
		}
	})
	accounts.Handle(func(old, now *corev1.ServiceAccount) {
		if now == nil {
			q.Add(old.Namespace)
		}
	})
	return &loop.Controller{Name: Name, Queue: q, Workers: 1, Sync: func(ctx context.Context, name string) error {
		ns, ok := namespaces.Get("", name)
		if !ok || ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
			return nil
		}
		if _, ok := accounts.Get(name, account); ok {
			return nil
		}
		_, err := client.Of[*corev1.ServiceAccount](env.T()).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account, Namespace: name}})
		if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return fmt.Errorf("create service account %s/%s: %w", name, account, err)
		}
		return nil
	}}
}
