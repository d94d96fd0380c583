package authz

import (
	"cmp"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Granting returns up to limit cluster roles with a rule that allows a, those with the fewest rules first. Roles of the
// system's own parts and cluster-admin are left out: nobody should be given them for one request. What it returns is for
// those who may list cluster roles.
func (r *RBAC) Granting(a *Attributes, limit int) []string {
	type role struct {
		name string
		size int
	}
	var found []role
	looked := 0
	r.roles.Range(func(k, v any) bool {
		looked++
		name, ok := strings.CutPrefix(k.(string), "/")
		if ok && name != "cluster-admin" && !strings.HasPrefix(name, "system:") {
			if rules := v.([]rbacv1.PolicyRule); rulesAllow(rules, a) {
				found = append(found, role{name, len(rules)})
			}
		}
		return looked < 2000
	})
	slices.SortFunc(found, func(a, b role) int { return cmp.Or(a.size-b.size, strings.Compare(a.name, b.name)) })
	var out []string
	for _, f := range found[:min(len(found), limit)] {
		out = append(out, f.name)
	}
	return out
}
