// Package certificate approves and signs the certificate requests of nodes: a client certificate for a machine that joins
// with a bootstrap credential or renews its own, and a serving certificate for a kubelet. Requests for any other signer
// wait for a person (kubectl certificate approve) and are signed once approved. It is run by package controller; the
// authority's key stays behind Signer.
package certificate

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
)

const (
	nodePrefix    = "system:node:"
	nodesGroup    = "system:nodes"
	bootstrappers = "system:bootstrappers"
)

// verdict is what is to be done about a request.
type verdict struct {
	approve string // the message of an approval
	sign    bool
	fail    string // why it cannot be signed
	usage   x509.KeyUsage
	ext     []x509.ExtKeyUsage
	ttl     time.Duration
}

// profile says what a signer's certificates may look like.
type profile struct {
	usages   []certv1.KeyUsage // all that may be asked for
	required certv1.KeyUsage
	ext      x509.ExtKeyUsage
	// node means that the subject has to be a node's.
	node bool
}

var profiles = map[string]profile{
	certv1.KubeAPIServerClientKubeletSignerName: {usages: []certv1.KeyUsage{certv1.UsageKeyEncipherment, certv1.UsageDigitalSignature, certv1.UsageClientAuth}, required: certv1.UsageClientAuth, ext: x509.ExtKeyUsageClientAuth, node: true},
	certv1.KubeletServingSignerName:             {usages: []certv1.KeyUsage{certv1.UsageKeyEncipherment, certv1.UsageDigitalSignature, certv1.UsageServerAuth}, required: certv1.UsageServerAuth, ext: x509.ExtKeyUsageServerAuth, node: true},
	certv1.KubeAPIServerClientSignerName:        {usages: []certv1.KeyUsage{certv1.UsageKeyEncipherment, certv1.UsageDigitalSignature, certv1.UsageClientAuth}, required: certv1.UsageClientAuth, ext: x509.ExtKeyUsageClientAuth},
}

// maxLifetime bounds every certificate; a request may ask for less.
const maxLifetime = 365 * 24 * time.Hour

// plan decides about one request. node is the Node object of the requesting kubelet, nil when it is not known (yet).
func plan(csr *certv1.CertificateSigningRequest, node *corev1.Node) verdict {
	p, known := profiles[csr.Spec.SignerName]
	if !known || len(csr.Status.Certificate) > 0 || has(csr, certv1.CertificateDenied) || has(csr, certv1.CertificateFailed) {
		return verdict{}
	}
	req, err := parse(csr.Spec.Request)
	if err == nil {
		err = p.check(csr, req)
	}
	approved := has(csr, certv1.CertificateApproved)
	if err != nil {
		if approved {
			return verdict{fail: err.Error()}
		}
		return verdict{}
	}
	v := verdict{usage: x509.KeyUsageDigitalSignature, ext: []x509.ExtKeyUsage{p.ext}, ttl: lifetime(csr)}
	if slices.Contains(csr.Spec.Usages, certv1.UsageKeyEncipherment) {
		v.usage |= x509.KeyUsageKeyEncipherment
	}
	v.sign = approved
	if !approved && p.node {
		v.approve = approval(csr, req, node)
		v.sign = v.approve != ""
	}
	return v
}

// approval returns the message of an approval that needs no person, empty when one is needed.
func approval(csr *certv1.CertificateSigningRequest, req *x509.CertificateRequest, node *corev1.Node) string {
	own := csr.Spec.Username == req.Subject.CommonName && slices.Contains(csr.Spec.Groups, nodesGroup)
	if csr.Spec.SignerName == certv1.KubeletServingSignerName {
		if own && node != nil && addressesOf(node, req) {
			return "Auto approving kubelet serving certificate of its own node."
		}
		return ""
	}
	switch {
	case own:
		return "Auto approving self kubelet client certificate after SubjectAccessReview."
	case slices.Contains(csr.Spec.Groups, bootstrappers):
		return "Auto approving kubelet client certificate after SubjectAccessReview."
	}
	return ""
}

// addressesOf reports whether every name and address asked for is the node's.
func addressesOf(node *corev1.Node, req *x509.CertificateRequest) bool {
	known := map[string]bool{node.Name: true}
	for _, a := range node.Status.Addresses {
		known[a.Address] = true
	}
	for _, n := range req.DNSNames {
		if !known[n] {
			return false
		}
	}
	for _, ip := range req.IPAddresses {
		if !known[ip.String()] {
			return false
		}
	}
	return true
}

func (p profile) check(csr *certv1.CertificateSigningRequest, req *x509.CertificateRequest) error {
	for _, u := range csr.Spec.Usages {
		if !slices.Contains(p.usages, u) {
			return fmt.Errorf("usage %q is not one this signer gives", u)
		}
	}
	if !slices.Contains(csr.Spec.Usages, p.required) {
		return fmt.Errorf("usage %q is missing", p.required)
	}
	if !p.node {
		if slices.Contains(req.Subject.Organization, "system:masters") {
			return errors.New("organization system:masters is not given to anyone")
		}
		return nil
	}
	if !strings.HasPrefix(req.Subject.CommonName, nodePrefix) || !slices.Equal(req.Subject.Organization, []string{nodesGroup}) {
		return errors.New("the subject is not a node's")
	}
	serving := p.ext == x509.ExtKeyUsageServerAuth
	named := len(req.DNSNames)+len(req.IPAddresses) > 0
	if len(req.EmailAddresses)+len(req.URIs) > 0 || serving != named {
		return errors.New("the alternative names do not fit the use")
	}
	return nil
}

func parse(b []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

func lifetime(csr *certv1.CertificateSigningRequest) time.Duration {
	if s := csr.Spec.ExpirationSeconds; s != nil {
		return min(maxLifetime, time.Duration(*s)*time.Second)
	}
	return maxLifetime
}

func has(csr *certv1.CertificateSigningRequest, t certv1.RequestConditionType) bool {
	return slices.ContainsFunc(csr.Status.Conditions, func(c certv1.CertificateSigningRequestCondition) bool { return c.Type == t })
}
