package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"

	"karve/api"
)

func ask(h *Handler, url string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", url, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	if !h.Serve(w, r) {
		w.Code = 0
	}
	return w
}

func TestServe(t *testing.T) {
	h := New("test")
	url := index(t, h)["apis/apps/v1"]
	etag := ask(h, url).Header().Get("ETag")
	for _, c := range []struct {
		name, url string
		header    []string
		code      int
		want      map[string]string
	}{
		{"another path", "/api/v1", nil, 0, nil},
		{"a lookalike", "/openapi", nil, 0, nil},
		{"no such document", "/openapi/v3/apis/none/v1", nil, 404, nil},
		{"the other version's document", "/openapi/v3/v2", nil, 0, nil},
		{"index", "/openapi/v3", nil, 200, map[string]string{"Content-Type": jsonType}},
		{"without a hash", "/openapi/v3/apis/apps/v1", nil, 200, map[string]string{"Cache-Control": "", "ETag": etag, "Vary": "Accept, Accept-Encoding"}},
		{"with the hash", url, nil, 200, map[string]string{"Cache-Control": immutable, "Content-Encoding": ""}},
		{"with an old hash", "/openapi/v3/apis/apps/v1?hash=OLD", nil, 301, map[string]string{"Location": url, "Cache-Control": ""}},
		{"unchanged", "/openapi/v3/apis/apps/v1", []string{"If-None-Match", etag}, 304, nil},
		{"gzip", url, []string{"Accept-Encoding", "br, gzip"}, 200, map[string]string{"Content-Encoding": "gzip"}},
		{"gzip refused", url, []string{"Accept-Encoding", "gzip;q=0"}, 200, map[string]string{"Content-Encoding": ""}},
		{"protobuf", url, []string{"Accept", protoV3}, 200, map[string]string{"Content-Type": protoV3, "ETag": etag}},
		{"protobuf by its old name", url, []string{"Accept", protoV3Old + ";q=0.5, text/html"}, 200, map[string]string{"Content-Type": protoV3}},
		{"a preference", url, []string{"Accept", protoV3 + ";q=0.5, application/json"}, 200, map[string]string{"Content-Type": jsonType}},
		{"no encoding in common", url, []string{"Accept", "text/html"}, 406, nil},
		{"anything", url, []string{"Accept", "text/html, */*;q=0.1"}, 200, map[string]string{"Content-Type": jsonType}},
		{"version 2", "/openapi/v2", nil, 200, map[string]string{"Content-Type": jsonType}},
		{"version 2 with version 3's encoding", "/openapi/v2", []string{"Accept", protoV3}, 406, nil},
	} {
		w := ask(h, c.url, c.header...)
		if w.Code != c.code {
			t.Errorf("%s: %d, want %d", c.name, w.Code, c.code)
		}
		for k, v := range c.want {
			if got := w.Header().Get(k); got != v {
				t.Errorf("%s: %s is %q, want %q", c.name, k, got, v)
			}
		}
	}
}

