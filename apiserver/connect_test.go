package apiserver

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"karve/pki"
)

// kubeletAt makes the node "n" whose kubelet is said to listen at address.
func (r *running) kubeletAt(address string) {
	r.t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.must(http.StatusCreated, nil, "POST", "/api/v1/nodes", `{"metadata":{"name":"n"}}`)
	r.must(http.StatusOK, nil, "PATCH", "/api/v1/nodes/n/status", fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":%q}],"daemonEndpoints":{"kubeletEndpoint":{"Port":%s}}}}`, host, port),
		"Content-Type: application/merge-patch+json")
}

// runningPod makes the pod "p" on the node "n".
func (r *running) runningPod() {
	r.t.Helper()
	r.serviceAccount()
	r.must(http.StatusCreated, nil, "POST", "/api/v1/namespaces/default/pods", `{"metadata":{"name":"p"},"spec":{"nodeName":"n","containers":[{"name":"c","image":"i"}]}}`)
}

// A node that gives the API server's own address for its kubelet's must not get the API asked there with the
// administrator's certificate that kubelets are shown.
func TestNodeAtTheServersAddress(t *testing.T) {
	r := start(t)
	r.must(http.StatusCreated, nil, "POST", "/api/v1/namespaces/default/secrets", `{"metadata":{"name":"s"},"stringData":{"k":"treasure"}}`)
	r.kubeletAt(r.Addr().String())
	a := r.do("GET", "/api/v1/nodes/n/proxy/api/v1/namespaces/default/secrets", "")
	if a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(a.body), "not a kubelet") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	r.runningPod()
	if a := r.do("GET", "/api/v1/namespaces/default/pods/p/log", ""); a.StatusCode != http.StatusInternalServerError {
		t.Errorf("log: %d %s", a.StatusCode, a.body)
	}
}

// Running commands takes the permission to create, also where a WebSocket makes it a GET.
func TestGetIsNotEnoughToExec(t *testing.T) {
	r := start(t)
	r.kubeletAt("127.0.0.1:1")
	r.runningPod()
	for name, verbs := range map[string]string{"reader": `["get"]`, "writer": `["get","create"]`} {
		r.must(http.StatusCreated, nil, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
			fmt.Sprintf(`{"metadata":{"name":%q},"rules":[{"apiGroups":[""],"resources":["pods/exec","pods/attach","pods/portforward"],"verbs":%s}]}`, name, verbs))
		r.must(http.StatusCreated, nil, "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
			fmt.Sprintf(`{"metadata":{"name":%q},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":%q},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":%q}]}`, name, name, name))
	}
	wait(t, func() bool { // the bindings reach the authorizer by a watch
		return r.do("POST", "/api/v1/namespaces/default/pods/p/exec?command=id&stdout=1", "", "Impersonate-User: writer").StatusCode != http.StatusForbidden
	})
	for _, sub := range []string{"exec?command=id&stdout=1", "attach?stdout=1", "portforward"} {
		path := "/api/v1/namespaces/default/pods/p/" + sub
		up := []string{"Connection: Upgrade", "Upgrade: websocket"}
		if a := r.do("GET", path, "", append(up, "Impersonate-User: reader")...); a.StatusCode != http.StatusForbidden || !strings.Contains(string(a.body), `cannot create resource \"pods/`) {
			t.Errorf("reader, %s: %d %s", sub, a.StatusCode, a.body)
		}
		if a := r.do("GET", path, "", append(up, "Impersonate-User: writer")...); a.StatusCode != http.StatusInternalServerError { // nobody listens there
			t.Errorf("writer, %s: %d %s", sub, a.StatusCode, a.body)
		}
	}
}

func wait(t *testing.T, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("waited in vain")
		}
	}
}

// A kubelet that refuses to change the protocol gets no second request over the connection, the caller's own credentials
// and wishes do not reach it, and only protocols that are known are passed on.
func TestRefusedUpgrade(t *testing.T) {
	r := start(t)
	ca := r.opts.PKI
	requests, second := make(chan http.Header, 1), make(chan error, 1)
	r.kubeletAt(fakeKubelet(t, ca, requests, second))
	r.runningPod()
	path := "/api/v1/namespaces/default/pods/p/exec?command=id&stdout=1"
	if a := r.do("POST", path, "", "Connection: Upgrade", "Upgrade: h2c"); a.StatusCode != http.StatusBadRequest {
		t.Errorf("unknown protocol: %d %s", a.StatusCode, a.body)
	}

	raw, err := tls.Dial("tcp", r.Addr().String(), r.http.Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	fmt.Fprintf(raw, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nAuthorization: Bearer mine\r\nImpersonate-User: admin\r\nImpersonate-Group: system:masters\r\n\r\n", path)
	res, err := http.ReadResponse(bufio.NewReader(raw), nil)
	if err != nil {
		t.Fatal(err)
	}
	var status struct{ Code int }
	if err := json.NewDecoder(res.Body).Decode(&status); err != nil || res.StatusCode != http.StatusForbidden || status.Code != http.StatusForbidden {
		t.Errorf("%d %+v, %v", res.StatusCode, status, err)
	}
	h := <-requests
	for name := range h {
		if name == "Authorization" || strings.HasPrefix(name, "Impersonate-") {
			t.Errorf("the kubelet was sent %s", name)
		}
	}
	// What follows on the caller's connection is the API server's to answer.
	fmt.Fprint(raw, "GET /exec/default/p/c?command=id HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := <-second; err != io.EOF {
		t.Errorf("the kubelet's connection goes on: %v", err)
	}
}

// fakeKubelet answers the first request with 403 and then tells what reading on brings: io.EOF when the other side is done.
func fakeKubelet(t *testing.T, ca *pki.Authority, requests chan<- http.Header, second chan<- error) string {
	t.Helper()
	cert, err := ca.KubeletServing("n", []string{"n"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: cert.GetCertificate, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		br := bufio.NewReader(conn)
		req, err := http.ReadRequest(br)
		if err != nil {
			second <- err
			return
		}
		requests <- req.Header
		fmt.Fprint(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		_, err = http.ReadRequest(br)
		second <- err
	}()
	return l.Addr().String()
}

func TestDialable(t *testing.T) {
	for _, c := range []struct{ scheme, addr, port, want string }{
		{"", "10.1.2.3", "", "http://10.1.2.3"}, {"https", "10.1.2.3", "8443", "https://10.1.2.3:8443"}, {"", "fd00::1", "80", "http://[fd00::1]:80"}, {"", "fd00::1", "", "http://[fd00::1]"},
		{"ftp", "10.1.2.3", "80", ""}, {"", "10.1.2.3", "80@elsewhere", ""}, {"", "10.1.2.3", "0", ""}, {"", "10.1.2.3", "65536", ""}, {"", "10.1.2.3", "web", ""},
		{"", "127.0.0.1", "80", ""}, {"", "::ffff:127.0.0.1", "80", ""}, {"", "169.254.169.254", "80", ""}, {"", "0.0.0.0", "80", ""}, {"", "::1", "80", ""}, {"", "fe80::1", "80", ""},
		{"", "224.0.0.1", "80", ""}, {"", "localhost", "80", ""}, {"", "", "80", ""},
	} {
		u, _, err := dialable(c.scheme, c.addr, c.port, nil)
		if (err == nil) != (c.want != "") || err == nil && u.String() != c.want {
			t.Errorf("%+v: %v, %v", c, u, err)
		}
	}
}
