package request

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"karve/api/codec"
)

// target writes the path that says what i says.
func target(i *Info) string {
	var b strings.Builder
	if i.Group == "" {
		b.WriteString("/api/" + i.Version)
	} else {
		b.WriteString("/apis/" + i.Group + "/" + i.Version)
	}
	if i.Verb == "watch" {
		b.WriteString("/watch")
	}
	if i.Namespace != "" {
		b.WriteString("/namespaces/" + i.Namespace)
	}
	b.WriteString("/" + i.Resource)
	if i.Name != "" || i.Subresource != "" || i.HasRest {
		b.WriteString("/" + i.Name)
	}
	if i.Subresource != "" || i.HasRest {
		b.WriteString("/" + i.Subresource)
	}
	if i.HasRest {
		b.WriteString("/" + i.Rest)
	}
	return b.String()
}

// FuzzParse reads requests: nothing breaks it, and the path that is written from what was understood is understood the same.
// Who may do something is judged by the same reading as what is done, so that is what keeps the two together.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"/api/v1/pods", "/api/v1/namespaces/n/pods/p/log", "/apis/apps/v1/namespaces/n/deployments/d/scale", "/api/v1/watch/namespaces/n/pods/p",
		"/api/v1/namespaces/n", "/api/v1/namespaces/n/status", "/api/v1/namespaces/n/finalize", "/api/v1/nodes/n:10250/proxy/a/b/", "/version", "/api//v1/x", "/apis/a/b/namespaces//x/../y"} {
		f.Add("GET", s, "watch=1")
		f.Add("DELETE", s, "")
	}
	f.Fuzz(func(t *testing.T, method, path, query string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{}}
		i := Parse(r)
		if i.Path != path || r.URL.Path != path || r.URL.RawQuery != query {
			t.Fatal("the request was changed")
		}
		if !i.IsResource {
			if i.Resource != "" || i.Name != "" || i.Subresource != "" {
				t.Fatalf("no resource, and yet %+v", i)
			}
			return
		}
		for what, part := range map[string]string{"group": i.Group, "version": i.Version, "namespace": i.Namespace, "resource": i.Resource, "name": i.Name, "subresource": i.Subresource} {
			if strings.Contains(part, "/") {
				t.Fatalf("%s %q of %q is more than a segment", what, part, path)
			}
		}
		if strings.Contains(path, "//") {
			return // an empty segment has no other spelling; the API knows no object by an empty name
		}
		back := &http.Request{Method: method, URL: &url.URL{Path: target(i), RawQuery: query}, Header: http.Header{}}
		got := *Parse(back)
		got.Path = i.Path
		if got != *i {
			t.Fatalf("%q is\n%+v\nwritten as %q it is\n%+v", path, *i, target(i), got)
		}
	})
}

// FuzzNegotiate reads Accept headers: what is chosen is spoken, and asking for just that chooses it again.
func FuzzNegotiate(f *testing.F) {
	for _, s := range []string{"", "*/*", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "application/vnd.kubernetes.protobuf;q=0.5,application/yaml;q=0.9",
		"application/json;stream=watch", "text/html, application/*;q=0.1", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1"} {
		f.Add(s, "pretty=1")
	}
	f.Fuzz(func(t *testing.T, accept, query string) {
		ask := func(accept string) (Accept, bool) {
			r := &http.Request{Method: "GET", URL: &url.URL{Path: "/api/v1/pods", RawQuery: query}, Header: http.Header{}}
			if accept != "" {
				r.Header.Set("Accept", accept)
			}
			return Negotiate(r, "Table", "PartialObjectMetadata")
		}
		a, ok := ask(accept)
		if !ok {
			if a != (Accept{}) {
				t.Fatalf("refused, and yet %+v", a)
			}
			return
		}
		switch a.MediaType {
		case codec.JSON, codec.YAML, codec.Protobuf:
		default:
			t.Fatalf("%q is answered with %q", accept, a.MediaType)
		}
		if a.As != "" && a.As != "Table" && a.As != "PartialObjectMetadata" {
			t.Fatalf("%q is answered as %q", accept, a.As)
		}
		exact := a.MediaType
		if a.As != "" {
			exact += ";as=" + a.As + ";g=meta.k8s.io;v=" + a.AsVersion
		}
		again, ok := ask(exact)
		again.Pretty = a.Pretty // the short way for protobuf does not look whether it is to be pretty
		if !ok || again != a {
			t.Fatalf("%q is %+v, and %q is %+v", accept, a, exact, again)
		}
	})
}
