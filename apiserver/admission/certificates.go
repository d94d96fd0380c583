package admission

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"strings"

	certv1 "k8s.io/api/certificates/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/apiserver/authn"
	"karve/apiserver/authz"
)

var csrs = schema.GroupResource{Group: certv1.GroupName, Resource: "certificatesigningrequests"}

// maySigner asks whether the user has verb on a signer, or on all of its domain.
func maySigner(ctx context.Context, z authz.Authorizer, u *authn.User, verb, signer string) bool {
	ask := func(name string) bool {
		d, _, _ := z.Authorize(ctx, &authz.Attributes{User: u, Verb: verb, Group: certv1.GroupName, Version: "*", Resource: "signers", Name: name, ResourceRequest: true})
		return d == authz.Allow
	}
	domain, _, _ := strings.Cut(signer, "/")
	return ask(signer) || ask(domain+"/*")
}

func certificateApproval(d Deps) Plugin {
	return Plugin{Name: "CertificateApproval", Validate: when(updates, func(ctx context.Context, a *Attributes) error {
		csr, err := object[*certv1.CertificateSigningRequest](a.Object, "certificate signing request")
		if err != nil || d.Authorizer == nil {
			return err
		}
		if !maySigner(ctx, d.Authorizer, a.User, "approve", csr.Spec.SignerName) {
			return a.forbidden("user not permitted to approve requests with signerName %q", csr.Spec.SignerName)
		}
		return nil
	}, "approval", csrs)}
}

func certificateSigning(d Deps) Plugin {
	return Plugin{Name: "CertificateSigning", Validate: when(updates, func(ctx context.Context, a *Attributes) error {
		csr, err := object[*certv1.CertificateSigningRequest](a.Object, "certificate signing request")
		if err != nil || d.Authorizer == nil {
			return err
		}
		old, err := object[*certv1.CertificateSigningRequest](a.Old, "certificate signing request")
		if err != nil {
			return err
		}
		// Only who writes a certificate or says that it failed is signing.
		if equality.Semantic.DeepEqual(old.Status.Certificate, csr.Status.Certificate) && equality.Semantic.DeepEqual(old.Status.Conditions, csr.Status.Conditions) {
			return nil
		}
		if !maySigner(ctx, d.Authorizer, a.User, "sign", old.Spec.SignerName) {
			return a.forbidden("user not permitted to sign requests with signerName %q", old.Spec.SignerName)
		}
		return nil
	}, "status", csrs)}
}

// requester writes into a new request who really makes it, whatever it says: approvers and signers rely on that.
func requester(_ context.Context, a *Attributes) error {
	csr, err := object[*certv1.CertificateSigningRequest](a.Object, "certificate signing request")
	if err != nil {
		return err
	}
	s := &csr.Spec
	s.Username, s.UID, s.Groups, s.Extra = "", "", nil, nil
	if a.User == nil {
		return nil
	}
	s.Username, s.UID, s.Groups = a.User.Name, a.User.UID, slices.Clone(a.User.Groups)
	for k, v := range a.User.Extra {
		if s.Extra == nil {
			s.Extra = map[string]certv1.ExtraValue{}
		}
		s.Extra[k] = slices.Clone(v)
	}
	return nil
}

// certificateSubject keeps the signer of ordinary client certificates from making cluster administrators.
func certificateSubject() Plugin {
	return Plugin{Name: "CertificateSubjectRestriction", Mutate: when(creates, requester, "", csrs), Validate: when(creates, func(_ context.Context, a *Attributes) error {
		csr, err := object[*certv1.CertificateSigningRequest](a.Object, "certificate signing request")
		if err != nil || csr.Spec.SignerName != certv1.KubeAPIServerClientSignerName {
			return err
		}
		req, err := parseCSR(csr.Spec.Request)
		if err != nil {
			return a.forbidden("failed to parse CSR: %w", err)
		}
		if slices.Contains(req.Subject.Organization, authn.GroupMasters) {
			return a.forbidden("use of %s signer with %s group is not allowed", certv1.KubeAPIServerClientSignerName, authn.GroupMasters)
		}
		return nil
	}, "", csrs)}
}

func parseCSR(raw []byte) (*x509.CertificateRequest, error) {
	b, _ := pem.Decode(raw)
	if b == nil || b.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(b.Bytes)
}

// nodeCSR lets a node ask for certificates of its own name alone.
func nodeCSR(node string, a *Attributes) error {
	csr, ok := a.Object.(*certv1.CertificateSigningRequest)
	if !ok || a.Operation != Create || a.Subresource != "" ||
		csr.Spec.SignerName != certv1.KubeletServingSignerName && csr.Spec.SignerName != certv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	req, err := parseCSR(csr.Spec.Request)
	if err != nil {
		return a.forbidden("unable to parse csr: %w", err)
	}
	if req.Subject.CommonName != a.User.Name {
		return a.forbidden("can only create a node CSR with CN=%s", a.User.Name)
	}
	return nil
}

// escalation keeps users from giving, by roles and bindings, more than they hold.
func escalation(d Deps) Plugin {
	rbac := func(resource string) schema.GroupResource {
		return schema.GroupResource{Group: rbacv1.GroupName, Resource: resource}
	}
	return Plugin{Name: "RBACEscalation", Validate: when(writes, func(ctx context.Context, a *Attributes) error {
		return authz.CheckEscalation(ctx, d.Authorizer, d.RBAC, a.User, a.Object, a.Old)
	}, "", rbac("roles"), rbac("rolebindings"), rbac("clusterroles"), rbac("clusterrolebindings"))}
}
