package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/component-helpers/auth/rbac/validation"

	"karve/apiserver/authn"
)

// everything is what somebody must hold who writes a rule for collecting rules.
var everything = []rbacv1.PolicyRule{
	{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}},
	{NonResourceURLs: []string{"*"}, Verbs: []string{"*"}},
}

// CheckEscalation refuses to let a user write a role that holds more than they do, or bind one, unless they may escalate
// that role or bind it. obj is the role or binding about to be written, old what it was (nil on create); other kinds pass.
// z answers whether they may escalate or bind; r says what they hold. The error is an API status error.
func CheckEscalation(ctx context.Context, z Authorizer, r *RBAC, u *authn.User, obj, old runtime.Object) error {
	if u == nil {
		u = &authn.User{}
	}
	if u.InGroup(authn.GroupMasters) {
		return nil
	}
	switch o := obj.(type) {
	case *rbacv1.Role:
		if was, ok := old.(*rbacv1.Role); ok && equality.Semantic.DeepEqual(was.Rules, o.Rules) {
			return nil
		}
		return r.confirm(ctx, z, u, "roles", "escalate", "roles", o.Namespace, o.Name, o.Name, o.Rules)
	case *rbacv1.ClusterRole:
		if was, ok := old.(*rbacv1.ClusterRole); ok && equality.Semantic.DeepEqual(was.Rules, o.Rules) && equality.Semantic.DeepEqual(was.AggregationRule, o.AggregationRule) {
			return nil
		}
		rules := o.Rules
		if o.AggregationRule != nil && len(o.AggregationRule.ClusterRoleSelectors) > 0 {
			rules = append(slices.Clone(rules), everything...)
		}
		return r.confirm(ctx, z, u, "clusterroles", "escalate", "clusterroles", "", o.Name, o.Name, rules)
	case *rbacv1.RoleBinding:
		if was, ok := old.(*rbacv1.RoleBinding); ok && equality.Semantic.DeepEqual(was.RoleRef, o.RoleRef) && equality.Semantic.DeepEqual(was.Subjects, o.Subjects) {
			return nil
		}
		return r.confirmBinding(ctx, z, u, "rolebindings", o.Namespace, o.Name, o.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		if was, ok := old.(*rbacv1.ClusterRoleBinding); ok && equality.Semantic.DeepEqual(was.RoleRef, o.RoleRef) && equality.Semantic.DeepEqual(was.Subjects, o.Subjects) {
			return nil
		}
		return r.confirmBinding(ctx, z, u, "clusterrolebindings", "", o.Name, o.RoleRef)
	}
	return nil
}

func (r *RBAC) confirmBinding(ctx context.Context, z Authorizer, u *authn.User, resource, ns, name string, ref rbacv1.RoleRef) error {
	roles := "clusterroles"
	if ref.Kind == "Role" {
		roles = "roles"
	}
	if may(ctx, z, u, "bind", roles, ns, ref.Name) {
		return nil
	}
	rules, err := r.RoleRules(ctx, ref, ns)
	if err != nil {
		return err
	}
	return r.confirm(ctx, z, u, resource, "", roles, ns, name, ref.Name, rules)
}

func may(ctx context.Context, z Authorizer, u *authn.User, verb, roles, ns, name string) bool {
	d, _, _ := z.Authorize(ctx, &Attributes{User: u, Verb: verb, Group: rbacv1.GroupName, Version: "v1", Resource: roles,
		Namespace: ns, Name: name, ResourceRequest: true})
	return d == Allow
}

// confirm checks that u holds rules in ns, unless verb (when there is one) on the role lets them off.
func (r *RBAC) confirm(ctx context.Context, z Authorizer, u *authn.User, resource, verb, roles, ns, name, role string, rules []rbacv1.PolicyRule) error {
	if verb != "" && may(ctx, z, u, verb, roles, ns, role) {
		return nil
	}
	held, herr := r.RulesFor(u, ns)
	ok, missing := validation.Covers(held, rules)
	if ok {
		return nil
	}
	var lines []string
	for _, m := range compact(missing) {
		if s := describe(&m); !slices.Contains(lines, s) {
			lines = append(lines, s)
		}
	}
	slices.Sort(lines)
	msg := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s", u.Name, u.Groups, strings.Join(lines, "\n"))
	if herr != nil {
		msg += fmt.Sprintf("; resolution errors: %v", herr)
	}
	return apierrors.NewForbidden(rbacv1.Resource(resource), name, fmt.Errorf("%s", msg))
}

// compact joins the verbs of rules that are otherwise for the same one resource.
func compact(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	at := map[[3]string]int{}
	for _, p := range rules {
		if len(p.APIGroups) != 1 || len(p.Resources) != 1 || len(p.NonResourceURLs) > 0 || len(p.ResourceNames) > 1 {
			out = append(out, p)
			continue
		}
		key := [3]string{p.APIGroups[0], p.Resources[0], strings.Join(p.ResourceNames, "")}
		if i, ok := at[key]; ok {
			out[i].Verbs = append(slices.Clone(out[i].Verbs), p.Verbs...)
			continue
		}
		at[key] = len(out)
		out = append(out, p)
	}
	return out
}

func describe(p *rbacv1.PolicyRule) string {
	var parts []string
	for _, f := range []struct {
		name   string
		values []string
	}{{"APIGroups", p.APIGroups}, {"Resources", p.Resources}, {"NonResourceURLs", p.NonResourceURLs}, {"ResourceNames", p.ResourceNames}, {"Verbs", p.Verbs}} {
		if len(f.values) == 0 {
			continue
		}
		quoted := make([]string, len(f.values))
		for i, v := range f.values {
			quoted[i] = fmt.Sprintf("%q", v)
		}
		parts = append(parts, f.name+":["+strings.Join(quoted, ", ")+"]")
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
