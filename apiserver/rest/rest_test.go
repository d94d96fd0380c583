package rest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	authnv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// TestVerbs takes one object through every verb there is.
func TestVerbs(t *testing.T) {
	e := newEdge(t)
	made := into[corev1.ConfigMap](t, e.must(201, "POST", cms, configMap("a", "")))
	if made.Kind != "ConfigMap" || made.APIVersion != "v1" || made.UID == "" || made.Namespace != "n" || made.ManagedFields[0].Manager != "tester" {
		t.Errorf("made %+v", made)
	}
	if got := into[corev1.ConfigMap](t, e.must(200, "GET", cms+"/a", "")); got.UID != made.UID {
		t.Errorf("got %+v", got)
	}
	e.must(200, "HEAD", cms+"/a", "")
	made.Data["k"] = "2"
	put := into[corev1.ConfigMap](t, e.must(200, "PUT", cms+"/a", configMap("a", `,"immutable":false`)))
	if put.Data["k"] != "v" || put.ResourceVersion == made.ResourceVersion {
		t.Errorf("put %+v", put)
	}
	for kind, body := range map[string]string{
		"application/merge-patch+json":           `{"data":{"m":"1"}}`,
		"application/strategic-merge-patch+json": `{"data":{"s":"1"}}`,
		"application/json-patch+json":            `[{"op":"add","path":"/data/j","value":"1"}]`,
	} {
		e.must(200, "PATCH", cms+"/a", body, "Content-Type: "+kind)
	}
	e.must(200, "PATCH", cms+"/a?fieldManager=me", "apiVersion: v1\nkind: ConfigMap\ndata: {z: '1'}", "Content-Type: application/apply-patch+yaml")
	if got := into[corev1.ConfigMap](t, e.must(200, "GET", cms+"/a", "")); fmt.Sprint(got.Data) != "map[j:1 k:v m:1 s:1 z:1]" {
		t.Errorf("data after all patches: %v", got.Data)
	}
	e.must(201, "PATCH", cms+"/new?fieldManager=me", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new}", "Content-Type: application/apply-patch+yaml")
	e.create("b", "c")
	l := into[corev1.ConfigMapList](t, e.must(200, "GET", cms, ""))
	if l.Kind != "ConfigMapList" || names(l) != "a b c new" || l.Items[0].Kind != "" || l.ResourceVersion == "" {
		t.Errorf("list of kind %s: %s", l.Kind, names(l))
	}
	gone := status(t, e.must(200, "DELETE", cms+"/a", ""))
	if gone.Status != metav1.StatusSuccess || gone.Details.Name != "a" || gone.Details.Kind != "configmaps" || gone.Details.UID != made.UID {
		t.Errorf("deleted: %+v", gone)
	}
	if l := into[corev1.ConfigMapList](t, e.must(200, "DELETE", cms+"?fieldSelector=metadata.name!%3Dc", "")); names(l) != "b new" {
		t.Errorf("deleted together: %s", names(l))
	}
	if l := into[corev1.ConfigMapList](t, e.must(200, "GET", "/api/v1/configmaps", "")); names(l) != "c" {
		t.Errorf("left: %s", names(l))
	}
}

// TestDryRun checks that a write that is only tried answers as if it were done, and is not.
func TestDryRun(t *testing.T) {
	e := newEdge(t)
	e.must(201, "POST", cms+"?dryRun=All", configMap("a", ""))
	e.must(404, "GET", cms+"/a", "")
	e.create("a")
	before := e.must(200, "GET", cms+"/a", "").Body.String()
	if got := into[corev1.ConfigMap](t, e.must(200, "PATCH", cms+"/a?dryRun=All", `{"data":{"k":"2"}}`, "Content-Type: application/merge-patch+json")); got.Data["k"] != "2" {
		t.Errorf("tried: %v", got.Data)
	}
	e.must(200, "DELETE", cms+"/a", `{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}`)
	e.must(200, "DELETE", cms+"/a?dryRun=All", "")
	if after := e.must(200, "GET", cms+"/a", "").Body.String(); after != before {
		t.Errorf("was\n%s\nis\n%s", before, after)
	}
}

