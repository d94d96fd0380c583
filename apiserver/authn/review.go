package authn

import (
	"context"

	authnv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Review fills in the status of a TokenReview. Only a review without a token is an error (an API status error): a token
// that does not hold is an answer.
func (a *Authenticator) Review(ctx context.Context, tr *authnv1.TokenReview) error {
	if tr.Spec.Token == "" {
		return apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	want := tr.Spec.Audiences
	if len(want) == 0 {
		want = a.opts.Audiences
	}
	tr.Status = authnv1.TokenReviewStatus{}
	u, auds, err := a.Token(ctx, tr.Spec.Token, want)
	if err != nil {
		tr.Status.Error = err.Error()
		return nil
	}
	tr.Status.Authenticated, tr.Status.Audiences, tr.Status.User = true, auds, u.Info()
	return nil
}

// Info returns the user in the form the API shows it.
func (u *User) Info() authnv1.UserInfo {
	i := authnv1.UserInfo{Username: u.Name, UID: u.UID, Groups: u.Groups}
	if len(u.Extra) > 0 {
		i.Extra = make(map[string]authnv1.ExtraValue, len(u.Extra))
		for k, v := range u.Extra {
			i.Extra[k] = v
		}
	}
	return i
}
