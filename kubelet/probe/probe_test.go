package probe

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestCounter(t *testing.T) {
	c := &Counter{probe: &corev1.Probe{SuccessThreshold: 2, FailureThreshold: 3}}
	got := ""
	for _, ok := range []bool{true, true, false, false, true, false, false, false, false} {
		healthy, decided := c.Add(ok)
		got += map[[2]bool]string{{true, true}: "H", {false, true}: "S", {true, false}: ".", {false, false}: "."}[[2]bool{healthy, decided}]
	}
	if got != ".H.....SS" {
		t.Error(got)
	}
}

func TestCheck(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(503)
		case "/away":
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
		case "/header":
			if r.Header.Get("X-A") != "1" || r.Host != "h" || !strings.HasPrefix(r.UserAgent(), "kube-probe/") {
				w.WriteHeader(400)
			}
		}
	}))
	defer web.Close()
	port := web.Listener.Addr().(*net.TCPAddr).Port
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g, h := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(g, h)
	h.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	go g.Serve(l)
	defer g.Stop()
	gport := int32(l.Addr().(*net.TCPAddr).Port)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := closed.Addr().(*net.TCPAddr).Port
	closed.Close()
	container := &corev1.Container{Name: "c", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}}
	get := func(path string, headers ...corev1.HTTPHeader) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("web"), HTTPHeaders: headers}}
	}
	sick := "sick"
	for _, tc := range []struct {
		name string
		h    corev1.ProbeHandler
		want string
	}{
		{"http", get("/"), "true"}, {"http 503", get("/bad"), "false HTTP probe failed with statuscode: 503"}, {"redirect away", get("/away"), "true"},
		{"headers", get("/header", corev1.HTTPHeader{Name: "X-A", Value: "1"}, corev1.HTTPHeader{Name: "Host", Value: "h"}), "true"},
		{"tcp", corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(port))}}, "true"},
		{"tcp refused", corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(dead))}}, fmt.Sprintf("false dial tcp 127.0.0.1:%d: connect: connection refused", dead)},
		{"unknown port", corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("none")}}, "error couldn't find port: none"},
		{"grpc", corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: gport}}, "true"},
		{"grpc sick", corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: gport, Service: &sick}}, `false service unhealthy (responded with "NOT_SERVING")`},
	} {
		ok, text, err := NewChecker(nil).Check(context.Background(), &corev1.Probe{ProbeHandler: tc.h, TimeoutSeconds: 10}, container, "id", "127.0.0.1")
		got := fmt.Sprint(ok)
		if !ok {
			got += " " + text
		}
		if err != nil {
			got = "error " + err.Error()
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}