// TestRefused sends what is refused before anything is stored.
func TestRefused(t *testing.T) {
	e := newEdge(t)
	e.create("a")
	large := configMap("big", `,"binaryData":{"b":"`+strings.Repeat("A", maxBody)+`"}`)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "n"}}
	for _, c := range []struct {
		method, target, body string
		header               string
		code                 int
		reason               metav1.StatusReason
		says                 string
	}{
		{"GET", "/api/v1/gadgets", "", "", 404, metav1.StatusReasonNotFound, "the server could not find the requested resource"},
		{"GET", "/api/v1/namespaces/n/nodes", "", "", 404, metav1.StatusReasonNotFound, "the server could not find the requested resource"},
		{"GET", cms + "/a/status", "", "", 404, metav1.StatusReasonNotFound, "the server could not find the requested resource"},
		{"GET", "/api/v1/namespaces/n/pods/p/status/x", "", "", 404, metav1.StatusReasonNotFound, "the server could not find the requested resource"},
		{"GET", cms + "/none", "", "", 404, metav1.StatusReasonNotFound, `configmaps "none" not found`},
		{"DELETE", cms + "/none", "", "", 404, metav1.StatusReasonNotFound, `configmaps "none" not found`},
		{"POST", cms + "/a", configMap("a", ""), "", 405, metav1.StatusReasonMethodNotAllowed, "does not allow this method"},
		{"POST", "/api/v1/configmaps", configMap("a", ""), "", 405, metav1.StatusReasonMethodNotAllowed, "does not allow this method"},
		{"PUT", cms, configMap("a", ""), "", 405, metav1.StatusReasonMethodNotAllowed, "does not allow this method"},
		{"PATCH", cms, "{}", "", 405, metav1.StatusReasonMethodNotAllowed, "does not allow this method"},
		{"DELETE", "/api/v1/configmaps", "", "", 405, metav1.StatusReasonMethodNotAllowed, "does not allow this method"},
		{"POST", "/api/v1/namespaces/n/pods/p/status", "{}", "", 405, metav1.StatusReasonMethodNotAllowed, "does not allow this method"},
		{"GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews", "", "", 405, metav1.StatusReasonMethodNotAllowed, "does not allow this method"},
		{"POST", cms, "", "", 400, metav1.StatusReasonBadRequest, "<empty>"},
		{"POST", cms, "[]", "", 400, metav1.StatusReasonBadRequest, "the object provided is unrecognized (must be of type ConfigMap)"},
		{"POST", cms, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":3}}`, "", 400, metav1.StatusReasonBadRequest, `ConfigMap in version "v1" cannot be handled as a ConfigMap`},
		{"POST", cms, `{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"b"}}`, "", 400, metav1.StatusReasonBadRequest, `ConfigMap in version "v2" cannot be handled as a ConfigMap`},
		{"POST", cms, `{"apiVersion":"apps/v1","kind":"Deployment"}`, "", 400, metav1.StatusReasonBadRequest, "converting (v1.Deployment) to (core.ConfigMap): unknown conversion"},
		{"POST", cms, toProto(t, "v1", "Secret", secret), "Content-Type: " + proto, 400, metav1.StatusReasonBadRequest, `Secret in version "v1" cannot be handled as a ConfigMap`},
		{"POST", cms, "k8s\x00\xff", "Content-Type: " + proto, 400, metav1.StatusReasonBadRequest, "(must be of type ConfigMap)"},
		{"POST", cms, large, "", 413, metav1.StatusReasonRequestEntityTooLarge, "limit is 3145728"},
		{"POST", cms, "x", "Content-Type: text/plain", 415, metav1.StatusReasonUnsupportedMediaType, "application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"DELETE", cms + "/a", "x", "Content-Type: text/plain", 415, metav1.StatusReasonUnsupportedMediaType, "application/json"},
		{"DELETE", cms + "/a", "{", "", 400, metav1.StatusReasonBadRequest, "json"},
		{"DELETE", cms + "/a", configMap("a", ""), "", 400, metav1.StatusReasonBadRequest, `no kind "ConfigMap" is registered`},
		{"DELETE", cms + "/a?gracePeriodSeconds=x", "", "", 400, metav1.StatusReasonBadRequest, `parsing "x"`},
		{"DELETE", cms + "/a?propagationPolicy=Sideways", "", "", 422, metav1.StatusReasonInvalid, "propagationPolicy"},
		{"PATCH", cms + "/a", "{}", "Content-Type: application/json", 415, metav1.StatusReasonUnsupportedMediaType, "application/merge-patch+json"},
		{"PATCH", cms + "/a", "{", "Content-Type: application/merge-patch+json", 400, metav1.StatusReasonBadRequest, "error decoding patch"},
		{"PATCH", cms + "/a", "{}", "Content-Type: application/apply-patch+yaml", 422, metav1.StatusReasonInvalid, "fieldManager: Required value: is required for apply patch"},
		{"PATCH", cms + "/a?force=true", "{}", "Content-Type: application/merge-patch+json", 422, metav1.StatusReasonInvalid, "force: Forbidden: may not be specified for non-apply patch"},
		{"PATCH", cms + "/a?fieldManager=m", "a: [", "Content-Type: application/apply-patch+yaml", 400, metav1.StatusReasonBadRequest, "error decoding YAML"},
		{"PATCH", cms + "/a?fieldManager=m", "apiVersion: v1\nkind: Secret", "Content-Type: application/apply-patch+yaml", 400, metav1.StatusReasonBadRequest, "invalid object type: /v1, Kind=Secret"},
		{"POST", cms + "?dryRun=Some", configMap("b", ""), "", 422, metav1.StatusReasonInvalid, "dryRun"},
		{"POST", cms + "?fieldValidation=Maybe", configMap("b", ""), "", 422, metav1.StatusReasonInvalid, "fieldValidation"},
		{"POST", cms + "?fieldManager=" + strings.Repeat("m", 129), configMap("b", ""), "", 422, metav1.StatusReasonInvalid, "fieldManager"},
		{"GET", cms + "?limit=x", "", "", 400, metav1.StatusReasonBadRequest, ""},
		{"GET", cms + "?resourceVersionMatch=Exact", "", "", 422, metav1.StatusReasonInvalid, "resourceVersionMatch"},
		{"GET", cms + "?sendInitialEvents=true", "", "", 422, metav1.StatusReasonInvalid, "sendInitialEvents"},
		{"GET", cms + "?labelSelector=a%20b", "", "", 400, metav1.StatusReasonBadRequest, "unable to parse requirement"},
		{"GET", cms + "?fieldSelector=data.k%3Dv", "", "", 400, metav1.StatusReasonBadRequest, "is not a known field selector"},
		{"GET", cms + "?includeObject=All&watch=1", "", "Accept: application/json;as=Table;g=meta.k8s.io;v=v1", 400, metav1.StatusReasonBadRequest, "unrecognized includeObject value"},
		{"GET", cms, "", "Accept: text/html", 406, metav1.StatusReasonNotAcceptable, "application/json;stream=watch"},
		{"GET", cms + "/a", "", "Accept: application/json;as=Table;g=meta.k8s.io;v=v2", 406, metav1.StatusReasonNotAcceptable, "only the following media types are accepted"},
		{"GET", cms + "/a", "", "Accept: application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1", 406, metav1.StatusReasonNotAcceptable, ""},
		{"GET", cms, "", "Accept: application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1", 406, metav1.StatusReasonNotAcceptable, ""},
		{"GET", cms + "?watch=1", "", "Accept: application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1", 406, metav1.StatusReasonNotAcceptable, ""},
	} {
		var headers []string
		if c.header != "" {
			headers = append(headers, c.header)
		}
		w := e.do(c.method, c.target, c.body, headers...)
		st := status(t, w)
		if w.Code != c.code || int(st.Code) != c.code || st.Reason != c.reason || !strings.Contains(st.Message, c.says) || st.Status != metav1.StatusFailure || st.Kind != "Status" || st.APIVersion != "v1" {
			t.Errorf("%s %s %s %.80s: %d %q %q\nwant %d %q %q", c.method, c.target, c.header, c.body, w.Code, st.Reason, st.Message, c.code, c.reason, c.says)
		}
	}
	if l := into[corev1.ConfigMapList](t, e.must(200, "GET", "/api/v1/configmaps", "")); names(l) != "a" {
		t.Errorf("something was stored after all: %s", names(l))
	}
}

// TestFieldValidation sends fields that the kind has not, and fields twice, in each of the modes.
func TestFieldValidation(t *testing.T) {
	const apply, merge = "application/apply-patch+yaml", "application/merge-patch+json"
	odd := configMap("%s", `,"wrong":1,"data":{"k":"w"}`)
	for _, c := range []struct {
		method, target, body, kind string
		strict                     []string // parts of what the refusal says
		warns                      []string // how the warnings begin
	}{
		{"POST", cms, odd, "application/json", []string{`strict decoding error: unknown field "wrong"`, `, duplicate field "data"`}, []string{`299 - "unknown field \"wrong\"`, `299 - "duplicate field \"data\"`}},
		{"POST", cms, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '%s'}\nwrong: 1", "application/yaml", []string{`strict decoding error: unknown field "wrong"`}, []string{`299 - "unknown field \"wrong\"`}},
		{"PATCH", cms + "/a", `{"wrong":1}`, merge, []string{`patch: Invalid value: "map[wrong:1]": strict decoding error: unknown field "wrong"`}, []string{`299 - "unknown field \"wrong\"`}},
		{"PATCH", cms + "/a?fieldManager=m", "apiVersion: v1\nkind: ConfigMap\ndata: {k: v}\ndata: {k: v}", apply, []string{"error strict decoding YAML"}, []string{`299 - "error converting YAML to JSON`}},
	} {
		t.Run(c.method+" "+c.kind, func(t *testing.T) {
			e := newEdge(t)
			e.create("a")
			send := func(mode string) *httptest.ResponseRecorder {
				at := "?"
				if strings.Contains(c.target, "?") {
					at = "&"
				}
				return e.do(c.method, c.target+at+"fieldValidation="+mode, strings.ReplaceAll(c.body, "%s", strings.ToLower("n"+mode)), "Content-Type: "+c.kind)
			}
			w := send("Strict")
			for _, part := range c.strict {
				if w.Code < 400 || !strings.Contains(status(t, w).Message, part) {
					t.Errorf("strict: %d %s, want %s", w.Code, w.Body, part)
				}
			}
			if w := send("Ignore"); w.Code >= 400 && c.kind != apply || len(w.Header()["Warning"]) > 0 {
				t.Errorf("ignored: %d %v %s", w.Code, w.Header(), w.Body)
			}
			for _, mode := range []string{"Warn", ""} { // the default is to warn
				w := send(mode)
				got := w.Header()["Warning"]
				if len(got) != len(c.warns) || !slices.EqualFunc(got, c.warns, strings.HasPrefix) {
					t.Errorf("%q: %d, warnings %q, want %q", mode, w.Code, got, c.warns)
				}
			}
		})
	}
}

// TestForms asks for one object and for the list in every form they come in.
func TestForms(t *testing.T) {
	e := newEdge(t)
	e.create("a", "b")
	as := func(media, kind string) string { return "Accept: " + media + ";as=" + kind + ";g=meta.k8s.io;v=v1" }
	var cm corev1.ConfigMap
	fromProto(t, "ConfigMap", e.must(200, "GET", cms+"/a", "", "Accept: "+proto), &cm)
	var list corev1.ConfigMapList
	fromProto(t, "ConfigMapList", e.must(200, "GET", cms, "", "Accept: "+proto), &list)
	if cm.Name != "a" || names(&list) != "a b" || list.ResourceVersion == "" {
		t.Errorf("protobuf: %s, %s", cm.Name, names(&list))
	}
	plain := into[corev1.ConfigMapList](t, e.must(200, "GET", cms, ""))
	w := e.must(200, "GET", cms, "", "Accept: application/yaml")
	var read corev1.ConfigMapList
	if err := yaml.UnmarshalStrict(w.Body.Bytes(), &read); err != nil || names(&read) != names(plain) || w.Header().Get("Content-Type") != "application/yaml" {
		t.Errorf("YAML: %v %s", err, w.Body)
	}
	for _, target := range []string{cms, cms + "/a"} {
		compact, pretty := e.must(200, "GET", target, "").Body.Bytes(), e.must(200, "GET", target+"?pretty=true", "").Body.Bytes()
		if bytes.Count(compact, []byte("\n")) != 1 || compact[len(compact)-1] != '\n' || !bytes.HasPrefix(pretty, []byte("{\n  \"kind\"")) {
			t.Errorf("%s: compact %q, pretty %q", target, compact, pretty)
		}
	}
	table := into[metav1.Table](t, e.must(200, "GET", cms, "", as("application/json", "Table")))
	if len(table.Rows) != 2 || table.ResourceVersion != plain.ResourceVersion || len(table.ColumnDefinitions) == 0 || !bytes.Contains(table.Rows[0].Object.Raw, []byte("PartialObjectMetadata")) {
		t.Errorf("table %+v", table)
	}
	if table = into[metav1.Table](t, e.must(200, "GET", cms+"/a?includeObject=None", "", as("application/json", "Table"))); len(table.Rows) != 1 || table.Rows[0].Object.Raw != nil {
		t.Errorf("table of one: %+v", table)
	}
	if table = into[metav1.Table](t, e.must(200, "GET", cms+"/a?includeObject=Object", "", as("application/json", "Table"))); !bytes.Contains(table.Rows[0].Object.Raw, []byte(`"data"`)) {
		t.Errorf("table with objects: %s", table.Rows[0].Object.Raw)
	}
	var partial metav1.PartialObjectMetadata
	fromProto(t, "PartialObjectMetadata", e.must(200, "GET", cms+"/a", "", as(proto, "PartialObjectMetadata")), &partial)
	var partials metav1.PartialObjectMetadataList
	fromProto(t, "PartialObjectMetadataList", e.must(200, "GET", cms, "", as(proto, "PartialObjectMetadataList")), &partials)
	if partial.Name != "a" || len(partials.Items) != 2 || partials.ResourceVersion != plain.ResourceVersion {
		t.Errorf("metadata %+v, %+v", partial, partials)
	}
	// What a write answers with is negotiated too.
	if p := into[metav1.PartialObjectMetadata](t, e.must(201, "POST", cms, configMap("c", ""), as("application/json", "PartialObjectMetadata"))); p.Name != "c" || p.Kind != "PartialObjectMetadata" {
		t.Errorf("created: %+v", p)
	}
	fromProto(t, "ConfigMap", e.must(201, "POST", cms, toProto(t, "v1", "ConfigMap", &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Data: map[string]string{"x": "y"}}), "Content-Type: "+proto, "Accept: "+proto), &cm)
	if cm.Name != "p" || cm.Data["x"] != "y" || cm.Namespace != "n" {
		t.Errorf("created by protobuf: %+v", cm)
	}
}

