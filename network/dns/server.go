// Package dns answers names for the pods of one node: those of the cluster from memory, by the Kubernetes DNS specification,
// and all others by asking the resolvers it is given. Each node's start-up runs one and binds the cluster's DNS address to
// the node (BindVIP), so that no packet of a lookup leaves the machine. It owns its sockets and that address on lo; it reads
// Services and EndpointSlices from the shared caches and writes nothing. Service addresses are package proxy's business.
//
// zone.go finds answers (pure), message.go reads and writes messages (pure), forward.go asks others, this file serves.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"karve/client"
)

const (
	// waiting is how many questions may wait for upstream servers at once; further ones fail at once.
	waiting = 512
	// idle is how long a TCP connection may be silent, and streams how many there may be.
	idle    = 10 * time.Second
	streams = 256
)

// Options configure a Server.
type Options struct {
	Caches *client.Caches
	// Listen are the addresses served, by UDP and TCP. They must be addresses, not wildcards, so that answers come from
	// where questions went.
	Listen []netip.AddrPort
	// ClusterDomain is the domain of the cluster; empty is "cluster.local".
	ClusterDomain string
	// Upstreams are asked, in turn, about all other names; with none such questions fail at once.
	Upstreams []netip.AddrPort
	// Local are the address ranges of the cluster: reverse questions about them are never passed on.
	Local []netip.Prefix
	Log   *slog.Logger
}

// Server answers questions. Make it before its Caches run, then Run it once.
type Server struct {
	opts    Options
	zone    *zone
	synced  func() bool
	forward *forwarder
	slots   chan struct{}
	wg      sync.WaitGroup
}

// New returns a Server that does nothing until Run. Upstreams that are the server itself are left out.
func New(opts Options) *Server {
	if opts.ClusterDomain == "" {
		opts.ClusterDomain = "cluster.local"
	}
	dir := newCached(opts.Caches)
	s := &Server{opts: opts, zone: &zone{domain: clean(opts.ClusterDomain), dir: dir}, synced: dir.synced, slots: make(chan struct{}, waiting)}
	var up []netip.AddrPort
	for _, u := range opts.Upstreams {
		if !slices.Contains(opts.Listen, u) {
			up = append(up, u)
		}
	}
	for _, l := range opts.Listen {
		if !l.Addr().IsLoopback() {
			s.zone.self = append(s.zone.self, l.Addr().Unmap())
		}
	}
	s.forward = newForwarder(up)
	return s
}

// Run serves until ctx ends. It listens in the network namespace of the calling thread and returns an error if it cannot.
func (s *Server) Run(ctx context.Context) error {
	var packets []*net.UDPConn
	var listeners []net.Listener
	closeAll := func() {
		for _, c := range packets {
			c.Close()
		}
		for _, l := range listeners {
			l.Close()
		}
	}
	defer closeAll()
	for _, at := range s.opts.Listen {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return fmt.Errorf("serve DNS at %s: %w", at, err)
		}
		packets = append(packets, c)
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			return fmt.Errorf("serve DNS at %s: %w", at, err)
		}
		listeners = append(listeners, l)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, c := range packets {
		for range min(runtime.GOMAXPROCS(0), 4) {
			s.wg.Go(func() { s.packets(ctx, c) })
		}
	}
	for _, l := range listeners {
		s.wg.Go(func() { s.accept(ctx, l) })
	}
	<-ctx.Done()
	closeAll()
	s.wg.Wait()
	return nil
}

// packets answers what comes in at c until it is closed.
func (s *Server) packets(ctx context.Context, c *net.UDPConn) {
	in, out := make([]byte, 4096), make([]byte, 0, 4096)
	var res result
	for {
		n, from, err := c.ReadFromUDPAddrPort(in)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(time.Millisecond) // an ICMP error of an earlier answer, or no memory
			continue
		}
		reply, later := s.answer(out, in[:n], &res, false)
		if later == nil {
			if reply != nil {
				c.WriteToUDPAddrPort(reply, from) //nolint:errcheck // the client asks again
			}
			continue
		}
		query := slices.Clone(in[:n])
		select {
		case s.slots <- struct{}{}:
			s.wg.Go(func() {
				defer func() { <-s.slots }()
				if reply := later(ctx, query); reply != nil {
					c.WriteToUDPAddrPort(reply, from) //nolint:errcheck // the client asks again
				}
			})
		default:
			if reply := failure(query); reply != nil {
				c.WriteToUDPAddrPort(reply, from) //nolint:errcheck // the client asks again
			}
		}
	}
}

// failure answers a query that cannot be dealt with now.
func failure(query []byte) []byte {
	q, _, ok := parse(query, false)
	if !ok {
		return nil
	}
	out, err := (&zone{}).pack(nil, &q, &answer{rcode: dnsmessage.RCodeServerFailure, res: &result{}})
	if err != nil {
		return nil
	}
	return out
}

func (s *Server) accept(ctx context.Context, l net.Listener) {
	slots := make(chan struct{}, streams)
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		select {
		case slots <- struct{}{}:
			s.wg.Go(func() {
				defer func() { <-slots }()
				s.stream(ctx, c)
			})
		default:
			c.Close()
		}
	}
}

