package h2

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// keep is how much of an answer is held back before its headers are sent: small answers go out whole, with their length.
const keep = 8 << 10

var kept = sync.Pool{New: func() any { return new([]byte) }}

// response is the http.ResponseWriter of a stream. It is for the handler's goroutine.
type response struct {
	stream *stream
	header http.Header
	status int
	sent   bool    // the headers are sent
	buf    *[]byte // body that is held back
	length int64   // of the body so far
	err    error
}

// Header implements http.ResponseWriter.
func (r *response) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header, 4)
	}
	return r.header
}

// WriteHeader implements http.ResponseWriter. Informational answers are sent at once; they are not the answer.
func (r *response) WriteHeader(status int) {
	if r.status != 0 {
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		r.write(status, nil, false)
		return
	}
	r.status = status
}

func bodiless(status int) bool {
	return status < 200 || status == http.StatusNoContent || status == http.StatusNotModified
}

// Write implements http.ResponseWriter. It waits while the client reads too slowly.
func (r *response) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if bodiless(r.status) {
		return 0, http.ErrBodyNotAllowed
	}
	r.length += int64(len(p))
	if r.stream.request.Method == http.MethodHead {
		return len(p), nil
	}
	if r.err != nil {
		return 0, r.err
	}
	if !r.sent {
		held := 0
		if r.buf != nil {
			held = len(*r.buf)
		}
		if held+len(p) <= keep {
			if r.buf == nil {
				r.buf = kept.Get().(*[]byte)
				*r.buf = (*r.buf)[:0]
			}
			*r.buf = append(*r.buf, p...)
			return len(p), nil
		}
		if err := r.release(p); err != nil {
			return 0, err
		}
	}
	if r.err = r.data(p, false); r.err != nil {
		return 0, r.err
	}
	return len(p), nil
}

// WriteString implements io.StringWriter.
func (r *response) WriteString(s string) (int, error) { return r.Write([]byte(s)) }

// Flush implements http.Flusher.
func (r *response) Flush() { _ = r.FlushError() }

// FlushError sends what is held back.
func (r *response) FlushError() error {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if !r.sent {
		return r.release(nil)
	}
	return r.err
}

// release sends the headers and what is held back of the body; next is what follows, to tell its type by.
func (r *response) release(next []byte) error {
	var held []byte
	if r.buf != nil {
		held = *r.buf
	}
	r.sniff(held, next)
	r.err = r.write(r.status, nil, false)
	r.sent = true
	if r.err == nil && len(held) > 0 {
		r.err = r.data(held, false)
	}
	r.free()
	return r.err
}

func (r *response) free() {
	if r.buf != nil && cap(*r.buf) <= 2*keep {
		kept.Put(r.buf)
	}
	r.buf = nil
}

func (r *response) sniff(held, next []byte) {
	h := r.Header()
	if bodiless(r.status) || h["Content-Type"] != nil || h["Content-Encoding"] != nil {
		return
	}
	if len(held) == 0 {
		held = next
	}
	if len(held) > 0 {
		h["Content-Type"] = []string{http.DetectContentType(held)}
	}
}

// finish sends what is left and ends the stream.
func (r *response) finish() {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if r.err != nil {
		return
	}
	if r.sent {
		r.err = r.data(nil, true)
		return
	}
	var held []byte
	if r.buf != nil {
		held = *r.buf
	}
	r.sniff(held, nil)
	h := r.Header()
	if h["Content-Length"] == nil && !bodiless(r.status) && (r.stream.request.Method != http.MethodHead || r.length > 0) {
		h["Content-Length"] = []string{strconv.FormatInt(r.length, 10)}
	}
	r.sent = true
	r.err = r.write(r.status, held, true)
}

