package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// serve starts an HTTP/2 server and a transport to it.
func serve(t *testing.T, h http.HandlerFunc, change ...func(*HTTPOptions)) Transport {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	o := HTTPOptions{Server: s.URL + "/", TLS: &tls.Config{RootCAs: pool}, UserAgent: "karve/test"}
	for _, f := range change {
		f(&o)
	}
	tr, err := NewHTTP(o)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func answer(t *testing.T, w http.ResponseWriter, code int, obj runtime.Object) {
	data, media, err := encode(obj)
	if err != nil {
		t.Error(err)
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(code)
	w.Write(data)
}

func testPod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", ResourceVersion: "7"}}
}

func TestHTTPRequests(t *testing.T) {
	seconds, yes := int64(9), true
	tests := []struct {
		name              string
		req               Request
		method, uri, body string // body is a part of it
		contentType       string
	}{
		{"get", Request{Verb: "get", Resource: pods, Namespace: "default", Name: "a"}, "GET", "/api/v1/namespaces/default/pods/a", "", ""},
		{"name with a colon", Request{Verb: "get", Resource: schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, Name: "system:node"},
			"GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node", "", ""},
		{"list", Request{Verb: "list", Resource: pods, List: metav1.ListOptions{LabelSelector: "a=b", FieldSelector: "spec.nodeName=n", ResourceVersion: "0", Limit: 5, Continue: "x"}},
			"GET", "/api/v1/pods?continue=x&fieldSelector=spec.nodeName%3Dn&labelSelector=a%3Db&limit=5&resourceVersion=0", "", ""},
		{"watch", Request{Verb: "watch", Resource: pods, List: metav1.ListOptions{AllowWatchBookmarks: true, SendInitialEvents: &yes, ResourceVersionMatch: "NotOlderThan", TimeoutSeconds: &seconds}},
			"GET", "/api/v1/pods?allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&timeoutSeconds=9&watch=true", "", ""},
		{"create", Request{Verb: "create", Resource: pods, Namespace: "default", Object: testPod("a"), FieldManager: "m", DryRun: true},
			"POST", "/api/v1/namespaces/default/pods?dryRun=All&fieldManager=m", "k8s\x00", mediaProtobuf},
		{"create sub", Request{Verb: "create", Resource: pods, Namespace: "default", Name: "a", Subresource: "eviction", Object: &policyv1.Eviction{}},
			"POST", "/api/v1/namespaces/default/pods/a/eviction", "policy/v1", mediaProtobuf},
		{"update status", Request{Verb: "update", Resource: pods, Namespace: "default", Name: "a", Subresource: "status", Object: testPod("a")},
			"PUT", "/api/v1/namespaces/default/pods/a/status", "k8s\x00", mediaProtobuf},
		{"apply", Request{Verb: "patch", Resource: pods, Namespace: "default", Name: "a", PatchType: types.ApplyPatchType, Patch: []byte("{}"), FieldManager: "m", Force: true},
			"PATCH", "/api/v1/namespaces/default/pods/a?fieldManager=m&force=true", "{}", "application/apply-patch+yaml"},
		{"delete", Request{Verb: "delete", Resource: pods, Namespace: "default", Name: "a", Delete: metav1.DeleteOptions{GracePeriodSeconds: &seconds}},
			"DELETE", "/api/v1/namespaces/default/pods/a", `"gracePeriodSeconds":9`, mediaJSON},
		{"deletecollection", Request{Verb: "deletecollection", Resource: pods, Namespace: "default", List: metav1.ListOptions{LabelSelector: "a"}},
			"DELETE", "/api/v1/namespaces/default/pods?labelSelector=a", `"kind":"DeleteOptions"`, mediaJSON},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.Method != tt.method || r.RequestURI != tt.uri {
					t.Errorf("got %s %s, want %s %s", r.Method, r.RequestURI, tt.method, tt.uri)
				}
				if !strings.Contains(string(body), tt.body) || (tt.body == "" && len(body) > 0) {
					t.Errorf("body %q lacks %q", body, tt.body)
				}
				if got := r.Header.Get("Content-Type"); got != tt.contentType {
					t.Errorf("content type %q, want %q", got, tt.contentType)
				}
				if r.ProtoMajor != 2 {
					t.Errorf("protocol %s", r.Proto)
				}
				if r.Header.Get("User-Agent") != "karve/test" || r.Header.Get("Accept-Encoding") != "" {
					t.Errorf("headers %v", r.Header)
				}
				if tt.req.Verb == "watch" {
					w.Header().Set("Content-Type", mediaProtobuf+";stream=watch")
					return
				}
				answer(t, w, 200, testPod("a"))
			})
			if tt.req.Verb == "watch" {
				w, err := tr.Watch(t.Context(), &tt.req)
				if err != nil {
					t.Fatal(err)
				}
				w.Stop()
				return
			}
			obj, err := tr.Do(t.Context(), &tt.req)
			if err != nil {
				t.Fatal(err)
			}
			if p, ok := obj.(*corev1.Pod); !ok || p.Name != "a" || p.ResourceVersion != "7" {
				t.Errorf("answer %#v", obj)
			}
		})
	}
}

