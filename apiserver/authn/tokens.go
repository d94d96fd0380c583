package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// DefaultIssuer is who service account tokens are issued by unless told otherwise.
const DefaultIssuer = "https://kubernetes.default.svc.cluster.local"

// Extra keys of users known by a certificate or a token.
const (
	extraCredential = "authentication.kubernetes.io/credential-id"
	extraPodName    = "authentication.kubernetes.io/pod-name"
	extraPodUID     = "authentication.kubernetes.io/pod-uid"
	extraNodeName   = "authentication.kubernetes.io/node-name"
	extraNodeUID    = "authentication.kubernetes.io/node-uid"
)

// leeway is how much clocks may differ, and how long an object being deleted still vouches for its tokens.
const leeway = time.Minute

// Kind is a kind of object a token can be bound to.
type Kind string

const (
	KindServiceAccount Kind = "ServiceAccount"
	KindPod            Kind = "Pod"
	KindSecret         Kind = "Secret"
	KindNode           Kind = "Node"
)

// Lookup finds the objects that tokens are bound to. It is on the way of every request made with a token: it should
// answer from memory, and ask further only when what it has there is missing or has another uid. uid may be empty.
// It returns nil without an error when there is no such object.
type Lookup interface {
	Find(ctx context.Context, kind Kind, namespace, name string, uid types.UID) (metav1.Object, error)
}

// TokenOptions configures a TokenAuthority.
type TokenOptions struct {
	// Key signs tokens: ECDSA P-256 or RSA.
	Key crypto.Signer
	// Old are public keys whose tokens are still good.
	Old []crypto.PublicKey
	// Issuer defaults to DefaultIssuer, Audiences to the issuer.
	Issuer    string
	Audiences []string
	Lookup    Lookup
	// MaxLifetime shortens longer requests; zero means no limit.
	MaxLifetime time.Duration
	// Extend gives the tokens that kubelets mount a year instead of an hour for clients that never read the file again,
	// and marks when they should have.
	Extend bool
	// Now is the clock for validation; nil means time.Now.
	Now func() time.Time
}

// TokenAuthority issues and validates service account tokens. Safe for concurrent use.
type TokenAuthority struct {
	opts   TokenOptions
	signer jose.Signer
	keys   map[string]verifyKey
	jwks   []byte

	mu    sync.RWMutex
	known map[[sha256.Size]byte]*knownToken
}

type verifyKey struct {
	public crypto.PublicKey
	alg    jose.SignatureAlgorithm
}

// knownToken is a token whose signature and form have been found good. Its times and its objects are looked at anew on
// every use; only the work that cannot come out differently is kept.
type knownToken struct {
	public jwt.Claims
	k8s    boundClaims
	user   *User
}

const maxKnownTokens = 2048

type claimRef struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

