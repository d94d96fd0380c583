package apiserver

import (
	"context"
	"fmt"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"karve/api"
	"karve/apiserver/admission"
	"karve/apiserver/authz"
	"karve/apiserver/resource"
)

// post answers a create whose body is not stored: an assignment, an eviction, a token, a question about permissions.
func (s *Server) post(ctx context.Context, c *resource.Call, body runtime.Object) (runtime.Object, error) {
	switch o := body.(type) {
	case *corev1.Binding:
		if c.Name == "" {
			named := *c
			named.Name = o.Name
			c = &named
		}
		return s.door.Bind(ctx, c, o)
	case *policyv1.Eviction:
		return s.door.Evict(ctx, c, o)
	case *authnv1.TokenRequest:
		return s.issueToken(ctx, c, o)
	case *authnv1.SelfSubjectReview:
		o = &authnv1.SelfSubjectReview{Status: authnv1.SelfSubjectReviewStatus{UserInfo: c.User.Info()}}
		stamp(o)
		return o, nil
	case *authzv1.SelfSubjectRulesReview:
		o = &authzv1.SelfSubjectRulesReview{Spec: o.Spec}
		return o, s.rbac.SelfRules(c.User, o)
	}
	if o, ok := body.(resource.Object); ok {
		body = s.door.Track(c, o)
	}
	switch o := body.(type) {
	case *authnv1.TokenReview:
		return o, s.authn.Review(ctx, o)
	case *authzv1.SubjectAccessReview:
		return o, authz.Review(ctx, s.authz, o)
	case *authzv1.LocalSubjectAccessReview:
		return o, authz.LocalReview(ctx, s.authz, c.Namespace, o)
	case *authzv1.SelfSubjectAccessReview:
		return o, authz.SelfReview(ctx, s.authz, c.User, o)
	}
	return nil, apierrors.NewMethodNotSupported(c.Row.GR(), "create")
}

func stamp(o metav1.Object) { o.SetCreationTimestamp(metav1.NewTime(time.Now()).Rfc3339Copy()) }

func (s *Server) issueToken(ctx context.Context, c *resource.Call, req *authnv1.TokenRequest) (runtime.Object, error) {
	row := api.ByResource(corev1.SchemeGroupVersion.WithResource("serviceaccounts"))
	rec, err := s.door.Get(ctx, &resource.Call{Row: row, Namespace: c.Namespace, Name: c.Name}, "")
	if err != nil {
		return nil, err
	}
	sa, ok := resource.ObjectOf(rec).(*corev1.ServiceAccount)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("read service account %s/%s: not one", c.Namespace, c.Name))
	}
	chain := s.door.Admission()
	a := &admission.Attributes{Operation: admission.Create, Row: row, Subresource: "token", Namespace: c.Namespace, Name: c.Name, Object: req, User: c.User, DryRun: c.DryRun}
	if err := chain.Admit(ctx, a); err != nil {
		return nil, err
	}
	if err := chain.Validate(ctx, a); err != nil {
		return nil, err
	}
	if err := s.tokens.Request(ctx, req, sa, time.Now()); err != nil {
		return nil, err
	}
	req.Name, req.Namespace = sa.Name, sa.Namespace
	stamp(req)
	return req, nil
}
