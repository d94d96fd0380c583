package pki

import (
	"crypto/tls"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Renewing is a certificate that is issued again, with a new key, once two thirds of its life are over: at the first
// handshake after that, so nothing has to run in the background. Safe for concurrent use.
type Renewing struct {
	issue func() (*tls.Certificate, error)
	now   func() time.Time
	mu    sync.Mutex
	cur   atomic.Pointer[tls.Certificate]
}

func newRenewing(now func() time.Time, issue func() (cert, key []byte, err error)) (*Renewing, error) {
	r := &Renewing{now: now, issue: func() (*tls.Certificate, error) {
		cert, key, err := issue()
		if err != nil {
			return nil, err
		}
		return keyPair(cert, key)
	}}
	_, err := r.Certificate()
	return r, err
}

// Serving returns a server certificate of the cluster CA for names and addresses.
func (a *Authority) Serving(names []string, ips []netip.Addr) (*Renewing, error) {
	return newRenewing(a.now, func() ([]byte, []byte, error) {
		return a.ServingPEM("kube-apiserver", nil, names, ips, DefaultLifetime)
	})
}

// KubeletServing returns a kubelet's server certificate.
func (a *Authority) KubeletServing(node string, names []string, ips []netip.Addr) (*Renewing, error) {
	return newRenewing(a.now, func() ([]byte, []byte, error) {
		return a.ServingPEM("system:node:"+node, []string{"system:nodes"}, names, ips, DefaultLifetime)
	})
}

// RenewingClient returns a client certificate for a component that lives in this process.
func (a *Authority) RenewingClient(cn string, orgs []string) (*Renewing, error) {
	return newRenewing(a.now, func() ([]byte, []byte, error) { return a.Client(cn, orgs, DefaultLifetime) })
}

// RenewingFrontProxyClient returns the front-proxy client certificate.
func (a *Authority) RenewingFrontProxyClient(cn string) (*Renewing, error) {
	return newRenewing(a.now, func() ([]byte, []byte, error) { return a.FrontProxyClient(cn, DefaultLifetime) })
}

// Certificate returns the current certificate, a new one when the old is due. Should issuing fail, the old one is
// returned for as long as it is valid.
func (r *Renewing) Certificate() (*tls.Certificate, error) {
	cur := r.cur.Load()
	if cur != nil && !r.due(cur) {
		return cur, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if cur = r.cur.Load(); cur != nil && !r.due(cur) {
		return cur, nil
	}
	next, err := r.issue()
	if err != nil {
		if cur != nil && r.now().Before(cur.Leaf.NotAfter) {
			return cur, nil
		}
		return nil, err
	}
	r.cur.Store(next)
	return next, nil
}

func (r *Renewing) due(c *tls.Certificate) bool {
	life := c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)
	return r.now().After(c.Leaf.NotAfter.Add(-life / 3))
}

// GetCertificate fits tls.Config.GetCertificate.
func (r *Renewing) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return r.Certificate()
}

// GetClientCertificate fits tls.Config.GetClientCertificate.
func (r *Renewing) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return r.Certificate()
}
