package h2

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// conn is one connection. Its reader is the goroutine of serve, its writer that of writeLoop; everything below mu is
// shared with the handlers.
type conn struct {
	server  *Server
	nc      *tls.Conn
	tls     *tls.ConnectionState
	remote  string
	handler http.Handler
	base    context.Context
	cancel  context.CancelFunc
	framer  *http2.Framer // reads only
	timeout time.Duration // of a connection without requests; 0 for none

	mu      sync.Mutex
	room    sync.Cond // handlers that wait for out to empty or for the connection's window
	out     []byte    // what the writer takes next
	wake    chan struct{}
	failed  error // why nothing can be sent any more
	head    *hpack.Encoder
	headBuf bytes.Buffer

	window    int64 // bytes of data we may send on the connection
	initial   int64 // of a new stream's
	peerFrame int   // largest frame we may send
	streams   map[uint32]*stream
	last      uint32 // highest stream that was opened
	handling  int
	waiting   []*stream // requests beyond MaxStreams
	unread    int64     // bytes received that no handler has read
	returned  int64     // bytes read that the client has not been told of
	leaving   bool      // GOAWAY was sent
	idle      *time.Timer
	settled   bool // the client's first settings came
	// cut are the last streams that we ended before the client did: what it sent meanwhile is no mistake of its.
	cut    [32]uint32
	cutNow int
}

func newConn(s *Server, nc *tls.Conn, h http.Handler, base context.Context, timeout time.Duration) *conn {
	state := nc.ConnectionState()
	c := &conn{server: s, nc: nc, tls: &state, remote: nc.RemoteAddr().String(), handler: h, timeout: timeout,
		wake: make(chan struct{}, 1), window: 65535, initial: 65535, peerFrame: 16 << 10, streams: map[uint32]*stream{}}
	c.room.L = &c.mu
	c.base, c.cancel = context.WithCancel(base)
	c.framer = http2.NewFramer(io.Discard, bufio.NewReaderSize(nc, 4<<10))
	c.framer.SetMaxReadFrameSize(maxFrame)
	c.framer.SetReuseFrames()
	c.framer.MaxHeaderListSize = maxHeader
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	c.head = hpack.NewEncoder(&c.headBuf)
	c.head.SetMaxDynamicTableSizeLimit(headTable)
	return c
}

// serve reads frames until the connection ends, then ends its streams and waits for the last bytes to be written.
func (c *conn) serve() {
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.writeLoop()
	}()
	err := c.read()
	var ce http2.ConnectionError
	c.mu.Lock()
	if errors.As(err, &ce) {
		c.out = appendGoAway(c.out, c.last, http2.ErrCode(ce))
	}
	c.mu.Unlock()
	c.fail(fmt.Errorf("connection ended: %w", err))
	<-written
	_ = c.nc.Close()
	c.mu.Lock()
	if c.idle != nil {
		c.idle.Stop()
	}
	c.mu.Unlock()
}

// fail makes all that waits on the connection stop. What is in out is still written.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.failed == nil {
		c.failed = err
	}
	for _, s := range c.streams {
		s.abort(c.failed)
	}
	c.waiting = nil
	c.room.Broadcast()
	c.mu.Unlock()
	c.cancel()
	_ = c.nc.SetWriteDeadline(time.Now().Add(lastWords)) // also of a write that is under way
	c.signal()
}

func (c *conn) read() error {
	_ = c.nc.SetReadDeadline(time.Now().Add(prefaceTimeout))
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.nc, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return errors.New("the client does not speak HTTP/2")
	}
	c.mu.Lock()
	c.out = appendSettings(c.out, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: MaxStreams},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeader},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: maxFrame})
	c.out = appendWindowUpdate(c.out, 0, connWindow-65535)
	c.rest()
	c.mu.Unlock()
	c.signal()
	for {
		f, err := c.framer.ReadFrame()
		var se http2.StreamError
		if errors.As(err, &se) {
			if c.reset(se.StreamID, se.Code) != nil {
				return err
			}
			continue
		}
		if err != nil {
			if errors.Is(err, http2.ErrFrameTooLarge) {
				return http2.ConnectionError(http2.ErrCodeFrameSize)
			}
			return err
		}
		if !c.settled {
			if s, ok := f.(*http2.SettingsFrame); !ok || s.IsAck() {
				return http2.ConnectionError(http2.ErrCodeProtocol)
			}
			c.settled = true
			_ = c.nc.SetReadDeadline(time.Time{})
		}
		if err := c.frame(f); err != nil {
			if errors.As(err, &se) {
				if c.reset(se.StreamID, se.Code) == nil {
					continue
				}
			}
			return err
		}
	}
}

