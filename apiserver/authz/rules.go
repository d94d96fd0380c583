package authz

import (
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// allows reports whether a rule covers a request.
func allows(r *rbacv1.PolicyRule, a *Attributes) bool {
	if !matches(r.Verbs, a.Verb) {
		return false
	}
	if !a.ResourceRequest {
		for _, u := range r.NonResourceURLs {
			if matchesURL(u, a.Path) {
				return true
			}
		}
		return false
	}
	return matches(r.APIGroups, a.Group) && matchesResource(r.Resources, a) && (len(r.ResourceNames) == 0 || has(r.ResourceNames, a.Name))
}

func has(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func matches(list []string, s string) bool {
	for _, v := range list {
		if v == "*" || v == s {
			return true
		}
	}
	return false
}

// matchesResource knows three forms besides "*": a resource, resource/subresource, and */subresource.
func matchesResource(list []string, a *Attributes) bool {
	for _, v := range list {
		if v == "*" {
			return true
		}
		res, sub, _ := strings.Cut(v, "/")
		if sub == a.Subresource && (res == a.Resource || res == "*" && sub != "") {
			return true
		}
	}
	return false
}

func matchesURL(pattern, path string) bool {
	if pattern == "*" || pattern == path {
		return true
	}
	prefix, ok := strings.CutSuffix(pattern, "*")
	return ok && strings.HasPrefix(path, strings.TrimRight(prefix, "*"))
}

func rulesAllow(rules []rbacv1.PolicyRule, a *Attributes) bool {
	for i := range rules {
		if allows(&rules[i], a) {
			return true
		}
	}
	return false
}
