package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"karve/engine/shim"
)

// container is one container this shim started. A status with FinishedAt set is final.
type container struct {
	start   shim.Start
	log     *logFile
	mu      sync.Mutex
	status  shim.Status
	clients map[*client]bool
	stdin   *os.File // write side, or the terminal; nil when there is none or it was closed
	console *os.File
	deleted chan struct{} // closed when the runtime has forgotten it, after its end is known everywhere
}

// drainPatience is how long output is still awaited after a process ended while something else holds its pipe open.
const drainPatience = 2 * time.Second

func (s *server) startContainer(id string, st shim.Start) (shim.Reply, error) {
	s.mu.Lock()
	if _, ok := s.containers[id]; ok {
		s.mu.Unlock()
		return shim.Reply{}, errors.New("container was started before")
	}
	log, err := openLog(st.LogPath)
	if err != nil {
		s.mu.Unlock()
		return shim.Reply{}, errors.New("open log: " + err.Error())
	}
	c := &container{start: st, log: log, clients: map[*client]bool{}, deleted: make(chan struct{}), status: shim.Status{ID: id}}
	s.containers[id] = c
	s.mu.Unlock()
	first, err := s.launch(c)
	if err != nil {
		s.mu.Lock()
		delete(s.containers, id)
		s.mu.Unlock()
		return shim.Reply{}, err
	}
	return shim.Reply{Pid: first.Pid, Status: []shim.Status{first}}, nil
}

// launch starts a container and returns its status as it is then.
func (s *server) launch(c *container) (shim.Status, error) {
	log := c.log
	p := process{
		rt: c.start.Runtime, id: c.status.ID, scratch: c.start.Bundle + "/start-", terminal: c.start.Terminal,
		args: []string{"run", "--detach", "--bundle", c.start.Bundle},
	}
	var pipes pipeSet
	if !c.start.Terminal {
		if err := pipes.open(c.start.Stdin); err != nil {
			log.close()
			return shim.Status{}, err
		}
		p.files = pipes.child
	}
	pid, console, exit, err := s.run(p)
	pipes.closeChild()
	if err != nil {
		pipes.closeParent()
		log.close()
		_ = s.call(c.start.Runtime, "delete", "--force", c.status.ID)
		return shim.Status{}, err
	}
	c.mu.Lock()
	c.status.Pid, c.status.StartedAt = pid, time.Now().UnixNano()
	first := c.status
	c.console = console
	c.stdin = pipes.parent[0]
	if console != nil && c.start.Stdin {
		c.stdin = console
	}
	c.mu.Unlock()
	var copies sync.WaitGroup
	var readers []*os.File
	if console != nil {
		copies.Go(func() { c.copyLog(console, "stdout", shim.KindStdout) })
		readers = []*os.File{console}
	} else {
		copies.Go(func() { c.copyLog(pipes.parent[1], "stdout", shim.KindStdout) })
		copies.Go(func() { c.copyLog(pipes.parent[2], "stderr", shim.KindStderr) })
		readers = pipes.parent[1:]
	}
	go s.finish(c, exit, &copies, readers)
	return first, nil
}

// finish waits for the end of a container and makes it known: first on disk, then to the engine.
func (s *server) finish(c *container, exit <-chan int, copies *sync.WaitGroup, readers []*os.File) {
	code := <-exit
	now := time.Now()
	oom := oomKilled(c.start.OOMFile)
	if c.start.SharedPID {
		shim.KillGroup(c.start.KillDirs)
	}
	for _, f := range readers {
		_ = f.SetReadDeadline(now.Add(drainPatience))
	}
	copies.Wait()
	c.log.close()
	c.mu.Lock()
	c.status.ExitCode, c.status.OOM, c.status.FinishedAt = code, oom, now.UnixNano()
	st := c.status
	if c.stdin != nil {
		c.stdin.Close()
		c.stdin = nil
	}
	clients := c.clients
	c.clients = map[*client]bool{}
	c.mu.Unlock()
	writeExit(c.start.ExitFile, st)
	for cl := range clients {
		_ = cl.sendJSON(shim.KindExit, st)
		cl.cut()
	}
	s.publish(st)
	defer close(c.deleted)
	// Forced, runc kills and then sleeps 100 ms, whoever is left. That is for when somebody is: nearly always nobody is.
	if s.call(c.start.Runtime, "delete", c.status.ID) != nil {
		_ = s.call(c.start.Runtime, "delete", "--force", c.status.ID)
	}
}

// writeExit is atomic, so that an engine which was away finds either nothing or all of it.
func writeExit(path string, st shim.Status) {
	b, err := json.Marshal(st)
	if err != nil {
		return
	}
	tmp := path + ".tmp"
	if os.WriteFile(tmp, b, 0o600) == nil {
		_ = os.Rename(tmp, path)
	}
}

// oomKilled reads the kill counter, which has the same name in both cgroup versions' files.
func oomKilled(path string) bool {
	b, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(b) {
		if n, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			return string(bytes.TrimSpace(n)) != "0"
		}
	}
	return false
}

func (s *server) signalContainer(id string, sig syscall.Signal, all bool) error {
	c := s.find(id)
	if c == nil {
		return syscall.ESRCH
	}
	c.mu.Lock()
	pid := c.status.Pid
	c.mu.Unlock()
	if all && sig == syscall.SIGKILL && c.start.SharedPID {
		shim.KillGroup(c.start.KillDirs)
	}
	return s.reaper.signal(pid, sig)
}

// pipeSet is the three pipes of a process. child ends are given away, parent ends are ours and non-blocking.
type pipeSet struct{ child, parent [3]*os.File }

func (p *pipeSet) open(stdin bool) error {
	for i := range 3 {
		if i == 0 && !stdin {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			p.closeChild()
			p.closeParent()
			return err
		}
		if i == 0 {
			p.child[i], p.parent[i] = r, w
		} else {
			p.child[i], p.parent[i] = w, r
		}
	}
	return nil
}

func (p *pipeSet) closeChild() {
	for i, f := range p.child {
		if f != nil {
			f.Close()
			p.child[i] = nil
		}
	}
}

func (p *pipeSet) closeParent() {
	for i, f := range p.parent {
		if f != nil {
			f.Close()
			p.parent[i] = nil
		}
	}
}

func resize(f *os.File, payload []byte) {
	cols, rows, ok := shim.ParseResize(payload)
	if !ok || f == nil {
		return
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows})
	})
}