// TestCompression asks for an answer that is large, and one that is not, with and without gzip.
func TestCompression(t *testing.T) {
	e := newEdge(t)
	e.create("small")
	e.must(201, "POST", cms, configMap("large", `,"binaryData":{"b":"`+strings.Repeat("AAAA", compressFrom/4)+`"}`))
	plain := e.must(200, "GET", cms+"/large", "")
	zipped := e.must(200, "GET", cms+"/large", "", "Accept-Encoding: gzip")
	if plain.Header().Get("Content-Encoding") != "" || zipped.Header().Get("Content-Encoding") != "gzip" || zipped.Body.Len() >= plain.Body.Len() {
		t.Fatalf("encodings %q and %q, %d and %d bytes", plain.Header().Get("Content-Encoding"), zipped.Header().Get("Content-Encoding"), plain.Body.Len(), zipped.Body.Len())
	}
	z, err := gzip.NewReader(zipped.Body)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(z); err != nil || !bytes.Equal(b, plain.Body.Bytes()) {
		t.Errorf("unzipped: %v, %d bytes of %d", err, len(b), plain.Body.Len())
	}
	if w := e.must(200, "GET", cms+"/small", "", "Accept-Encoding: gzip"); w.Header().Get("Content-Encoding") != "" {
		t.Error("a small answer was compressed")
	}
}

