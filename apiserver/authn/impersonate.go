package authn

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// ImpersonatedUser returns the user a request asks to act as, and whether it asks at all. Whether the sender may is for
// the caller to authorize (verb impersonate), on the user this returns minus the groups added here. The error is an API
// status error. A service account gets the groups it has when it shows a token, unless groups are named; everybody but
// system:anonymous becomes a member of system:authenticated.
func ImpersonatedUser(r *http.Request) (*User, bool, error) {
	u, ok, err := RequestedUser(r)
	if err != nil || !ok {
		return nil, ok, err
	}
	if ns, _, isSA := SplitServiceAccount(u.Name); isSA && len(u.Groups) == 0 {
		u.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:" + ns}
	}
	if u.Name == Anonymous {
		if !u.InGroup(GroupAnonymous) {
			u.Groups = append(u.Groups, GroupAnonymous)
		}
		return u, true, nil
	}
	return withAuthenticated(u), true, nil
}

// RequestedUser is ImpersonatedUser without the groups it adds: exactly what the headers name, which is what has to be
// authorized.
func RequestedUser(r *http.Request) (*User, bool, error) {
	u := &User{Name: r.Header.Get("Impersonate-User"), UID: r.Header.Get("Impersonate-Uid"),
		Groups: append([]string(nil), r.Header.Values("Impersonate-Group")...)}
	for name, values := range r.Header {
		if len(name) <= len("Impersonate-Extra-") || !strings.EqualFold(name[:len("Impersonate-Extra-")], "Impersonate-Extra-") {
			continue
		}
		key := strings.ToLower(name[len("Impersonate-Extra-"):])
		if k, err := url.PathUnescape(key); err == nil {
			key = k
		}
		if u.Extra == nil {
			u.Extra = map[string][]string{}
		}
		u.Extra[key] = append(u.Extra[key], values...)
	}
	if u.Name != "" {
		return u, true, nil
	}
	if u.UID == "" && len(u.Groups) == 0 && len(u.Extra) == 0 {
		return nil, false, nil
	}
	return nil, false, apierrors.NewBadRequest(fmt.Sprintf("requested %s without impersonating a user name", u.goString()))
}

// goString is the form in which clients have always been shown the user they asked for.
func (u *User) goString() string {
	return fmt.Sprintf("&user.DefaultInfo{Name:%q, UID:%q, Groups:%#v, Extra:%#v}", u.Name, u.UID, u.Groups, u.Extra)
}

// DropImpersonation takes the impersonation headers out of a request, once they have been followed.
func DropImpersonation(h http.Header) {
	for name := range h {
		if strings.HasPrefix(http.CanonicalHeaderKey(name), "Impersonate-") {
			delete(h, name)
		}
	}
}
