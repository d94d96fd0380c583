package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"
)

// APIServerNames returns the names and addresses an API server's certificate has to cover besides those of its nodes:
// serviceIP is the first address of the service range (invalid when there is none).
func APIServerNames(serviceIP netip.Addr, nodes ...netip.Addr) ([]string, []netip.Addr) {
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	ips := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	if serviceIP.IsValid() {
		ips = append(ips, serviceIP)
	}
	return names, append(ips, nodes...)
}

// ServingPEM issues a server certificate for names and addresses and returns it and its new key, PEM. cn is the subject:
// a kubelet's is system:node:NAME with organization system:nodes.
func (a *Authority) ServingPEM(cn string, orgs, names []string, ips []netip.Addr, ttl time.Duration) (cert, key []byte, err error) {
	t := &x509.Certificate{Subject: pkix.Name{CommonName: cn, Organization: orgs}, DNSNames: names,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, ip := range ips {
		t.IPAddresses = append(t.IPAddresses, net.IP(ip.Unmap().AsSlice()))
	}
	return a.ca.issue(t, a.now(), ttl)
}

// Client issues a client certificate (user name cn, groups orgs) valid for ttl and returns it and its new key, PEM.
func (a *Authority) Client(cn string, orgs []string, ttl time.Duration) (cert, key []byte, err error) {
	return a.ca.client(cn, orgs, a.now(), ttl)
}

// FrontProxyClient issues the certificate with which the API server proves itself to aggregated API servers.
func (a *Authority) FrontProxyClient(cn string, ttl time.Duration) (cert, key []byte, err error) {
	return a.frontProxy.client(cn, nil, a.now(), ttl)
}

// Sign issues a certificate for another's key from a certificate request whose signature holds, for the given usages, and
// returns it PEM. What the request may ask for is the caller's to decide beforehand.
func (a *Authority) Sign(csr *x509.CertificateRequest, usage x509.KeyUsage, ext []x509.ExtKeyUsage, ttl time.Duration) ([]byte, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("sign certificate request: %w", err)
	}
	t := &x509.Certificate{Subject: csr.Subject, DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses, URIs: csr.URIs,
		EmailAddresses: csr.EmailAddresses, KeyUsage: usage, ExtKeyUsage: ext}
	return a.ca.sign(t, csr.PublicKey, a.now(), ttl)
}

func (s *signer) client(cn string, orgs []string, now time.Time, ttl time.Duration) (cert, key []byte, err error) {
	if cn == "" {
		return nil, nil, errors.New("issue client certificate: no user name")
	}
	return s.issue(&x509.Certificate{Subject: pkix.Name{CommonName: cn, Organization: orgs},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, now, ttl)
}

func (s *signer) issue(t *x509.Certificate, now time.Time, ttl time.Duration) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("issue certificate: make key: %w", err)
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	if cert, err = s.sign(t, k.Public(), now, ttl); err != nil {
		return nil, nil, err
	}
	if key, err = encodeKey(k); err != nil {
		return nil, nil, err
	}
	return cert, key, nil
}

// sign completes t and signs it. No certificate outlives its authority.
func (s *signer) sign(t *x509.Certificate, pub any, now time.Time, ttl time.Duration) ([]byte, error) {
	if ttl <= 0 {
		return nil, fmt.Errorf("issue certificate for %q: lifetime %s", t.Subject.CommonName, ttl)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("issue certificate: make serial number: %w", err)
	}
	t.SerialNumber = serial.Add(serial, big.NewInt(1))
	t.BasicConstraintsValid, t.IsCA = true, false
	t.NotBefore, t.NotAfter = now.Add(-backdate), now.Add(ttl)
	if t.NotAfter.After(s.cert.NotAfter) {
		t.NotAfter = s.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, s.cert, pub, s.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %q: %w", t.Subject.CommonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func selfSigned(cn string, key *ecdsa.PrivateKey, now time.Time) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(spki)
	t := &x509.Certificate{SerialNumber: new(big.Int).SetBytes(id[:15]), Subject: pkix.Name{CommonName: cn}, SubjectKeyId: id[:20],
		NotBefore: now.Add(-backdate), NotAfter: now.Add(caLifetime), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func keyPair(cert, key []byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read issued certificate: %w", err)
	}
	return &c, nil
}
