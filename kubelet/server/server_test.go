package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"karve/client"
	"karve/kubelet/critest"
	"karve/kubelet/node"
	"karve/kubelet/podrun"
	"karve/kubelet/podworker"
)

type onePod struct{ v podrun.View }

func (p onePod) Views() []podrun.View { return []podrun.View{p.v} }
func (p onePod) Find(ns, name string, uid types.UID) (podrun.View, bool) {
	return p.v, ns == "ns" && name == "p" && (uid == "" || uid == "u")
}

func testServer(t *testing.T, authorize func(*http.Request, string, string) error) (*httptest.Server, string) {
	t.Helper()
	dir := t.TempDir()
	rt := critest.New()
	rt.OnExec = func(_ string, cmd []string) (string, int32) {
		if cmd[0] == "fail" {
			return "", 7
		}
		return "ran " + strings.Join(cmd, " "), 0
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}, {Name: "waiting"}}}}
	v := podrun.View{Pod: pod, Observed: podworker.Observed{Sandboxes: []podworker.Sandbox{{ID: "s", Ready: true}},
		Containers: []podworker.Container{{ID: "c1", Name: "c", State: podworker.Running, RestartCount: 1}, {ID: "c0", Name: "c", State: podworker.Exited}}}}
	if authorize == nil {
		authorize = func(*http.Request, string, string) error { return nil }
	}
	s := New(Config{Pods: onePod{v}, Runtime: rt, Node: "n1", Machine: func() node.Machine { return node.Machine{} }, Authorize: authorize, LogDir: dir, Log: slog.New(slog.DiscardHandler),
		LogPath: func(_ *corev1.Pod, c string, n int32) string {
			return filepath.Join(dir, fmt.Sprintf("%s-%d.log", c, n))
		}})
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return h, dir
}

func get(t *testing.T, u string) (int, string) {
	t.Helper()
	r, err := http.Get(u)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestLogs(t *testing.T) {
	h, dir := testServer(t, nil)
	log := func(n int, text string) {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("c-%d.log", n)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log(1, "2026-01-01T00:00:00.000000001Z stdout F one\n2026-01-01T00:00:01Z stderr F two\n2026-01-01T00:00:02Z stdout P thr\n2026-01-01T00:00:02Z stdout F ee\n")
	log(0, "2026-01-01T00:00:00Z stdout F before\n")
	for _, tc := range []struct {
		path, query string
		code        int
		want        string
	}{
		{"ns/p/c", "", 200, "one\ntwo\nthree\n"},
		{"ns/p/c", "tailLines=1", 200, "three\n"},
		{"ns/p/c", "tailLines=2", 200, "two\nthree\n"},
		{"ns/p/c", "tailLines=0", 200, ""},
		{"ns/p/c", "limitBytes=5", 200, "one\nt"},
		{"ns/p/c", "sinceTime=2026-01-01T00:00:01Z", 200, "two\nthree\n"},
		{"ns/p/c", "timestamps=true&tailLines=2", 200, "2026-01-01T00:00:01.000000000Z two\n2026-01-01T00:00:02.000000000Z three\n"},
		{"ns/p/c", "previous=true", 200, "before\n"},
		{"ns/p/c", "stream=Stderr", 200, "two\n"},
		{"ns/p/c", "tailLines=x", 422, "invalid value \"x\" of tailLines\n"},
		{"ns/p/waiting", "", 400, "container \"waiting\" in pod \"p\" is waiting to start: ContainerCreating\n"},
		{"ns/p/none", "", 404, "container \"none\" not found in pod \"p\"\n"},
		{"ns/q/c", "", 404, "pod \"q\" does not exist\n"},
	} {
		code, body := get(t, h.URL+"/containerLogs/"+tc.path+"?"+tc.query)
		if code != tc.code || body != tc.want {
			t.Errorf("%s?%s: %d %q, want %d %q", tc.path, tc.query, code, body, tc.code, tc.want)
		}
	}
}

func TestExec(t *testing.T) {
	h, _ := testServer(t, nil)
	config := &rest.Config{Host: h.URL}
	make := map[string]func(u *url.URL) (remotecommand.Executor, error){
		"spdy": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(config, "POST", u)
		},
		"websocket": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutor(config, "GET", u.String())
		},
		"websocket v4": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", u.String(), "v4.channel.k8s.io")
		},
	}
	for name, fn := range make {
		t.Run(name, func(t *testing.T) {
			run := func(query string, stdin io.Reader) (string, error) {
				u, err := url.Parse(h.URL + "/exec/ns/p/c?output=1&error=1&" + query)
				if err != nil {
					t.Fatal(err)
				}
				e, err := fn(u)
				if err != nil {
					t.Fatal(err)
				}
				var out, errs bytes.Buffer
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: &out, Stderr: &errs})
				return out.String(), err
			}
			if out, err := run("command=echo&command=hi", nil); err != nil || out != "ran echo hi" {
				t.Errorf("echo: %q %v", out, err)
			}
			_, err := run("command=fail", nil)
			var exit utilexec.CodeExitError
			if !errors.As(err, &exit) || exit.Code != 7 {
				t.Errorf("fail: %v", err)
			}
			if name == "websocket v4" {
				return // cannot close stdin
			}
			if out, err := run("command=cat&input=1", strings.NewReader("through")); err != nil || out != "through" {
				t.Errorf("cat: %q %v", out, err)
			}
		})
	}
}

