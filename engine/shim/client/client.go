// Package client is the engine's side of the shim protocol: it starts a shim and talks to it.
//
// It is called by the engine alone. It owns nothing but the connections it opens; the shim lives on without it.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"karve/engine/shim"
)

// socketName is the shim's socket in the directory a Client is given.
const socketName = "shim.sock"

// Client reaches the shim that listens in a directory. Its methods may be called concurrently.
type Client struct{ dir string }

// At returns a client for the shim whose socket is in dir.
func At(dir string) *Client { return &Client{dir: dir} }

// Launch starts program as the shim of dir and returns its pid. cgroup, if not negative, is a descriptor of the
// version 2 cgroup to start it in. The shim is in a session of its own and outlives the caller; stderr goes to dir/shim.log.
func Launch(program, dir string, cgroup int) (pid int, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return 0, fmt.Errorf("start shim: %w", err)
	}
	defer d.Close()
	_ = os.Remove(filepath.Join(dir, socketName))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(d), Net: "unix"})
	if err != nil {
		return 0, fmt.Errorf("start shim: listen: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	lf, err := l.File()
	if err != nil {
		return 0, fmt.Errorf("start shim: %w", err)
	}
	defer lf.Close()
	log, err := os.OpenFile(filepath.Join(dir, "shim.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, fmt.Errorf("start shim: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = []string{"GOMAXPROCS=2"}
	cmd.Stderr = log
	cmd.ExtraFiles = []*os.File{lf}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cgroup >= 0 {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, cgroup
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start shim: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	return cmd.Process.Pid, nil
}

// socketPath goes through a descriptor of the directory, because a socket address holds only 107 bytes.
func socketPath(dir *os.File) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + socketName
}

func (c *Client) dial() (*net.UnixConn, error) {
	d, err := os.Open(c.dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: socketPath(d), Net: "unix"})
}

// open sends a request and returns the connection after a reply without error.
func (c *Client) open(ctx context.Context, req shim.Request) (*net.UnixConn, shim.Reply, error) {
	var r shim.Reply
	conn, err := c.dial()
	if err != nil {
		return nil, r, fmt.Errorf("reach shim: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = shim.WriteJSON(conn, shim.KindRequest, req)
	if err == nil {
		var k shim.Kind
		var p []byte
		if k, p, err = shim.ReadFrame(conn); err == nil && k != shim.KindReply {
			err = errors.New("unexpected frame")
		}
		if err == nil {
			err = json.Unmarshal(p, &r)
		}
	}
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, r, fmt.Errorf("ask shim to %s: %w", req.Op, err)
	}
	if r.Error != "" {
		conn.Close()
		return nil, r, errors.New(r.Error)
	}
	return conn, r, nil
}

// Do sends a request that is answered once.
func (c *Client) Do(ctx context.Context, req shim.Request) (shim.Reply, error) {
	conn, r, err := c.open(ctx, req)
	if err == nil {
		conn.Close()
	}
	return r, err
}

// Watch returns the state of the shim's containers and calls exited for every exit after that. closed is closed when
// the connection is lost, which means the shim is gone, or ctx is done.
func (c *Client) Watch(ctx context.Context, exited func(shim.Status)) (r shim.Reply, closed <-chan struct{}, err error) {
	conn, r, err := c.open(ctx, shim.Request{Op: shim.OpEvents})
	if err != nil {
		return r, nil, err
	}
	ch := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	go func() {
		defer close(ch)
		defer conn.Close()
		defer stop()
		for {
			k, p, err := shim.ReadFrame(conn)
			if err != nil {
				return
			}
			var st shim.Status
			if k == shim.KindEvent && json.Unmarshal(p, &st) == nil {
				exited(st)
			}
		}
	}()
	return r, ch, nil
}

// Size is a terminal's size in characters.
type Size struct{ Cols, Rows uint16 }

// Streams are the ends of an exec or attach. Nil ones are absent.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan Size
}

// ErrDetached is returned by Stream when the connection ended before the process.
var ErrDetached = errors.New("stream ended before the process")

// Stream performs an exec or attach request and copies until the process ends, or ctx is done. A Stdin that blocks in
// Read keeps its goroutine after the return, until the caller closes it.
func (c *Client) Stream(ctx context.Context, req shim.Request, s Streams) (shim.Status, error) {
	var st shim.Status
	conn, _, err := c.open(ctx, req)
	if err != nil {
		return st, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	done := make(chan struct{})
	defer close(done)
	var mu sync.Mutex
	send := func(k shim.Kind, p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		return shim.WriteFrame(conn, k, p)
	}
	if s.Stdin != nil {
		go sendInput(s.Stdin, send)
	}
	if s.Resize != nil {
		go func() {
			for {
				select {
				case z, ok := <-s.Resize:
					if !ok || send(shim.KindResize, shim.ResizePayload(z.Cols, z.Rows)) != nil {
						return
					}
				case <-done:
					return
				}
			}
		}()
	}
	for {
		k, p, err := shim.ReadFrame(conn)
		if err != nil {
			if ctx.Err() != nil {
				return st, ctx.Err()
			}
			return st, ErrDetached
		}
		var w io.Writer
		switch k {
		case shim.KindStdout:
			w = s.Stdout
		case shim.KindStderr:
			w = s.Stderr
		case shim.KindExit:
			if err := json.Unmarshal(p, &st); err != nil {
				return st, fmt.Errorf("read exit status: %w", err)
			}
			return st, nil
		}
		if w != nil {
			if _, err := w.Write(p); err != nil {
				return st, fmt.Errorf("write output: %w", err)
			}
		}
	}
}

func sendInput(r io.Reader, send func(shim.Kind, []byte) error) {
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 && send(shim.KindStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = send(shim.KindStdinClose, nil)
			return
		}
	}
}
