package h2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

// stream is one request and its answer. What is not the handler's own is guarded by the connection's mu.
type stream struct {
	conn     *conn
	id       uint32
	window   int64 // bytes of data we may send
	ctx      context.Context
	cancel   context.CancelFunc
	request  *http.Request
	declared int64 // length of the request's body, -1 if not known
	ended    bool  // the client has sent all
	gone     error // why nothing can be sent any more
	body     body
	response response
}

// abort makes the handler stop. mu is held.
func (s *stream) abort(err error) {
	if s.gone == nil {
		s.gone = err
	}
	s.body.more.Broadcast()
	s.conn.room.Broadcast()
	s.cancel()
}

// end notes that the request is complete. mu is held.
func (s *stream) end() {
	s.ended = true
	s.body.more.Broadcast()
}

// remove forgets a stream, with what of its body nobody has read. mu is held.
func (c *conn) remove(s *stream) {
	if c.streams[s.id] != s {
		return
	}
	delete(c.streams, s.id)
	n := s.body.unread
	s.body.unread, s.body.buf, s.body.closed = 0, nil, true
	_ = c.giveBack(n)
	c.rest()
}

// headers opens a stream, or ends the body of one by its trailers.
func (c *conn) headers(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	c.mu.Lock()
	if s := c.streams[id]; s != nil {
		defer c.mu.Unlock()
		if s.ended || !f.StreamEnded() {
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
		}
		if len(f.PseudoFields()) > 0 || s.declared >= 0 && s.body.got != s.declared {
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
		}
		s.end()
		return nil
	}
	if id%2 == 0 {
		c.mu.Unlock()
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if id <= c.last {
		mine := slices.Contains(c.cut[:], id)
		c.mu.Unlock()
		if mine { // trailers of a body that we did not want
			return nil
		}
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	}
	c.last = id
	leaving := c.leaving
	c.mu.Unlock()
	if leaving {
		return nil // the client was told that this one is not handled
	}
	if f.HasPriority() && f.Priority.StreamDep == id {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	s := &stream{conn: c, id: id, declared: -1}
	s.body.stream, s.body.more.L = s, &c.mu
	s.ctx, s.cancel = context.WithCancel(c.base)
	if err := s.read(f); err != nil {
		s.cancel()
		return err
	}
	s.response.stream = s
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		s.cancel()
		return c.failed
	}
	s.window = c.initial
	c.streams[id] = s
	if f.StreamEnded() {
		if s.declared > 0 {
			c.remove(s)
			s.cancel()
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
		}
		s.end()
	}
	if c.handling < MaxStreams {
		c.handling++
		c.server.workers.run(s.handle)
		return nil
	}
	if len(c.waiting) >= maxWaiting {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	c.waiting = append(c.waiting, s)
	return nil
}

// read makes the http.Request of a header block.
func (s *stream) read(f *http2.MetaHeadersFrame) error {
	refuse := http2.StreamError{StreamID: s.id, Code: http2.ErrCodeProtocol}
	method, path, scheme, host := f.PseudoValue("method"), f.PseudoValue("path"), f.PseudoValue("scheme"), f.PseudoValue("authority")
	if method == "" || path == "" || scheme != "https" && scheme != "http" || method == http.MethodConnect {
		return refuse
	}
	fields := f.RegularFields()
	header := make(http.Header, len(fields)+2)
	values := make([]string, len(fields)) // one array for all
	for i, h := range fields {
		if !httpguts.ValidHeaderFieldValue(h.Value) {
			return refuse
		}
		key := canonical(h.Name)
		switch key {
		case "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade":
			return refuse // RFC 9113, 8.2.2
		case "Te":
			if h.Value != "trailers" {
				return refuse
			}
		}
		old := header[key]
		switch {
		case old == nil:
			values[i] = h.Value
			header[key] = values[i : i+1 : i+1]
		case key == "Cookie": // may be split; it is one header
			old[0] += "; " + h.Value
		default:
			header[key] = append(old, h.Value)
		}
	}
	if host == "" {
		host = header.Get("Host")
	}
	delete(header, "Host")
	u, err := url.ParseRequestURI(path)
	if err != nil || path[0] != '/' && path != "*" {
		return refuse
	}
	length := int64(0)
	if cl, ok := header["Content-Length"]; ok {
		n, err := strconv.ParseUint(cl[0], 10, 63)
		if err != nil || len(cl) > 1 {
			return refuse
		}
		length, s.declared = int64(n), int64(n)
	} else if !f.StreamEnded() {
		length = -1
	}
	r := &http.Request{Method: method, URL: u, Proto: "HTTP/2.0", ProtoMajor: 2, Header: header, Host: host, RequestURI: path,
		RemoteAddr: s.conn.remote, TLS: s.conn.tls, ContentLength: length, Body: http.NoBody}
	if !f.StreamEnded() {
		r.Body = &s.body
		s.body.expected = strings.EqualFold(header.Get("Expect"), "100-continue")
		delete(header, "Expect")
	}
	s.request = r.WithContext(s.ctx)
	return nil
}

// handle runs the handler and ends the answer, whatever becomes of it.
func (s *stream) handle() {
	c := s.conn
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				c.server.log.Error("request handler panicked", "path", s.request.URL.Path, "panic", fmt.Sprint(p))
			}
			c.mu.Lock()
			if s.gone == nil {
				c.out = appendReset(c.out, s.id, http2.ErrCodeInternal)
				c.signal()
			}
			s.abort(http.ErrAbortHandler)
			c.mu.Unlock()
		}
		c.done(s)
	}()
	c.mu.Lock()
	gone := s.gone
	c.mu.Unlock()
	if gone != nil {
		return // nobody waits for the answer any more
	}
	c.handler.ServeHTTP(&s.response, s.request)
	s.response.finish()
}