type boundClaims struct {
	Namespace      string           `json:"namespace,omitempty"`
	Node           *claimRef        `json:"node,omitempty"`
	Pod            *claimRef        `json:"pod,omitempty"`
	Secret         *claimRef        `json:"secret,omitempty"`
	ServiceAccount claimRef         `json:"serviceaccount"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

type privateClaims struct {
	Kubernetes boundClaims `json:"kubernetes.io"`
}

// NewTokenAuthority returns an authority for the given key.
func NewTokenAuthority(o TokenOptions) (*TokenAuthority, error) {
	if o.Issuer == "" {
		o.Issuer = DefaultIssuer
	}
	if len(o.Audiences) == 0 {
		o.Audiences = []string{o.Issuer}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Key == nil || o.Lookup == nil {
		return nil, errors.New("make token authority: key and lookup are required")
	}
	t := &TokenAuthority{opts: o, keys: map[string]verifyKey{}, known: map[[sha256.Size]byte]*knownToken{}}
	var set jose.JSONWebKeySet
	for i, pub := range append([]crypto.PublicKey{o.Key.Public()}, o.Old...) {
		id, alg, err := keyID(pub)
		if err != nil {
			return nil, fmt.Errorf("make token authority: %w", err)
		}
		t.keys[id] = verifyKey{pub, alg}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: pub, KeyID: id, Algorithm: string(alg), Use: "sig"})
		if i > 0 {
			continue
		}
		t.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: &jose.JSONWebKey{Key: o.Key, KeyID: id}}, nil)
		if err != nil {
			return nil, fmt.Errorf("make token authority: %w", err)
		}
	}
	var err error
	if t.jwks, err = json.Marshal(set); err != nil {
		return nil, fmt.Errorf("make key set: %w", err)
	}
	return t, nil
}

// keyID names a key by the hash of its public half, so that every server names it alike.
func keyID(pub crypto.PublicKey) (string, jose.SignatureAlgorithm, error) {
	var alg jose.SignatureAlgorithm
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize != 256 {
			return "", "", errors.New("an ECDSA key must be on the curve P-256")
		}
		alg = jose.ES256
	case *rsa.PublicKey:
		alg = jose.RS256
	default:
		return "", "", fmt.Errorf("unsupported key %T", pub)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", "", fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), alg, nil
}

// Issuer returns the issuer of the tokens.
func (t *TokenAuthority) Issuer() string { return t.opts.Issuer }

// Audiences returns the audiences that mean this API server.
func (t *TokenAuthority) Audiences() []string { return t.opts.Audiences }

// JWKS returns the key set document served at /openid/v1/jwks (application/jwk-set+json).
func (t *TokenAuthority) JWKS() []byte { return t.jwks }

// Configuration returns the document served at /.well-known/openid-configuration; jwksURI is the absolute address of JWKS.
func (t *TokenAuthority) Configuration(jwksURI string) []byte {
	var algs []string
	for _, k := range t.keys {
		if !slices.Contains(algs, string(k.alg)) {
			algs = append(algs, string(k.alg))
		}
	}
	slices.Sort(algs)
	out, err := json.Marshal(struct {
		Issuer   string   `json:"issuer"`
		JWKS     string   `json:"jwks_uri"`
		Response []string `json:"response_types_supported"`
		Subject  []string `json:"subject_types_supported"`
		Algs     []string `json:"id_token_signing_alg_values_supported"`
	}{t.opts.Issuer, jwksURI, []string{"id_token"}, []string{"public"}, algs})
	if err != nil {
		panic("authn: encode strings: " + err.Error())
	}
	return out
}

// AuthenticateToken implements TokenAuthenticator for service account tokens.
func (t *TokenAuthority) AuthenticateToken(ctx context.Context, token string, want []string) (*User, []string, error) {
	key := sha256.Sum256([]byte(token))
	t.mu.RLock()
	k := t.known[key]
	t.mu.RUnlock()
	if k == nil {
		var err error
		if k, err = t.parse(token); k == nil || err != nil {
			return nil, nil, err
		}
		t.mu.Lock()
		putBounded(t.known, key, k, maxKnownTokens)
		t.mu.Unlock()
	}
	if len(want) == 0 {
		want = t.opts.Audiences
	}
	var auds []string
	for _, a := range want {
		if k.public.Audience.Contains(a) {
			auds = append(auds, a)
		}
	}
	if len(auds) == 0 {
		return nil, nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", []string(k.public.Audience), want)
	}
	now := t.opts.Now()
	switch err := k.public.ValidateWithLeeway(jwt.Expected{Time: now}, leeway); {
	case errors.Is(err, jwt.ErrExpired):
		return nil, nil, errors.New("service account token has expired")
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return nil, nil, errors.New("service account token is not valid yet")
	case err != nil:
		return nil, nil, errors.New("service account token claims could not be validated")
	}
	if err := t.alive(ctx, &k.k8s, now); err != nil {
		return nil, nil, err
	}
	return k.user, auds, nil
}

// parse checks form, issuer and signature. A token of another issuer is nil without an error.
func (t *TokenAuthority) parse(token string) (*knownToken, error) {
	if strings.Count(token, ".") != 2 {
		return nil, nil
	}
	tok, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return nil, nil
	}
	var unverified jwt.Claims
	if err := tok.UnsafeClaimsWithoutVerification(&unverified); err != nil || unverified.Issuer != t.opts.Issuer {
		return nil, nil
	}
	vk, ok := t.keys[tok.Headers[0].KeyID]
	if !ok || string(vk.alg) != tok.Headers[0].Algorithm {
		return nil, errors.New("service account token is signed by an unknown key")
	}
	k := &knownToken{}
	var private privateClaims
	if err := tok.Claims(vk.public, &k.public, &private); err != nil {
		return nil, errors.New("service account token signature does not hold")
	}
	k.k8s = private.Kubernetes
	c := &k.k8s
	name := ServiceAccountName(c.Namespace, c.ServiceAccount.Name)
	if c.Namespace == "" || c.ServiceAccount.Name == "" || c.ServiceAccount.UID == "" || k.public.Subject != name || k.public.Expiry == nil {
		return nil, errors.New("service account token claims could not be validated")
	}
	extra := map[string][]string{}
	set := func(key, value string) {
		if value != "" {
			extra[key] = []string{value}
		}
	}
	if k.public.ID != "" {
		set(extraCredential, "JTI="+k.public.ID)
	}
	if c.Pod != nil {
		set(extraPodName, c.Pod.Name)
		set(extraPodUID, c.Pod.UID)
	}
	if c.Node != nil {
		set(extraNodeName, c.Node.Name)
		set(extraNodeUID, c.Node.UID)
	}
	k.user = withAuthenticated(&User{Name: name, UID: c.ServiceAccount.UID, Extra: extra,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + c.Namespace}})
	return k, nil
}

var errInvalidated = errors.New("service account token has been invalidated")

// alive checks that what a token is bound to still exists. A node is only part of the bargain when the token is bound to
// it directly; for a pod's token it says where the pod ran.
func (t *TokenAuthority) alive(ctx context.Context, c *boundClaims, now time.Time) error {
	type check struct {
		kind Kind
		ns   string
		ref  *claimRef
	}
	checks := [4]check{{KindServiceAccount, c.Namespace, &c.ServiceAccount}, {KindSecret, c.Namespace, c.Secret}, {KindPod, c.Namespace, c.Pod}}
	if c.Pod == nil {
		checks[3] = check{KindNode, "", c.Node}
	}
	for _, ch := range checks {
		if ch.ref == nil {
			continue
		}
		o, err := t.opts.Lookup.Find(ctx, ch.kind, ch.ns, ch.ref.Name, types.UID(ch.ref.UID))
		if err != nil {
			return fmt.Errorf("look up %s %s of a token: %w", ch.kind, ch.ref.Name, err)
		}
		if o == nil {
			return errInvalidated
		}
		if string(o.GetUID()) != ch.ref.UID {
			if ch.kind == KindServiceAccount {
				return fmt.Errorf("service account UID (%s) does not match claim (%s)", o.GetUID(), ch.ref.UID)
			}
			return errInvalidated
		}
		if d := o.GetDeletionTimestamp(); d != nil && d.Time.Before(now.Add(-leeway)) {
			return errInvalidated
		}
	}
	return nil
}

// ServiceAccountName returns the user name of a service account.
func ServiceAccountName(namespace, name string) string {
	return "system:serviceaccount:" + namespace + ":" + name
}

// SplitServiceAccount takes a user name of the form ServiceAccountName makes apart.
func SplitServiceAccount(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, "system:serviceaccount:")
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}
