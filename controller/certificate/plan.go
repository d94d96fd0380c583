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
	"net/netip"
	"slices"
	"strings"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
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

// plan decides about one request. node is the Node object of the requesting kubelet, nil when it is not known (yet); taken
// are the addresses of others.
func plan(csr *certv1.CertificateSigningRequest, node *corev1.Node, taken map[netip.Addr]bool) verdict {
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
		v.approve = approval(csr, req, node, taken)
		v.sign = v.approve != ""
	}
	return v
}

// approval returns the message of an approval that needs no person, empty when one is needed.
func approval(csr *certv1.CertificateSigningRequest, req *x509.CertificateRequest, node *corev1.Node, taken map[netip.Addr]bool) string {
	own := csr.Spec.Username == req.Subject.CommonName && slices.Contains(csr.Spec.Groups, nodesGroup)
	if csr.Spec.SignerName == certv1.KubeletServingSignerName {
		if own && node != nil && identityOf(node, req, taken) {
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

// identityOf reports whether a certificate for every name and address asked for would prove nothing but who the node is. A
// node writes its own addresses, and its name is chosen by whoever has a join credential: neither may make it the API
// server, a Service or another node, which the same authority vouches for.
func identityOf(node *corev1.Node, req *x509.CertificateRequest, taken map[netip.Addr]bool) bool {
	for _, n := range req.DNSNames {
		if n != node.Name || reserved(n) {
			return false
		}
	}
	known := map[netip.Addr]bool{}
	for _, a := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil {
			known[ip.Unmap()] = true
		}
	}
	for _, b := range req.IPAddresses {
		ip, ok := netip.AddrFromSlice(b)
		if ip = ip.Unmap(); !ok || !known[ip] || taken[ip] || !ip.IsGlobalUnicast() {
			return false
		}
	}
	return true
}

// reserved are the names that the API server and Services go by, in any form.
func reserved(name string) bool {
	name = strings.ToLower(name)
	return name == "localhost" || name == "kubernetes" || strings.HasPrefix(name, "kubernetes.") || strings.HasSuffix(name, ".svc") || strings.Contains(name, ".svc.")
}

// takenBy returns the addresses that are not the node's, whatever its Node object says: those of nodes that were there
// before it, of Services, and of the API server, which are the endpoints of the Service default/kubernetes.
func takenBy(node *corev1.Node, nodes []*corev1.Node, services []*corev1.Service, api []*discoveryv1.EndpointSlice) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	take := func(s string) {
		if ip, err := netip.ParseAddr(s); err == nil {
			out[ip.Unmap()] = true
		}
	}
	for _, n := range nodes {
		was, is := n.CreationTimestamp, node.CreationTimestamp
		if n.Name == node.Name || is.Before(&was) || is.Equal(&was) && node.Name < n.Name {
			continue
		}
		for _, a := range n.Status.Addresses {
			take(a.Address)
		}
	}
	for _, s := range services {
		for _, a := range append([]string{s.Spec.ClusterIP}, s.Spec.ClusterIPs...) {
			take(a)
		}
	}
	for _, e := range api {
		if e.Namespace != corev1.NamespaceDefault || e.Labels[discoveryv1.LabelServiceName] != "kubernetes" {
			continue
		}
		for i := range e.Endpoints {
			for _, a := range e.Endpoints[i].Addresses {
				take(a)
			}
		}
	}
	return out
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
