package admission

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/apiserver/authz"
	"karve/client"
)

// Deps is what the built-in plugins read from.
type Deps struct {
	// Caches are the shared caches. What is missing there is asked for through their transport, for an object may be used
	// in the instant after it was made.
	Caches *client.Caches
	// Authorizer answers what some plugins ask about the user (certificates, roles, token audiences).
	Authorizer authz.Authorizer
	// RBAC is where the rules a user holds are read for the check against escalation; nil means the one Authorizer asks.
	RBAC *authz.RBAC
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Default returns the built-in plugins in Kubernetes' order. Call it before the caches run.
func Default(d Deps) Chain {
	if d.Now == nil {
		d.Now = time.Now
	}
	c := Chain{
		namespaceLifecycle(d),
		serviceAccount(d),
		nodeRestriction(d),
		taintNodesByCondition(),
		podSecurity(d),
		priority(d),
		defaultTolerationSeconds(),
		defaultStorageClass(d),
		storageObjectInUse(),
		claimResize(d),
		runtimeClass(d),
		certificateApproval(d),
		certificateSigning(d),
		certificateSubject(),
		defaultIngressClass(d),
		podTopologyLabels(d),
		deviceTaintTime(d),
		adminAccess(d),
	}
	if d.RBAC == nil {
		d.RBAC = authz.RBACOf(d.Authorizer)
	}
	if d.RBAC != nil { // without RBAC, roles grant nothing that could be escalated
		c = append(c, escalation(d))
	}
	return c
}

// on is a plugin step as a function, run for the resources and operations it is registered for alone.
type on struct {
	resources map[schema.GroupResource]bool
	ops       map[Operation]bool
	sub       string // the subresource; "*" for any
	fn        func(ctx context.Context, a *Attributes) error
}

func when(ops []Operation, fn func(ctx context.Context, a *Attributes) error, sub string, resources ...schema.GroupResource) on {
	o := on{resources: map[schema.GroupResource]bool{}, ops: map[Operation]bool{}, sub: sub, fn: fn}
	for _, r := range resources {
		o.resources[r] = true
	}
	for _, op := range ops {
		o.ops[op] = true
	}
	return o
}

func (o on) run(ctx context.Context, a *Attributes) error {
	if !o.ops[a.Operation] || a.Row == nil || o.sub != "*" && a.Subresource != o.sub || len(o.resources) > 0 && !o.resources[a.Row.GR()] {
		return nil
	}
	return o.fn(ctx, a)
}

// Admit implements Mutator.
func (o on) Admit(ctx context.Context, a *Attributes) error { return o.run(ctx, a) }

// Validate implements Validator.
func (o on) Validate(ctx context.Context, a *Attributes) error { return o.run(ctx, a) }

func core(resource string) schema.GroupResource { return schema.GroupResource{Resource: resource} }

var (
	pods   = core("pods")
	nodes  = core("nodes")
	claims = core("persistentvolumeclaims")
)

var (
	creates = []Operation{Create}
	updates = []Operation{Update}
	writes  = []Operation{Create, Update}
)

// forbidden is the refusal of a request, named as clients know it.
func (a *Attributes) forbidden(format string, args ...any) *apierrors.StatusError {
	name := a.Name
	if name == "" {
		name = "Unknown"
		if m, err := meta.Accessor(a.Object); err == nil {
			if m.GetName() != "" {
				name = m.GetName()
			} else if m.GetGenerateName() != "" {
				name = m.GetGenerateName()
			}
		}
	}
	return apierrors.NewForbidden(a.Row.GR(), name, fmt.Errorf(format, args...))
}

// object returns the object of a request as T. Another type under a registered resource is a broken invariant.
func object[T runtime.Object](o runtime.Object, what string) (T, error) {
	t, ok := o.(T)
	if !ok {
		return t, apierrors.NewInternalError(fmt.Errorf("admit %s: got a %T", what, o))
	}
	return t, nil
}

// source finds objects of one kind: in the cache, else by asking.
type source[T client.Object] struct {
	cache *client.Cache[T]
	live  client.Resource[T]
}

func from[T client.Object](c *client.Caches) source[T] {
	return source[T]{client.CacheOf[T](c), client.Of[T](c.Transport())}
}

// get returns a not-found status error when there is no such object.
func (s source[T]) get(ctx context.Context, ns, name string) (T, error) {
	if o, ok := s.cache.Get(ns, name); ok {
		return o, nil
	}
	return s.live.Get(ctx, ns, name)
}

func isMirror(p *corev1.Pod) bool {
	_, ok := p.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}
