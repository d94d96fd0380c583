package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

func leaf(t *testing.T, raw []byte) *x509.Certificate {
	t.Helper()
	b, _ := pem.Decode(raw)
	if b == nil {
		t.Fatal("no PEM")
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOpenKeepsEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	var wg sync.WaitGroup
	got := make([]*Authority, 4)
	for i := range got { // at once, as several processes might
		wg.Go(func() {
			a, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = a
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, a := range got[1:] {
		if !bytes.Equal(a.CACert(), got[0].CACert()) || !bytes.Equal(a.FrontProxyCACert(), got[0].FrontProxyCACert()) || !a.signing.Equal(got[0].signing) {
			t.Fatal("two opens of one directory differ")
		}
	}
	st, _ := os.Stat(dir)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("directory mode %v", st.Mode())
	}
	files, _ := filepath.Glob(dir + "/[a-z]*")
	if len(files) != 5 {
		t.Errorf("files: %v", files)
	}
	for _, f := range files {
		if st, _ := os.Stat(f); st.Mode().Perm() != 0o600 {
			t.Errorf("%s mode %v", f, st.Mode())
		}
	}
}

func TestOpenDamaged(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(dir string) error
		want   []string
	}{
		"no key":         {func(d string) error { return os.Remove(d + "/ca.key") }, []string{"ca.key", "missing", "restore ca.key and ca.crt"}},
		"bad key":        {func(d string) error { return os.WriteFile(d+"/ca.key", []byte("secret-bytes"), 0o600) }, []string{"ca.key", "not a PEM key", "restore"}},
		"bad cert":       {func(d string) error { return os.WriteFile(d+"/ca.crt", []byte("x"), 0o600) }, []string{"ca.crt", "not a PEM certificate"}},
		"wrong cert":     {func(d string) error { return os.Rename(d+"/front-proxy-ca.crt", d+"/ca.crt") }, []string{"ca.crt", "does not belong to the key"}},
		"open key":       {func(d string) error { return os.Chmod(d+"/ca.key", 0o644) }, []string{"ca.key", "0644", "chmod 600"}},
		"bad signer key": {func(d string) error { return os.WriteFile(d+"/service-account.key", nil, 0o600) }, []string{"service-account.key", "delete it"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := Open(dir); err != nil {
				t.Fatal(err)
			}
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir)
			if err == nil {
				t.Fatal("opened")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if strings.Contains(err.Error(), "secret-bytes") {
				t.Errorf("%q quotes the key file", err)
			}
		})
	}
}

func TestOpenExpiredAndInterrupted(t *testing.T) {
	dir := t.TempDir()
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(dir, func() time.Time { return time.Now().Add(2 * caLifetime) }); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired authority: %v", err)
	}
	cert, _, err := a.Client("jane", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir + "/ca.crt"); err != nil { // a first start that stopped after the key
		t.Fatal(err)
	}
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf(t, cert).Verify(x509.VerifyOptions{Roots: b.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("certificate no longer verifies: %v", err)
	}
}

func TestIssue(t *testing.T) {
	a, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := a.Client("system:node:n1", []string{"system:nodes", "x"}, 20*caLifetime)
	if err != nil {
		t.Fatal(err)
	}
	c := leaf(t, cert)
	if c.Subject.CommonName != "system:node:n1" || len(c.Subject.Organization) != 2 || c.IsCA {
		t.Errorf("subject %v, CA %v", c.Subject, c.IsCA)
	}
	if c.NotAfter.After(a.ca.cert.NotAfter) {
		t.Error("outlives its authority")
	}
	verify := func(c *x509.Certificate, name string, usage x509.ExtKeyUsage) error {
		_, err := c.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}})
		return err
	}
	if err := verify(c, "", x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	if verify(c, "", x509.ExtKeyUsageServerAuth) == nil {
		t.Error("a client certificate serves")
	}
	fp, _, err := a.FrontProxyClient("front-proxy-client", time.Hour)
	if err != nil || verify(leaf(t, fp), "", x509.ExtKeyUsageClientAuth) == nil {
		t.Errorf("the cluster CA vouches for a front proxy (%v)", err)
	}
	names, ips := APIServerNames(netip.MustParseAddr("10.43.0.1"), netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1"))
	s, err := a.Serving(names, ips)
	if err != nil {
		t.Fatal(err)
	}
	sc, err := s.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range append(names, "127.0.0.1", "[::1]", "10.43.0.1", "192.0.2.7", "[2001:db8::1]") {
		if err := verify(sc.Leaf, n, x509.ExtKeyUsageServerAuth); err != nil {
			t.Error(err)
		}
	}
	if verify(sc.Leaf, "example.com", x509.ExtKeyUsageServerAuth) == nil {
		t.Error("serves any name")
	}
	for _, ttl := range []time.Duration{0, -time.Hour} {
		if _, _, err := a.Client("x", nil, ttl); err == nil {
			t.Errorf("issued for %v", ttl)
		}
	}
	if _, _, err := a.Client("", nil, time.Hour); err == nil {
		t.Error("issued for no name")
	}
}

func TestRenews(t *testing.T) {
	now := time.Now()
	a, err := open(t.TempDir(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.RenewingClient("x", nil)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := r.GetClientCertificate(nil)
	now = now.Add(DefaultLifetime / 2)
	if c, _ := r.Certificate(); c != first {
		t.Error("renewed at half its life")
	}
	now = now.Add(DefaultLifetime / 4)
	second, err := r.Certificate()
	if err != nil || second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Errorf("not renewed (%v)", err)
	}
}

func TestKubeconfigWorks(t *testing.T) {
	a, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.Client("admin", []string{"system:masters"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteKubeconfig(path, "https://127.0.0.1:6443", cert, key, "karve"); err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	raw, _ := os.ReadFile(path)
	var k kubeconfig
	if err := yaml.Unmarshal(raw, &k); err != nil {
		t.Fatal(err)
	}
	// A handshake with what the file holds, both sides checking the other.
	pair, err := tls.X509KeyPair(k.Users[0].User.Cert, k.Users[0].User.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(k.Clusters[0].Cluster.CA)
	s, err := a.Serving([]string{"localhost"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cc, sc := net.Pipe()
	done := make(chan error, 1)
	srv := tls.Server(sc, &tls.Config{GetCertificate: s.GetCertificate, ClientCAs: a.Pool(), ClientAuth: tls.RequireAndVerifyClientCert})
	go func() { done <- srv.Handshake() }()
	cl := tls.Client(cc, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: "localhost"})
	if err := cl.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := srv.ConnectionState().PeerCertificates[0].Subject.CommonName; got != "admin" {
		t.Errorf("client is %q", got)
	}
}

func TestSign(t *testing.T) {
	a, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{DNSNames: []string{"n1"}}, a.signing)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Sign(csr, x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf(t, cert).Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: "n1"}); err != nil {
		t.Error(err)
	}
	csr.Signature[8] ^= 0xff
	if _, err := a.Sign(csr, 0, nil, time.Hour); err == nil {
		t.Error("signed a request whose signature does not hold")
	}
}
