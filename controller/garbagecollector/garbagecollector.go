// Package garbagecollector deletes what nobody owns any more: objects whose owners are all gone (background), the dependents
// of an owner that waits for them (foreground), and it cuts the references to an owner that leaves its dependents behind
// (orphan). It watches every stored resource, built-in and custom, and keeps of each object only a graph node. It is run by
// package controller. Which policy an object is deleted with is decided by whoever deletes it and by the API server.
package garbagecollector

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"karve/api"
	"karve/client"
	"karve/controller/loop"
)

// Name is the controller's name.
const Name = "garbage-collector-controller"

// patience is how long an owner that the graph does not show may stay unknown before the server is asked: watches of
// different resources are not in step.
const patience = 500 * time.Millisecond

type shell struct {
	env   *loop.Env
	queue *loop.Queue
	graph *graph
	crds  *client.Cache[*apiextv1.CustomResourceDefinition]

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before
	stops   map[schema.GroupVersionResource]context.CancelFunc
	pending sync.WaitGroup // first lists of the built-in resources
	synced  chan struct{}
	wg      sync.WaitGroup
}

// New returns the controller.
func New(env *loop.Env) *loop.Controller {
	s := &shell{env: env, queue: loop.NewQueue(), graph: newGraph(), crds: client.CacheOf[*apiextv1.CustomResourceDefinition](env.Caches),
		stops: map[schema.GroupVersionResource]context.CancelFunc{}, synced: make(chan struct{})}
	s.crds.Handle(func(_, _ *apiextv1.CustomResourceDefinition) { s.followCustom() })
	env.Also(s, s.synced)
	return &loop.Controller{Name: Name, Queue: s.queue, Workers: 8, Sync: s.sync}
}

// builtin lists the stored resources to watch, each once. Events and leases come and go too often to be worth it, and nobody
// owns things through them.
func builtin() (out []schema.GroupVersionResource) {
	seen := map[string]bool{"": true, "events": true, "leases": true}
	for _, r := range api.Rows() {
		if !seen[r.Prefix] && r.Has("list") && r.Has("watch") {
			seen[r.Prefix] = true
			out = append(out, r.GVR())
		}
	}
	return out
}

// Run follows every resource until ctx ends.
func (s *shell) Run(ctx context.Context) {
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	for _, r := range builtin() {
		s.pending.Add(1)
		done := sync.OnceFunc(s.pending.Done)
		s.wg.Go(func() {
			defer done()
			s.follow(ctx, r, done)
		})
	}
	s.followCustom()
	s.wg.Go(func() {
		s.pending.Wait()
		close(s.synced)
	})
	<-ctx.Done()
	s.wg.Wait()
}

// followCustom starts and stops watches as custom resources come and go.
func (s *shell) followCustom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.ctx.Err() != nil {
		return
	}
	want := map[schema.GroupVersionResource]bool{}
	for _, c := range s.crds.List() {
		for _, v := range c.Spec.Versions {
			if v.Served && established(c) {
				want[schema.GroupVersionResource{Group: c.Spec.Group, Version: v.Name, Resource: c.Spec.Names.Plural}] = true
				break
			}
		}
	}
	for r, stop := range s.stops {
		if !want[r] {
			stop()
			delete(s.stops, r)
			for _, uid := range s.graph.of(r) {
				s.look(s.graph.drop(uid))
			}
		}
	}
	for r := range want {
		if s.stops[r] == nil {
			ctx, stop := context.WithCancel(s.ctx)
			s.stops[r] = stop
			s.wg.Go(func() { s.follow(ctx, r, func() {}) })
		}
	}
}

func established(c *apiextv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(c.Status.Conditions, func(x apiextv1.CustomResourceDefinitionCondition) bool {
		return x.Type == apiextv1.Established && x.Status == apiextv1.ConditionTrue
	})
}

func (s *shell) look(uids []types.UID) {
	for _, uid := range uids {
		s.queue.Add(string(uid))
	}
}

