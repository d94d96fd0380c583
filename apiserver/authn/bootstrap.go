package authn

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var (
	bootstrapToken = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	bootstrapGroup = regexp.MustCompile(`^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`)
)

// Bootstrap recognises bootstrap tokens: those of the Secrets bootstrap-token-ID in kube-system.
type Bootstrap struct {
	Lookup Lookup
	Now    func() time.Time
}

// AuthenticateToken implements TokenAuthenticator.
func (b Bootstrap) AuthenticateToken(ctx context.Context, token string, want []string) (*User, []string, error) {
	m := bootstrapToken.FindStringSubmatch(token)
	if m == nil {
		return nil, nil, nil
	}
	id, key := m[1], m[2]
	o, err := b.Lookup.Find(ctx, KindSecret, "kube-system", "bootstrap-token-"+id, "")
	if err != nil {
		return nil, nil, errors.New("look up bootstrap token: the Secret cannot be read")
	}
	s, ok := o.(*corev1.Secret)
	if !ok || s.Type != corev1.SecretTypeBootstrapToken || s.DeletionTimestamp != nil || string(s.Data["token-id"]) != id ||
		subtle.ConstantTimeCompare(s.Data["token-secret"], []byte(key)) != 1 || string(s.Data["usage-bootstrap-authentication"]) != "true" {
		return nil, nil, nil
	}
	if exp := string(s.Data["expiration"]); exp != "" {
		until, err := time.Parse(time.RFC3339, exp)
		if err != nil || b.Now().After(until) {
			return nil, nil, nil
		}
	}
	groups := []string{"system:bootstrappers"}
	for g := range strings.SplitSeq(string(s.Data["auth-extra-groups"]), ",") {
		if g == "" {
			continue
		}
		if !bootstrapGroup.MatchString(g) {
			return nil, nil, errors.New("bootstrap token names a group outside system:bootstrappers:")
		}
		groups = append(groups, g)
	}
	return withAuthenticated(&User{Name: "system:bootstrap:" + id, Groups: groups}), want, nil
}

// Static recognises fixed tokens, which it keeps as hashes.
type Static map[[sha256.Size]byte]*User

// NewStatic returns an authenticator for the given users by token.
func NewStatic(users map[string]*User) Static {
	s := Static{}
	for token, u := range users {
		s[sha256.Sum256([]byte(token))] = withAuthenticated(u)
	}
	return s
}

// AuthenticateToken implements TokenAuthenticator.
func (s Static) AuthenticateToken(_ context.Context, token string, want []string) (*User, []string, error) {
	return s[sha256.Sum256([]byte(token))], want, nil
}