func TestPortForward(t *testing.T) {
	h, _ := testServer(t, nil)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "from the pod") }))
	defer web.Close()
	_, port, err := net.SplitHostPort(web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(h.URL + "/portForward/ns/p")
	if err != nil {
		t.Fatal(err)
	}
	config := &rest.Config{Host: h.URL}
	rt, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		t.Fatal(err)
	}
	plain := spdy.NewDialer(upgrader, &http.Client{Transport: rt}, "POST", u)
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(u, config)
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]httpstream.Dialer{"spdy": plain, "websocket": tunnel} {
		t.Run(name, func(t *testing.T) {
			stop, ready := make(chan struct{}), make(chan struct{})
			f, err := portforward.New(d, []string{"0:" + port}, stop, ready, io.Discard, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- f.ForwardPorts() }()
			select {
			case <-ready:
			case err := <-done:
				t.Fatal(err)
			}
			ports, err := f.GetPorts()
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if code, body := get(t, fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local)); code != 200 || body != "from the pod" {
					t.Errorf("%d %q", code, body)
				}
			}
			close(stop)
			<-done
		})
	}
}

func TestAttributes(t *testing.T) {
	for _, tc := range []struct{ method, path, want string }{
		{"GET", "/healthz", "get healthz,proxy"}, {"GET", "/pods", "get pods,proxy"}, {"GET", "/metrics/cadvisor", "get metrics"}, {"GET", "/stats/summary", "get stats"},
		{"GET", "/logs/x", "get log"}, {"POST", "/exec/a/b/c", "create proxy"}, {"GET", "/containerLogs/a/b/c", "get proxy"}, {"GET", "/statsx", "get proxy"},
	} {
		r := httptest.NewRequest(tc.method, tc.path, nil)
		verb, subs := Attributes(r)
		if got := verb + " " + strings.Join(subs, ","); got != tc.want {
			t.Errorf("%s %s: %s, want %s", tc.method, tc.path, got, tc.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	h, _ := testServer(t, NewAccess(reviews{}, "n1", time.Now).Authorize)
	for _, tc := range []struct {
		token, path string
		code        int
	}{
		{"", "/healthz", 401}, {"", "/exec/ns/p/c?command=x&output=1", 401}, {"", "/nothing", 401}, {"bad", "/healthz", 401},
		{"good", "/healthz", 200}, {"good", "/metrics", 403}, {"good", "/pods", 200},
	} {
		r, err := http.NewRequest("GET", h.URL+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.token != "" {
			r.Header.Set("Authorization", "Bearer "+tc.token)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.code {
			t.Errorf("%q %s: %d, want %d", tc.token, tc.path, resp.StatusCode, tc.code)
		}
	}
}

// reviews knows one token, whose user may do anything but read metrics.
type reviews struct{}

func (reviews) Watch(context.Context, *client.Request) (watch.Interface, error) {
	return nil, errors.New("no watch")
}

func (reviews) Do(_ context.Context, r *client.Request) (runtime.Object, error) {
	switch o := r.Object.DeepCopyObject().(type) {
	case *authnv1.TokenReview:
		o.Status.Authenticated = o.Spec.Token == "good"
		o.Status.User.Username = "jane"
		return o, nil
	case *authzv1.SubjectAccessReview:
		o.Status.Allowed = o.Spec.User == "jane" && o.Spec.ResourceAttributes.Name == "n1" && o.Spec.ResourceAttributes.Subresource == "proxy"
		return o, nil
	}
	return nil, errors.New("unexpected")
}
