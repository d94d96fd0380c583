// Package h2 serves HTTP/2 over TLS connections for the API server. It stands in for net/http's own server behind the same
// http.Handler, because of what a small answer or one event of a watch costs: there every frame passes through two goroutines
// of the connection, is written by itself, and each request starts on a small stack. Here a handler appends its frames to
// the connection's buffer, and one writer sends what has gathered, so that a hundred watchers on few connections share
// records and system calls; and requests run on goroutines that are used again.
//
// Frames and header compression are golang.org/x/net's. The package owns connections, streams and flow control
// (RFC 9113); server push, priorities and the CONNECT method are not served. It is used by apiserver alone.
package h2

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a connection. Sizes are in bytes.
const (
	// MaxStreams is how many requests of one connection are handled at a time.
	MaxStreams = 250
	// maxWaiting is how many more may wait for a handler: a client that resets and asks again does not get past it.
	maxWaiting = 2 * MaxStreams
	// maxFrame is the largest frame we read, which is what every peer may send.
	maxFrame = 16 << 10
	// maxHeader bounds the headers of a request, as net/http does by default.
	maxHeader = 1 << 20
	// streamWindow and connWindow bound what a client may send before a handler reads it.
	streamWindow = 1 << 20
	connWindow   = 1 << 20
	// maxQueued is how much is kept for a client that reads slowly; handlers wait beyond it.
	maxQueued = 256 << 10
	// maxControl ends a connection whose client makes us answer and does not read the answers.
	maxControl = 1 << 20
	// headTable is the size of the table by which we compress headers; few of ours repeat.
	headTable = 4 << 10
)

// Times after which a connection is given up.
const (
	prefaceTimeout = 10 * time.Second
	// writeTimeout is how long a client may take none of what we send.
	writeTimeout = 2 * time.Minute
	// lastWords is how long a client has to take what is left when its connection ends.
	lastWords = time.Second
)

// Server serves HTTP/2 connections of an http.Server. Safe for concurrent use.
type Server struct {
	log     *slog.Logger
	workers workers
	date    atomic.Pointer[dateText]

	mu      sync.Mutex
	conns   map[*conn]struct{}
	closing bool
}

// Attach makes hs serve HTTP/2 by a Server. Call it before hs serves; hs.TLSConfig must offer "h2".
func Attach(hs *http.Server, log *slog.Logger) *Server {
	s := &Server{log: log, conns: map[*conn]struct{}{}}
	if hs.TLSNextProto == nil {
		hs.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	hs.TLSNextProto["h2"] = s.serve
	hs.RegisterOnShutdown(s.shutdown)
	return s
}

// serve handles a connection until it ends.
func (s *Server) serve(hs *http.Server, nc *tls.Conn, h http.Handler) {
	b, ok := h.(interface{ BaseContext() context.Context }) // net/http's own wrapper of the handler has it
	if !ok {
		s.log.Error("HTTP/2 connection closed: its handler has no context")
		_ = nc.Close()
		return
	}
	base := context.WithValue(b.BaseContext(), http.ServerContextKey, hs)
	base = context.WithValue(base, http.LocalAddrContextKey, nc.LocalAddr())
	c := newConn(s, nc, h, base, hs.IdleTimeout)
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		_ = nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	c.serve()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// shutdown tells every client that no more requests are taken; connections end with their last request.
func (s *Server) shutdown() {
	s.mu.Lock()
	s.closing = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.goAway()
	}
}

// workers runs functions on goroutines that wait for the next one when they are done, because a stack that has grown
// once need not grow again. The zero value is ready to use.
type workers struct {
	mu   sync.Mutex
	idle []*worker // the last one to come goes first
}

type worker struct {
	next chan func()
	quit *time.Timer
}

const (
	maxIdleWorkers = 128
	workerIdle     = 5 * time.Second
)

func (p *workers) run(f func()) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		w.next <- f
		return
	}
	p.mu.Unlock()
	go p.work(&worker{next: make(chan func(), 1)}, f)
}

func (p *workers) work(w *worker, f func()) {
	for {
		f()
		if !p.rest(w) {
			return
		}
		if w.quit == nil {
			w.quit = time.NewTimer(workerIdle)
		} else {
			w.quit.Reset(workerIdle)
		}
		select {
		case f = <-w.next:
			w.quit.Stop()
		case <-w.quit.C:
			if p.leave(w) {
				return
			}
			f = <-w.next // somebody took it just now
		}
	}
}

// rest puts w among the idle, unless there are enough.
func (p *workers) rest(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) >= maxIdleWorkers {
		return false
	}
	p.idle = append(p.idle, w)
	return true
}

// leave takes w from the idle; false if it is not there any more.
func (p *workers) leave(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, x := range p.idle {
		if x == w {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return true
		}
	}
	return false
}