func (s *shell) sync(ctx context.Context, key string) error {
	n := s.graph.get(types.UID(key))
	if n == nil {
		return nil
	}
	switch {
	case n.orphaning:
		return s.orphan(ctx, n)
	case n.foreground:
		if err := s.foreground(ctx, n); err != nil {
			return err
		}
	}
	if len(n.owners) == 0 {
		return nil
	}
	return s.collect(ctx, n)
}

// live reads the object of n; nil when it is gone.
func (s *shell) live(ctx context.Context, n *node) (metav1.Object, error) {
	o, err := s.read(ctx, n.ref)
	if err != nil || o == nil || o.GetUID() != n.uid {
		return nil, err
	}
	return o, nil
}

func (s *shell) read(ctx context.Context, r ref) (metav1.Object, error) {
	obj, err := s.env.T().Do(ctx, &client.Request{Verb: "get", Resource: r.resource, Namespace: r.namespace, Name: r.name})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get %s %s/%s: %w", r.resource.Resource, r.namespace, r.name, err)
	}
	return meta.Accessor(obj)
}

// collect decides about an object by its owners.
func (s *shell) collect(ctx context.Context, n *node) error {
	doubt := false
	for i := range n.owners {
		p := s.graph.get(n.owners[i].UID)
		doubt = doubt || p == nil || p.foreground || !matches(p, &n.owners[i], n.namespace)
	}
	if !doubt {
		return nil
	}
	o, err := s.live(ctx, n)
	if o == nil || err != nil {
		return err
	}
	states := make([]ownerState, len(o.GetOwnerReferences()))
	for i, r := range o.GetOwnerReferences() {
		st, wait, err := s.state(ctx, n, o, &r)
		if err != nil {
			return err
		}
		if wait > 0 {
			s.queue.AddAfter(string(n.uid), wait)
			return nil
		}
		states[i] = st
	}
	a := plan(o, states, s.graph.ownedBy(n.uid))
	if a.Patch {
		if err := s.patch(ctx, n, o, map[string]any{"ownerReferences": a.Owners}); err != nil {
			return err
		}
		if a.Delete != "" { // the revision moved on: look again
			s.queue.Add(string(n.uid))
			return nil
		}
	}
	if a.Delete == "" {
		return nil
	}
	uid, rv := o.GetUID(), o.GetResourceVersion()
	err = s.delete(ctx, n.ref, metav1.DeleteOptions{PropagationPolicy: &a.Delete, Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &rv}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s %s/%s: %w", n.resource.Resource, n.namespace, n.name, err)
	}
	return nil
}

func (s *shell) delete(ctx context.Context, r ref, opts metav1.DeleteOptions) error {
	_, err := s.env.T().Do(ctx, &client.Request{Verb: "delete", Resource: r.resource, Namespace: r.namespace, Name: r.name, Delete: opts})
	return err
}

// state finds out about one owner: from the graph where that is enough, else from the server. A wait above 0 means that it is
// too early to say.
func (s *shell) state(ctx context.Context, n *node, o metav1.Object, r *metav1.OwnerReference) (ownerState, time.Duration, error) {
	if p := s.graph.get(r.UID); p != nil && matches(p, r, n.namespace) {
		if p.foreground {
			return waiting, 0, nil
		}
		return solid, 0, nil
	}
	if wait := o.GetCreationTimestamp().Add(patience).Sub(s.env.Now()); wait > 0 && wait <= patience {
		return solid, wait, nil
	}
	resource, namespaced, ok := s.resourceOf(r)
	if !ok {
		s.env.Log.Debug("owner of an unknown kind, kept", "kind", r.APIVersion+" "+r.Kind, "object", n.namespace+"/"+n.name)
		return solid, 0, nil // no telling: a kind that may be served again
	}
	if namespaced && n.namespace == "" {
		return solid, 0, nil // an invalid reference: never act on it
	}
	at := ref{resource: resource, name: r.Name}
	if namespaced {
		at.namespace = n.namespace
	}
	owner, err := s.read(ctx, at)
	if err != nil {
		return solid, 0, err
	}
	if owner == nil || owner.GetUID() != r.UID {
		s.invalidNamespace(n, o, r, namespaced)
		return absent, 0, nil
	}
	if owner.GetDeletionTimestamp() != nil && slices.Contains(owner.GetFinalizers(), metav1.FinalizerDeleteDependents) {
		return waiting, 0, nil
	}
	return solid, 0, nil
}

