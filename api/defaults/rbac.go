package defaults

import (
	rbacv1 "k8s.io/api/rbac/v1"
)

func addRBAC(t table) {
	set(t, rbacv1.GroupName, "v1", "RoleBinding", func(o *rbacv1.RoleBinding) {
		zero(&o.RoleRef.APIGroup, rbacv1.GroupName)
		subjects(o.Subjects)
	})
	set(t, rbacv1.GroupName, "v1", "ClusterRoleBinding", func(o *rbacv1.ClusterRoleBinding) {
		zero(&o.RoleRef.APIGroup, rbacv1.GroupName)
		subjects(o.Subjects)
	})
}

func subjects(list []rbacv1.Subject) {
	for i := range list {
		if k := list[i].Kind; k == rbacv1.UserKind || k == rbacv1.GroupKind {
			zero(&list[i].APIGroup, rbacv1.GroupName)
		}
	}
}
