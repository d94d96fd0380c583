package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"karve/apiserver/authn"
	"karve/apiserver/request"
	"karve/apiserver/resource"
	"karve/store"
	"karve/store/engine/mem"
)

const (
	cms   = "/api/v1/namespaces/n/configmaps"
	proto = "application/vnd.kubernetes.protobuf"
)

// edge is a handler over an empty store, with what it was asked to post and to connect.
type edge struct {
	*Handler
	t         *testing.T
	posted    []runtime.Object
	connected []string
}

func newEdge(t *testing.T) *edge {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Engine: mem.New(), Topic: resource.Topic, Attach: resource.Attach})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	log := slog.New(slog.DiscardHandler)
	e := &edge{t: t}
	e.Handler = &Handler{Door: resource.New(st, log), Log: log,
		Post: func(_ context.Context, _ *resource.Call, body runtime.Object) (runtime.Object, error) {
			e.posted = append(e.posted, body)
			return body, nil
		},
		Connect: func(w http.ResponseWriter, r *http.Request, i *request.Info, c *resource.Call) {
			e.connected = append(e.connected, fmt.Sprintf("%s %s/%s %s %q", r.Method, c.Namespace, c.Name, c.Sub, i.Rest))
			w.WriteHeader(http.StatusTeapot)
		}}
	return e
}

// do sends one request; headers are "Name: value".
func (e *edge) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	e.t.Helper()
	return e.with(e.t.Context(), method, target, body, headers...)
}

func (e *edge) with(ctx context.Context, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	e.t.Helper()
	r := httptest.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	r.Header.Set("User-Agent", "tester/1 (linux)")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	e.Serve(w, r, request.Parse(r), &authn.User{Name: "test"})
	return w
}

// must is do for a request whose status is known.
func (e *edge) must(status int, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	e.t.Helper()
	w := e.do(method, target, body, headers...)
	if w.Code != status {
		e.t.Fatalf("%s %s: %d, want %d: %s", method, target, w.Code, status, w.Body)
	}
	return w
}

func into[T any](t *testing.T, w *httptest.ResponseRecorder) *T {
	t.Helper()
	out := new(T)
	if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return out
}

// fromProto reads a protobuf answer, and checks the kind that its envelope names.
func fromProto(t *testing.T, kind string, w *httptest.ResponseRecorder, out interface{ Unmarshal([]byte) error }) {
	t.Helper()
	raw, ok := bytes.CutPrefix(w.Body.Bytes(), []byte("k8s\x00"))
	var u runtime.Unknown
	if !ok {
		t.Fatalf("no protobuf: %q", w.Body)
	}
	if err := u.Unmarshal(raw); err != nil {
		t.Fatal(err)
	}
	if u.Kind != kind {
		t.Fatalf("the envelope is of a %s, not a %s", u.Kind, kind)
	}
	if err := out.Unmarshal(u.Raw); err != nil {
		t.Fatal(err)
	}
}

// toProto writes an object as clients send it.
func toProto(t *testing.T, apiVersion, kind string, o interface{ Marshal() ([]byte, error) }) string {
	t.Helper()
	raw, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: kind}, Raw: raw}
	b, err := u.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return "k8s\x00" + string(b)
}

func configMap(name, more string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"namespace":"n"},"data":{"k":"v"}%s}`, name, more)
}

func (e *edge) create(names ...string) {
	e.t.Helper()
	for _, n := range names {
		e.must(http.StatusCreated, "POST", cms, configMap(n, ""))
	}
}

// status reads an answer as a Status.
func status(t *testing.T, w *httptest.ResponseRecorder) *metav1.Status {
	return into[metav1.Status](t, w)
}

func names(l *corev1.ConfigMapList) string {
	var out []string
	for _, o := range l.Items {
		out = append(out, o.Name)
	}
	return strings.Join(out, " ")
}