func TestHTTPRefusesPathTricks(t *testing.T) {
	tr := serve(t, func(w http.ResponseWriter, r *http.Request) { t.Errorf("sent %s", r.RequestURI) })
	for _, name := range []string{"../x", "a/b", "..", "a%2fb"} {
		if _, err := tr.Do(t.Context(), &Request{Verb: "get", Resource: pods, Namespace: "default", Name: name}); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

func TestHTTPErrors(t *testing.T) {
	tests := []struct {
		name  string
		reply func(t *testing.T, w http.ResponseWriter)
		is    func(error) bool
	}{
		{"protobuf status", func(t *testing.T, w http.ResponseWriter) {
			s := apierrors.NewNotFound(pods.GroupResource(), "a").Status()
			answer(t, w, 404, &s)
		}, apierrors.IsNotFound},
		{"json status", func(t *testing.T, w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(409)
			io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409}`)
		}, apierrors.IsConflict},
		{"no status", func(t *testing.T, w http.ResponseWriter) { http.Error(w, "go away", http.StatusForbidden) }, func(err error) bool {
			return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "go away")
		}},
		{"redirect", func(t *testing.T, w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(302)
		}, func(err error) bool {
			var s *apierrors.StatusError
			return errors.As(err, &s) && s.ErrStatus.Code == 302
		}},
		{"not an object", func(t *testing.T, w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>")
		}, func(err error) bool { return err != nil && strings.Contains(err.Error(), "text/html") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := serve(t, func(w http.ResponseWriter, r *http.Request) { tt.reply(t, w) })
			_, err := Of[*corev1.Pod](tr).Get(t.Context(), "default", "a")
			if !tt.is(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestHTTPRetryAfter(t *testing.T) {
	var n atomic.Int32
	tr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if len(body) == 0 {
			t.Error("a retry came without its body")
		}
		if n.Add(1) < 3 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(429)
			return
		}
		answer(t, w, 201, testPod("a"))
	})
	if _, err := Of[*corev1.Pod](tr).Create(t.Context(), testPod("a")); err != nil || n.Load() != 3 {
		t.Errorf("%v after %d requests", err, n.Load())
	}
	n.Store(0)
	tr = serve(t, func(w http.ResponseWriter, r *http.Request) { n.Add(1); w.WriteHeader(429) })
	if _, err := Of[*corev1.Pod](tr).Get(t.Context(), "default", "a"); !apierrors.IsTooManyRequests(err) || n.Load() != 1 {
		t.Errorf("without Retry-After: %v after %d requests", err, n.Load())
	}
	tr = serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(429)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Of[*corev1.Pod](tr).Get(ctx, "default", "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestHTTPToken(t *testing.T) {
	token := "one"
	var got []string
	tr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		answer(t, w, 200, testPod("a"))
	}, func(o *HTTPOptions) { o.BearerToken = func() string { return token } })
	for _, token = range []string{"one", "two", ""} {
		if _, err := Of[*corev1.Pod](tr).Get(t.Context(), "default", "a"); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Join(got, ",") != "Bearer one,Bearer two," {
		t.Errorf("got %q", got)
	}
}

func frame(t *testing.T, kind string, obj runtime.Object) []byte {
	raw, _, err := encode(obj)
	if err != nil {
		t.Fatal(err)
	}
	e := metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: raw}}
	data, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
}

func TestHTTPWatch(t *testing.T) {
	gone := apierrors.NewResourceExpired("too old").Status()
	first, second := frame(t, "ADDED", testPod("a")), frame(t, "ERROR", &gone)
	ended := make(chan struct{})
	tr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", mediaProtobuf+";stream=watch")
		w.Write(first[:10])
		w.(http.Flusher).Flush()
		w.Write(first[10:])
		w.Write(second)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(ended)
	})
	w, err := Of[*corev1.Pod](tr).Watch(t.Context(), "", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if e := <-w.ResultChan(); e.Type != watch.Added || e.Object.(*corev1.Pod).Name != "a" {
		t.Errorf("got %v", e)
	}
	if e := <-w.ResultChan(); e.Type != watch.Error || !apierrors.IsResourceExpired(apierrors.FromObject(e.Object)) {
		t.Errorf("got %v", e)
	}
	w.Stop()
	<-ended
	if _, open := <-w.ResultChan(); open {
		t.Error("an event after Stop")
	}
}

func TestHTTPWatchJSONAndTruncation(t *testing.T) {
	tests := map[string]struct {
		media, body string
		want        []watch.EventType
	}{
		"json":      {mediaJSON, `{"type":"ADDED","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}}` + "\n", []watch.EventType{watch.Added}},
		"truncated": {mediaProtobuf, "\x00\x00\x01\x00abc", nil},
		"too large": {mediaProtobuf, "\xff\x00\x01\x00abc", []watch.EventType{watch.Error}},
		"garbage":   {mediaProtobuf, "\x00\x00\x00\x03abc", []watch.EventType{watch.Error}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tr := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", tt.media)
				io.WriteString(w, tt.body)
			})
			w, err := tr.Watch(t.Context(), &Request{Resource: pods})
			if err != nil {
				t.Fatal(err)
			}
			var got []watch.EventType
			for e := range w.ResultChan() {
				got = append(got, e.Type)
			}
			if len(got) != len(tt.want) || (len(got) > 0 && got[0] != tt.want[0]) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestHTTPCustomResource(t *testing.T) {
	ship := schema.GroupVersionResource{Group: "sea.test", Version: "v1", Resource: "ships"}
	tr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != mediaJSON || r.Header.Get("Content-Type") != mediaJSON {
			t.Errorf("headers %v", r.Header)
		}
		w.Header().Set("Content-Type", mediaJSON)
		io.Copy(w, r.Body)
	})
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "sea.test/v1", "kind": "Ship", "metadata": map[string]any{"name": "a"}}}
	obj, err := tr.Do(t.Context(), &Request{Verb: "create", Resource: ship, Object: u})
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := obj.(*unstructured.Unstructured); !ok || got.GetName() != "a" {
		t.Errorf("got %#v", obj)
	}
}

func TestKubeconfig(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer from-file" {
			w.WriteHeader(401)
			return
		}
		answer(t, w, 200, testPod("a"))
	}))
	defer s.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	write("token", "from-file\n")
	path := write("config", `{current-context: one, contexts: [{name: one, context: {cluster: c, user: u}}, {name: lost, context: {cluster: none}}, {name: exec, context: {cluster: c, user: e}}],
clusters: [{name: c, cluster: {server: "`+s.URL+`", certificate-authority-data: `+base64.StdEncoding.EncodeToString(ca)+`}}],
users: [{name: u, user: {tokenFile: token}}, {name: e, user: {exec: {command: login}}}]}`)
	tr, err := FromKubeconfig(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Of[*corev1.Pod](tr).Get(t.Context(), "default", "a"); err != nil {
		t.Error(err)
	}
	for context, want := range map[string]string{"lost": "not in the file", "exec": "plug-in", "two": `no context "two"`} {
		if _, err := FromKubeconfig(path, context); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", context, err)
		}
	}
	if _, err := FromKubeconfig(write("bad", "users: [secret"), ""); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}
