package advice

import (
	"fmt"
	"regexp"
	"strings"
)

// Access is a request that was forbidden.
type Access struct {
	User, Verb, Namespace, Group, Resource, Subresource, Name string
	// Path is set for a request that is for no resource.
	Path string
	// Roles are cluster roles that hold such a rule; leave them out unless this user may list cluster roles.
	Roles []string
}

// wordForShell is what may stand in a command that somebody may copy.
var wordForShell = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@/-]*$`)

// Rule says which rule would allow the request, and how to ask for it and give it.
func (a *Access) Rule() string {
	if len(a.Verb) > maxWord || len(a.Resource) > 4*maxWord || len(a.Name) > 4*maxWord || len(a.Path) > 4*maxWord {
		return ""
	}
	if a.User == "system:anonymous" {
		return "the request was anonymous: send a client certificate or a bearer token"
	}
	if a.Path != "" {
		text := fmt.Sprintf("a ClusterRole with the rule {nonResourceURLs: [%q], verbs: [%q]} would allow it", a.Path, a.Verb)
		if words(strings.TrimPrefix(a.Path, "/"), a.Verb) {
			text += fmt.Sprintf("; to ask: kubectl auth can-i %s %s", a.Verb, a.Path)
			if words(a.User) {
				text += fmt.Sprintf("; to give it: kubectl create clusterrole NAME --verb=%s --non-resource-url=%s, and kubectl create clusterrolebinding NAME --clusterrole=NAME %s",
					a.Verb, a.Path, a.subject())
			}
		}
		return text
	}
	what := a.Resource
	if a.Subresource != "" {
		what += "/" + a.Subresource
	}
	kind, in, flag := "ClusterRole", "at the cluster scope", ""
	if a.Namespace != "" {
		kind, in, flag = "Role", fmt.Sprintf("in the namespace %q", a.Namespace), " -n "+a.Namespace
	}
	one := ""
	if a.Name != "" && a.Verb != "create" {
		one = fmt.Sprintf(" (resourceNames: [%q] would limit it to this one)", a.Name)
	}
	text := fmt.Sprintf("a %s with the rule {apiGroups: [%q], resources: [%q], verbs: [%q]}%s bound to the user %s would allow it", kind, a.Group, what, a.Verb, one, in)
	if len(a.Roles) > 0 {
		text += ", and these cluster roles hold one: " + listed(a.Roles)
	}
	return text + a.commands(kind, flag)
}

// commands are for asking and for giving; none if a word in them could mean something else to a shell.
func (a *Access) commands(kind, flag string) string {
	target := a.Resource
	if a.Group != "" {
		target += "." + a.Group
	}
	if !words(a.Verb, target) || a.Subresource != "" && !words(a.Subresource) || a.Namespace != "" && !words(a.Namespace) {
		return ""
	}
	sub := ""
	if a.Subresource != "" {
		sub = " --subresource=" + a.Subresource
	}
	text := fmt.Sprintf("; to ask: kubectl auth can-i %s %s%s%s", a.Verb, target, sub, flag)
	if a.Subresource != "" {
		target += "/" + a.Subresource
	}
	role, bind := "role", "rolebinding"
	if kind == "ClusterRole" {
		role, bind = "clusterrole", "clusterrolebinding"
	}
	if !words(a.User) {
		return text
	}
	return text + fmt.Sprintf("; to give it: kubectl create %s NAME --verb=%s --resource=%s%s, and kubectl create %s NAME --%s=NAME %s%s",
		role, a.Verb, target, flag, bind, role, a.subject(), flag)
}

// subject is how kubectl is told whom to bind a role to.
func (a *Access) subject() string {
	if account, ok := strings.CutPrefix(a.User, "system:serviceaccount:"); ok {
		return "--serviceaccount=" + account
	}
	return "--user=" + a.User
}

func words(all ...string) bool {
	for _, w := range all {
		if !wordForShell.MatchString(w) {
			return false
		}
	}
	return true
}
