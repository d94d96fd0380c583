package admission

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// recently is how long after a namespace was deleted here the cache is not trusted to know.
const recently = 30 * time.Second

// immortal are the namespaces nobody may delete.
var immortal = map[string]bool{metav1.NamespaceDefault: true, metav1.NamespaceSystem: true, metav1.NamespacePublic: true}

// lifecycle refuses new objects in namespaces that are not there or going, and the deletion of namespaces the cluster
// cannot be without.
type lifecycle struct {
	namespaces source[*corev1.Namespace]
	now        func() time.Time
	mu         sync.Mutex
	deleted    map[string]time.Time
}

func namespaceLifecycle(d Deps) Plugin {
	l := &lifecycle{namespaces: from[*corev1.Namespace](d.Caches), now: d.Now, deleted: map[string]time.Time{}}
	return Plugin{Name: "NamespaceLifecycle", Mutate: l}
}

// Admit implements Mutator; it changes nothing, but has to come before the plugins that look things up in the namespace.
func (l *lifecycle) Admit(ctx context.Context, a *Attributes) error {
	if a.Row == nil {
		return nil
	}
	if a.Row.Group == "" && a.Row.Resource == "namespaces" {
		if a.Operation != Delete || a.Subresource != "" {
			return nil
		}
		if immortal[a.Name] {
			return apierrors.NewForbidden(a.Row.GR(), a.Name, fmt.Errorf("this namespace may not be deleted"))
		}
		l.markDeleted(a.Name)
		return nil
	}
	// Deleting from a namespace that is going, or asking what one may do there, is always fine.
	if a.Namespace == "" || !a.Row.Namespaced || a.Operation == Delete || a.Operation == Connect || a.Row.Group == "authorization.k8s.io" && a.Row.Resource == "localsubjectaccessreviews" {
		return nil
	}
	ns, err := l.find(ctx, a.Namespace)
	if err != nil {
		return err
	}
	if a.Operation != Create || ns.DeletionTimestamp == nil && ns.Status.Phase != corev1.NamespaceTerminating {
		return nil
	}
	refused := a.forbidden("unable to create new content in namespace %s because it is being terminated", a.Namespace)
	refused.ErrStatus.Details.Causes = append(refused.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", a.Namespace), Field: "metadata.namespace"})
	return refused
}

func (l *lifecycle) find(ctx context.Context, name string) (*corev1.Namespace, error) {
	if l.wasDeleted(name) {
		return l.namespaces.live.Get(ctx, "", name)
	}
	return l.namespaces.get(ctx, "", name)
}

func (l *lifecycle) markDeleted(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for n, at := range l.deleted {
		if now.Sub(at) > recently {
			delete(l.deleted, n)
		}
	}
	l.deleted[name] = now
}

func (l *lifecycle) wasDeleted(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.deleted[name]
	return ok && l.now().Sub(at) <= recently
}
