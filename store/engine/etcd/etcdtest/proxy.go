package etcdtest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy is a TCP proxy in front of a member that can be told to fail.
type Proxy struct {
	// URL is where clients reach the member through it.
	URL string

	target string
	l      net.Listener
	deaf   atomic.Bool
	closed atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// NewProxy starts a proxy to address that ends with the test.
func NewProxy(t testing.TB, address string) *Proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{URL: "http://" + l.Addr().String(), target: address, l: l, conns: map[net.Conn]struct{}{}}
	go p.accept()
	t.Cleanup(func() {
		l.Close()
		p.Cut()
	})
	return p
}

// LoseAnswers lets requests through and keeps back what the member says, or no longer does.
func (p *Proxy) LoseAnswers(on bool) { p.deaf.Store(on) }

// Refuse closes new connections at once, or no longer does.
func (p *Proxy) Refuse(on bool) { p.closed.Store(on) }

// Cut closes all connections. What was kept back is lost.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		if p.closed.Load() {
			c.Close()
			continue
		}
		go p.serve(c)
	}
}

func (p *Proxy) serve(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer s.Close()
	p.mu.Lock()
	p.conns[c], p.conns[s] = struct{}{}, struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, c)
		delete(p.conns, s)
		p.mu.Unlock()
	}()
	go func() {
		_, _ = io.Copy(s, c)
		s.Close()
		c.Close()
	}()
	buf := make([]byte, 32<<10)
	lost := false
	for {
		n, err := s.Read(buf)
		// A stream with a hole in it would be worse than none: what follows lost bytes is lost too.
		if lost = lost || p.deaf.Load(); n > 0 && !lost {
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
