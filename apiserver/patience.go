package apiserver

import (
	"context"
	"strings"
	"time"

	"karve/apiserver/authz"
)

// patient asks the Node authorizer again when it knows of no relation between a node and an object: a kubelet in the same
// process can be told of its pod a moment before the authorizer's cache is.
type patient struct{ authz.Authorizer }

const (
	patienceStep  = 5 * time.Millisecond
	patienceTries = 30
)

// Authorize implements authz.Authorizer.
func (p patient) Authorize(ctx context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	for try := 0; ; try++ {
		d, reason, err := p.Authorizer.Authorize(ctx, a)
		if d != authz.NoOpinion || try == patienceTries || !strings.HasPrefix(reason, "no relationship found") {
			return d, reason, err
		}
		select {
		case <-time.After(patienceStep):
		case <-ctx.Done():
			return d, reason, err
		}
	}
}
