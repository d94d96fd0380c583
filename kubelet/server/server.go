// Package server is the kubelet's HTTPS endpoint: logs, exec, attach, port-forward, the pods as the node sees them, figures.
// The API server proxies to it, and metrics are scraped from it. Every request is authenticated and authorised. It changes
// nothing of a pod.
package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/kubelet/cri"
	"karve/kubelet/node"
	"karve/kubelet/podrun"
)

// Pods is what is served about.
type Pods interface {
	Views() []podrun.View
	Find(namespace, name string, uid types.UID) (podrun.View, bool)
}

// Runtime is what requests reach into.
type Runtime interface {
	cri.Streams
	cri.Inspector
}

// Config is what a Server is made of.
type Config struct {
	Pods    Pods
	Runtime Runtime
	// LogPath is where the log of one attempt of a container lies.
	LogPath func(pod *corev1.Pod, container string, attempt int32) string
	Machine func() node.Machine
	Node    string
	// Authorize refuses requests: see Access for the default.
	Authorize func(r *http.Request, verb, subresource string) error
	// LogDir is shown at /logs/; empty shows nothing.
	LogDir string
	Log    *slog.Logger
}

// Server answers requests. It is safe for concurrent use.
type Server struct {
	Config
	mux     *http.ServeMux
	started time.Time
}

// New returns a server.
func New(c Config) *Server {
	s := &Server{Config: c, mux: http.NewServeMux(), started: time.Now()}
	routes := []struct {
		pattern string
		fn      http.HandlerFunc
	}{
		{"GET /healthz", s.healthz},
		{"GET /pods", s.pods}, {"GET /pods/", s.pods}, {"GET /runningpods/", s.running},
		{"GET /metrics", s.metrics}, {"GET /metrics/resource", s.resource}, {"GET /metrics/probes", s.empty}, {"GET /metrics/cadvisor", s.cadvisor},
		{"GET /stats/summary", s.summary}, {"GET /stats/summary/", s.summary},
		{"GET /containerLogs/{ns}/{pod}/{container}", s.logs},
		{"/exec/{ns}/{pod}/{container}", s.exec}, {"/exec/{ns}/{pod}/{uid}/{container}", s.exec},
		{"/attach/{ns}/{pod}/{container}", s.attach}, {"/attach/{ns}/{pod}/{uid}/{container}", s.attach},
		{"POST /run/{ns}/{pod}/{container}", s.run}, {"POST /run/{ns}/{pod}/{uid}/{container}", s.run},
		{"/portForward/{ns}/{pod}", s.portForward}, {"/portForward/{ns}/{pod}/{uid}", s.portForward},
	}
	for _, r := range routes {
		s.mux.HandleFunc(r.pattern, r.fn)
	}
	if c.LogDir != "" {
		if root, err := os.OpenRoot(c.LogDir); err == nil {
			s.mux.Handle("GET /logs/", http.StripPrefix("/logs/", http.FileServerFS(root.FS())))
		}
	}
	return s
}

var verbs = map[string]string{http.MethodPost: "create", http.MethodGet: "get", http.MethodHead: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}

// Attributes returns what a request asks to do to which subresources of the node, any of which is enough.
func Attributes(r *http.Request) (verb string, subresources []string) {
	under := func(prefix string) bool {
		return r.URL.Path == prefix || strings.HasPrefix(r.URL.Path, prefix+"/")
	}
	switch {
	case under("/stats"):
		subresources = []string{"stats"}
	case under("/metrics"):
		subresources = []string{"metrics"}
	case under("/logs"):
		subresources = []string{"log"}
	case under("/healthz"):
		subresources = []string{"healthz", "proxy"}
	case under("/pods"), under("/runningpods"):
		subresources = []string{"pods", "proxy"}
	default:
		subresources = []string{"proxy"}
	}
	return verbs[r.Method], subresources
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verb, subs := Attributes(r)
	var err error
	for _, sub := range subs {
		if err = s.Authorize(r, verb, sub); err == nil {
			break
		}
	}
	if err != nil {
		code := http.StatusForbidden
		if errors.Is(err, ErrUnauthenticated) {
			code = http.StatusUnauthorized
			http.Error(w, "Unauthorized", code)
			return
		}
		http.Error(w, err.Error(), code)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// Serve answers on l until ctx ends. Callers' certificates are asked for and checked against ca when given.
func (s *Server) Serve(ctx context.Context, l net.Listener, config *tls.Config, ca *x509.CertPool) error {
	config = config.Clone()
	if ca != nil {
		config.ClientCAs, config.ClientAuth = ca, tls.VerifyClientCertIfGiven
	}
	config.NextProtos = []string{"http/1.1"} // connections are taken over by streams
	if config.MinVersion == 0 {
		config.MinVersion = tls.VersionTLS12
	}
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 90 * time.Second, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(tls.NewListener(l, config)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("ok"))
}

func (s *Server) empty(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", textFormat)
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, v := range s.Pods.Views() {
		list.Items = append(list.Items, *v.Pod)
	}
	reply(w, list)
}

func (s *Server) running(w http.ResponseWriter, _ *http.Request) {
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, v := range s.Pods.Views() {
		if v.Observed.Sandbox() != nil {
			list.Items = append(list.Items, corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: v.Pod.Name, Namespace: v.Pod.Namespace, UID: v.Pod.UID}, Spec: v.Pod.Spec})
		}
	}
	reply(w, list)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}
