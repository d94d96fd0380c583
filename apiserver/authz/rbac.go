package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/apiserver/authn"
	"karve/client"
)

// RBAC allows what roles grant to the subjects that bindings name. What it reads is arranged by subject, one namespace at
// a time, at the first decision after a binding there changed; deciding otherwise takes no lock, and allocates nothing
// but its reason.
type RBAC struct {
	t     client.Transport
	roles sync.Map // "namespace/name", or "/name" for a ClusterRole → []rbacv1.PolicyRule
	space sync.Map // namespace, "" for ClusterRoleBindings → *atomic.Pointer[grants]

	mu       sync.Mutex // for changes only
	bindings map[string]map[string][]*grant
}

// grants is one namespace's bindings by subject. It is never changed, only replaced.
type grants map[subject][]*grant

type subject struct {
	group bool
	name  string
}

// grant is one subject of one binding.
type grant struct {
	key      subject
	ref      rbacv1.RoleRef
	roleKey  string
	binding  string // "RoleBinding "x/ns""
	describe string // "User "x""
	order    string
}

// NewRBAC returns an authorizer over the shared caches. Call it before they run.
func NewRBAC(c *client.Caches) *RBAC {
	r := &RBAC{t: c.Transport(), bindings: map[string]map[string][]*grant{}}
	follow(c, func(o *rbacv1.ClusterRole, gone bool) { r.setRole("/"+o.Name, o.Rules, gone) })
	follow(c, func(o *rbacv1.Role, gone bool) { r.setRole(o.Namespace+"/"+o.Name, o.Rules, gone) })
	follow(c, func(o *rbacv1.ClusterRoleBinding, gone bool) {
		r.setBinding("", o.Name, fmt.Sprintf("ClusterRoleBinding %q", o.Name), o.RoleRef, o.Subjects, gone)
	})
	follow(c, func(o *rbacv1.RoleBinding, gone bool) {
		r.setBinding(o.Namespace, o.Name, fmt.Sprintf("RoleBinding %q", o.Name+"/"+o.Namespace), o.RoleRef, o.Subjects, gone)
	})
	return r
}

func follow[T interface {
	client.Object
	comparable
}](c *client.Caches, fn func(o T, gone bool)) {
	var none T
	client.CacheOf[T](c).Handle(func(old, now T) {
		if now == none {
			fn(old, true)
			return
		}
		fn(now, false)
	})
}

func (r *RBAC) setRole(key string, rules []rbacv1.PolicyRule, gone bool) {
	if gone {
		r.roles.Delete(key)
		return
	}
	r.roles.Store(key, rules)
}

func (r *RBAC) setBinding(ns, name, describe string, ref rbacv1.RoleRef, subjects []rbacv1.Subject, gone bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.bindings[ns]
	if gone {
		delete(all, name)
	} else {
		if all == nil {
			all = map[string][]*grant{}
			r.bindings[ns] = all
		}
		all[name] = makeGrants(ns, name, describe, ref, subjects)
	}
	p, _ := r.space.LoadOrStore(ns, new(atomic.Pointer[grants]))
	p.(*atomic.Pointer[grants]).Store(nil) // arranged anew when next read
	if len(all) == 0 {
		delete(r.bindings, ns)
		r.space.Delete(ns)
	}
}

// arrange puts the bindings of a namespace in order by subject.
func (r *RBAC) arrange(ns string, p *atomic.Pointer[grants]) grants {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := p.Load(); g != nil {
		return *g
	}
	next := grants{}
	for _, gs := range r.bindings[ns] {
		for _, g := range gs {
			next[g.key] = append(next[g.key], g)
		}
	}
	for _, gs := range next {
		slices.SortStableFunc(gs, func(a, b *grant) int { return strings.Compare(a.order, b.order) })
	}
	p.Store(&next)
	return next
}

func makeGrants(ns, name, describe string, ref rbacv1.RoleRef, subjects []rbacv1.Subject) []*grant {
	roleKey := "/" + ref.Name
	if ref.Kind == "Role" {
		roleKey = ns + "/" + ref.Name
	}
	var out []*grant
	for _, s := range subjects {
		g := &grant{ref: ref, roleKey: roleKey, binding: describe, describe: fmt.Sprintf("%s %q", s.Kind, s.Name), order: name}
		switch s.Kind {
		case rbacv1.UserKind:
			g.key = subject{name: s.Name}
		case rbacv1.GroupKind:
			g.key = subject{group: true, name: s.Name}
		case rbacv1.ServiceAccountKind:
			sns := s.Namespace
			if sns == "" {
				sns = ns
			}
			if sns == "" {
				continue
			}
			g.key = subject{name: authn.ServiceAccountName(sns, s.Name)}
			g.describe = fmt.Sprintf("%s %q", s.Kind, s.Name+"/"+sns)
		default:
			continue
		}
		out = append(out, g)
	}
	return out
}