// invalidNamespace reports an owner that exists, but in a namespace where it cannot own n.
func (s *shell) invalidNamespace(n *node, o metav1.Object, r *metav1.OwnerReference, namespaced bool) {
	p := s.graph.get(r.UID)
	obj, ok := o.(client.Object)
	if p == nil || !namespaced || p.namespace == n.namespace || !ok {
		return
	}
	s.env.Events(Name).Event(obj, corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
		"ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q", r.APIVersion, r.Kind, n.namespace, r.Name, r.UID, n.namespace)
}

// resourceOf finds the resource of an owner's kind, whatever its version.
func (s *shell) resourceOf(r *metav1.OwnerReference) (_ schema.GroupVersionResource, namespaced, ok bool) {
	gv, err := schema.ParseGroupVersion(r.APIVersion)
	if err != nil {
		return schema.GroupVersionResource{}, false, false
	}
	for _, row := range api.Rows() {
		if row.Group == gv.Group && row.Kind == r.Kind && row.Prefix != "" {
			return row.GVR(), row.Namespaced, true
		}
	}
	for _, c := range s.crds.List() {
		if c.Spec.Group != gv.Group || c.Spec.Names.Kind != r.Kind {
			continue
		}
		for _, v := range c.Spec.Versions {
			if v.Served {
				return gv.WithResource(c.Spec.Names.Plural).GroupResource().WithVersion(v.Name), c.Spec.Scope == apiextv1.NamespaceScoped, true
			}
		}
	}
	return schema.GroupVersionResource{}, false, false
}

// foreground lets an owner go once no dependent blocks it.
func (s *shell) foreground(ctx context.Context, n *node) error {
	blocked := false
	for _, d := range s.graph.ownedBy(n.uid) {
		if r := d.owner(n.uid); r != nil && blocks(r) {
			blocked = true
			if !d.foreground {
				s.queue.Add(string(d.uid))
			}
		}
	}
	if blocked {
		return nil
	}
	return s.unfinalize(ctx, n, metav1.FinalizerDeleteDependents)
}

// orphan cuts the references to n, and then lets it go.
func (s *shell) orphan(ctx context.Context, n *node) error {
	for _, d := range s.graph.ownedBy(n.uid) {
		o, err := s.live(ctx, d)
		if err != nil {
			return err
		}
		if o == nil {
			continue
		}
		keep := without(o.GetOwnerReferences(), string(n.uid))
		if len(keep) == len(o.GetOwnerReferences()) {
			continue
		}
		if err := s.patch(ctx, d, o, map[string]any{"ownerReferences": keep}); err != nil {
			return err
		}
	}
	return s.unfinalize(ctx, n, metav1.FinalizerOrphanDependents)
}

func (s *shell) unfinalize(ctx context.Context, n *node, finalizer string) error {
	o, err := s.live(ctx, n)
	if o == nil || err != nil || !slices.Contains(o.GetFinalizers(), finalizer) {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(o.GetFinalizers()), func(f string) bool { return f == finalizer })
	return s.patch(ctx, n, o, map[string]any{"finalizers": rest})
}

// patch replaces metadata fields of o, provided that it has not changed since it was read. A merge patch works for custom
// resources too.
func (s *shell) patch(ctx context.Context, n *node, o metav1.Object, fields map[string]any) error {
	fields["uid"], fields["resourceVersion"] = o.GetUID(), o.GetResourceVersion()
	body, err := json.Marshal(map[string]any{"metadata": fields})
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	_, err = s.env.T().Do(ctx, &client.Request{Verb: "patch", Resource: n.resource, Namespace: n.namespace, Name: n.name, PatchType: types.MergePatchType, Patch: body})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("patch %s %s/%s: %w", n.resource.Resource, n.namespace, n.name, err)
	}
	return nil
}
