// Package admission looks at a write after authorization and before it is stored: mutating plugins may change the object,
// validating plugins may only refuse it. The API server runs the chain for every create, update, delete and connect,
// whichever transport the request came by.
package admission

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"

	"karve/api"
	"karve/apiserver/authn"
)

// Operation is what a request does to an object.
type Operation string

const (
	Create  Operation = "CREATE"
	Update  Operation = "UPDATE"
	Delete  Operation = "DELETE"
	Connect Operation = "CONNECT"
)

// Attributes is one request under admission. Object is nil for a delete; Old is nil for a create. Object may be changed
// by mutating plugins; Old never. For a subresource with a body of another kind (binding, eviction, token) Object is it.
type Attributes struct {
	Operation       Operation
	Row             *api.Row
	Subresource     string
	Namespace, Name string
	Object, Old     runtime.Object
	User            *authn.User
	DryRun          bool
	// Warn adds a warning header to the response.
	Warn func(text string)
}

// Mutator changes an object on its way in. Errors are API status errors (apierrors.NewForbidden and the like).
type Mutator interface {
	Admit(ctx context.Context, a *Attributes) error
}

// Validator refuses an object or lets it pass.
type Validator interface {
	Validate(ctx context.Context, a *Attributes) error
}

// Plugin is a Mutator, a Validator or both, under the name Kubernetes knows it by.
type Plugin struct {
	Name     string
	Mutate   Mutator
	Validate Validator
}

// Chain is the plugins in the order they run.
type Chain []Plugin

// Admit runs the mutating plugins in order and stops at the first error.
func (c Chain) Admit(ctx context.Context, a *Attributes) error {
	for _, p := range c {
		if p.Mutate != nil {
			if err := p.Mutate.Admit(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// Validate runs the validating plugins in order and stops at the first error.
func (c Chain) Validate(ctx context.Context, a *Attributes) error {
	for _, p := range c {
		if p.Validate != nil {
			if err := p.Validate.Validate(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}