// TestConnectAndPost checks what is handed on, and how.
func TestConnectAndPost(t *testing.T) {
	e := newEdge(t)
	const p = "/api/v1/namespaces/n/pods/p"
	e.must(http.StatusTeapot, "GET", p+"/log", "", "Accept: text/plain") // a stream is not negotiated
	e.must(http.StatusTeapot, "POST", p+"/exec?command=ls", "")
	e.must(http.StatusTeapot, "PUT", "/api/v1/namespaces/n/services/s:web/proxy/a/b", "")
	e.must(http.StatusTeapot, "OPTIONS", "/api/v1/nodes/m/proxy/", "")
	if want := []string{`GET n/p log ""`, `POST n/p exec ""`, `PUT n/s:web proxy "a/b"`, `OPTIONS /m proxy ""`}; !slices.Equal(e.connected, want) {
		t.Errorf("connected %q, want %q", e.connected, want)
	}
	e.must(405, "DELETE", p+"/log", "")
	e.must(201, "POST", "/api/v1/namespaces/n/serviceaccounts/s/token", `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"audiences":["a"]}}`)
	e.must(201, "POST", p+"/eviction", `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"p","namespace":"n"}}`)
	e.must(201, "POST", p+"/eviction", `{"apiVersion":"policy/v1beta1","kind":"Eviction","metadata":{"name":"p","namespace":"n"}}`)
	e.must(201, "POST", p+"/binding", `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"p"},"target":{"name":"m"}}`)
	if len(e.posted) != 4 {
		t.Fatalf("posted %d", len(e.posted))
	}
	if o, ok := e.posted[0].(*authnv1.TokenRequest); !ok || o.Spec.Audiences[0] != "a" {
		t.Errorf("a token request came as %T", e.posted[0])
	}
	for _, o := range e.posted[1:3] {
		if v, ok := o.(*policyv1.Eviction); !ok || v.Name != "p" {
			t.Errorf("an eviction came as %T", o)
		}
	}
	e.must(400, "POST", p+"/eviction", configMap("a", ""))
}

