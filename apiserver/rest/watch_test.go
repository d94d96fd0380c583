package rest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"karve/api"
	"karve/apiserver/authn"
	"karve/apiserver/request"
)

// stream is an answer that is read while it is written.
type stream struct {
	http.ResponseWriter
	io.Writer
}

func (s stream) Write(b []byte) (int, error) { return s.Writer.Write(b) }
func (s stream) Flush()                      {}

// watch opens a watch, and returns what is written to it until the test ends it.
func (e *edge) watch(target, accept string) (w *httptest.ResponseRecorder, body io.Reader, end func()) {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.t.Context())
	r := httptest.NewRequestWithContext(ctx, "GET", target, nil)
	r.Header.Set("Accept", accept)
	w = httptest.NewRecorder()
	from, to := io.Pipe()
	var done sync.WaitGroup
	done.Go(func() {
		e.Serve(stream{w, to}, r, request.Parse(r), &authn.User{Name: "test"})
		to.Close()
	})
	end = sync.OnceFunc(func() { cancel(); from.Close(); done.Wait() })
	e.t.Cleanup(end)
	return w, from, end
}

// events reads n JSON events as "TYPE name".
func events(t *testing.T, d *json.Decoder, n int) string {
	t.Helper()
	var out []string
	for range n {
		var e struct {
			Type   string
			Object struct {
				Kind     string
				Metadata metav1.ObjectMeta
				Code     int
			}
		}
		if err := d.Decode(&e); err != nil {
			t.Fatalf("after %v: %v", out, err)
		}
		out = append(out, strings.TrimSpace(e.Type+" "+e.Object.Kind+" "+e.Object.Metadata.Name))
	}
	return strings.Join(out, ", ")
}

func TestWatch(t *testing.T) {
	e := newEdge(t)
	e.create("a")
	_, body, end := e.watch(cms+"?watch=1", "application/json")
	d := json.NewDecoder(body)
	if got := events(t, d, 1); got != "ADDED ConfigMap a" {
		t.Errorf("first: %s", got)
	}
	e.create("b")
	e.must(200, "PATCH", cms+"/a", `{"data":{"k":"2"}}`, "Content-Type: application/merge-patch+json")
	e.must(200, "DELETE", cms+"/a", "")
	if got, want := events(t, d, 3), "ADDED ConfigMap b, MODIFIED ConfigMap a, DELETED ConfigMap a"; got != want {
		t.Errorf("then: %s, want %s", got, want)
	}
	end()

	from := into[corev1.ConfigMapList](t, e.must(200, "GET", cms, "")).ResourceVersion
	e.create("c")
	_, body, end = e.watch(cms+"?watch=1&resourceVersion="+from, "application/json")
	if got := events(t, json.NewDecoder(body), 1); got != "ADDED ConfigMap c" {
		t.Errorf("from %s: %s", from, got)
	}
	end()

	_, body, end = e.watch(cms+"?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", "application/json")
	d = json.NewDecoder(body)
	if got, want := events(t, d, 2), "ADDED ConfigMap b, ADDED ConfigMap c"; got != want {
		t.Errorf("initial: %s, want %s", got, want)
	}
	var mark struct {
		Type   string
		Object corev1.ConfigMap
	}
	if err := d.Decode(&mark); err != nil || mark.Type != "BOOKMARK" || mark.Object.Annotations[metav1.InitialEventsAnnotationKey] != "true" || mark.Object.ResourceVersion == "" {
		t.Errorf("bookmark: %v %+v", err, mark)
	}
	end()

	_, body, end = e.watch("/api/v1/watch/namespaces/n/configmaps/c", "application/json")
	if got := events(t, json.NewDecoder(body), 1); got != "ADDED ConfigMap c" {
		t.Errorf("the old form: %s", got)
	}
	end()
}

// TestWatchEnds checks that a watch ends by its timeout, and that one that fell behind is told so.
func TestWatchEnds(t *testing.T) {
	e := newEdge(t)
	e.create("a")
	_, body, end := e.watch(cms+"?watch=1&timeoutSeconds=1", "application/json")
	defer end()
	d := json.NewDecoder(body)
	events(t, d, 1)
	done := make(chan error, 1)
	go func() { var x any; done <- d.Decode(&x) }()
	select {
	case err := <-done:
		if err != io.EOF {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	revision := into[corev1.ConfigMapList](t, e.must(200, "GET", cms, "")).ResourceVersion
	e.create("b", "c")
	e.Door.Store().Compact(e.Door.Store().Revision())
	if st := status(t, e.must(http.StatusGone, "GET", cms+"?watch=1&resourceVersion="+revision, "")); st.Reason != metav1.StatusReasonExpired {
		t.Errorf("too old: %+v", st)
	}
}

func TestWatchForms(t *testing.T) {
	e := newEdge(t)
	e.create("a", "b")
	w, body, end := e.watch(cms+"?watch=1", proto)
	r := protobuf.LengthDelimitedFramer.NewFrameReader(io.NopCloser(body))
	raw := protobuf.NewRawSerializer(api.Scheme(), api.Scheme())
	for _, name := range []string{"a", "b"} {
		buf := make([]byte, 1<<16)
		n, err := r.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		ev := &metav1.WatchEvent{}
		if _, _, err := raw.Decode(buf[:n], nil, ev); err != nil {
			t.Fatal(err)
		}
		o, _, err := protobuf.NewSerializer(api.Scheme(), api.Scheme()).Decode(ev.Object.Raw, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if cm, ok := o.(*corev1.ConfigMap); !ok || cm.Name != name || ev.Type != "ADDED" {
			t.Errorf("%s %T", ev.Type, o)
		}
	}
	end()
	if got := w.Result().Header.Get("Content-Type"); got != proto+";stream=watch" {
		t.Errorf("content type %q", got)
	}

	w, body, end = e.watch(cms+"?watch=1", "application/json;as=Table;g=meta.k8s.io;v=v1")
	d := json.NewDecoder(body)
	for i := range 2 {
		var ev struct{ Object metav1.Table }
		if err := d.Decode(&ev); err != nil {
			t.Fatal(err)
		}
		if len(ev.Object.Rows) != 1 || (len(ev.Object.ColumnDefinitions) > 0) != (i == 0) {
			t.Errorf("table %d has %d rows and %d columns", i, len(ev.Object.Rows), len(ev.Object.ColumnDefinitions))
		}
	}
	end()
	if got := w.Result().Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}

	_, body, end = e.watch(cms+"?watch=1", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
	if got := events(t, json.NewDecoder(body), 1); got != "ADDED PartialObjectMetadata a" {
		t.Errorf("metadata: %s", got)
	}
	end()
}