func (r *RBAC) grants(ns string) grants {
	p, ok := r.space.Load(ns)
	if !ok {
		return nil
	}
	at := p.(*atomic.Pointer[grants])
	if g := at.Load(); g != nil {
		return *g
	}
	return r.arrange(ns, at)
}

// visit calls fn with the rules of every role the user has in the namespace and at cluster scope, or with what is wrong
// with a binding, until fn returns false.
func (r *RBAC) visit(u *authn.User, ns string, fn func(g *grant, rules []rbacv1.PolicyRule, err error) bool) {
	if u == nil {
		return
	}
	one := func(gs []*grant) bool {
		for _, g := range gs {
			rules, ok := r.roles.Load(g.roleKey)
			if !ok {
				if !fn(g, nil, missingRole(g.ref)) {
					return false
				}
				continue
			}
			if !fn(g, rules.([]rbacv1.PolicyRule), nil) {
				return false
			}
		}
		return true
	}
	scopes := [2]string{"", ns}
	for i, scope := range scopes {
		if i == 1 && ns == "" {
			return
		}
		all := r.grants(scope)
		if len(all) == 0 {
			continue
		}
		if !one(all[subject{name: u.Name}]) {
			return
		}
		for _, g := range u.Groups {
			if !one(all[subject{group: true, name: g}]) {
				return
			}
		}
	}
}

// Authorize implements Authorizer.
func (r *RBAC) Authorize(_ context.Context, a *Attributes) (Decision, string, error) {
	var by *grant
	var wrong []error
	ns := a.Namespace
	if !a.ResourceRequest {
		ns = ""
	}
	r.visit(a.User, ns, func(g *grant, rules []rbacv1.PolicyRule, err error) bool {
		if err != nil {
			wrong = append(wrong, err)
			return true
		}
		if rulesAllow(rules, a) {
			by = g
			return false
		}
		return true
	})
	if by != nil {
		return Allow, fmt.Sprintf("RBAC: allowed by %s of %s %q to %s", by.binding, by.ref.Kind, by.ref.Name, by.describe), nil
	}
	if len(wrong) > 0 {
		return NoOpinion, "RBAC: " + list(wrong), nil
	}
	return NoOpinion, "", nil
}

// list writes one error as it is, several as "[a, b]", each once.
func list(errs []error) string {
	var msgs []string
	for _, e := range errs {
		if m := e.Error(); !slices.Contains(msgs, m) {
			msgs = append(msgs, m)
		}
	}
	if len(msgs) == 1 {
		return msgs[0]
	}
	return "[" + strings.Join(msgs, ", ") + "]"
}

// RulesFor returns every rule that applies to the user in the namespace (at cluster scope alone when it is empty). An error
// means that the rules are those of the bindings that could be followed.
func (r *RBAC) RulesFor(u *authn.User, ns string) ([]rbacv1.PolicyRule, error) {
	var out []rbacv1.PolicyRule
	var wrong []error
	r.visit(u, ns, func(_ *grant, rules []rbacv1.PolicyRule, err error) bool {
		if err != nil {
			wrong = append(wrong, err)
		}
		out = append(out, rules...)
		return true
	})
	if len(wrong) > 0 {
		return out, errors.New(list(wrong))
	}
	return out, nil
}

// RoleRules returns the rules of the role a binding in ns refers to. A role that is not in the caches is asked for: it may
// have been made an instant ago.
func (r *RBAC) RoleRules(ctx context.Context, ref rbacv1.RoleRef, ns string) ([]rbacv1.PolicyRule, error) {
	key := "/" + ref.Name
	if ref.Kind == "Role" {
		key = ns + "/" + ref.Name
	}
	if rules, ok := r.roles.Load(key); ok {
		return rules.([]rbacv1.PolicyRule), nil
	}
	var err error
	if ref.Kind == "Role" {
		var o *rbacv1.Role
		if o, err = client.Of[*rbacv1.Role](r.t).Get(ctx, ns, ref.Name); err == nil {
			return o.Rules, nil
		}
	} else {
		var o *rbacv1.ClusterRole
		if o, err = client.Of[*rbacv1.ClusterRole](r.t).Get(ctx, "", ref.Name); err == nil {
			return o.Rules, nil
		}
	}
	if apierrors.IsNotFound(err) {
		return nil, missingRole(ref)
	}
	return nil, err
}

func missingRole(ref rbacv1.RoleRef) error {
	return apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: strings.ToLower(ref.Kind)}, ref.Name)
}

// RBACOf returns the RBAC authorizer that z is or asks, or nil.
func RBACOf(z Authorizer) *RBAC {
	switch z := z.(type) {
	case *RBAC:
		return z
	case Union:
		for _, m := range z {
			if r := RBACOf(m); r != nil {
				return r
			}
		}
	}
	return nil
}