func index(t *testing.T, h *Handler) map[string]string {
	t.Helper()
	var doc struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.Unmarshal(ask(h, "/openapi/v3").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for k, v := range doc.Paths {
		out[k] = v.ServerRelativeURL
	}
	return out
}

// Every document is served, is JSON, and refers only to what it defines.
func TestDocumentsAreComplete(t *testing.T) {
	h := New("test")
	urls := index(t, h)
	if len(urls) < 40 {
		t.Fatalf("%d documents", len(urls))
	}
	urls["v2"] = "/openapi/v2"
	for path, url := range urls {
		doc := get(t, h, url)
		prefix := v3Ref
		if path == "v2" {
			prefix = v2Ref
		}
		schemas, n := sections["schemas"](doc), 0
		for _, part := range strings.Split(line(doc), `"`+prefix)[1:] {
			name, _, _ := strings.Cut(part, `"`)
			if n++; schemas[name] == nil {
				t.Errorf("%s refers to %s and does not define it", path, name)
			}
		}
		if n == 0 && len(schemas) > 0 {
			t.Errorf("%s uses none of its definitions", path)
		}
	}
}

func TestEncodingsAgree(t *testing.T) {
	h := New("test")
	plain := ask(h, "/openapi/v3/apis/batch/v1").Body.Bytes()
	z, err := gzip.NewReader(bytes.NewReader(ask(h, "/openapi/v3/apis/batch/v1", "Accept-Encoding", "gzip").Body.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if unpacked, err := io.ReadAll(z); err != nil || !bytes.Equal(plain, unpacked) {
		t.Errorf("the compressed document is another: %v", err)
	}
	want, err := openapi_v3.ParseDocument(plain)
	if err != nil {
		t.Fatal(err)
	}
	got := &openapi_v3.Document{}
	if err := proto.Unmarshal(ask(h, "/openapi/v3/apis/batch/v1", "Accept", protoV3).Body.Bytes(), got); err != nil {
		t.Fatal(err)
	}
	if len(got.GetPaths().GetPath()) == 0 || !proto.Equal(want, got) {
		t.Error("version 3: the protobuf document is not the JSON one")
	}
	old, err := openapi_v2.ParseDocument(ask(h, "/openapi/v2").Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	gotOld := &openapi_v2.Document{}
	if err := proto.Unmarshal(ask(h, "/openapi/v2", "Accept", protoV2Old).Body.Bytes(), gotOld); err != nil {
		t.Fatal(err)
	}
	if len(gotOld.GetDefinitions().GetAdditionalProperties()) == 0 || !proto.Equal(old, gotOld) {
		t.Error("version 2: the protobuf document is not the JSON one")
	}
}

func TestCustom(t *testing.T) {
	h := New("test")
	before := index(t, h)
	was := ask(h, "/openapi/v2").Header().Get("ETag")
	row := &api.Row{Group: "stable.example.com", Version: "v1", Resource: "crontabs", Singular: "crontab", Kind: "CronTab", Namespaced: true,
		Verbs: []string{"create", "delete", "get", "list", "patch", "update", "watch"}, Sub: []api.Sub{{Name: "status", Verbs: []string{"get", "patch", "update"}}}}
	const name = "com.example.stable.v1.CronTab"
	h.SetCustom([]Custom{{Row: row, Name: name, ListName: name + "List", Schemas: map[string]json.RawMessage{
		name:          json.RawMessage(`{"type":"object","properties":{"metadata":{"allOf":[{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]},"cron":{"type":"string","default":"* * * * *"}}}`),
		name + "List": json.RawMessage(`{"type":"object","properties":{"items":{"type":"array","items":{"$ref":"#/components/schemas/` + name + `"}}}}`)}}})
	after := index(t, h)
	for path, url := range before {
		if after[path] != url {
			t.Errorf("%s got another hash", path)
		}
	}
	if len(after) != len(before)+2 {
		t.Errorf("%d documents became %d, want the group's and the version's added", len(before), len(after))
	}
	doc := get(t, h, after["apis/stable.example.com/v1"])
	item, _ := sections["paths"](doc)["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"].(map[string]any)
	put, _ := item["put"].(map[string]any)
	if put["operationId"] != "replaceStableExampleComV1NamespacedCronTab" {
		t.Errorf("put is %v", put["operationId"])
	}
	if strings.Contains(line(item), "protobuf") || strings.Contains(line(item), "strategic") {
		t.Error("a custom resource has no protobuf and no strategic merge patch")
	}
	if sections["schemas"](doc)[name] == nil || sections["schemas"](doc)[meta+"ObjectMeta"] == nil {
		t.Error("definitions are missing")
	}
	old := get(t, h, "/openapi/v2")
	def := line(sections["schemas"](old)[name])
	if want := `{"properties":{"cron":{"type":"string"},"metadata":{"$ref":"#/definitions/` + meta + `ObjectMeta"}},"type":"object"}`; def != want {
		t.Errorf("version 2 has %s, want %s", def, want)
	}
	h.SetCustom(nil)
	if got := ask(h, "/openapi/v2").Header().Get("ETag"); got != was {
		t.Error("without the custom resource version 2 is not what it was")
	}
	if w := ask(h, after["apis/stable.example.com/v1"]); w.Code != http.StatusNotFound {
		t.Errorf("the document of a resource that is gone: %d", w.Code)
	}
}

// Documents that were not asked for are not made, and those that were are kept.
func TestLazy(t *testing.T) {
	h := New("test")
	if h.docs != nil {
		t.Error("a new handler has computed something")
	}
	index(t, h)
	if len(h.made) != 0 {
		t.Error("the index rendered documents")
	}
	ask(h, "/openapi/v3/version")
	ask(h, "/openapi/v3/version", "Accept-Encoding", "gzip")
	if len(h.made) != 1 {
		t.Errorf("%d documents are kept, want 1", len(h.made))
	}
}

func BenchmarkRender(b *testing.B) {
	for _, c := range []struct{ name, url, accept string }{
		{"v3-core", "/openapi/v3/api/v1", jsonType}, {"v3-apps", "/openapi/v3/apis/apps/v1", jsonType}, {"v2", "/openapi/v2", jsonType}, {"v2-proto", "/openapi/v2", protoV2}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if w := ask(New("test"), c.url, "Accept", c.accept, "Accept-Encoding", "gzip"); w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
