package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"

	"karve/client"
)

// ErrUnauthenticated is wrapped by refusals of callers that are not known.
var ErrUnauthenticated = errors.New("unauthenticated")

// Access asks the API who a caller is and what it may do. A caller's certificate, checked by the TLS handshake, says who
// it is without asking. Answers are kept for a short while. It is safe for concurrent use.
type Access struct {
	t    client.Transport
	node string
	now  func() time.Time

	mu      sync.Mutex
	users   map[string]answer
	allowed map[string]answer
}

type answer struct {
	user  *authnv1.UserInfo
	err   error
	until time.Time
}

// How long an answer is believed, and how many are kept.
const (
	keepUser, keepYes, keepNo = 2 * time.Minute, 5 * time.Minute, 30 * time.Second
	maxAnswers                = 1024
)

// NewAccess returns the access rules of a node.
func NewAccess(t client.Transport, node string, now func() time.Time) *Access {
	return &Access{t: t, node: node, now: now, users: map[string]answer{}, allowed: map[string]answer{}}
}

// Authorize returns nil when the caller may do verb to nodes/subresource of this node.
func (a *Access) Authorize(r *http.Request, verb, subresource string) error {
	user, err := a.user(r)
	if err != nil {
		return err
	}
	key := strings.Join(append([]string{user.Username, user.UID, verb, subresource}, user.Groups...), "\x00")
	now := a.now()
	a.mu.Lock()
	got, ok := a.allowed[key]
	a.mu.Unlock()
	if ok && now.Before(got.until) {
		return got.err
	}
	extra := map[string]authzv1.ExtraValue{}
	for k, v := range user.Extra {
		extra[k] = authzv1.ExtraValue(v)
	}
	review := &authzv1.SubjectAccessReview{Spec: authzv1.SubjectAccessReviewSpec{User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
		ResourceAttributes: &authzv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: subresource, Name: a.node}}}
	done, err := client.Of[*authzv1.SubjectAccessReview](a.t).Create(r.Context(), review)
	if err != nil {
		return fmt.Errorf("review access: %w", err)
	}
	got = answer{until: now.Add(keepYes)}
	if !done.Status.Allowed {
		got = answer{until: now.Add(keepNo), err: fmt.Errorf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=[%s])", user.Username, verb, subresource)}
	}
	a.keep(a.allowed, key, got)
	return got.err
}

func (a *Access) keep(m map[string]answer, key string, v answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(m) >= maxAnswers {
		clear(m)
	}
	m[key] = v
}

func (a *Access) user(r *http.Request) (*authnv1.UserInfo, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		subject := r.TLS.VerifiedChains[0][0].Subject
		return &authnv1.UserInfo{Username: subject.CommonName, Groups: append([]string{"system:authenticated"}, subject.Organization...)}, nil
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return nil, ErrUnauthenticated
	}
	now := a.now()
	a.mu.Lock()
	got, ok := a.users[token]
	a.mu.Unlock()
	if ok && now.Before(got.until) {
		return got.user, got.err
	}
	return a.review(r.Context(), token, now)
}

func (a *Access) review(ctx context.Context, token string, now time.Time) (*authnv1.UserInfo, error) {
	done, err := client.Of[*authnv1.TokenReview](a.t).Create(ctx, &authnv1.TokenReview{Spec: authnv1.TokenReviewSpec{Token: token}})
	if err != nil {
		return nil, fmt.Errorf("review token: %w", err)
	}
	got := answer{until: now.Add(keepUser), user: &done.Status.User}
	if !done.Status.Authenticated {
		got = answer{until: now.Add(10 * time.Second), err: ErrUnauthenticated}
	}
	a.keep(a.users, token, got)
	return got.user, got.err
}
