package authz

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
)

const aggregateTo = "rbac.authorization.k8s.io/aggregate-to-"

// BootstrapPolicy returns new objects: the roles and bindings every cluster begins with. ClusterRoles come first, then
// ClusterRoleBindings, Roles and RoleBindings. The roles that aggregate others (admin, edit, view) come without rules.
func BootstrapPolicy() []client.Object {
	var out []client.Object
	for i := range clusterRoleRows {
		out = append(out, clusterRole(&clusterRoleRows[i], ""))
	}
	for i := range controllerRows {
		out = append(out, clusterRole(&controllerRows[i], "system:controller:"))
	}
	for i := range clusterBindingRows {
		b := &clusterBindingRows[i]
		out = append(out, &rbacv1.ClusterRoleBinding{ObjectMeta: bootstrapMeta(b.ns, b.name), RoleRef: b.ref("ClusterRole"), Subjects: b.subjectList()})
	}
	for i := range controllerRows {
		b := bindingRow{name: "system:controller:" + controllerRows[i].name, subjects: []string{"serviceaccount kube-system/" + controllerRows[i].name}}
		out = append(out, &rbacv1.ClusterRoleBinding{ObjectMeta: bootstrapMeta("", b.name), RoleRef: b.ref("ClusterRole"), Subjects: b.subjectList()})
	}
	for i := range roleRows {
		r := &roleRows[i]
		out = append(out, &rbacv1.Role{ObjectMeta: bootstrapMeta(r.ns, r.name), Rules: parseRules(r.rules)})
	}
	for i := range bindingRows {
		b := &bindingRows[i]
		out = append(out, &rbacv1.RoleBinding{ObjectMeta: bootstrapMeta(b.ns, b.name), RoleRef: b.ref("Role"), Subjects: b.subjectList()})
	}
	return out
}

func bootstrapMeta(ns, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: name,
		Labels:      map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"},
		Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"}}
}

func clusterRole(r *roleRow, prefix string) *rbacv1.ClusterRole {
	o := &rbacv1.ClusterRole{ObjectMeta: bootstrapMeta("", prefix+r.name), Rules: parseRules(r.rules)}
	if r.into != "" {
		o.Labels[aggregateTo+r.into] = "true"
	}
	if r.from != "" {
		o.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{aggregateTo + r.from: "true"}}}}
	}
	return o
}

func (b *bindingRow) ref(kind string) rbacv1.RoleRef {
	name := b.role
	if name == "" {
		name = b.name
	}
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func (b *bindingRow) subjectList() []rbacv1.Subject {
	var out []rbacv1.Subject
	for _, s := range b.subjects {
		kind, name, _ := strings.Cut(s, " ")
		switch kind {
		case "user":
			out = append(out, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name})
		case "group":
			out = append(out, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name})
		case "serviceaccount":
			ns, name, _ := strings.Cut(name, "/")
			out = append(out, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: name})
		default:
			panic("authz: bad subject in the default policy: " + s)
		}
	}
	return out
}

// verbSets are the short names for verbs that the policy table uses.
var verbSets = map[string][]string{"read": {"get", "list", "watch"}, "write": {"create", "delete", "deletecollection", "patch", "update"}}

func parseRules(rows []string) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for _, row := range rows {
		f := strings.Fields(row)
		if len(f) < 3 || len(f) > 4 {
			panic("authz: bad rule in the default policy: " + row)
		}
		var r rbacv1.PolicyRule
		for _, v := range strings.Split(f[0], ",") {
			if set := verbSets[v]; set != nil {
				r.Verbs = append(r.Verbs, set...)
			} else {
				r.Verbs = append(r.Verbs, v)
			}
		}
		slices.Sort(r.Verbs)
		if f[1] == "url" {
			r.NonResourceURLs = strings.Split(f[2], ",")
			out = append(out, r)
			continue
		}
		for _, g := range strings.Split(f[1], ",") {
			if g == "core" {
				g = ""
			}
			r.APIGroups = append(r.APIGroups, g)
		}
		r.Resources = strings.Split(f[2], ",")
		if len(f) == 4 {
			r.ResourceNames = strings.Split(f[3], ",")
		}
		out = append(out, r)
	}
	return out
}
