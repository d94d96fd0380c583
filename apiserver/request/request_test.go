package request

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"karve/api/codec"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		method, target string
		want           Info
	}{
		{"GET", "/api/v1/pods", Info{Verb: "list", Resource: "pods"}},
		{"GET", "/api/v1/pods?watch=1", Info{Verb: "watch", Resource: "pods"}},
		{"GET", "/api/v1/pods?watch=maybe", Info{Verb: "watch", Resource: "pods"}},
		{"GET", "/api/v1/pods?watch=false", Info{Verb: "list", Resource: "pods"}},
		{"GET", "/api/v1/watch/namespaces/n/pods", Info{Verb: "watch", Resource: "pods", Namespace: "n"}},
		{"GET", "/api/v1/namespaces/n/pods/p/log", Info{Verb: "get", Resource: "pods", Namespace: "n", Name: "p", Subresource: "log"}},
		{"DELETE", "/api/v1/namespaces/n/pods", Info{Verb: "deletecollection", Resource: "pods", Namespace: "n"}},
		{"PUT", "/api/v1/namespaces/n/finalize", Info{Verb: "update", Resource: "namespaces", Namespace: "n", Name: "n", Subresource: "finalize"}},
		{"POST", "/apis/apps/v1/namespaces/n/deployments", Info{Verb: "create", Group: "apps", Resource: "deployments", Namespace: "n"}},
		{"GET", "/api/v1/namespaces/n/services/s/proxy/a/b/", Info{Verb: "get", Resource: "services", Namespace: "n", Name: "s", Subresource: "proxy", Rest: "a/b/", HasRest: true}},
	} {
		r := httptest.NewRequest(c.method, c.target, nil)
		c.want.IsResource, c.want.Version, c.want.Path = true, "v1", r.URL.Path
		if got := Parse(r); *got != c.want {
			t.Errorf("%s %s:\n%+v\nwant\n%+v", c.method, c.target, *got, c.want)
		}
	}
	for _, p := range []string{"/", "/api", "/apis/apps/v1", "/version", "/api/v1"} {
		if Parse(httptest.NewRequest("GET", p, nil)).IsResource {
			t.Errorf("%s is no resource", p)
		}
	}
}

func TestNegotiate(t *testing.T) {
	for _, c := range []struct {
		accept string
		want   Accept
		ok     bool
	}{
		{"", Accept{MediaType: codec.JSON}, true},
		{"*/*", Accept{MediaType: codec.JSON}, true},
		{"application/vnd.kubernetes.protobuf,application/json", Accept{MediaType: codec.Protobuf}, true},
		{"application/json;q=0.5, application/yaml", Accept{MediaType: codec.YAML}, true},
		{"application/json;as=Table;v=v1;g=meta.k8s.io, application/json", Accept{MediaType: codec.JSON, As: "Table", AsVersion: "v1"}, true},
		{"application/json;as=Table;v=v9;g=meta.k8s.io, application/yaml", Accept{MediaType: codec.YAML}, true},
		{"application/json;stream=watch", Accept{MediaType: codec.JSON}, true},
		{"application/json;stream=other, application/yaml", Accept{MediaType: codec.YAML}, true},
		{"application/yaml;stream=watch, application/json", Accept{MediaType: codec.JSON}, true},
		{"application/yaml;stream=watch", Accept{}, false},
		{"application/json;sv=v2", Accept{}, false},
		{"application/json;g=meta.k8s.io;v=v1", Accept{}, false},
		{"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json;as=Table;v=v1;g=meta.k8s.io", Accept{MediaType: codec.JSON, As: "Table", AsVersion: "v1"}, true},
		{"*/*, application/yaml", Accept{MediaType: codec.YAML}, true},
		{"*/*;q=0.9, application/yaml;q=0.5", Accept{MediaType: codec.YAML}, true},
		{"application/yaml;q=0.5, */*;q=0.9", Accept{MediaType: codec.JSON}, true},
		{"application/yaml, application/json;pretty=1;q=2", Accept{MediaType: codec.JSON, Pretty: true}, true},
		{"application/json;as=Nothing", Accept{}, false},
		{"application/*", Accept{}, false},
		{"text/html", Accept{}, false},
	} {
		r := httptest.NewRequest("GET", "/api/v1/pods", nil)
		if c.accept != "" {
			r.Header.Set("Accept", c.accept)
		}
		if got, ok := Negotiate(r, "Table"); got != c.want || ok != c.ok {
			t.Errorf("%q: %+v %v, want %+v %v", c.accept, got, ok, c.want, c.ok)
		}
	}
	r := httptest.NewRequest("GET", "/api/v1/pods?pretty=1", nil)
	if a, _ := Negotiate(r); !a.Pretty {
		t.Error("pretty was asked for")
	}
	r = httptest.NewRequest("GET", "/api/v1/pods?pretty=yes", nil)
	if a, _ := Negotiate(r); a.Pretty {
		t.Error("yes is no yes")
	}
	r = httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	if got := ContentType(r); got != codec.JSON {
		t.Errorf("content type %q", got)
	}
}
