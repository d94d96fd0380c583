// Package pki is the cluster's certificate authority and the home of its keys. The composition root opens it once at start
// (and the kubeconfig commands, to write one); the API server and the kubelets take their certificates from it. It owns one
// directory of files, readable by its owner alone. It is not the CertificateSigningRequest API: that calls Sign.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	caLifetime = 10 * 365 * 24 * time.Hour
	// DefaultLifetime is how long issued certificates live unless told otherwise.
	DefaultLifetime = 365 * 24 * time.Hour
	// backdate lets certificates work on machines whose clock is a little behind.
	backdate = 5 * time.Minute
)

// Authority is an open certificate hierarchy: the cluster CA, the front-proxy CA (which vouches for aggregated API
// requests) and the key that signs service account tokens. It is immutable and safe for concurrent use.
type Authority struct {
	dir        string
	ca         *signer
	frontProxy *signer
	signing    *ecdsa.PrivateKey
	now        func() time.Time
}

type signer struct {
	cert *x509.Certificate
	pem  []byte
	key  *ecdsa.PrivateKey
}

// Open reads the authority kept in dir, making the directory (mode 0700) and whatever is missing on first use. A file that
// cannot be used is an error that names it and says what to do; nothing existing is ever overwritten. Two processes may
// open the same directory at the same time.
func Open(dir string) (*Authority, error) { return open(dir, time.Now) }

func open(dir string, now func() time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("close key directory to others: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	a := &Authority{dir: dir, now: now}
	if a.ca, err = openSigner(dir, "ca", "karve-ca", now()); err != nil {
		return nil, err
	}
	if a.frontProxy, err = openSigner(dir, "front-proxy-ca", "karve-front-proxy-ca", now()); err != nil {
		return nil, err
	}
	a.signing, err = openKey(filepath.Join(dir, "service-account.key"), "delete it to make a new one (every service account token issued so far stops working)")
	if err != nil {
		return nil, err
	}
	return a, nil
}

// CACert returns the cluster CA's certificate, PEM.
func (a *Authority) CACert() []byte { return append([]byte(nil), a.ca.pem...) }

// FrontProxyCACert returns the front-proxy CA's certificate, PEM.
func (a *Authority) FrontProxyCACert() []byte { return append([]byte(nil), a.frontProxy.pem...) }

// Pool returns a new pool holding the cluster CA.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.ca.cert)
	return p
}

// SigningKey returns the key that signs service account tokens (ECDSA P-256, for ES256).
func (a *Authority) SigningKey() crypto.Signer { return a.signing }

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock key directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock key directory %s: %w", filepath.Dir(path), err)
	}
	return func() { f.Close() }, nil
}

// openSigner reads NAME.crt and NAME.key. A key alone is what a first start interrupted half way leaves: it gets its
// certificate now. A certificate alone is a loss that only a person can judge.
func openSigner(dir, name, cn string, now time.Time) (*signer, error) {
	keyPath, certPath := filepath.Join(dir, name+".key"), filepath.Join(dir, name+".crt")
	remedy := fmt.Sprintf("restore %s.key and %s.crt from a backup, or delete both to make a new authority (every certificate and kubeconfig issued so far stops working)", name, name)
	raw, err := os.ReadFile(certPath)
	haveCert := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read authority certificate: %w", err)
	}
	if _, err := os.Stat(keyPath); errors.Is(err, fs.ErrNotExist) && haveCert {
		return nil, fmt.Errorf("read authority key %s: the file is missing but its certificate exists: %s", keyPath, remedy)
	}
	key, err := openKey(keyPath, remedy)
	if err != nil {
		return nil, err
	}
	if !haveCert {
		if raw, err = selfSigned(cn, key, now); err != nil {
			return nil, fmt.Errorf("make authority %s: %w", name, err)
		}
		if err := WriteFile(certPath, raw); err != nil {
			return nil, err
		}
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("read authority certificate %s: not a PEM certificate: %s", certPath, remedy)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read authority certificate %s: %w: %s", certPath, err, remedy)
	}
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || !pub.Equal(key.Public()):
		return nil, fmt.Errorf("read authority certificate %s: it does not belong to the key in %s: %s", certPath, keyPath, remedy)
	case !cert.IsCA:
		return nil, fmt.Errorf("read authority certificate %s: it is not a CA certificate: %s", certPath, remedy)
	case now.After(cert.NotAfter):
		return nil, fmt.Errorf("read authority certificate %s: it expired on %s: %s", certPath, cert.NotAfter.Format(time.RFC3339), remedy)
	}
	return &signer{cert: cert, pem: pem.EncodeToMemory(block), key: key}, nil
}

func openKey(path, remedy string) (*ecdsa.PrivateKey, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make key: %w", err)
		}
		raw, err := encodeKey(key)
		if err != nil {
			return nil, err
		}
		return key, WriteFile(path, raw)
	}
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read key %s: mode %04o lets others read it: if nobody did, run chmod 600 on it", path, st.Mode().Perm())
	}
	// Parse errors are not wrapped: they might quote the file.
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("read key %s: not a PEM key: %s", path, remedy)
	}
	var parsed any
	if block.Type == "EC PRIVATE KEY" {
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	} else {
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read key %s: not an ECDSA P-256 key: %s", path, remedy)
	}
	return key, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// WriteFile writes a file of mode 0600 that appears whole or not at all, replacing what was there.
func WriteFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
