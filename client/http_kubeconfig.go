package client

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/yaml"
)

// kubeconfig is the part of the file format that names a server and how to reach it as someone.
type kubeconfig struct {
	CurrentContext string `json:"current-context"`
	Contexts       []struct {
		Name    string `json:"name"`
		Context struct {
			Cluster string `json:"cluster"`
			User    string `json:"user"`
		} `json:"context"`
	} `json:"contexts"`
	Clusters []struct {
		Name    string      `json:"name"`
		Cluster kubeCluster `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string   `json:"name"`
		User kubeUser `json:"user"`
	} `json:"users"`
}

type kubeCluster struct {
	Server                   string `json:"server"`
	TLSServerName            string `json:"tls-server-name"`
	InsecureSkipTLSVerify    bool   `json:"insecure-skip-tls-verify"`
	CertificateAuthority     string `json:"certificate-authority"`
	CertificateAuthorityData string `json:"certificate-authority-data"`
}

type kubeUser struct {
	ClientCertificate     string `json:"client-certificate"`
	ClientCertificateData string `json:"client-certificate-data"`
	ClientKey             string `json:"client-key"`
	ClientKeyData         string `json:"client-key-data"`
	Token                 string `json:"token"`
	TokenFile             string `json:"tokenFile"`
	Username              string `json:"username"`
	Exec                  any    `json:"exec"`
	AuthProvider          any    `json:"auth-provider"`
}

// FromKubeconfig returns a transport to the server of a context of a kubeconfig file, the current one when context is
// empty. Certificates, tokens and token files (read again every minute) are understood; users who log in by a plug-in
// program or a password are refused with an error.
func FromKubeconfig(path, context string) (Transport, error) {
	o, err := KubeconfigOptions(path, context)
	if err != nil {
		return nil, err
	}
	return NewHTTP(o)
}

// KubeconfigOptions is FromKubeconfig without the transport, for callers that change the server's address or the agent.
func KubeconfigOptions(path, context string) (HTTPOptions, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return HTTPOptions{}, fmt.Errorf("read kubeconfig: %w", err)
	}
	var k kubeconfig
	if err := yaml.Unmarshal(data, &k); err != nil {
		// The parser quotes the line it fails on, which may hold a key.
		return HTTPOptions{}, fmt.Errorf("read kubeconfig %s: it is not YAML of the expected form", path)
	}
	o, err := k.options(context, filepath.Dir(path))
	if err != nil {
		return HTTPOptions{}, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return o, nil
}

func (k *kubeconfig) options(context, dir string) (HTTPOptions, error) {
	if context == "" {
		context = k.CurrentContext
	}
	if context == "" {
		return HTTPOptions{}, errors.New("no context is chosen: set current-context")
	}
	clusterName, userName, found := "", "", false
	for _, c := range k.Contexts {
		if c.Name == context {
			clusterName, userName, found = c.Context.Cluster, c.Context.User, true
		}
	}
	if !found {
		return HTTPOptions{}, fmt.Errorf("no context %q", context)
	}
	var cluster *kubeCluster
	for i := range k.Clusters {
		if k.Clusters[i].Name == clusterName {
			cluster = &k.Clusters[i].Cluster
		}
	}
	if cluster == nil {
		return HTTPOptions{}, fmt.Errorf("context %q names the cluster %q, which is not in the file", context, clusterName)
	}
	user := &kubeUser{}
	for i := range k.Users {
		if k.Users[i].Name == userName {
			user = &k.Users[i].User
		}
	}
	conf, err := tlsConfig(cluster, user, dir)
	if err != nil {
		return HTTPOptions{}, err
	}
	o := HTTPOptions{Server: cluster.Server, TLS: conf}
	switch {
	case user.Exec != nil || user.AuthProvider != nil || user.Username != "":
		return HTTPOptions{}, fmt.Errorf("user %q logs in by a plug-in or a password; use a certificate or a token", userName)
	case user.TokenFile != "":
		o.BearerToken = fileToken(resolve(dir, user.TokenFile))
	case user.Token != "":
		token := user.Token
		o.BearerToken = func() string { return token }
	}
	return o, nil
}

func tlsConfig(c *kubeCluster, u *kubeUser, dir string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName, InsecureSkipVerify: c.InsecureSkipTLSVerify}
	ca, err := dataOrFile("certificate-authority", c.CertificateAuthorityData, c.CertificateAuthority, dir)
	if err != nil {
		return nil, err
	}
	if ca != nil {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("certificate-authority holds no certificate")
		}
	}
	cert, err := dataOrFile("client-certificate", u.ClientCertificateData, u.ClientCertificate, dir)
	if err != nil {
		return nil, err
	}
	key, err := dataOrFile("client-key", u.ClientKeyData, u.ClientKey, dir)
	if err != nil {
		return nil, err
	}
	switch {
	case cert == nil && key == nil:
		return conf, nil
	case cert == nil || key == nil:
		return nil, errors.New("client-certificate and client-key must be given together")
	}
	if u.ClientCertificateData == "" && u.ClientKeyData == "" {
		// Files may be rotated under us: read them at each handshake.
		certFile, keyFile := resolve(dir, u.ClientCertificate), resolve(dir, u.ClientKey)
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(certFile, keyFile)
			return &pair, err
		}
		return conf, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	conf.Certificates = []tls.Certificate{pair}
	return conf, nil
}

func dataOrFile(key, data, file, dir string) ([]byte, error) {
	if data != "" {
		b, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return nil, fmt.Errorf("%s-data is not base64", key)
		}
		return b, nil
	}
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(resolve(dir, file))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return b, nil
}

func resolve(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// fileToken returns the content of a file, read again when a minute has passed. A file that has gone keeps its last token.
func fileToken(path string) func() string {
	var mu sync.Mutex
	var token string
	var read time.Time
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(read) > time.Minute {
			if b, err := os.ReadFile(path); err == nil {
				token, read = strings.TrimSpace(string(b)), time.Now()
			}
		}
		return token
	}
}
