package authz

import (
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
)

func TestGranting(t *testing.T) {
	r := &RBAC{}
	read := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list"}}
	all := rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}
	for name, rules := range map[string][]rbacv1.PolicyRule{
		"/cluster-admin": {all}, "/system:node": {read}, "shop/own": {read},
		"/view": {read}, "/edit": {read, read}, "/admin": {read, read, all}, "/other": {{APIGroups: []string{"apps"}, Resources: []string{"pods"}, Verbs: []string{"list"}}},
	} {
		r.setRole(name, rules, false)
	}
	a := &Attributes{Verb: "list", Resource: "pods", ResourceRequest: true}
	for limit, want := range map[int][]string{5: {"view", "edit", "admin"}, 1: {"view"}} {
		if got := r.Granting(a, limit); !slices.Equal(got, want) {
			t.Errorf("at most %d: got %v, want %v", limit, got, want)
		}
	}
	a.Verb = "delete"
	if got := r.Granting(a, 5); !slices.Equal(got, []string{"admin"}) {
		t.Errorf("delete: got %v, want admin alone", got)
	}
}