// TestWriteError checks what errors of every sort become.
func TestWriteError(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	for _, c := range []struct {
		err    error
		code   int
		reason metav1.StatusReason
		retry  string
	}{
		{apierrors.NewNotFound(pods, "p"), 404, metav1.StatusReasonNotFound, ""},
		{fmt.Errorf("get it: %w", apierrors.NewConflict(pods, "p", errors.New("stale"))), 409, metav1.StatusReasonConflict, ""},
		{apierrors.NewTooManyRequests("busy", 7), 429, metav1.StatusReasonTooManyRequests, "7"},
		{context.DeadlineExceeded, 504, metav1.StatusReasonTimeout, "1"},
		{errors.New("odd"), 500, "", ""},
	} {
		for _, media := range []string{"application/json", proto, "application/yaml", "text/html"} {
			r := httptest.NewRequest("GET", "/api/v1/pods", nil)
			r.Header.Set("Accept", media)
			w := httptest.NewRecorder()
			WriteError(w, r, c.err)
			var st metav1.Status
			if media == proto {
				fromProto(t, "Status", w, &st)
			} else if err := yaml.Unmarshal(w.Body.Bytes(), &st); err != nil {
				t.Fatal(err)
			}
			if w.Code != c.code || int(st.Code) != c.code || st.Reason != c.reason || w.Header().Get("Retry-After") != c.retry {
				t.Errorf("%v as %s: %d, status %d %q, retry after %q", c.err, media, w.Code, st.Code, st.Reason, w.Header().Get("Retry-After"))
			}
			want := media
			if media == "text/html" { // a client that takes nothing we speak is told so in what everybody reads
				want = "application/json"
			}
			if got := w.Header().Get("Content-Type"); got != want {
				t.Errorf("%v as %s: content type %q", c.err, media, got)
			}
		}
	}
}
