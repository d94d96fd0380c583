package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/pki"
)

// credentials are how a node speaks to the API and how its kubelet proves itself.
type credentials struct {
	transport client.Transport
	serving   *tls.Config
	pool      *x509.CertPool
	// renew keeps certificates that were asked for by request current; nil where the authority is in this process.
	renew func(context.Context) error
}

// credentials makes them from the authority of this process, or asks the control plane for them.
func (p *process) credentials(ctx context.Context) (*credentials, error) {
	if p.plane != nil {
		cert, err := p.plane.pki.KubeletServing(p.name, []string{p.name}, addrs(p))
		if err != nil {
			return nil, err
		}
		return &credentials{transport: p.plane.api.Transport(nodeUser(p.name), "kubelet"), pool: p.plane.pki.Pool(),
			serving: &tls.Config{GetCertificate: cert.GetCertificate, MinVersion: tls.VersionTLS12}}, nil
	}
	return p.join(ctx)
}

// requested is a certificate that is obtained by request, kept in a file, and renewed when two thirds of its time are over.
type requested struct {
	path    string
	signer  string
	usage   certv1.KeyUsage
	request x509.CertificateRequest
	current atomic.Pointer[tls.Certificate]
}

var errNoCertificate = errors.New("the node's certificate has not been issued yet")

func (r *requested) get() (*tls.Certificate, error) {
	if c := r.current.Load(); c != nil {
		return c, nil
	}
	return nil, errNoCertificate
}

// load reads the file of an earlier start; a missing, damaged or expired one is as if there were none.
func (r *requested) load() {
	b, err := os.ReadFile(r.path)
	if err != nil {
		return
	}
	c, err := tls.X509KeyPair(b, b)
	if err == nil && time.Now().Before(c.Leaf.NotAfter.Add(-time.Minute)) {
		r.current.Store(&c)
	}
}

func (r *requested) due() time.Time {
	c := r.current.Load()
	if c == nil {
		return time.Time{}
	}
	return c.Leaf.NotBefore.Add(c.Leaf.NotAfter.Sub(c.Leaf.NotBefore) * 2 / 3)
}

// obtain makes a key, asks t for a certificate and waits for it.
func (r *requested) obtain(ctx context.Context, t client.Transport) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &r.request, key)
	if err != nil {
		return err
	}
	res := client.Of[*certv1.CertificateSigningRequest](t)
	csr, err := res.Create(ctx, &certv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: "node-csr-"},
		Spec: certv1.CertificateSigningRequestSpec{SignerName: r.signer, Usages: []certv1.KeyUsage{certv1.UsageDigitalSignature, r.usage},
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}})
	if err != nil {
		return fmt.Errorf("ask for a certificate: %w", err)
	}
	for len(csr.Status.Certificate) == 0 {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for certificate request %s: %w", csr.Name, ctx.Err())
		}
		if csr, err = res.Get(ctx, "", csr.Name); err != nil {
			return fmt.Errorf("wait for a certificate: %w", err)
		}
		for _, c := range csr.Status.Conditions {
			if c.Type == certv1.CertificateDenied || c.Type == certv1.CertificateFailed {
				return fmt.Errorf("certificate request %s was refused: %s", csr.Name, c.Message)
			}
		}
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	both := append(append([]byte(nil), csr.Status.Certificate...), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})...)
	c, err := tls.X509KeyPair(both, both)
	if err != nil {
		return fmt.Errorf("use the certificate issued: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(r.path), 0o700); err != nil {
		return err
	}
	if err := pki.WriteFile(r.path, both); err != nil {
		return err
	}
	r.current.Store(&c)
	return nil
}

// keep renews for as long as the process runs; a failure is tried again, less and less often.
func (r *requested) keep(ctx context.Context, t client.Transport, warn func(error)) {
	pause := time.Second
	for {
		wait := time.Until(r.due())
		if wait <= 0 {
			if err := r.obtain(ctx, t); err != nil && ctx.Err() == nil {
				warn(err)
				wait, pause = pause, min(2*pause, 5*time.Minute)
			} else {
				pause = time.Second
				continue
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// join makes this machine a node of a cluster whose control plane runs elsewhere: with the join credential it asks for a
// certificate of its own, and from then on uses only that.
func (p *process) join(ctx context.Context) (*credentials, error) {
	if p.c.Join.Kubeconfig == "" {
		return nil, errors.New("this machine has no way into a cluster: set --kubeconfig to the join.kubeconfig of a server (join.kubeconfig)")
	}
	o, err := client.KubeconfigOptions(p.c.Join.Kubeconfig, "")
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{CommonName: "system:node:" + p.name, Organization: []string{"system:nodes"}}
	dir := filepath.Join(p.c.DataDir, "pki")
	own := &requested{path: filepath.Join(dir, "kubelet-client.pem"), signer: certv1.KubeAPIServerClientKubeletSignerName, usage: certv1.UsageClientAuth,
		request: x509.CertificateRequest{Subject: subject}}
	own.load()
	if own.current.Load() == nil {
		o.UserAgent = "karve-join"
		with, err := client.NewHTTP(o)
		if err != nil {
			return nil, err
		}
		for pause := 250 * time.Millisecond; ; pause = min(2*pause, 30*time.Second) { // the server may still be starting
			if err = own.obtain(ctx, with); err == nil {
				break
			}
			p.log.Warn("cluster not joined, trying again", "server", o.Server, "err", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil, fmt.Errorf("join the cluster at %s: %w", o.Server, err)
			}
		}
	}
	cfg := o.TLS.Clone()
	cfg.Certificates = nil
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own.get() }
	t, err := client.NewHTTP(client.HTTPOptions{Server: o.Server, TLS: cfg, UserAgent: "kubelet"})
	if err != nil {
		return nil, err
	}
	serving := &requested{path: filepath.Join(dir, "kubelet-serving.pem"), signer: certv1.KubeletServingSignerName, usage: certv1.UsageServerAuth,
		request: x509.CertificateRequest{Subject: subject, DNSNames: []string{p.name}}}
	for _, a := range addrs(p) {
		serving.request.IPAddresses = append(serving.request.IPAddresses, net.IP(a.AsSlice()))
	}
	serving.load()
	return &credentials{transport: t, pool: o.TLS.RootCAs,
		serving: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return serving.get() }, MinVersion: tls.VersionTLS12},
		renew: func(ctx context.Context) error {
			warn := func(err error) { p.log.Warn("certificate not renewed, trying again", "err", err) }
			go serving.keep(ctx, t, warn)
			own.keep(ctx, t, warn)
			return nil
		}}, nil
}
