// Package apiserver is the only door to the cluster's state. It takes requests over HTTPS or from other parts of the same
// process, finds out who sends them and whether they may, and hands them to the resource door, to discovery, or to a
// node. It owns the store and the bootstrap objects every cluster has; it acts on nothing by itself.
//
// The path of a request: ServeHTTP (handler.go) → authn → fairness → authz → rest → resource.Door → store.
package apiserver

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
	"karve/apiserver/admission"
	"karve/apiserver/allocate"
	"karve/apiserver/authn"
	"karve/apiserver/authz"
	"karve/apiserver/discovery"
	"karve/apiserver/fairness"
	"karve/apiserver/h2"
	"karve/apiserver/health"
	"karve/apiserver/loops"
	"karve/apiserver/metrics"
	"karve/apiserver/openapi"
	"karve/apiserver/request"
	"karve/apiserver/resource"
	"karve/apiserver/rest"
	"karve/client"
	"karve/pki"
	"karve/store"
)

// Options says what an API server serves and where.
type Options struct {
	Engine store.Engine
	PKI    *pki.Authority
	// Listen is the address to serve HTTPS on; Advertise is the one that clients in the cluster are told.
	Listen    string
	Advertise netip.AddrPort
	// Names and Addresses are added to the serving certificate.
	Names     []string
	Addresses []netip.Addr
	// ServiceCIDR is where Services get their addresses; NodePorts is the inclusive range of node ports.
	ServiceCIDR netip.Prefix
	NodePorts   [2]int32
	DNS         netip.Addr
	// Anonymous lets requests without credentials in as system:anonymous, to be judged by RBAC as upstream does; without
	// it they reach the health endpoints only.
	Anonymous bool
	// HistoryTime is for how long changes are kept at least for watches to begin at (0: 5 minutes), HistoryEvents and
	// HistoryBytes are what of a resource's changes is kept at most (0: what the store keeps).
	HistoryTime                 time.Duration
	HistoryEvents, HistoryBytes int
	// Seats are about how many requests run at a time; 0 is 600. What more come wait or are turned away, as the flow
	// schemas and priority levels of the cluster say.
	Seats int
	// EventTTL is how long an event is kept after it was last written; 0 leaves that to the engine.
	EventTTL time.Duration
	Version  string
	Log      *slog.Logger
}

// Server is one API server over one store. Safe for concurrent use.
type Server struct {
	opts  Options
	log   *slog.Logger
	store *store.Store
	// services are the allocator's addresses and ports, complete up to revision adopted.
	services *allocate.Services
	adopted  uint64
	door     *resource.Door
	caches   *client.Caches
	tokens   *authn.TokenAuthority
	authn    *authn.Authenticator
	authz    authz.Authorizer
	rbac     *authz.RBAC
	fair     *fairness.Fairness
	shown    *loops.Addresses
	rest     *rest.Handler
	disco    *discovery.Handler
	api      *openapi.Handler
	nodes    *nodeDialer
	ready    atomic.Bool
	// began is set when ready first is, and stays.
	began    atomic.Bool
	health   *health.Handler
	started  time.Time
	requests *metrics.Requests
	admitted *metrics.Admission
	addr     atomic.Pointer[net.Addr]
}

// New opens the store and wires a server. Call Run to serve; Transport works once Run has said it is ready.
func New(ctx context.Context, o Options) (*Server, error) {
	st, err := store.Open(ctx, store.Options{Engine: o.Engine, Topic: resource.Topic, Attach: resource.Attach, Log: o.Log,
		History: o.HistoryEvents, HistoryBytes: o.HistoryBytes})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Server{opts: o, log: o.Log, store: st, door: resource.New(st, o.Log), started: time.Now(), requests: metrics.NewRequests(), admitted: metrics.NewAdmission()}
	s.health = s.healthChecks()
	services := allocate.New(o.ServiceCIDR, o.NodePorts[0], o.NodePorts[1])
	s.services, s.adopted = services, st.Revision() // read first: what follows is told again
	st.View().Scan(resource.Root+"services/specs/", "", func(r *store.Record) bool {
		if svc, ok := resource.ObjectOf(r).(*corev1.Service); ok {
			services.Adopt(svc)
		}
		return true
	})
	s.door.SetHook(corev1.Resource("services"), services)
	// The loopback transport is the server's own view: no admission of its reads, no authorization.
	s.caches = client.NewCaches(s.transport(loopback, "karve-apiserver", false), o.Log)
	// Nodes and tokens are judged by the pods that run somewhere; the others, which may be many, are asked for one by one.
	client.Narrow(s.caches, client.CacheOptions[*corev1.Pod]{FieldSelector: "spec.nodeName!="})
	s.tokens, err = authn.NewTokenAuthority(authn.TokenOptions{Key: o.PKI.SigningKey(), Lookup: authn.NewLookup(s.caches), Extend: true})
	if err != nil {
		return nil, fmt.Errorf("make token authority: %w", err)
	}
	s.authn = authn.New(authn.Options{ClientCA: o.PKI.Pool(), Tokens: s.tokens, Anonymous: true,
		Others: []authn.TokenAuthenticator{authn.Bootstrap{Lookup: authn.NewLookup(s.caches), Now: time.Now}}})
	s.rbac = authz.NewRBAC(s.caches)
	s.authz = authz.Union{authz.Masters{}, patient{authz.NewNode(s.caches)}, s.rbac}
	s.fair = fairness.New(fairness.Options{Caches: s.caches, Write: s.caches.Transport(), Seats: cmp.Or(o.Seats, defaultSeats),
		Processors: runtime.GOMAXPROCS(0), Patience: requestTimeout / 4, Count: s.objects, Log: o.Log})
	s.shown = loops.NewAddresses(s.caches, o.Log)
	s.door.SetAdmission(s.admitted.Chain(admission.Default(admission.Deps{Caches: s.caches, Authorizer: s.authz})))
	s.rest = &rest.Handler{Door: s.door, Log: o.Log, Post: s.post, Connect: s.connect, May: s.may, Listed: s.requests.Listed}
	s.disco = &discovery.Handler{Address: o.Advertise.String()}
	s.api = openapi.New(o.Version)
	s.nodes = newNodeDialer(s)
	return s, nil
}

