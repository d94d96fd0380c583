package printcolumns

import (
	"fmt"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
)

func addRBAC(t table) {
	const g = rbacv1.GroupName
	const unresolved = "If the RoleRef cannot be resolved, the Authorizer must return an error."
	binding := func(kind, role string) func() columns {
		return func() columns {
			return columns{nameColumn(), text("Role", role), ageColumn(), wide(text("Users", "Users in the "+kind)), wide(text("Groups", "Groups in the "+kind)), wide(text("ServiceAccounts", "ServiceAccounts in the "+kind))}
		}
	}
	add(t, g, "v1", "RoleBinding", func(o *rbacv1.RoleBinding, now time.Time) []any {
		users, groups, accounts := subjects(o.Subjects)
		return []any{o.Name, fmt.Sprintf("%s/%s", o.RoleRef.Kind, o.RoleRef.Name), age(o.CreationTimestamp, now), users, groups, accounts}
	}, binding("roleBinding", "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. "+unresolved))
	add(t, g, "v1", "ClusterRoleBinding", func(o *rbacv1.ClusterRoleBinding, now time.Time) []any {
		users, groups, accounts := subjects(o.Subjects)
		return []any{o.Name, fmt.Sprintf("%s/%s", o.RoleRef.Kind, o.RoleRef.Name), age(o.CreationTimestamp, now), users, groups, accounts}
	}, binding("clusterRoleBinding", "RoleRef can only reference a ClusterRole in the global namespace. "+unresolved))
}

func subjects(list []rbacv1.Subject) (users, groups, accounts string) {
	var u, g, a []string
	for _, s := range list {
		switch s.Kind {
		case rbacv1.UserKind:
			u = append(u, s.Name)
		case rbacv1.GroupKind:
			g = append(g, s.Name)
		case rbacv1.ServiceAccountKind:
			a = append(a, s.Namespace+"/"+s.Name)
		}
	}
	return strings.Join(u, ", "), strings.Join(g, ", "), strings.Join(a, ", ")
}
