package cluster

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// api is a plain HTTP client of the API: asking often through kubectl would cost more than what is asked about.
type api struct {
	server string
	http   *http.Client
}

func (c *Cluster) connect(t *testing.T) {
	t.Helper()
	cmd := exec.Command(kubectl, "config", "view", "--raw", "--minify", "-o", "json")
	out, err := c.run(cmd)
	if err != nil {
		t.Fatalf("read the kubeconfig: %v\n%s", err, out)
	}
	var k struct {
		Clusters []struct {
			Cluster struct {
				Server string
				CA     string `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Cert string `json:"client-certificate-data"`
				Key  string `json:"client-key-data"`
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &k); err != nil || len(k.Clusters) != 1 || len(k.Users) != 1 {
		t.Fatalf("read the kubeconfig: %v", err)
	}
	raw := func(s string) []byte {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatalf("read the kubeconfig: %v", err)
		}
		return b
	}
	cert, err := tls.X509KeyPair(raw(k.Users[0].User.Cert), raw(k.Users[0].User.Key))
	if err != nil {
		t.Fatalf("read the kubeconfig: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(raw(k.Clusters[0].Cluster.CA))
	c.api = &api{server: k.Clusters[0].Cluster.Server, http: &http.Client{Timeout: 10 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}}}}
}

func (c *Cluster) send(method, path string, body any) (object, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, c.api.server+path, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.api.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, data)
	}
	var o object
	return o, json.Unmarshal(data, &o)
}

func (c *Cluster) get(path string) (object, error) { return c.send(http.MethodGet, path, nil) }

// object is an API object as JSON has it.
type object map[string]any

// at returns what is at a path like status.containerStatuses.0.ready as text, and "" when there is nothing.
func (o object) at(path string) string {
	switch v := o.find(path).(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	default:
		b, _ := json.Marshal(v)
		return string(b)
	}
}

func (o object) find(path string) any {
	var v any = map[string]any(o)
	for _, p := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

func (o object) list(path string) []object {
	all, _ := o.find(path).([]any)
	var out []object
	for _, v := range all {
		if m, ok := v.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// condition returns the status of a condition, and its reason.
func (o object) condition(kind string) (status, reason string) {
	for _, c := range o.list("status.conditions") {
		if c.at("type") == kind {
			return c.at("status"), c.at("reason")
		}
	}
	return "", ""
}

// want compares what is at paths with regard to nothing but their text.
func (o object) want(pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if got := o.at(pairs[i]); got != pairs[i+1] {
			return fmt.Errorf("%s is %q, not %q, in %s", pairs[i], got, pairs[i+1], o.at("status"))
		}
	}
	return nil
}

func (c *Cluster) pod(ns, name string) (object, error) {
	return c.get("/api/v1/namespaces/" + ns + "/pods/" + name)
}

// pods lists the pods of a namespace that have a label.
func (c *Cluster) pods(ns, selector string) ([]object, error) {
	l, err := c.get("/api/v1/namespaces/" + ns + "/pods?labelSelector=" + selector)
	return l.list("items"), err
}

// becomes waits until a pod is as the pairs of path and text say, and returns it.
func (c *Cluster) becomes(t *testing.T, ns, name string, pairs ...string) object {
	t.Helper()
	var p object
	c.eventually(t, "pod "+name, func() (err error) {
		if p, err = c.pod(ns, name); err != nil {
			return err
		}
		return p.want(pairs...)
	})
	return p
}

// ready waits until a pod is Ready and returns it.
func (c *Cluster) ready(t *testing.T, ns, name string) object {
	t.Helper()
	var p object
	c.eventually(t, "pod "+name+" to be Ready", func() (err error) {
		if p, err = c.pod(ns, name); err != nil {
			return err
		}
		if s, _ := p.condition("Ready"); s != "True" {
			return fmt.Errorf("status is %s", p.at("status"))
		}
		return nil
	})
	return p
}

// exec runs a command line in a pod's first container.
func (c *Cluster) exec(t *testing.T, ns, pod, line string) string {
	t.Helper()
	return c.Kubectl(t, "exec", "-n", ns, pod, "-q", "--", "sh", "-c", line)
}

// page asks the host's published port once.
func (c *Cluster) page() (string, error) { return fetch(fmt.Sprintf("http://127.0.0.1:%d/", c.Port)) }

var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func fetch(url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return strings.TrimSpace(string(b)), err
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
