package authn

import (
	"context"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	authnv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	defaultTokenSeconds = 3600
	minTokenSeconds     = 600
	maxTokenSeconds     = 1 << 32
	// MountedTokenSeconds is the lifetime kubelets ask for in the tokens that admission mounts; it is odd on purpose, for
	// it is how those are told from tokens somebody asked for.
	MountedTokenSeconds  = 3607
	extendedTokenSeconds = 365 * 24 * 3600
)

// issuedClaims is what a token says; the audience is always a list, which clients rely on (jwt.Claims would write a single
// one as a string).
type issuedClaims struct {
	Audience   []string    `json:"aud"`
	Expiry     int64       `json:"exp"`
	IssuedAt   int64       `json:"iat"`
	Issuer     string      `json:"iss"`
	ID         string      `json:"jti"`
	Kubernetes boundClaims `json:"kubernetes.io"`
	NotBefore  int64       `json:"nbf"`
	Subject    string      `json:"sub"`
}

// Request answers a TokenRequest for sa: it finds the object the token is to be bound to and then does as Issue.
func (t *TokenAuthority) Request(ctx context.Context, req *authnv1.TokenRequest, sa *corev1.ServiceAccount, now time.Time) error {
	ref := req.Spec.BoundObjectRef
	if ref == nil {
		return t.issue(req, sa, nil, nil, nil, now)
	}
	kinds := map[string]Kind{"Pod": KindPod, "Node": KindNode, "Secret": KindSecret}
	kind, ok := kinds[ref.Kind]
	if !ok || ref.APIVersion != "v1" {
		return t.issue(req, sa, nil, nil, nil, now) // which refuses it
	}
	ns := sa.Namespace
	if kind == KindNode {
		ns = ""
	}
	o, err := t.opts.Lookup.Find(ctx, kind, ns, ref.Name, ref.UID)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("find %s %s to bind a token to: %w", kind, ref.Name, err))
	}
	switch o := o.(type) {
	case *corev1.Pod:
		var node *corev1.Node
		if o.Spec.NodeName != "" {
			n, err := t.opts.Lookup.Find(ctx, KindNode, "", o.Spec.NodeName, "")
			if err != nil {
				return apierrors.NewInternalError(fmt.Errorf("find the node of pod %s/%s: %w", o.Namespace, o.Name, err))
			}
			node, _ = n.(*corev1.Node)
			if node == nil { // gone already: its name is still true
				node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: o.Spec.NodeName}}
			}
		}
		return t.issue(req, sa, o, node, nil, now)
	case *corev1.Node:
		return t.issue(req, sa, nil, o, nil, now)
	case *corev1.Secret:
		return t.issue(req, sa, nil, nil, o, now)
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: map[Kind]string{KindPod: "pods", KindNode: "nodes", KindSecret: "secrets"}[kind]}, ref.Name)
}

// Issue fills in the defaults and the status of req: a token for sa, bound as spec.boundObjectRef says to pod (with the
// node it runs on, nil for none) or to node. Errors are API status errors.
func (t *TokenAuthority) Issue(req *authnv1.TokenRequest, sa *corev1.ServiceAccount, pod *corev1.Pod, node *corev1.Node, now time.Time) error {
	return t.issue(req, sa, pod, node, nil, now)
}

func (t *TokenAuthority) issue(req *authnv1.TokenRequest, sa *corev1.ServiceAccount, pod *corev1.Pod, node *corev1.Node, secret *corev1.Secret, now time.Time) error {
	if req.Name != "" && req.Name != sa.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("service account name (%s) does not match name in token request (%s)", sa.Name, req.Name))
	}
	if req.Namespace != "" && req.Namespace != sa.Namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("service account namespace (%s) does not match namespace in token request (%s)", sa.Namespace, req.Namespace))
	}
	req.Name, req.Namespace = sa.Name, sa.Namespace
	if len(req.Spec.Audiences) == 0 {
		req.Spec.Audiences = append([]string(nil), t.opts.Audiences...)
	}
	if req.Spec.ExpirationSeconds == nil {
		req.Spec.ExpirationSeconds = new(int64)
		*req.Spec.ExpirationSeconds = defaultTokenSeconds
	}
	if err := validateTokenRequest(req); err != nil {
		return err
	}
	if limit := int64(t.opts.MaxLifetime / time.Second); limit > 0 && *req.Spec.ExpirationSeconds > limit {
		*req.Spec.ExpirationSeconds = limit
	}
	claims := boundClaims{Namespace: sa.Namespace, ServiceAccount: claimRef{sa.Name, string(sa.UID)}}
	if err := bind(&claims, req.Spec.BoundObjectRef, sa, pod, node, secret); err != nil {
		return err
	}
	seconds := *req.Spec.ExpirationSeconds
	nominal := now.Add(time.Duration(seconds) * time.Second)
	if t.opts.Extend && seconds == MountedTokenSeconds && claims.Pod != nil && t.isForUs(req.Spec.Audiences) {
		claims.WarnAfter = jwt.NewNumericDate(nominal)
		seconds = extendedTokenSeconds
	}
	token, err := jwt.Signed(t.signer).Claims(issuedClaims{
		Issuer: t.opts.Issuer, Subject: ServiceAccountName(sa.Namespace, sa.Name), Audience: req.Spec.Audiences,
		IssuedAt: now.Unix(), NotBefore: now.Unix(), Expiry: now.Unix() + seconds, ID: uuid.NewString(), Kubernetes: claims,
	}).Serialize()
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("sign token of service account %s/%s: %w", sa.Namespace, sa.Name, err))
	}
	req.Status = authnv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(nominal)}
	return nil
}

func (t *TokenAuthority) isForUs(audiences []string) bool {
	for _, a := range audiences {
		found := false
		for _, ours := range t.opts.Audiences {
			found = found || a == ours
		}
		if !found {
			return false
		}
	}
	return true
}

func validateTokenRequest(req *authnv1.TokenRequest) error {
	var errs field.ErrorList
	path := field.NewPath("spec", "expirationSeconds")
	if s := *req.Spec.ExpirationSeconds; s < minTokenSeconds {
		errs = append(errs, field.Invalid(path, s, "may not specify a duration less than 10 minutes"))
	} else if s > maxTokenSeconds {
		errs = append(errs, field.Invalid(path, s, "may not specify a duration larger than 2^32 seconds"))
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: authnv1.GroupName, Kind: "TokenRequest"}, "", errs)
}

func bind(c *boundClaims, ref *authnv1.BoundObjectReference, sa *corev1.ServiceAccount, pod *corev1.Pod, node *corev1.Node, secret *corev1.Secret) error {
	if ref == nil {
		return nil
	}
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	var uid types.UID
	switch {
	case gvk.GroupVersion() == corev1.SchemeGroupVersion && gvk.Kind == "Pod" && pod != nil:
		if pod.Spec.ServiceAccountName != sa.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", sa.Name))
		}
		uid, c.Pod = pod.UID, &claimRef{pod.Name, string(pod.UID)}
		if node != nil {
			c.Node = &claimRef{node.Name, string(node.UID)}
		}
	case gvk.GroupVersion() == corev1.SchemeGroupVersion && gvk.Kind == "Node" && node != nil:
		uid, c.Node = node.UID, &claimRef{node.Name, string(node.UID)}
	case gvk.GroupVersion() == corev1.SchemeGroupVersion && gvk.Kind == "Secret" && secret != nil:
		uid, c.Secret = secret.UID, &claimRef{secret.Name, string(secret.UID)}
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk.String()))
	}
	if ref.UID != "" && ref.UID != uid {
		return apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, ref.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	return nil
}
