package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"karve/kubelet/cri"
)

func offers(r *http.Request, protocol string) bool {
	if !websocket.IsWebSocketUpgrade(r) {
		return false
	}
	for _, p := range websocket.Subprotocols(r) {
		if p == protocol {
			return true
		}
	}
	return false
}

// wantsV5 tells the protocol that can close stdin, which the streaming library does not serve by WebSocket.
func wantsV5(r *http.Request) bool { return offers(r, remotecommand.StreamProtocolV5Name) }

func wantsTunnel(r *http.Request) bool {
	return offers(r, portforward.WebsocketsSPDYTunnelingPortForwardV1)
}

// upgrade takes a connection over. Callers are authenticated by certificate or token, never by cookie: the origin of a
// page says nothing.
func upgrade(w http.ResponseWriter, r *http.Request, protocol string) (*websocket.Conn, error) {
	u := websocket.Upgrader{Subprotocols: []string{protocol}, CheckOrigin: func(*http.Request) bool { return true }}
	return u.Upgrade(w, r, nil)
}

// wsConn writes whole messages of several writers.
type wsConn struct {
	*websocket.Conn
	mu sync.Mutex
}

func (c *wsConn) send(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.WriteMessage(websocket.BinaryMessage, b)
}

// channel is the writing end of one numbered stream.
type channel struct {
	c *wsConn
	n byte
}

func (w channel) Write(b []byte) (int, error) {
	if err := w.c.send(append([]byte{w.n}, b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// serveV5 serves v5.channel.k8s.io: each message is the number of a stream and its bytes; stream 255 closes another.
func serveV5(w http.ResponseWriter, r *http.Request, opts *remotecommand.Options, do runner) {
	raw, err := upgrade(w, r, remotecommand.StreamProtocolV5Name)
	if err != nil {
		return // the upgrader has answered
	}
	defer raw.Close()
	c := &wsConn{Conn: raw}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	in, feed := io.Pipe()
	defer in.Close()
	resize := make(chan cri.Size, 1)
	go func() {
		defer cancel()
		defer close(resize)
		receive(ctx, c, feed, resize, opts.Stdin)
	}()
	st := &Streams{TTY: opts.TTY, Resize: resize}
	if opts.Stdin {
		st.Stdin = in
	}
	if opts.Stdout {
		st.Stdout = channel{c, remotecommand.StreamStdOut}
	}
	if opts.Stderr && !opts.TTY {
		st.Stderr = channel{c, remotecommand.StreamStdErr}
	}
	code, err := do(ctx, st)
	b, err := json.Marshal(outcome(code, err))
	if err != nil {
		return
	}
	channel{c, remotecommand.StreamErr}.Write(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(5*time.Second))
}

// outcome is the status that ends a session.
func outcome(code int, err error) *metav1.Status {
	switch {
	case err != nil:
		return &metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Code: http.StatusInternalServerError,
			Message: fmt.Sprintf("Internal error occurred: error executing command in container: %v", err)}
	case code != 0:
		return &metav1.Status{Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: command terminated with exit code %d", code),
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(code)}}}}
	}
	return &metav1.Status{Status: metav1.StatusSuccess}
}

// receive hands messages on until the connection ends.
func receive(ctx context.Context, c *wsConn, stdin *io.PipeWriter, resize chan<- cri.Size, wanted bool) {
	defer stdin.Close()
	for {
		_, b, err := c.ReadMessage()
		if err != nil {
			return
		}
		if len(b) == 0 {
			continue
		}
		switch body := b[1:]; b[0] {
		case remotecommand.StreamStdIn:
			if wanted {
				if _, err := stdin.Write(body); err != nil {
					wanted = false // the process no longer reads
				}
			}
		case remotecommand.StreamResize:
			var size struct{ Width, Height uint16 }
			if json.Unmarshal(body, &size) == nil {
				select {
				case resize <- cri.Size(size):
				case <-ctx.Done():
					return
				}
			}
		case remotecommand.StreamClose:
			if len(body) == 1 && body[0] == remotecommand.StreamStdIn {
				stdin.Close()
			}
		}
	}
}

// byteConn makes one byte stream of the messages of a WebSocket.
type byteConn struct {
	*wsConn
	rest io.Reader
}

func (b *byteConn) Read(p []byte) (int, error) {
	for {
		if b.rest == nil {
			_, r, err := b.NextReader()
			if err != nil {
				var closed *websocket.CloseError
				if errors.As(err, &closed) {
					return 0, io.EOF
				}
				return 0, err
			}
			b.rest = r
		}
		n, err := b.rest.Read(p)
		if errors.Is(err, io.EOF) {
			b.rest, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (b *byteConn) Write(p []byte) (int, error) {
	if err := b.send(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetDeadline implements net.Conn.
func (b *byteConn) SetDeadline(t time.Time) error {
	return errors.Join(b.SetReadDeadline(t), b.SetWriteDeadline(t))
}

var _ net.Conn = (*byteConn)(nil)

// tunnel serves port-forwarding by SPDY within a WebSocket.
func (s *Server) tunnel(w http.ResponseWriter, r *http.Request, sandbox string) {
	raw, err := upgrade(w, r, portforward.WebsocketsSPDYTunnelingPortForwardV1)
	if err != nil {
		return // the upgrader has answered
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	p := &pairs{open: map[string]httpstream.Stream{}, forward: func(port int32, data, errs httpstream.Stream) { s.forward(ctx, sandbox, port, data, errs) }}
	conn, err := spdy.NewServerConnection(&byteConn{wsConn: &wsConn{Conn: raw}}, p.arrived)
	if err != nil {
		raw.Close()
		return
	}
	defer conn.Close()
	conn.SetIdleTimeout(idleTimeout)
	select {
	case <-conn.CloseChan():
	case <-ctx.Done():
	}
}

// forward carries one connection and tells the caller what went wrong.
func (s *Server) forward(ctx context.Context, sandbox string, port int32, data, errs httpstream.Stream) {
	defer data.Close()
	defer errs.Close()
	if err := s.Runtime.PortForwardStream(ctx, sandbox, port, data); err != nil {
		fmt.Fprintf(errs, "error forwarding port %d to pod %s: %v", port, sandbox, err)
	}
}

// pairs joins the data and error streams of a connection, which arrive one by one.
type pairs struct {
	forward func(port int32, data, errs httpstream.Stream)

	mu   sync.Mutex
	open map[string]httpstream.Stream
}

func (p *pairs) arrived(s httpstream.Stream, sent <-chan struct{}) error {
	h := s.Headers()
	port, err := strconv.ParseUint(h.Get(portforward.PortHeader), 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("header %q is no port", portforward.PortHeader)
	}
	kind := h.Get(portforward.StreamType)
	if kind != portforward.StreamTypeData && kind != portforward.StreamTypeError {
		return fmt.Errorf("invalid stream type %q", kind)
	}
	id := h.Get(portforward.PortForwardRequestIDHeader) + "/" + strconv.FormatUint(port, 10)
	p.mu.Lock()
	other := p.open[id]
	if other == nil {
		p.open[id] = s
	} else {
		delete(p.open, id)
	}
	p.mu.Unlock()
	if other == nil {
		return nil
	}
	if other.Headers().Get(portforward.StreamType) == kind {
		return fmt.Errorf("two %s streams of one connection", kind)
	}
	data, errs := s, other
	if kind == portforward.StreamTypeError {
		data, errs = other, s
	}
	go func() {
		<-sent
		p.forward(int32(port), data, errs)
	}()
	return nil
}
