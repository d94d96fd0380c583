package discovery

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/api"
)

func ask(t *testing.T, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	if !(&Handler{Address: "10.0.0.1:6443"}).Serve(w, r) {
		t.Fatalf("%s is not served", path)
	}
	return w
}

// TestBothForms checks that the plain and the aggregated form name the same resources: all there are.
func TestBothForms(t *testing.T) {
	plain := map[string]bool{}
	for _, r := range api.Rows() {
		path := "/apis/" + r.Group + "/" + r.Version
		if r.Group == "" {
			path = "/api/v1"
		}
		var l metav1.APIResourceList
		if err := json.Unmarshal(ask(t, path).Body.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		for _, res := range l.APIResources {
			plain[l.GroupVersion+" "+res.Name] = true
		}
		if !plain[r.GVK().GroupVersion().String()+" "+r.Resource] {
			t.Errorf("%s lacks %s", path, r.Resource)
		}
	}
	const accept = "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	n := 0
	for _, path := range []string{"/api", "/apis"} {
		w := ask(t, path, accept)
		var l apidiscovery.APIGroupDiscoveryList
		if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		for _, g := range l.Items {
			for _, v := range g.Versions {
				gv := strings.TrimPrefix(g.Name+"/"+v.Version, "/")
				for _, r := range v.Resources {
					names := []string{r.Resource}
					for _, s := range r.Subresources {
						names = append(names, r.Resource+"/"+s.Subresource)
					}
					for _, name := range names {
						if n++; !plain[gv+" "+name] {
							t.Errorf("only the aggregated form has %s %s", gv, name)
						}
					}
				}
			}
		}
		if again := ask(t, path, accept, "If-None-Match: "+w.Header().Get("ETag")); again.Code != 304 {
			t.Errorf("%s: asked again with its tag: %d", path, again.Code)
		}
	}
	if n != len(plain) {
		t.Errorf("aggregated %d, plain %d", n, len(plain))
	}
}

func TestGroup(t *testing.T) {
	h := &Handler{}
	for path, want := range map[string]bool{"/api/v9/x": true, "/apis/apps/v9/x": true, "/apis/nope.example.com/v1/x": false, "/version": false} {
		if got := h.Group(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if b := ask(t, "/api/v1").Body.String(); strings.Contains(b, "apiVersion") {
		t.Errorf("the list of core resources names no version of its own: %.100s", b)
	}
}

// TestAggregatedForms checks what is answered to clients that take the aggregated form among others, or in another encoding.
func TestAggregatedForms(t *testing.T) {
	const g = ";g=apidiscovery.k8s.io;as=APIGroupDiscoveryList;v="
	for _, c := range []struct{ accept, content, begin string }{
		{"application/json" + g + "v2", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", `{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2"`},
		{"application/json, application/json" + g + "v2", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", `{"kind":"APIGroupDiscoveryList"`},
		{"application/json" + g + "v2beta1, application/json", "application/json", `{"kind":"APIGroupList"`},
		{"application/json", "application/json", `{"kind":"APIGroupList"`},
		{"application/vnd.kubernetes.protobuf" + g + "v2", "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "k8s\x00"},
		{"application/yaml" + g + "v2", "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "apiVersion: apidiscovery.k8s.io/v2"},
	} {
		w := ask(t, "/apis", "Accept: "+c.accept)
		if w.Code != 200 || w.Header().Get("Content-Type") != c.content || !strings.HasPrefix(w.Body.String(), c.begin) {
			t.Errorf("%s: %d %s %.60q", c.accept, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		if w.Header().Get("Vary") != "Accept" {
			t.Errorf("%s: Vary %q", c.accept, w.Header().Get("Vary"))
		}
	}
}
