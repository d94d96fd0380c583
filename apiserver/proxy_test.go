package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"karve/api"
	"karve/apiserver/request"
	"karve/apiserver/resource"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestProxyTargets checks where a proxied request goes: to a pod's address and first port, to a ready endpoint of a Service
// by the name or number of its port, and never to an address that no pod has.
func TestProxyTargets(t *testing.T) {
	r := start(t)
	r.serviceAccount()
	const ns = "/api/v1/namespaces/default/"
	withStatus := func(name, ip string) {
		t.Helper()
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q},"spec":{"automountServiceAccountToken":false,"containers":[{"name":"c","image":"i","ports":[{"containerPort":8080}]}]}}`, name)
		r.must(http.StatusCreated, nil, "POST", ns+"pods", body)
		if ip != "" {
			r.must(http.StatusOK, nil, "PATCH", ns+"pods/"+name+"/status", fmt.Sprintf(`{"status":{"podIP":%q,"podIPs":[{"ip":%q}]}}`, ip, ip), "Content-Type: application/merge-patch+json")
		}
	}
	withStatus("here", "10.1.2.3")
	withStatus("six", "fd00::7")
	withStatus("nowhere", "")
	withStatus("liar", "127.0.0.1")
	withStatus("metadata", "169.254.169.254")
	r.must(http.StatusCreated, nil, "POST", ns+"services", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"ports":[{"name":"http","port":80},{"name":"admin","port":81}]}}`)
	r.must(http.StatusCreated, nil, "POST", ns+"services", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"idle"},"spec":{"ports":[{"port":80}]}}`)
	r.must(http.StatusCreated, nil, "POST", ns+"services", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"young"},"spec":{"ports":[{"port":80}]}}`)
	slice := func(name, service, endpoints string) {
		t.Helper()
		r.must(http.StatusCreated, nil, "POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", fmt.Sprintf(`{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":%q,"labels":{"kubernetes.io/service-name":%q}},"addressType":"IPv4","ports":[{"name":"http","port":8080},{"name":"admin","port":9090}],"endpoints":[%s]}`, name, service, endpoints))
	}
	slice("web-1", "web", `{"addresses":["10.1.2.9"],"conditions":{"ready":false}},{"addresses":["10.1.2.3"],"conditions":{"ready":true}}`)
	slice("idle-1", "idle", `{"addresses":["10.1.2.9"],"conditions":{"ready":false}}`)
	for _, c := range []struct {
		resource, name string
		want           string // the target, or the code of the refusal
	}{
		{"pods", "here", "http://10.1.2.3:8080"},
		{"pods", "here:81", "http://10.1.2.3:81"},
		{"pods", "https:here:", "https://10.1.2.3:8080"},
		{"pods", "https:here:443", "https://10.1.2.3:443"},
		{"pods", "six", "http://[fd00::7]:8080"},
		{"pods", "ftp:here:21", "400"},
		{"pods", "here:0", "400"},
		{"pods", "here:x", "400"},
		{"pods", "nowhere", "400"},
		{"pods", "liar", "400"},
		{"pods", "metadata", "400"},
		{"pods", "none", "404"},
		{"services", "web:http", "http://10.1.2.3:8080"},
		{"services", "web:81", "http://10.1.2.3:9090"},
		{"services", "https:web:admin", "https://10.1.2.3:9090"},
		{"services", "web:nope", "503"},
		{"services", "idle", "503"},
		{"services", "young", "404"},
		{"services", "none", "404"},
		{"configmaps", "x", "404"},
	} {
		q := httptest.NewRequest("GET", ns+c.resource+"/"+c.name+"/proxy/", nil)
		row := api.ByResource(schema.GroupVersionResource{Version: "v1", Resource: c.resource})
		u, _, err := r.proxyTarget(q, request.Parse(q), &resource.Call{Row: row, Sub: "proxy", Namespace: "default", Name: c.name})
		got := ""
		if err != nil {
			got = fmt.Sprint(resource.StatusOf(err).Code)
		} else {
			got = u.String()
		}
		if got != c.want {
			t.Errorf("%s %s: %s %v, want %s", c.resource, c.name, got, err, c.want)
		}
	}
	if a := r.do("GET", ns+"pods/here/proxy", ""); a.Request.URL.Path != ns+"pods/here/proxy/" {
		t.Errorf("without a slash at the end it goes to %s", a.Request.URL.Path)
	}
}

// TestPathsThatAreListedAnswer asks for each path that the server says it has.
func TestPathsThatAreListedAnswer(t *testing.T) {
	r := start(t)
	var all struct{ Paths []string }
	r.must(http.StatusOK, &all, "GET", "/", "")
	if len(all.Paths) < 60 {
		t.Errorf("only %d paths", len(all.Paths))
	}
	for _, p := range all.Paths {
		if a := r.do("GET", p, ""); a.StatusCode != http.StatusOK || len(a.body) == 0 {
			t.Errorf("%s: %d %.100s", p, a.StatusCode, a.body)
		}
	}
	var version map[string]string
	r.must(http.StatusOK, &version, "GET", "/version", "")
	if version["major"] != "1" || version["minor"] != "36" {
		t.Errorf("version %v", version)
	}
	var keys struct{ Keys []json.RawMessage }
	if r.must(http.StatusOK, &keys, "GET", "/openid/v1/jwks", ""); len(keys.Keys) == 0 {
		t.Error("no keys to check tokens by")
	}
}

// TestImpersonation acts for others as an administrator, and as somebody who may not.
func TestImpersonation(t *testing.T) {
	r := start(t)
	whoami := func(headers ...string) (map[string]any, int) {
		t.Helper()
		a := r.do("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", `{}`, headers...)
		var out struct {
			Status struct{ UserInfo map[string]any }
		}
		_ = json.Unmarshal(a.body, &out)
		return out.Status.UserInfo, a.StatusCode
	}
	for _, c := range []struct {
		headers []string
		want    string
	}{
		{[]string{"Impersonate-User: jane", "Impersonate-Group: people"}, "jane [people system:authenticated]"},
		{[]string{"Impersonate-User: system:serviceaccount:ns:robot"}, "system:serviceaccount:ns:robot [system:serviceaccounts system:serviceaccounts:ns system:authenticated]"},
		{[]string{"Impersonate-User: jane", "Impersonate-Uid: 7", "Impersonate-Extra-scopes: read"}, "jane [system:authenticated]"},
	} {
		u, code := whoami(c.headers...)
		if got := fmt.Sprintf("%v %v", u["username"], u["groups"]); got != c.want || code != http.StatusCreated {
			t.Errorf("%v: %d %s, want %s", c.headers, code, got, c.want)
		}
	}
	if _, code := whoami("Impersonate-Group: people"); code != http.StatusBadRequest && code != http.StatusInternalServerError {
		t.Errorf("a group without a user: %d", code)
	}
	// Without a client certificate it is nobody who asks, and nobody may act for others.
	tr := r.http.Transport.(*http.Transport).Clone()
	tr.TLSClientConfig.Certificates = nil
	t.Cleanup(tr.CloseIdleConnections)
	nobody := *r
	nobody.http = &http.Client{Transport: tr}
	for _, h := range [][]string{{"Impersonate-User: jane"}, {"Impersonate-User: system:serviceaccount:ns:robot"}, {"Impersonate-User: system:anonymous", "Impersonate-Group: system:masters"}} {
		if a := nobody.do("GET", "/api/v1/namespaces/default/secrets", "", h...); a.StatusCode != http.StatusForbidden {
			t.Errorf("%v: %d %s", h, a.StatusCode, a.body)
		}
	}
}
