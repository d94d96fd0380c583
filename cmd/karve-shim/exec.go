package main

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"karve/engine/shim"
)

// exec runs a process in a container and streams to conn until it ended.
func (s *server) exec(conn *os.File, id string, ex shim.Exec) {
	cl := newClient(conn)
	c := s.find(id)
	if c == nil {
		_ = cl.sendJSON(shim.KindReply, shim.Reply{Error: "container is not running"})
		return
	}
	scratch := c.start.Bundle + "/exec-" + strconv.FormatUint(s.serial.Add(1), 10) + "-"
	file := scratch + "process"
	if err := os.WriteFile(file, ex.Process, 0o600); err != nil {
		_ = cl.sendJSON(shim.KindReply, shim.Reply{Error: err.Error()})
		return
	}
	defer os.Remove(file)
	p := process{rt: c.start.Runtime, id: id, scratch: scratch, terminal: ex.Terminal, args: []string{"exec", "--detach", "--process", file}}
	var pipes pipeSet
	if !ex.Terminal {
		if err := pipes.open(ex.Stdin); err != nil {
			_ = cl.sendJSON(shim.KindReply, shim.Reply{Error: err.Error()})
			return
		}
		p.files = pipes.child
	}
	pid, console, exit, err := s.run(p)
	pipes.closeChild()
	if err != nil {
		pipes.closeParent()
		_ = cl.sendJSON(shim.KindReply, shim.Reply{Error: err.Error()})
		return
	}
	st := shim.Status{ID: id, Pid: pid, StartedAt: time.Now().UnixNano()}
	_ = cl.sendJSON(shim.KindReply, shim.Reply{Pid: pid})
	s.streamExec(cl, &st, ex, console, pipes, exit)
	_ = cl.sendJSON(shim.KindExit, st)
}

func (s *server) streamExec(cl *client, st *shim.Status, ex shim.Exec, console *os.File, pipes pipeSet, exit <-chan int) {
	ended := make(chan struct{})
	var copies sync.WaitGroup
	in := pipes.parent[0]
	if console != nil {
		in = console
		copies.Go(func() { relay(cl, console, shim.KindStdout, ended) })
		defer console.Close()
	} else {
		copies.Go(func() { relay(cl, pipes.parent[1], shim.KindStdout, ended) })
		copies.Go(func() { relay(cl, pipes.parent[2], shim.KindStderr, ended) })
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		feed(cl.conn, in, console, ex.Stdin)
	}()
	var timeout <-chan time.Time
	if ex.Timeout > 0 {
		t := time.NewTimer(time.Duration(ex.Timeout))
		defer t.Stop()
		timeout = t.C
	}
wait:
	for {
		select {
		case st.ExitCode = <-exit:
			break wait
		case <-timeout:
			st.TimedOut = true
			_ = s.reaper.signal(st.Pid, syscall.SIGKILL)
		case <-left:
			// The other side closed the connection: nobody is left to talk to, as when a terminal is hung up.
			left = nil
			_ = s.reaper.signal(st.Pid, syscall.SIGHUP)
			time.AfterFunc(drainPatience, func() { _ = s.reaper.signal(st.Pid, syscall.SIGKILL) })
		}
	}
	st.FinishedAt = time.Now().UnixNano()
	close(ended)
	for _, f := range []*os.File{console, pipes.parent[1], pipes.parent[2]} {
		if f != nil {
			_ = f.SetReadDeadline(time.Now().Add(drainPatience))
		}
	}
	copies.Wait()
	pipes.closeParent()
}

// relay copies output to the client. After the process ended it goes on while something arrives, then gives up.
func relay(cl *client, f *os.File, k shim.Kind, ended <-chan struct{}) {
	buf := make([]byte, chunk)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			// Backpressure, not loss: the process waits for its reader.
			cl.mu.Lock()
			_ = cl.conn.SetWriteDeadline(time.Time{})
			werr := shim.WriteFrame(cl.conn, k, buf[:n])
			cl.mu.Unlock()
			if werr != nil {
				cl.cut()
			}
			select {
			case <-ended:
				_ = f.SetReadDeadline(time.Now().Add(drainPatience))
			default:
			}
		}
		if err != nil {
			return
		}
	}
}

// feed passes input frames to a process until the client closes its side. in is closed at the end of input, a
// terminal is not.
func feed(conn, in, console *os.File, stdin bool) {
	closeIn := func() {
		if in != nil && in != console {
			in.Close()
			in = nil
		}
	}
	defer closeIn()
	for {
		k, p, err := shim.ReadFrame(conn)
		if err != nil {
			return
		}
		switch k {
		case shim.KindStdin:
			if in != nil && stdin {
				if _, err := in.Write(p); err != nil {
					closeIn()
				}
			}
		case shim.KindStdinClose:
			closeIn()
		case shim.KindResize:
			resize(console, p)
		}
	}
}

// attach joins the streams of a running container until it ends or the client leaves.
func (s *server) attach(conn *os.File, id string, stdin bool) {
	cl := newClient(conn)
	c := s.find(id)
	if c == nil {
		_ = cl.sendJSON(shim.KindReply, shim.Reply{Error: "container is not running"})
		return
	}
	// The reply goes first and under the client's lock, so no output can overtake it.
	cl.mu.Lock()
	c.mu.Lock()
	if c.status.FinishedAt != 0 || c.status.Pid == 0 {
		c.mu.Unlock()
		cl.mu.Unlock()
		_ = cl.sendJSON(shim.KindReply, shim.Reply{Error: "container is not running"})
		return
	}
	c.clients[cl] = true
	pid, in, console := c.status.Pid, c.stdin, c.console
	c.mu.Unlock()
	err := shim.WriteJSON(conn, shim.KindReply, shim.Reply{Pid: pid})
	cl.mu.Unlock()
	if err != nil {
		c.detach(cl)
		return
	}
	go func() {
		defer c.detach(cl)
		s.feedAttached(c, conn, in, console, stdin)
	}()
	<-cl.gone
}

func (s *server) feedAttached(c *container, conn, in, console *os.File, stdin bool) {
	err := error(nil)
	for err == nil {
		var k shim.Kind
		var p []byte
		if k, p, err = shim.ReadFrame(conn); err != nil {
			break
		}
		switch k {
		case shim.KindStdin:
			if in == nil || !stdin {
				continue
			}
			if _, err := in.Write(p); err != nil && !errors.Is(err, os.ErrClosed) {
				in = nil
			}
		case shim.KindStdinClose:
			s.endInput(c, in, console, stdin)
		case shim.KindResize:
			resize(console, p)
		}
	}
	s.endInput(c, in, console, stdin)
}

// endInput closes a container's input after the first attached client is done with it, when that was asked for.
func (s *server) endInput(c *container, in, console *os.File, stdin bool) {
	if !stdin || !c.start.StdinOnce || in == nil || in == console {
		return
	}
	c.mu.Lock()
	if c.stdin == in {
		c.stdin = nil
		in.Close()
	}
	c.mu.Unlock()
}