func (s *Server) stream(ctx context.Context, c net.Conn) {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer c.Close()
	var res result
	var in []byte
	for {
		c.SetDeadline(time.Now().Add(idle)) //nolint:errcheck // the read fails then
		query, err := readStream(c, in)
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				s.opts.Log.Debug("DNS connection ended", "client", c.RemoteAddr(), "err", err)
			}
			return
		}
		in = query
		reply, later := s.answer(nil, query, &res, true)
		if later != nil {
			reply = later(ctx, query)
		}
		if reply == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// answer replies from memory into buf, or returns the function that will when it has asked others. Both nil: no answer.
// res is scratch space. later gets the query again, as a copy of the caller's.
func (s *Server) answer(buf, query []byte, res *result, stream bool) (reply []byte, later func(context.Context, []byte) []byte) {
	q, rcode, ok := parse(query, stream)
	if !ok {
		return nil, nil
	}
	res.reset()
	a := answer{rcode: rcode, res: res}
	switch {
	case rcode != dnsmessage.RCodeSuccess:
	case q.edns && q.version != 0:
		a.rcode = 16 // BADVERS
	case q.q.Class != dnsmessage.ClassINET && q.q.Class != dnsmessage.ClassANY:
		a.rcode = dnsmessage.RCodeRefused
	case q.q.Type == 251 || q.q.Type == dnsmessage.TypeAXFR:
		a.rcode = dnsmessage.RCodeRefused
	default:
		own := s.own(&q, res)
		switch {
		case !own:
			if reply := s.forward.recall(buf, &q, query, time.Now()); reply != nil {
				return reply, nil
			}
			q := q // only what waits is moved to the heap
			return nil, func(ctx context.Context, query []byte) []byte { return s.pass(ctx, q, query, stream) }
		case !s.synced():
			a.rcode = dnsmessage.RCodeServerFailure
			res.reset()
		case res.alias != "":
			q, kept := q, result{exists: true, answers: slices.Clone(res.answers), alias: res.alias}
			return nil, func(ctx context.Context, _ []byte) []byte { return s.follow(ctx, q, &kept) }
		default:
			a.authoritative = true
			a.soa = len(res.answers) == 0
			if !res.exists {
				a.rcode = dnsmessage.RCodeNameError
			}
		}
	}
	return s.packed(buf, &q, &a), nil
}

func (s *Server) packed(buf []byte, q *question, a *answer) []byte {
	out, err := s.zone.pack(buf, q, a)
	if err != nil {
		s.opts.Log.Warn("write DNS answer", "name", q.name, "err", err)
		return nil
	}
	return out
}

// own looks a question up in the cluster; it is false for one about the rest of the world.
func (s *Server) own(q *question, res *result) bool {
	if rest, ok := s.zone.within(q.name); ok {
		s.zone.lookup(q.name, rest, q.q.Type, res)
		spread(res.answers)
		return true
	}
	if !strings.HasSuffix(q.name, ".arpa") {
		return false
	}
	ip, ok := address(q.name)
	if !ok {
		return false
	}
	s.zone.reverse(q.name, ip, q.q.Type, res)
	return res.exists || slices.ContainsFunc(s.opts.Local, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// spread puts the answers in random order: clients take the first.
func spread(r []record) {
	if len(r) > 1 {
		rand.Shuffle(len(r), func(i, j int) { r[i], r[j] = r[j], r[i] })
	}
}

// pass asks upstream.
func (s *Server) pass(ctx context.Context, q question, query []byte, stream bool) []byte {
	reply, err := s.forward.ask(ctx, &q, query, stream)
	if err != nil {
		if !errors.Is(err, errNoUpstream) {
			s.opts.Log.Debug("no answer from upstream DNS", "name", q.name, "err", err)
		}
		return s.packed(nil, &q, &answer{rcode: dnsmessage.RCodeServerFailure, res: &result{}})
	}
	if len(reply) > q.limit { // the client takes less than it told upstream
		return s.packed(nil, &q, &answer{res: &result{}, truncated: true, rcode: dnsmessage.RCode(reply[3] & 0xf)})
	}
	return reply
}

// follow resolves the alias that a lookup ended with, inside or outside the cluster.
func (s *Server) follow(ctx context.Context, q question, res *result) []byte {
	a := answer{res: res, authoritative: true}
	for range 8 {
		target := res.alias
		if target == "" {
			break
		}
		rest, ok := s.zone.within(target)
		if !ok {
			more, rcode, err := s.forward.chase(ctx, target, &q)
			if err != nil {
				s.opts.Log.Debug("no answer from upstream DNS", "name", target, "err", err)
				rcode = dnsmessage.RCodeServerFailure
			}
			a.more, a.rcode, res.alias = more, rcode, ""
			break
		}
		var next result
		s.zone.lookup(target, rest, q.q.Type, &next)
		spread(next.answers)
		res.answers, res.alias = append(res.answers, next.answers...), next.alias
		if !next.exists {
			a.rcode = dnsmessage.RCodeNameError
		}
	}
	if res.alias != "" { // they lead in a circle
		a.rcode = dnsmessage.RCodeServerFailure
	}
	return s.packed(nil, &q, &a)
}
