// Package owner is how a controller takes possession of what its selector matches: it adopts what nobody controls and
// releases what no longer matches. The workload controllers use it for pods, ReplicaSets and revisions alike. It deletes
// nothing: that is the garbage collector's.
package owner

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
	"karve/controller/loop"
)

const (
	indexName    = "controller"
	orphanPrefix = "orphan/"
)

// Index lets Candidates find objects by the uid of their controller.
func Index[T client.Object](c *client.Cache[T]) {
	c.Index(indexName, func(o T) []string {
		if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
			return []string{string(ref.UID)}
		}
		return []string{orphanPrefix + o.GetNamespace()}
	})
}

// Owned returns what uid controls.
func Owned[T client.Object](c *client.Cache[T], uid types.UID) []T {
	return c.ByIndex(indexName, string(uid))
}

// Orphans returns what nobody controls in a namespace.
func Orphans[T client.Object](c *client.Cache[T], namespace string) []T {
	return c.ByIndex(indexName, orphanPrefix+namespace)
}

// Split sorts candidates by what owner should do with them. Those controlled by others are left out.
func Split[T client.Object](owner metav1.Object, selector labels.Selector, candidates []T) (mine, adopt, release []T) {
	deleting := owner.GetDeletionTimestamp() != nil
	for _, o := range candidates {
		match := selector.Matches(labels.Set(o.GetLabels()))
		ref := metav1.GetControllerOfNoCopy(o)
		switch {
		case ref != nil && ref.UID != owner.GetUID():
		case ref != nil && match:
			mine = append(mine, o)
		case ref != nil && !deleting:
			release = append(release, o)
		case ref == nil && match && !deleting && o.GetDeletionTimestamp() == nil:
			adopt = append(adopt, o)
		}
	}
	return mine, adopt, release
}

// Claim carries Split out: it adopts and releases, waits until cache shows it, and returns what owner now controls. live
// reads owner from the server, so that an owner that is gone or being deleted adopts nothing.
func Claim[T client.Object](ctx context.Context, cache *client.Cache[T], res client.Resource[T], owner client.Object, kind schema.GroupVersionKind,
	selector labels.Selector, live func() (metav1.Object, error)) ([]T, error) {
	candidates := append(Owned(cache, owner.GetUID()), Orphans(cache, owner.GetNamespace())...)
	mine, adopt, release := Split(owner, selector, candidates)
	if len(adopt) > 0 {
		now, err := live()
		if err != nil {
			return nil, fmt.Errorf("read owner before adoption: %w", err)
		}
		if now.GetUID() != owner.GetUID() || now.GetDeletionTimestamp() != nil {
			return nil, fmt.Errorf("adopt for %s: the owner is gone or being deleted", client.Key(owner))
		}
	}
	ref := metav1.NewControllerRef(owner, kind)
	for _, o := range adopt {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": o.GetUID(), "ownerReferences": []any{ref}}})
		if err != nil {
			return nil, fmt.Errorf("encode owner reference: %w", err)
		}
		got, err := res.Patch(ctx, o.GetNamespace(), o.GetName(), types.StrategicMergePatchType, patch)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("adopt %s: %w", client.Key(o), err)
		}
		if err := loop.See(ctx, cache, got); err != nil {
			return nil, err
		}
		mine = append(mine, got)
	}
	for _, o := range release {
		patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"ownerReferences":[{"$patch":"delete","uid":%q}]}}`, o.GetUID(), owner.GetUID())
		got, err := res.Patch(ctx, o.GetNamespace(), o.GetName(), types.StrategicMergePatchType, patch)
		if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) { // gone, or its reference is gone already
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("release %s: %w", client.Key(o), err)
		}
		if err := loop.See(ctx, cache, got); err != nil {
			return nil, err
		}
	}
	return mine, nil
}

// ByAge orders objects oldest first, then by name.
func ByAge[T client.Object](objs []T) {
	slices.SortFunc(objs, func(a, b T) int {
		ta, tb := a.GetCreationTimestamp(), b.GetCreationTimestamp()
		if c := ta.Time.Compare(tb.Time); c != 0 {
			return c
		}
		if a.GetName() < b.GetName() {
			return -1
		}
		return 1
	})
}
