// Package authz decides whether a user may do what a request asks. The API server asks it once per request, after
// authentication and before anything is read or changed; its review endpoints ask it on behalf of others. It reads roles,
// bindings and what nodes need from watched caches and never from the store, so that a decision takes no I/O. It answers;
// turning an answer into a response is the caller's work.
package authz

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/apiserver/authn"
)

// Attributes is one question: may User do Verb to this? For a request that is not for a resource only Verb (the HTTP
// method in lower case) and Path count.
type Attributes struct {
	User                                                         *authn.User
	Verb, Namespace, Group, Version, Resource, Subresource, Name string
	ResourceRequest                                              bool
	Path                                                         string
	// FieldSelector is the request's fieldSelector parameter, for list, watch and deletecollection: nodes may only read
	// collections narrowed down to themselves.
	FieldSelector string
}

// Decision is an authorizer's answer.
type Decision int

const (
	NoOpinion Decision = iota
	Allow
	Deny
)

// Authorizer answers questions. reason is for people; it may be empty. An error does not exclude a decision. Authorizers
// are safe for concurrent use.
type Authorizer interface {
	Authorize(ctx context.Context, a *Attributes) (d Decision, reason string, err error)
}

// Union asks its members in order until one allows or denies. Without one, the reasons and errors of all are returned.
type Union []Authorizer

// Authorize implements Authorizer.
func (u Union) Authorize(ctx context.Context, a *Attributes) (Decision, string, error) {
	var reasons []string
	var first error
	for _, z := range u {
		d, reason, err := z.Authorize(ctx, a)
		if d != NoOpinion {
			return d, reason, err
		}
		if reason != "" {
			reasons = append(reasons, reason)
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return NoOpinion, strings.Join(reasons, "\n"), first
}

// Masters allows members of system:masters everything, without looking at any role.
type Masters struct{}

// Authorize implements Authorizer.
func (Masters) Authorize(_ context.Context, a *Attributes) (Decision, string, error) {
	if a.User != nil && a.User.InGroup(authn.GroupMasters) {
		return Allow, "", nil
	}
	return NoOpinion, "", nil
}

// Message says what was refused, in the words clients know.
func (a *Attributes) Message() string {
	name := ""
	if a.User != nil {
		name = a.User.Name
	}
	if !a.ResourceRequest {
		return fmt.Sprintf("User %q cannot %s path %q", name, a.Verb, a.Path)
	}
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	if a.Namespace != "" {
		return fmt.Sprintf("User %q cannot %s resource %q in API group %q in the namespace %q", name, a.Verb, resource, a.Group, a.Namespace)
	}
	return fmt.Sprintf("User %q cannot %s resource %q in API group %q at the cluster scope", name, a.Verb, resource, a.Group)
}

// Forbidden is the status error (403) that answers a request without permission.
func Forbidden(a *Attributes, reason string) *apierrors.StatusError {
	msg := a.Message()
	if reason != "" {
		msg += ": " + reason
	}
	gr := schema.GroupResource{}
	name := ""
	if a.ResourceRequest {
		gr, name = schema.GroupResource{Group: a.Group, Resource: a.Resource}, a.Name
	}
	return apierrors.NewForbidden(gr, name, fmt.Errorf("%s", msg))
}
