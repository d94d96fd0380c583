// Package etcd is the store engine for several API servers: records in an etcd of version 3.5 or later, laid out as upstream
// lays them out, so that a cluster's etcd serves either. Whoever composes a server opens it and hands it to store, which owns
// it from then on. It owns the connections, the compaction (shared with all servers on the etcd) and the leases by which
// events expire. It keeps no records and answers no reads after the start: store's index does. It is not an etcd server.
package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

const (
	// attemptTime is how long a member may take for a write before another is asked, readTime for a read. A member that does
	// not answer is asked again and again until pings have found it out: callTime, for which a call is tried at all, is
	// longer than that takes.
	attemptTime = 5 * time.Second
	readTime    = 2 * time.Second
	callTime    = 30 * time.Second
	// openTime is how long Open waits for the first answer.
	openTime = 20 * time.Second
	// retryPause keeps attempts at a failing cluster apart.
	retryPause = 100 * time.Millisecond
	// pingEvery finds connections whose other side is gone without a word.
	pingEvery   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// Options says which etcd and what of it.
type Options struct {
	// Endpoints are the members' client addresses: http://host:port, https://host:port, unix:///path, or host:port. All are
	// used in turn; those that do not answer are left out until they do.
	Endpoints []string
	// CAFile, CertFile and KeyFile are PEM files for https endpoints: the authority of their certificates (none: the
	// system's), and what we show of ourselves (none: nothing). CertFile and KeyFile are read anew at each connection.
	CAFile, CertFile, KeyFile string
	// Prefix is where records lie in etcd ("/registry" for upstream's layout), Root what the store's keys begin with
	// instead. Keys of etcd outside the prefix are neither read nor written, compact_rev_key apart.
	Prefix, Root string
	// CompactEvery is how often history is compacted, 0 for never. Of all servers on an etcd one does it each time.
	CompactEvery time.Duration
	// TTL says for how long a key's record is to live after its last write; 0 and nil mean for ever.
	TTL func(key string) time.Duration
	Log *slog.Logger
}

// Engine is a store.Engine, and a store.Shared, on an etcd.
type Engine struct {
	log          *slog.Logger
	prefix, root string
	ttl          func(string) time.Duration
	conn         *grpc.ClientConn
	kv           pb.KVClient
	watch        pb.WatchClient
	leases       leases
	fence        fence

	// ctx ends everything when the engine closes; background is what runs by itself.
	ctx        context.Context
	stop       context.CancelFunc
	background sync.WaitGroup

	// told is the revision up to which Follow has told everything, wanted the one somebody waits for; poke says that wanted
	// has moved.
	told, wanted atomic.Uint64
	poke         chan struct{}
}

// reconnect is how the pauses between attempts to connect to a member grow.
var reconnect = backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second}

// Open connects to etcd and checks that it is one to work with. Errors name the endpoints and what to do.
func Open(ctx context.Context, o Options) (*Engine, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{log: o.Log, prefix: strings.TrimSuffix(o.Prefix, "/") + "/", root: o.Root, ttl: o.TTL, poke: make(chan struct{}, 1), fence: newFence()}
	conn, err := dial(o)
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	e.conn, e.kv, e.watch = conn, pb.NewKVClient(conn), pb.NewWatchClient(conn)
	e.leases.client = pb.NewLeaseClient(conn)
	e.ctx, e.stop = context.WithCancel(withLeader(context.WithoutCancel(ctx)))
	if err := e.greet(ctx); err != nil {
		e.Close()
		return nil, fmt.Errorf("ask etcd at %s: %w", strings.Join(o.Endpoints, ", "), err)
	}
	if o.CompactEvery > 0 {
		e.background.Go(func() { e.compactEvery(o.CompactEvery) })
	}
	return e, nil
}

// withLeader makes calls fail at members that have lost touch with the rest, so that another is asked.
func withLeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
}

// greet waits for the first member that answers and checks its version.
func (e *Engine) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	status, err := pb.NewMaintenanceClient(e.conn).Status(ctx, &pb.StatusRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return explain(err)
	}
	return usable(status.Version)
}

// usable refuses versions whose answer to a request for progress may overtake an event.
func usable(version string) error {
	var major, minor, patch int
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); err != nil {
		return fmt.Errorf("it says its version is %q, which is none", version)
	}
	if major < 3 || major == 3 && (minor < 5 || minor == 5 && patch < 8) {
		return fmt.Errorf("it is version %s, whose progress notifications cannot be relied on: upgrade it to 3.5.8 or later", version)
	}
	return nil
}

// Close ends all connections. Calls in work fail.
func (e *Engine) Close() error {
	e.stop()
	e.background.Wait()
	if err := e.conn.Close(); err != nil {
		return fmt.Errorf("close connections to etcd: %w", err)
	}
	return nil
}

// scheme is the name of the resolver that hands grpc the endpoints.
const scheme = "karve-etcd"

func dial(o Options) (*grpc.ClientConn, error) {
	if len(o.Endpoints) == 0 {
		return nil, errors.New("no endpoints")
	}
	var addresses []resolver.Address
	secure := 0
	for _, text := range o.Endpoints {
		a, tls, err := endpoint(text)
		if err != nil {
			return nil, err
		}
		if tls {
			secure++
		}
		addresses = append(addresses, a)
	}
	creds := insecure.NewCredentials()
	switch secure {
	case 0:
		if o.CAFile != "" || o.CertFile != "" || o.KeyFile != "" {
			return nil, errors.New("certificates are given, but the endpoints do not begin with https://")
		}
	case len(addresses):
		conf, err := tlsConfig(o)
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(conf)
	default:
		return nil, errors.New("endpoints with and without https are mixed")
	}
	members := manual.NewBuilderWithScheme(scheme)
	members.InitialState(resolver.State{Addresses: addresses})
	return grpc.NewClient(scheme+":///etcd",
		grpc.WithResolvers(members),
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(connect),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: attemptTime}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(16<<20)),
	)
}

// endpoint reads an address as it is given. The server's name, by which its certificate is judged, is the host.
func endpoint(text string) (a resolver.Address, secure bool, err error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return a, false, fmt.Errorf("endpoint %q: %w", text, err)
	}
	switch u.Scheme {
	case "unix", "unixs":
		path := u.Host + u.Path
		if path == "" {
			return a, false, fmt.Errorf("endpoint %q names no socket", text)
		}
		return resolver.Address{Addr: "unix:" + path, ServerName: "localhost"}, u.Scheme == "unixs", nil
	case "http", "https":
	default:
		return a, false, fmt.Errorf("endpoint %q begins with neither http:// nor https://", text)
	}
	if u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return a, false, fmt.Errorf("endpoint %q is not scheme://host:port", text)
	}
	port := u.Port()
	if port == "" {
		port = "2379"
	}
	return resolver.Address{Addr: net.JoinHostPort(u.Hostname(), port), ServerName: u.Hostname()}, u.Scheme == "https", nil
}

func connect(ctx context.Context, addr string) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

func tlsConfig(o Options) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read authority: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read authority: %s holds no certificate", o.CAFile)
		}
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, errors.New("a certificate and its key are given together or not at all")
	}
	if o.CertFile != "" {
		load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("read certificate: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(nil); err != nil {
			return nil, err
		}
		conf.GetClientCertificate = load
	}
	return conf, nil
}
