// Package namespace empties deleted namespaces: pods first, then everything else, built-in and custom; it reports what is
// left in the namespace's conditions, and lets the namespace go when nothing is. It is run by package controller. Refusing
// new content meanwhile is the API server's part.
package namespace

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
	"karve/client"
	"karve/controller/loop"
)

// Name is the controller's name.
const Name = "namespace-controller"

// again is the longest pause between two looks at a namespace that is not empty yet.
const again = 5 * time.Second

type shell struct {
	env   *loop.Env
	queue *loop.Queue
	all   *client.Cache[*corev1.Namespace]
	crds  *client.Cache[*apiextv1.CustomResourceDefinition]
}

// New returns the controller.
func New(env *loop.Env) *loop.Controller {
	s := &shell{env: env, queue: loop.NewQueue(), all: client.CacheOf[*corev1.Namespace](env.Caches),
		crds: client.CacheOf[*apiextv1.CustomResourceDefinition](env.Caches)}
	s.all.Handle(func(_, now *corev1.Namespace) {
		if now != nil && now.DeletionTimestamp != nil {
			s.queue.Add(now.Name)
		}
	})
	return &loop.Controller{Name: Name, Queue: s.queue, Workers: 4, Sync: s.sync}
}

var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// resources lists every stored namespaced resource once, pods first.
func (s *shell) resources() []schema.GroupVersionResource {
	out := []schema.GroupVersionResource{pods}
	seen := map[string]bool{"pods": true}
	for _, r := range api.Rows() {
		if !r.Namespaced || r.Prefix == "" || seen[r.Prefix] || !r.Has("list") || !r.Has("delete") {
			continue
		}
		seen[r.Prefix] = true
		out = append(out, r.GVR())
	}
	for _, c := range s.crds.List() {
		if c.Spec.Scope != apiextv1.NamespaceScoped {
			continue
		}
		for _, v := range c.Spec.Versions {
			if v.Served {
				out = append(out, schema.GroupVersionResource{Group: c.Spec.Group, Version: v.Name, Resource: c.Spec.Names.Plural})
				break
			}
		}
	}
	return out
}

func (s *shell) sync(ctx context.Context, name string) error {
	ns, ok := s.all.Get("", name)
	if !ok || ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return nil
	}
	if ns.Status.Phase != corev1.NamespaceTerminating {
		c := *ns
		c.Status.Phase = corev1.NamespaceTerminating
		got, err := client.Of[*corev1.Namespace](s.env.T()).UpdateStatus(ctx, &c)
		if err != nil {
			return fmt.Errorf("update status of namespace %s: %w", name, err)
		}
		ns = got
	}
	var found Content
	list := s.resources()
	found.merge(s.remove(ctx, name, list[0]))
	if found.empty() { // whatever pods rely on stays until they are gone
		rest := list[1:]
		parts := make([]Content, len(rest))
		loop.Parallel(len(rest), 8, func(i int) error { parts[i] = s.remove(ctx, name, rest[i]); return nil })
		for _, p := range parts {
			found.merge(p)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	ns, err := s.report(ctx, ns, found)
	if err != nil {
		return err
	}
	if !found.empty() {
		s.queue.AddAfter(name, pause(s.env.Now().Sub(ns.DeletionTimestamp.Time)))
		return nil
	}
	c := ns.DeepCopy()
	c.Spec.Finalizers = slices.DeleteFunc(c.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	if _, err := client.Of[*corev1.Namespace](s.env.T()).UpdateSub(ctx, c, "finalize"); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("finalize namespace %s: %w", name, err)
	}
	return nil
}

// pause is how long to wait before the next look: short at first, since most content goes at once.
func pause(since time.Duration) time.Duration { return min(max(since/4, 100*time.Millisecond), again) }

func (s *shell) report(ctx context.Context, ns *corev1.Namespace, found Content) (*corev1.Namespace, error) {
	conds := conditions(ns.Status.Conditions, found, s.env.Now())
	if apiequality.Semantic.DeepEqual(conds, ns.Status.Conditions) {
		return ns, nil
	}
	c := *ns
	c.Status.Conditions = conds
	got, err := client.Of[*corev1.Namespace](s.env.T()).UpdateStatus(ctx, &c)
	if err != nil {
		return nil, fmt.Errorf("update status of namespace %s: %w", ns.Name, err)
	}
	return got, nil
}

// remove deletes every object of one resource and says what is left of it.
func (s *shell) remove(ctx context.Context, namespace string, r schema.GroupVersionResource) Content {
	req := client.Request{Verb: "list", Resource: r, Namespace: namespace}
	left, err := s.list(ctx, req)
	if err == nil && len(left) > 0 {
		del := req
		background := metav1.DeletePropagationBackground
		del.Verb, del.Delete.PropagationPolicy = "deletecollection", &background
		if row := api.ByResource(r); row != nil && !row.Has("deletecollection") {
			err = s.oneByOne(ctx, del, left)
		} else {
			_, err = s.env.T().Do(ctx, &del)
		}
		if err == nil {
			left, err = s.list(ctx, req)
		}
	}
	var out Content
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err): // a custom resource that just went
	case err != nil:
		out.Errors = []string{fmt.Sprintf("%s: %v", r.GroupResource(), err)}
	case len(left) > 0:
		out.Left = map[schema.GroupVersionResource]int{r: len(left)}
		out.Finalizers = map[string]int{}
		for _, o := range left {
			for _, f := range o.GetFinalizers() {
				out.Finalizers[f]++
			}
		}
	}
	return out
}

func (s *shell) oneByOne(ctx context.Context, req client.Request, left []metav1.Object) error {
	req.Verb = "delete"
	for _, o := range left {
		req.Name = o.GetName()
		if _, err := s.env.T().Do(ctx, &req); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func (s *shell) list(ctx context.Context, req client.Request) (out []metav1.Object, err error) {
	obj, err := s.env.T().Do(ctx, &req)
	if err != nil {
		return nil, err
	}
	add := func(o runtime.Object) error {
		m, err := meta.Accessor(o)
		if err == nil {
			out = append(out, m)
		}
		return err
	}
	if l, ok := obj.(*client.List); ok {
		for _, o := range l.Items {
			if err := add(o); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return out, meta.EachListItem(obj, add)
}