// reset ends a stream by an error of the client's.
func (c *conn) reset(id uint32, code http2.ErrCode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id > c.last { // a request that never was one counts as seen
		c.last = id
	}
	if s := c.streams[id]; s != nil {
		s.abort(fmt.Errorf("stream reset by the server: %v", code))
		c.remove(s)
	}
	return c.control(appendReset(c.out, id, code))
}

// control takes out as the connection's buffer, with a frame more that the client made us send. mu is held.
func (c *conn) control(out []byte) error {
	c.out = out
	c.signal()
	if len(out) > maxControl {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil
}

func (c *conn) frame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return c.headers(f)
	case *http2.DataFrame:
		return c.data(f)
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.control(appendPingAck(c.out, f.Data))
	case *http2.WindowUpdateFrame:
		return c.windowUpdate(f)
	case *http2.RSTStreamFrame:
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.StreamID > c.last {
			return http2.ConnectionError(http2.ErrCodeProtocol) // it was never opened
		}
		if s := c.streams[f.StreamID]; s != nil {
			s.abort(errors.New("request cancelled by the client"))
			c.remove(s)
		}
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
	case *http2.PushPromiseFrame, *http2.ContinuationFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil // GOAWAY: the client closes when its requests are answered; others are to be ignored
}

func (c *conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if f.HasDuplicates() {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := f.ForeachSetting(c.setting); err != nil {
		return err
	}
	c.room.Broadcast()
	return c.control(appendSettingsAck(c.out))
}

func (c *conn) setting(s http2.Setting) error {
	if err := s.Valid(); err != nil {
		return err
	}
	switch s.ID {
	case http2.SettingHeaderTableSize:
		c.head.SetMaxDynamicTableSize(min(s.Val, headTable))
	case http2.SettingInitialWindowSize:
		grown := int64(s.Val) - c.initial
		c.initial = int64(s.Val)
		for _, st := range c.streams {
			if st.window += grown; st.window > maxWindow {
				return http2.ConnectionError(http2.ErrCodeFlowControl)
			}
		}
	case http2.SettingMaxFrameSize:
		c.peerFrame = int(min(s.Val, 64<<10))
	}
	return nil
}

const maxWindow = 1<<31 - 1

func (c *conn) windowUpdate(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.room.Broadcast()
		return nil
	}
	s := c.streams[f.StreamID]
	if s == nil {
		if f.StreamID > c.last {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return nil
	}
	if s.window += int64(f.Increment); s.window > maxWindow {
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	c.room.Broadcast()
	return nil
}

// data takes a part of a request's body. What nobody will read is given back to the client's window at once.
func (c *conn) data(f *http2.DataFrame) error {
	size := int64(f.Length)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[f.StreamID]
	if s == nil && f.StreamID > c.last {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if c.unread += size; c.unread+c.returned > connWindow {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	if s == nil || s.ended {
		if err := c.giveBack(size); err != nil {
			return err
		}
		if slices.Contains(c.cut[:], f.StreamID) {
			return nil
		}
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	}
	data := f.Data()
	if s.body.unread += size; s.body.unread > streamWindow {
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	if s.body.got += int64(len(data)); s.declared >= 0 && (s.body.got > s.declared || f.StreamEnded() && s.body.got != s.declared) {
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
	}
	if pad := size - int64(len(data)); pad > 0 {
		s.body.unread -= pad
		if err := c.giveBack(pad); err != nil {
			return err
		}
	}
	if s.body.closed { // the handler wants no more
		s.body.unread -= int64(len(data))
		if err := c.giveBack(int64(len(data))); err != nil {
			return err
		}
	} else {
		s.body.buf = append(s.body.buf, data...)
	}
	if f.StreamEnded() {
		s.end()
	}
	s.body.more.Signal()
	return nil
}

// giveBack returns size bytes of the connection's window to the client, when there are enough to be worth a frame. mu is held.
func (c *conn) giveBack(size int64) error {
	c.unread -= size
	c.returned += size
	if c.returned < connWindow/4 {
		return nil
	}
	n := c.returned
	c.returned = 0
	return c.control(appendWindowUpdate(c.out, 0, uint32(n)))
}
