package apiserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/pki"
	"karve/store/engine/mem"
)

// running is a server of a test, on a port of its own, with an administrator's connection to it.
type running struct {
	*Server
	t    testing.TB
	url  string
	http *http.Client
}

// start runs a server over an empty store until the test ends.
func start(t testing.TB) *running {
	t.Helper()
	ca, err := pki.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	local := netip.MustParseAddr("127.0.0.1")
	ctx, stop := context.WithCancel(context.Background())
	s, err := New(ctx, Options{Engine: mem.New(), PKI: ca, Listen: "127.0.0.1:0", Advertise: netip.AddrPortFrom(local, 6443), Addresses: []netip.Addr{local},
		ServiceCIDR: netip.MustParsePrefix("10.96.0.0/24"), NodePorts: [2]int32{30000, 30100}, Anonymous: true, Version: "test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("run ended early: %v", err)
	}
	cert, key, err := ca.Client("test-admin", []string{"system:masters"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
	t.Cleanup(tr.CloseIdleConnections)
	return &running{Server: s, t: t, url: "https://" + s.Addr().String(), http: &http.Client{Transport: tr}}
}

// answer is what a request got.
type answer struct {
	*http.Response
	body []byte
}

// do sends a request; headers are "Name: value".
func (r *running) do(method, path, body string, headers ...string) answer {
	r.t.Helper()
	res, err := r.http.Do(r.request(r.t.Context(), method, path, body, headers...))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer{res, b}
}

func (r *running) request(ctx context.Context, method, path, body string, headers ...string) *http.Request {
	r.t.Helper()
	var from io.Reader
	if body != "" {
		from = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, from)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	return req
}

// must is do for a request whose status is known, with the answer decoded into out unless that is nil.
func (r *running) must(status int, out any, method, path, body string, headers ...string) answer {
	r.t.Helper()
	a := r.do(method, path, body, headers...)
	if a.StatusCode != status {
		r.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.StatusCode, status, a.body)
	}
	if out != nil {
		if err := json.Unmarshal(a.body, out); err != nil {
			r.t.Fatalf("%s %s: %v: %s", method, path, err, a.body)
		}
	}
	return a
}

// status reads an answer as a Status.
func (a answer) status() (s metav1.Status) {
	_ = json.Unmarshal(a.body, &s)
	return s
}

func configMap(name string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{"k":"v"}}`, name)
}

func pod(name string, labels string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"labels":{%s}},"spec":{"automountServiceAccountToken":false,"containers":[{"name":"c","image":"registry.example/c:1"}]}}`, name, labels)
}

// serviceAccount gives the default namespace what pods need.
func (r *running) serviceAccount() {
	r.t.Helper()
	r.must(http.StatusCreated, nil, "POST", "/api/v1/namespaces/default/serviceaccounts", `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}`)
}

// frames reads JSON watch events until n have come.
func (r *running) frames(path string, n int, headers ...string) []map[string]any {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	res, err := r.http.Do(r.request(ctx, "GET", path, "", headers...))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		r.t.Fatalf("watch %s: status %d: %s", path, res.StatusCode, b)
	}
	var out []map[string]any
	for dec := json.NewDecoder(res.Body); len(out) < n; {
		var f map[string]any
		if err := dec.Decode(&f); err != nil {
			r.t.Fatalf("watch %s: frame %d: %v", path, len(out), err)
		}
		out = append(out, f)
	}
	return out
}

func contains(t *testing.T, b []byte, want string) {
	t.Helper()
	if !bytes.Contains(b, []byte(want)) {
		t.Errorf("answer lacks %q: %s", want, b)
	}
}
