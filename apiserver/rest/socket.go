package rest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"karve/api/codec"
	"karve/apiserver/resource"
)

// A watch can come over a WebSocket, for those who have nothing else (browsers): each event is a message, of text if it is
// JSON and binary if it is protobuf. The client has nothing to say.

// wantsSocket reports whether a request asks to go on as a WebSocket.
func wantsSocket(r *http.Request) bool {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return false
	}
	for _, line := range r.Header.Values("Connection") {
		for _, token := range strings.Split(line, ",") {
			if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
				return true
			}
		}
	}
	return false
}

// socketWait is how long a client may take to take in a message, or to say goodbye.
const socketWait = 30 * time.Second

// overSocket streams changes as messages until the client closes, ctx ends or the watcher cannot keep up. An error is from
// before the connection became a WebSocket.
func (x *exchange) overSocket(ctx context.Context, from *resource.Watch) error {
	up := websocket.Upgrader{WriteBufferSize: 4 << 10, ReadBufferSize: 512,
		// A page of any origin may try: it has to bring credentials of its own, for there are no cookies here.
		CheckOrigin: func(*http.Request) bool { return true },
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			http.Error(w, reason.Error(), status)
		}}
	if offered := websocket.Subprotocols(x.r); len(offered) == 1 {
		up.Subprotocols = offered // upstream speaks none of its own here and takes any
	} else if len(offered) > 1 {
		http.Error(x.w, "one subprotocol at most", http.StatusBadRequest)
		return nil
	}
	conn, err := up.Upgrade(x.w, x.r, nil)
	if err != nil {
		return nil // it is answered
	}
	defer conn.Close()
	conn.SetReadLimit(4 << 10)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		for { // pings are answered in here; what is said is not listened to
			if _, _, err := conn.NextReader(); err != nil {
				return
			}
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	answer := x.w
	x.w = &socket{conn: conn, text: x.acc.MediaType != codec.Protobuf}
	defer func() { x.w = answer }()
	err = x.stream(ctx, from, http.NewResponseController(x.w))
	_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	return err
}

// socket is the http.ResponseWriter of a watch over a WebSocket. What is written to it is whole frames of the stream over
// HTTP, which it turns into messages.
type socket struct {
	conn *websocket.Conn
	text bool
}

func (s *socket) Header() http.Header { return http.Header{} }
func (s *socket) WriteHeader(int)     {}
func (s *socket) FlushError() error   { return nil }

func (s *socket) Write(frames []byte) (int, error) {
	_ = s.conn.SetWriteDeadline(time.Now().Add(socketWait))
	for rest := frames; len(rest) > 0; {
		var message []byte
		kind := websocket.BinaryMessage
		if s.text {
			kind = websocket.TextMessage
			end := bytes.IndexByte(rest, '\n') + 1
			if end == 0 {
				end = len(rest)
			}
			message, rest = rest[:end], rest[end:]
		} else {
			if len(rest) < 4 || uint64(len(rest)-4) < uint64(binary.BigEndian.Uint32(rest)) {
				return 0, fmt.Errorf("write event: %d bytes are no frame", len(rest))
			}
			end := 4 + int(binary.BigEndian.Uint32(rest))
			message, rest = rest[4:end], rest[end:]
		}
		if err := s.conn.WriteMessage(kind, message); err != nil {
			return 0, err
		}
	}
	return len(frames), nil
}

// streamable refuses a form that has no frames to be streamed in.
func (x *exchange) streamable() error {
	if x.acc.MediaType == codec.YAML {
		return notAcceptable("only the following media types are accepted: " + codec.JSON + ";stream=watch, " + codec.Protobuf + ";stream=watch")
	}
	return nil
}

// listed tells how long it took to send what was there when a watch began that asked for it.
func (x *exchange) listed() {
	if x.Listed != nil && !x.listing.IsZero() {
		x.Listed(x.info, time.Since(x.listing))
	}
}
