package main

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"karve/engine/shim"
)

// chunk is how much is read from a container at once, and the longest line the log keeps in one piece.
const chunk = 16 << 10

// logFile writes lines in the CRI format. Both streams of a container share it.
type logFile struct {
	mu   sync.Mutex
	path string
	f    *os.File
	buf  []byte
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	if path == "" {
		return l, nil
	}
	return l, l.reopen()
}

// reopen follows a rotation: the file at the path is created anew when it was renamed away.
func (l *logFile) reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == "" {
		return nil
	}
	// Not through a link, and not into a fifo, that somebody with access to the logs has put there.
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return errors.New(l.path + " is not a regular file")
	}
	if l.f != nil {
		l.f.Close()
	}
	l.f = f
	return nil
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}

// write logs whole lines; a last piece without a newline is marked partial. A full disk loses lines, not the container.
func (l *logFile) write(stream string, data []byte, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return
	}
	var stamp [40]byte
	ts := now.AppendFormat(stamp[:0], time.RFC3339Nano)
	l.buf = l.buf[:0]
	for len(data) > 0 {
		line, tag := data, byte('P')
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, tag = data[:i], 'F'
			data = data[i+1:]
		} else {
			data = nil
		}
		l.buf = append(l.buf, ts...)
		l.buf = append(l.buf, ' ')
		l.buf = append(l.buf, stream...)
		l.buf = append(l.buf, ' ', tag, ' ')
		l.buf = append(l.buf, line...)
		l.buf = append(l.buf, '\n')
	}
	_, _ = l.f.Write(l.buf)
	if cap(l.buf) > 4*chunk {
		l.buf = nil
	}
}

// copyLog reads a container's stream until its end, into the log and to whoever is attached.
func (c *container) copyLog(f *os.File, stream string, kind shim.Kind) {
	defer f.Close()
	buf := make([]byte, chunk)
	n := 0
	for {
		m, err := f.Read(buf[n:])
		if m > 0 {
			c.broadcast(kind, buf[n:n+m])
			n += m
			if end := bytes.LastIndexByte(buf[:n], '\n') + 1; end > 0 {
				c.log.write(stream, buf[:end], time.Now())
				n = copy(buf, buf[end:n])
			} else if n == len(buf) {
				c.log.write(stream, buf[:n], time.Now())
				n = 0
			}
		}
		if err != nil {
			if n > 0 {
				c.log.write(stream, buf[:n], time.Now())
			}
			return
		}
	}
}

// client is an attached connection. One that does not read for a while is cut off: the container must not wait for it.
type client struct {
	mu   sync.Mutex
	conn *os.File
	gone chan struct{} // closed when the client has been cut off
	once sync.Once
}

const clientPatience = 10 * time.Second

func newClient(conn *os.File) *client { return &client{conn: conn, gone: make(chan struct{})} }

func (cl *client) send(k shim.Kind, p []byte) error {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	_ = cl.conn.SetWriteDeadline(time.Now().Add(clientPatience))
	err := shim.WriteFrame(cl.conn, k, p)
	if err != nil {
		cl.cut()
	}
	return err
}

func (cl *client) sendJSON(k shim.Kind, v any) error {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	_ = cl.conn.SetWriteDeadline(time.Now().Add(clientPatience))
	return shim.WriteJSON(cl.conn, k, v)
}

func (cl *client) cut() { cl.once.Do(func() { close(cl.gone) }) }

func (c *container) broadcast(k shim.Kind, p []byte) {
	c.mu.Lock()
	clients := make([]*client, 0, len(c.clients))
	for cl := range c.clients {
		clients = append(clients, cl)
	}
	c.mu.Unlock()
	for _, cl := range clients {
		if cl.send(k, p) != nil {
			c.detach(cl)
		}
	}
}

func (c *container) detach(cl *client) {
	c.mu.Lock()
	delete(c.clients, cl)
	c.mu.Unlock()
	cl.cut()
}