// write sends headers, and with end all of the body that there is.
func (r *response) write(status int, all []byte, end bool) error {
	s := r.stream
	c := s.conn
	c.mu.Lock()
	if err := r.wait(0); err != nil {
		c.mu.Unlock()
		return err
	}
	c.headBuf.Reset()
	c.field(":status", statusText(status))
	date := false
	for key, values := range r.header {
		name := lower(key)
		switch name {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
			continue // mean nothing here: RFC 9113, 8.2.2
		case "date":
			date = true
		}
		if !httpguts.ValidHeaderFieldName(name) {
			continue
		}
		for _, v := range values {
			if httpguts.ValidHeaderFieldValue(v) {
				c.field(name, v)
			}
		}
	}
	if !date && status >= 200 {
		c.field("date", c.server.today())
	}
	whole := end && int64(len(all)) <= min(s.window, c.window) && len(all) <= c.peerFrame
	c.out = appendHeaders(c.out, s.id, c.headBuf.Bytes(), c.peerFrame, end && len(all) == 0)
	if whole && len(all) > 0 {
		s.window -= int64(len(all))
		c.window -= int64(len(all))
		c.out = appendData(c.out, s.id, all, true)
	}
	c.signal()
	c.mu.Unlock()
	if end && !whole {
		return r.data(all, true)
	}
	return nil
}

// data sends a part of the body, as flow control allows, and with end the end of it.
func (r *response) data(p []byte, end bool) error {
	s := r.stream
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for first := true; first || len(p) > 0; first = false {
		if err := r.wait(len(p)); err != nil {
			return err
		}
		n := int(min(int64(len(p)), s.window, c.window, int64(c.peerFrame)))
		s.window -= int64(n)
		c.window -= int64(n)
		c.out = appendData(c.out, s.id, p[:n], end && n == len(p))
		p = p[n:]
		if len(p) == 0 || len(c.out) > maxQueued {
			c.signal()
		}
	}
	return nil
}

// wait returns when size bytes, or some of them, may be appended. mu is held, and given up meanwhile.
func (r *response) wait(size int) error {
	s := r.stream
	c := s.conn
	for {
		switch {
		case s.gone != nil:
			return s.gone
		case c.failed != nil:
			return c.failed
		case len(c.out) <= maxQueued && (size == 0 || s.window > 0 && c.window > 0):
			return nil
		}
		c.signal()
		c.room.Wait()
	}
}

// field encodes one header field. mu is held.
func (c *conn) field(name, value string) {
	// Writing to a bytes.Buffer does not fail.
	_ = c.head.WriteField(hpack.HeaderField{Name: name, Value: value})
}

// today is the time as a Date header has it, made once a second.
func (s *Server) today() string {
	now := time.Now()
	if d := s.date.Load(); d != nil && d.second == now.Unix() {
		return d.text
	}
	d := &dateText{now.Unix(), now.UTC().Format(http.TimeFormat)}
	s.date.Store(d)
	return d.text
}

type dateText struct {
	second int64
	text   string
}

func statusText(status int) string {
	switch status {
	case http.StatusOK:
		return "200"
	case http.StatusCreated:
		return "201"
	}
	return strconv.Itoa(status)
}

// names are the header fields that are common here, in both forms, to spare making them.
var canonicalNames, lowerNames = func() (map[string]string, map[string]string) {
	up, down := map[string]string{}, map[string]string{}
	for _, n := range []string{"accept", "accept-encoding", "authorization", "content-type", "content-length", "content-encoding", "user-agent",
		"cache-control", "audit-id", "x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid", "date", "vary", "warning", "etag",
		"if-none-match", "host", "origin", "cookie", "kubectl-command", "kubectl-session", "impersonate-user", "impersonate-group", "retry-after",
		"x-content-type-options", "strict-transport-security", "transfer-encoding", "location"} {
		c := http.CanonicalHeaderKey(n)
		up[n], down[c] = c, n
	}
	return up, down
}()

func canonical(name string) string {
	if c, ok := canonicalNames[name]; ok {
		return c
	}
	return http.CanonicalHeaderKey(name)
}

func lower(key string) string {
	if l, ok := lowerNames[key]; ok {
		return l
	}
	return strings.ToLower(key)
}