var loopback = &authn.User{Name: "system:apiserver", Groups: []string{authn.GroupMasters, authn.GroupAuthenticated}}

// Door returns the resource door, for the tests of other packages.
func (s *Server) Door() *resource.Door { return s.door }

// Transport returns in-process access as user; every rule of the HTTP edge holds there too. manager names its writes.
func (s *Server) Transport(user *authn.User, manager string) client.Transport {
	return s.transport(user, manager, true)
}

func (s *Server) transport(user *authn.User, manager string, check bool) client.Transport {
	l := &resource.Local{Door: s.door, User: user, Manager: manager, Post: s.post}
	if check {
		l.Check = s.check
	}
	return l
}

// Tokens returns the issuer of service account tokens.
func (s *Server) Tokens() *authn.TokenAuthority { return s.tokens }

// Run serves until ctx ends, then finishes requests for up to five seconds and closes the store. onReady is called once
// the caches are filled, the bootstrap objects exist and the port is open.
func (s *Server) Run(ctx context.Context, onReady func()) error {
	serving, err := s.opts.PKI.Serving(append([]string{"localhost"}, s.opts.Names...), s.opts.Addresses)
	if err != nil {
		return fmt.Errorf("make serving certificate: %w", err)
	}
	l, err := net.Listen("tcp", s.opts.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w (is another server running there? choose another address with --listen)", s.opts.Listen, err)
	}
	addr := l.Addr()
	s.addr.Store(&addr)
	run, stop := context.WithCancel(ctx)
	defer stop()
	cachesDone := make(chan struct{})
	go func() {
		defer close(cachesDone)
		s.caches.Run(run)
	}()
	go s.shown.Run(run)
	fairDone := make(chan struct{})
	go func() {
		defer close(fairDone)
		s.fair.Run(run)
	}()
	srv := &http.Server{Handler: s, TLSConfig: s.tls(serving), ReadHeaderTimeout: 32 * time.Second, IdleTimeout: 90 * time.Second,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return run }}
	h2.Attach(srv, s.log)
	go s.compact(run)
	if s.opts.EventTTL > 0 {
		go s.expireEvents(run, s.opts.EventTTL)
	}
	if s.store.Shared() {
		go s.followServices(run, s.services, s.adopted)
	}
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(l, "", "") }()
	if err := s.caches.WaitSynced(ctx); err == nil {
		if err = s.bootstrap(ctx); err != nil {
			s.log.Error("bootstrap objects not written", "err", err)
		}
		s.ready.Store(true)
		s.began.Store(true)
		if onReady != nil {
			onReady()
		}
	}
	select {
	case err = <-served:
	case <-ctx.Done():
		err = nil
	}
	s.ready.Store(false)
	stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = srv.Shutdown(grace)
	_ = srv.Close()
	<-cachesDone
	<-fairDone
	s.nodes.close()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, s.store.Close())
}

// Addr returns where the server listens, nil before it does.
func (s *Server) Addr() net.Addr {
	if a := s.addr.Load(); a != nil {
		return *a
	}
	return nil
}

// defaultSeats is as many as upstream's --max-requests-inflight and --max-mutating-requests-inflight are together.
const defaultSeats = 600

// objects counts what a list of a collection reads.
func (s *Server) objects(i *request.Info) int {
	row := api.ByResource(schema.GroupVersionResource{Group: i.Group, Version: i.Version, Resource: i.Resource})
	if row == nil || row.Prefix == "" {
		return -1
	}
	ns := i.Namespace
	if !row.Namespaced {
		ns = ""
	}
	return s.store.View().Count(resource.Prefix(row, ns))
}

// defaultHistory is for how long a watch can be taken up again where it ended, when Options.HistoryTime is 0.
const defaultHistory = 5 * time.Minute

// compact forgets old events now and then, so that what changes often (leases) does not fill the memory.
func (s *Server) compact(ctx context.Context) {
	every := s.opts.HistoryTime
	if every <= 0 {
		every = defaultHistory
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for before := s.store.Revision(); ; {
		select {
		case <-tick.C:
			s.store.Compact(before)
			before = s.store.Revision()
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) tls(serving *pki.Renewing) *tls.Config {
	return &tls.Config{GetCertificate: serving.GetCertificate, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
}
