package apiserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"karve/api"
)

const (
	cms   = "/api/v1/namespaces/default/configmaps"
	proto = "application/vnd.kubernetes.protobuf"
)

// TestRefusals checks what is answered to requests that no resource serves, in the forms clients tell apart.
func TestRefusals(t *testing.T) {
	r := start(t)
	r.must(http.StatusCreated, nil, "POST", cms, configMap("a"))
	table := func(kind string) string { return "Accept: application/json;as=" + kind + ";g=meta.k8s.io;v=v1" }
	for _, c := range []struct {
		method, path, body string
		headers            []string
		code               int
		reason             metav1.StatusReason
		message            string
	}{
		{"GET", "/api/v1/nope", "", nil, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource"},
		{"GET", cms + "/a/nope", "", nil, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource"},
		{"GET", cms + "/a/b/c", "", nil, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource"},
		{"GET", "/apis/apps/v9/deployments", "", nil, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource"},
		{"GET", cms + "/b", "", nil, 404, metav1.StatusReasonNotFound, `configmaps "b" not found`},
		{"POST", "/api/v1/configmaps", configMap("b"), nil, 405, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource"},
		{"DELETE", "/api/v1/configmaps", "", nil, 405, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource"},
		{"POST", cms + "/a", configMap("a"), nil, 405, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource"},
		{"PUT", cms, configMap("a"), nil, 405, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource"},
		{"GET", cms, "", []string{"Accept: text/html"}, 406, metav1.StatusReasonNotAcceptable, "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"},
		{"GET", cms + "/a", "", []string{table("PartialObjectMetadataList")}, 406, metav1.StatusReasonNotAcceptable, "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)"},
		{"GET", cms, "", []string{table("PartialObjectMetadata")}, 406, metav1.StatusReasonNotAcceptable, "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)"},
		{"POST", cms, configMap("b"), []string{"Content-Type: text/plain"}, 415, metav1.StatusReasonUnsupportedMediaType, "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"PATCH", cms + "/a", "{}", []string{"Content-Type: application/json"}, 415, metav1.StatusReasonUnsupportedMediaType, "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"},
		{"POST", cms, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"b"}}`, nil, 400, metav1.StatusReasonBadRequest, `Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion`},
		{"POST", cms, "null!", nil, 400, metav1.StatusReasonBadRequest, "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character '!' after top-level value (6e756c6c21)"},
		{"GET", cms + "?timeout=1x", "", nil, 400, metav1.StatusReasonBadRequest, `invalid timeout specified in the request URL - time: unknown unit "x" in duration "1x"`},
		{"GET", cms + "?continue=x", "", nil, 400, metav1.StatusReasonBadRequest, "invalid continue token: continue key is not valid: illegal base64 data at input byte 0"},
		{"GET", cms + "?watch=1&resourceVersion=abc", "", nil, 500, "", `resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax`},
	} {
		a := r.do(c.method, c.path, c.body, c.headers...)
		st := a.status()
		if a.StatusCode != c.code || st.Reason != c.reason || !strings.HasPrefix(st.Message+"; ", c.message+"; ") || int(st.Code) != c.code {
			t.Errorf("%s %s %v: %d %q %q\nwant %d %q %q", c.method, c.path, c.headers, a.StatusCode, st.Reason, st.Message, c.code, c.reason, c.message)
		}
	}
	if a := r.do("GET", "/apis/nope.example.com/v1/things", ""); a.StatusCode != 404 || string(a.body) != "404 page not found\n" {
		t.Errorf("an unknown group: %d %q", a.StatusCode, a.body)
	}
}

// TestListBytes checks that a list put together from its items' bytes is what the library makes of the whole list.
func TestListBytes(t *testing.T) {
	r := start(t)
	for _, n := range []string{"a", "b", "c"} {
		r.must(http.StatusCreated, nil, "POST", cms, configMap(n))
	}
	got := r.must(http.StatusOK, nil, "GET", cms, "")
	var list corev1.ConfigMapList
	if err := json.Unmarshal(got.body, &list); err != nil || len(list.Items) < 3 {
		t.Fatalf("list: %v, %d items", err, len(list.Items))
	}
	want, err := json.Marshal(&list)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.TrimSuffix(got.body, []byte("\n")), want) {
		t.Errorf("JSON differs:\n%s\n%s", got.body, want)
	}
	var buf bytes.Buffer
	list.TypeMeta = metav1.TypeMeta{}
	whole := &list
	whole.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMapList"))
	got = r.must(http.StatusOK, nil, "GET", cms, "", "Accept: "+proto)
	codec := protobuf.NewSerializer(api.Scheme(), api.Scheme())
	if o, _, err := codec.Decode(got.body, nil, nil); err == nil {
		whole.ResourceVersion = o.(*corev1.ConfigMapList).ResourceVersion // the server may have written something meanwhile
	}
	if err := codec.Encode(whole, &buf); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.body, buf.Bytes()) {
		t.Errorf("protobuf differs: %d bytes, want %d", len(got.body), buf.Len())
	} else if ct := got.Header.Get("Content-Type"); ct != proto {
		t.Errorf("content type %q", ct)
	}
}

func TestPages(t *testing.T) {
	r := start(t)
	var want []string
	for i := range 5 {
		want = append(want, fmt.Sprintf("page-%d", i))
		r.must(http.StatusCreated, nil, "POST", cms, configMap(want[i]))
	}
	var names []string
	var left []int64
	next := ""
	for {
		var l corev1.ConfigMapList
		r.must(http.StatusOK, &l, "GET", cms+"?limit=2&fieldSelector=metadata.name!%3Dkube-root-ca.crt&continue="+next, "")
		for _, o := range l.Items {
			names = append(names, o.Name)
		}
		if next == "" { // what comes between two pages is not seen
			r.must(http.StatusCreated, nil, "POST", cms, configMap("page-1b"))
		}
		if l.RemainingItemCount != nil {
			left = append(left, *l.RemainingItemCount)
		}
		if next = l.Continue; next == "" {
			break
		}
	}
	if !slices.Equal(names, want) || len(left) != 0 {
		t.Errorf("names %v, remaining %v (a selector hides the count)", names, left)
	}
	var first corev1.ConfigMapList
	r.must(http.StatusOK, &first, "GET", cms+"?limit=2", "")
	if first.RemainingItemCount == nil || *first.RemainingItemCount != 4 {
		t.Errorf("remaining %v of six, after two", first.RemainingItemCount)
	}
	var all corev1.ConfigMapList
	r.must(http.StatusOK, &all, "GET", cms+"?limit=2&resourceVersion=0", "")
	if len(all.Items) < 6 || all.Continue != "" {
		t.Errorf("a list from the cache has %d items, continue %q: it knows no pages", len(all.Items), all.Continue)
	}
}

func TestForms(t *testing.T) {
	r := start(t)
	r.must(http.StatusCreated, nil, "POST", cms, configMap("a"))
	as := func(kind string) string { return "Accept: application/json;as=" + kind + ";g=meta.k8s.io;v=v1" }
	var table metav1.Table
	r.must(http.StatusOK, &table, "GET", cms+"/a", "", as("Table"))
	if table.Kind != "Table" || len(table.Rows) != 1 || fmt.Sprint(table.Rows[0].Cells[:2]) != "[a 1]" || len(table.ColumnDefinitions) != len(table.Rows[0].Cells) {
		t.Errorf("table %+v", table)
	}
	contains(t, table.Rows[0].Object.Raw, `"kind":"PartialObjectMetadata"`)
	r.must(http.StatusOK, &table, "GET", cms+"?includeObject=Object", "", as("Table"))
	contains(t, table.Rows[0].Object.Raw, `"kind":"ConfigMap"`)
	var meta metav1.PartialObjectMetadata
	r.must(http.StatusOK, &meta, "GET", cms+"/a", "", as("PartialObjectMetadata"))
	if meta.Name != "a" || meta.Kind != "PartialObjectMetadata" || meta.UID == "" {
		t.Errorf("metadata %+v", meta)
	}
	var metas metav1.PartialObjectMetadataList
	r.must(http.StatusOK, &metas, "GET", cms, "", as("PartialObjectMetadataList"))
	if metas.Kind != "PartialObjectMetadataList" || len(metas.Items) == 0 {
		t.Errorf("metadata list %+v", metas)
	}
	if a := r.must(http.StatusOK, nil, "GET", cms+"/a", "", "Accept: application/yaml"); !bytes.HasPrefix(a.body, []byte("apiVersion: v1\n")) {
		t.Errorf("yaml: %s", a.body)
	}
}

// TestEveryTable lists every resource there is as a table: none may break the server.
func TestEveryTable(t *testing.T) {
	r := start(t)
	r.serviceAccount()
	r.must(http.StatusCreated, nil, "POST", "/apis/events.k8s.io/v1/namespaces/default/events", `{"metadata":{"name":"e"},"eventTime":"2020-01-01T00:00:00.000001Z","action":"A","reason":"R","type":"Normal","note":"n","reportingController":"example.com/c","reportingInstance":"i","regarding":{"kind":"Pod","name":"p","namespace":"default"}}`)
	r.must(http.StatusCreated, nil, "POST", "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", `{"metadata":{"name":"h"},"spec":{"maxReplicas":3,"targetCPUUtilizationPercentage":80,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"}}}`)
	for _, row := range api.Rows() {
		if !row.Has("list") {
			continue
		}
		path := "/apis/" + row.Group + "/" + row.Version + "/" + row.Resource
		if row.Group == "" {
			path = "/api/v1/" + row.Resource
		}
		var table metav1.Table
		r.must(http.StatusOK, &table, "GET", path, "", "Accept: application/json;as=Table;g=meta.k8s.io;v=v1")
		for _, tr := range table.Rows {
			if len(tr.Cells) != len(table.ColumnDefinitions) && row.Resource != "ipaddresses" { // of which upstream shows the age without a heading
				t.Errorf("%s: %d cells for %d columns", path, len(tr.Cells), len(table.ColumnDefinitions))
			}
		}
	}
}

func TestWatchFrames(t *testing.T) {
	r := start(t)
	var made corev1.ConfigMap
	r.must(http.StatusCreated, &made, "POST", cms, configMap("w"))
	r.must(http.StatusOK, nil, "PATCH", cms+"/w", `{"metadata":{"finalizers":["example.com/x"]}}`, "Content-Type: application/merge-patch+json")
	r.must(http.StatusOK, nil, "DELETE", cms+"/w", "")
	r.must(http.StatusOK, nil, "PATCH", cms+"/w", `{"metadata":{"finalizers":null}}`, "Content-Type: application/merge-patch+json")
	watch := cms + "?watch=1&fieldSelector=metadata.name%3Dw&resourceVersion=" + made.ResourceVersion
	var kinds []string
	for _, f := range r.frames(watch, 3) {
		m := f["object"].(map[string]any)["metadata"].(map[string]any)
		kinds = append(kinds, fmt.Sprintf("%v%v%v", f["type"], m["finalizers"], m["deletionTimestamp"] != nil))
	}
	// The last event shows the object as it was stored, with the finalizer whose removal ended it.
	want := []string{"MODIFIED[example.com/x]false", "MODIFIED[example.com/x]true", "DELETED[example.com/x]true"}
	if !slices.Equal(kinds, want) {
		t.Errorf("events %v, want %v", kinds, want)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	res, err := r.http.Do(r.request(ctx, "GET", watch, "", "Accept: "+proto))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if ct := res.Header.Get("Content-Type"); ct != proto+";stream=watch" {
		t.Errorf("content type %q", ct)
	}
	size := make([]byte, 4)
	if _, err := io.ReadFull(res.Body, size); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, binary.BigEndian.Uint32(size))
	if _, err := io.ReadFull(res.Body, frame); err != nil {
		t.Fatal(err)
	}
	var ev metav1.WatchEvent
	if err := ev.Unmarshal(frame); err != nil {
		t.Fatal(err)
	}
	o, err := runtime.Decode(protobuf.NewSerializer(api.Scheme(), api.Scheme()), ev.Object.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if cm, ok := o.(*corev1.ConfigMap); !ok || ev.Type != "MODIFIED" || cm.Data["k"] != "v" {
		t.Errorf("first event %s %v", ev.Type, o)
	}
}

// A patch of a few bytes must not grow in the server's memory: each copy here would double all there is.
func TestPatchDoesNotMultiply(t *testing.T) {
	r := start(t)
	r.must(http.StatusCreated, nil, "POST", "/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"c"},"data":{"k":"`+strings.Repeat("v", 1000)+`"}}`)
	var ops []string
	for i := range 13 {
		ops = append(ops, fmt.Sprintf(`{"op":"copy","from":"/data","path":"/data/x%d"}`, i))
	}
	a := r.do("PATCH", "/api/v1/namespaces/default/configmaps/c", "["+strings.Join(ops, ",")+"]", "Content-Type: application/json-patch+json")
	if a.StatusCode != http.StatusUnprocessableEntity || len(a.body) > 4096 {
		t.Errorf("%d, %d bytes", a.StatusCode, len(a.body)) // the answer would hold what has come of the object
	}
}
