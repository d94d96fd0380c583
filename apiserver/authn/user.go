// Package authn finds out who sends a request: from a client certificate, a bearer token, or neither. It is called once
// per request by the API server, before anything else looks at it, and decides nothing about what the user may do.
package authn

// User is who a request comes from. It is never changed after authentication.
type User struct {
	Name, UID string
	Groups    []string
	Extra     map[string][]string
}

// Names and groups that Kubernetes gives a meaning.
const (
	Anonymous          = "system:anonymous"
	GroupAuthenticated = "system:authenticated"
	GroupAnonymous     = "system:unauthenticated"
	GroupMasters       = "system:masters"
	GroupNodes         = "system:nodes"
)

// InGroup reports whether the user is a member of group.
func (u *User) InGroup(group string) bool {
	for _, g := range u.Groups {
		if g == group {
			return true
		}
	}
	return false
}