// done forgets a stream whose handler has returned, and starts one that waits.
func (c *conn) done(s *stream) {
	s.cancel()
	c.mu.Lock()
	if !s.ended && s.gone == nil { // the client may stop sending
		c.out = appendReset(c.out, s.id, http2.ErrCodeNo)
		c.cut[c.cutNow] = s.id
		c.cutNow = (c.cutNow + 1) % len(c.cut)
		c.signal()
	}
	s.gone = errDone
	c.remove(s)
	c.handling--
	var next *stream
	for len(c.waiting) > 0 && next == nil {
		next = c.waiting[0]
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		if next.gone != nil {
			next = nil
		}
	}
	if next != nil {
		c.handling++
	}
	c.mu.Unlock()
	s.response.free()
	if next != nil {
		c.server.workers.run(next.handle)
	}
}

var errDone = errors.New("the request has been answered")

// body is the body of a request. One goroutine reads it.
type body struct {
	stream   *stream
	more     sync.Cond
	buf      []byte // received and not yet read
	got      int64  // received in all
	unread   int64  // of the client's window for the stream
	returned int64  // read, and not yet given back to it
	closed   bool
	expected bool // the client waits for "100 Continue"
}

// Read implements io.Reader. It gives the client room as the bytes are taken.
func (b *body) Read(p []byte) (int, error) {
	s := b.stream
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.expected {
		b.expected = false
		if s.gone == nil && !s.ended && len(b.buf) == 0 {
			c.headBuf.Reset()
			c.field(":status", "100")
			c.out = appendHeaders(c.out, s.id, c.headBuf.Bytes(), c.peerFrame, false)
			c.signal()
		}
	}
	for len(b.buf) == 0 {
		switch {
		case b.closed:
			return 0, http.ErrBodyReadAfterClose
		case s.ended:
			return 0, io.EOF
		case s.gone != nil:
			return 0, s.gone
		}
		b.more.Wait()
	}
	n := copy(p, b.buf)
	if b.buf = b.buf[n:]; len(b.buf) == 0 {
		b.buf = nil
	}
	b.unread -= int64(n)
	b.returned += int64(n)
	if !s.ended && s.gone == nil && b.returned >= streamWindow/4 {
		c.out = appendWindowUpdate(c.out, s.id, uint32(b.returned))
		b.returned = 0
		c.signal()
	}
	_ = c.giveBack(int64(n))
	return n, nil
}

// Close implements io.Closer: what still comes is dropped.
func (b *body) Close() error {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	n := b.unread
	b.unread, b.buf = 0, nil
	b.more.Broadcast()
	_ = c.giveBack(n)
	return nil
}
