package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// ErrUnauthorized is returned for a request that shows credentials which do not hold, or none where some are needed. The
// answer to it is 401; the errors wrapped with it are for the log alone. They never hold a credential.
var ErrUnauthorized = errors.New("unauthorized")

var errInvalidToken = errors.New("invalid bearer token")

// TokenAuthenticator recognises one sort of bearer token. It returns nil and no error for a token that is not of its
// sort. The user it returns is shared and must not be changed; the audiences are those of want that the token is for.
type TokenAuthenticator interface {
	AuthenticateToken(ctx context.Context, token string, want []string) (user *User, audiences []string, err error)
}

// Options says which credentials count.
type Options struct {
	// ClientCA holds the authorities of client certificates; nil means that certificates say nothing.
	ClientCA *x509.CertPool
	// Tokens recognises service account tokens; nil means none.
	Tokens *TokenAuthority
	// Others recognise further tokens, such as Bootstrap and Static.
	Others []TokenAuthenticator
	// Anonymous lets requests without credentials in as system:anonymous.
	Anonymous bool
	// Audiences are the names of this API server in tokens; empty means those of Tokens.
	Audiences []string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Authenticator tells who sends a request. Safe for concurrent use.
type Authenticator struct {
	opts   Options
	tokens []TokenAuthenticator

	mu    sync.RWMutex
	certs map[[sha256.Size]byte]certUser
}

// certUser is the outcome of a verified certificate, good until the chain expires.
type certUser struct {
	user  *User
	until time.Time
}

const maxCerts = 4096

var anonymous = &User{Name: Anonymous, Groups: []string{GroupAnonymous}}

// New returns an authenticator.
func New(o Options) *Authenticator {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Authenticator{opts: o, certs: map[[sha256.Size]byte]certUser{}}
	if o.Tokens != nil {
		a.tokens = append(a.tokens, o.Tokens)
		if len(o.Audiences) == 0 {
			a.opts.Audiences = o.Tokens.Audiences()
		}
	}
	a.tokens = append(a.tokens, o.Others...)
	return a
}

// Authenticate returns the user a request comes from: by client certificate, else by bearer token, else anonymous if that
// is allowed. The user is shared and must not be changed. Credentials that do not hold are an error even where anonymous
// requests are allowed. On success the credentials are taken out of the request's header, so that nothing behind can log
// them or pass them on.
func (a *Authenticator) Authenticate(r *http.Request) (*User, error) {
	var failed []error
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && a.opts.ClientCA != nil {
		u, err := a.certificate(r.TLS.PeerCertificates)
		if err == nil {
			r.Header.Del("Authorization")
			return u, nil
		}
		failed = append(failed, err)
	}
	if token, drop := bearer(r); token != "" {
		u, _, err := a.Token(r.Context(), token, a.opts.Audiences)
		if err == nil {
			drop()
			return u, nil
		}
		failed = append(failed, err)
	}
	if len(failed) == 0 && a.opts.Anonymous {
		r.Header.Del("Authorization")
		return anonymous, nil
	}
	return nil, errors.Join(append([]error{ErrUnauthorized}, failed...)...)
}

// Token returns the user of a bearer token meant for one of the wanted audiences, and which of them.
func (a *Authenticator) Token(ctx context.Context, token string, want []string) (*User, []string, error) {
	var failed error
	for _, t := range a.tokens {
		u, auds, err := t.AuthenticateToken(ctx, token, want)
		if err == nil && u != nil {
			return u, auds, nil
		}
		if err != nil && failed == nil {
			failed = err
		}
	}
	if failed != nil {
		return nil, nil, &tokenError{failed}
	}
	return nil, nil, errInvalidToken
}

// tokenError says why a token of ours is not good, in the form API clients see in a TokenReview.
type tokenError struct{ cause error }

func (e *tokenError) Error() string {
	return "[" + errInvalidToken.Error() + ", " + e.cause.Error() + "]"
}
func (e *tokenError) Unwrap() error { return e.cause }

func (a *Authenticator) certificate(chain []*x509.Certificate) (*User, error) {
	now := a.opts.Now()
	// The key covers the whole chain: which intermediates were shown decides whether it verifies.
	h := sha256.New()
	for _, c := range chain {
		h.Write(c.Raw)
	}
	var key [sha256.Size]byte
	h.Sum(key[:0])
	a.mu.RLock()
	got, ok := a.certs[key]
	a.mu.RUnlock()
	if ok && now.Before(got.until) {
		return got.user, nil
	}
	opts := x509.VerifyOptions{Roots: a.opts.ClientCA, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if len(chain) > 1 {
		opts.Intermediates = x509.NewCertPool()
		for _, c := range chain[1:] {
			opts.Intermediates.AddCert(c)
		}
	}
	leaf := chain[0]
	chains, err := leaf.Verify(opts)
	if err != nil {
		return nil, err
	}
	if leaf.Subject.CommonName == "" {
		return nil, errors.New("verify client certificate: its subject has no common name")
	}
	until := leaf.NotAfter
	for _, c := range chains[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	id := sha256.Sum256(leaf.Raw)
	u := withAuthenticated(&User{Name: leaf.Subject.CommonName, Groups: leaf.Subject.Organization,
		Extra: map[string][]string{extraCredential: {"X509SHA256=" + hex.EncodeToString(id[:])}}})
	a.mu.Lock()
	defer a.mu.Unlock()
	putBounded(a.certs, key, certUser{u, until}, maxCerts)
	return u, nil
}

// putBounded keeps at most limit entries, forgetting an arbitrary one beyond: a forgotten one is merely worked out anew.
func putBounded[K comparable, V any](m map[K]V, k K, v V, limit int) {
	if _, ok := m[k]; !ok && len(m) >= limit {
		for old := range m {
			delete(m, old)
			break
		}
	}
	m[k] = v
}

// withAuthenticated returns u as a member of system:authenticated, unless it is anonymous.
func withAuthenticated(u *User) *User {
	if u.Name == Anonymous || u.InGroup(GroupAuthenticated) || u.InGroup(GroupAnonymous) {
		return u
	}
	c := *u
	c.Groups = append(append(make([]string, 0, len(u.Groups)+1), u.Groups...), GroupAuthenticated)
	return &c
}

const wsTokenPrefix = "base64url.bearer.authorization.k8s.io."

// bearer returns the request's bearer token, empty for none, and what takes it out of the header. Browsers, which cannot
// set headers on a WebSocket, send it as a subprotocol.
func bearer(r *http.Request) (token string, drop func()) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	if strings.EqualFold(scheme, "bearer") {
		token, _, _ := strings.Cut(rest, " ")
		return token, func() { r.Header.Del("Authorization") }
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return "", nil
	}
	var kept []string
	for _, line := range r.Header.Values("Sec-Websocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			p = strings.TrimSpace(p)
			enc, ok := strings.CutPrefix(p, wsTokenPrefix)
			if !ok {
				kept = append(kept, p)
				continue
			}
			raw, err := base64.RawURLEncoding.DecodeString(enc)
			if err == nil && utf8.Valid(raw) && token == "" {
				token = string(raw)
			}
		}
	}
	// The server must choose a subprotocol the client offered, so there has to be another one.
	if token == "" || len(kept) == 0 {
		return "", nil
	}
	return token, func() { r.Header.Set("Sec-Websocket-Protocol", strings.Join(kept, ",")) }
}
