package main

import (
	"encoding/json"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"karve/engine/shim"
)

type server struct {
	reaper   *reaper
	serial   atomic.Uint64
	mu       sync.Mutex
	pausePid int
	// containers holds what was started and not yet forgotten, running or ended.
	containers map[string]*container
	watchers   []chan shim.Status
}

// serve accepts connections for as long as the process lives.
func (s *server) serve(l *os.File) {
	rc, err := l.SyscallConn()
	if err != nil {
		fatal(err.Error())
	}
	for {
		fd := -1
		var aerr error
		err := rc.Read(func(lfd uintptr) bool {
			fd, _, aerr = unix.Accept4(int(lfd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return aerr != unix.EAGAIN
		})
		if err != nil {
			fatal("accept: " + err.Error())
		}
		if aerr != nil {
			continue
		}
		// The socket's directory is root's alone; this also holds if somebody loosens it.
		if cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil || cred.Uid != uint32(os.Geteuid()) {
			unix.Close(fd)
			continue
		}
		go s.handle(os.NewFile(uintptr(fd), "conn"))
	}
}

func (s *server) find(id string) *container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.containers[id]
}

func (s *server) handle(conn *os.File) {
	defer conn.Close()
	k, p, err := shim.ReadFrame(conn)
	if err != nil || k != shim.KindRequest {
		return
	}
	var req shim.Request
	if err := json.Unmarshal(p, &req); err != nil {
		_ = shim.WriteJSON(conn, shim.KindReply, shim.Reply{Error: "bad request"})
		return
	}
	p = nil
	switch req.Op {
	case shim.OpExec:
		if req.Exec == nil {
			return
		}
		s.exec(conn, req.ID, *req.Exec)
	case shim.OpAttach:
		s.attach(conn, req.ID, req.Stdin)
	case shim.OpEvents:
		s.events(conn)
	case shim.OpShutdown:
		s.shutdown()
		_ = shim.WriteJSON(conn, shim.KindReply, shim.Reply{})
		os.Exit(0)
	default:
		r, err := s.simple(&req)
		if err != nil {
			r.Error = err.Error()
		}
		_ = shim.WriteJSON(conn, shim.KindReply, r)
	}
}

// simple does the operations that answer once.
func (s *server) simple(req *shim.Request) (shim.Reply, error) {
	switch req.Op {
	case shim.OpStart:
		if req.Start == nil || req.ID == "" {
			return shim.Reply{}, errors.New("nothing to start")
		}
		return s.startContainer(req.ID, *req.Start)
	case shim.OpSignal:
		return shim.Reply{}, s.signalContainer(req.ID, syscall.Signal(req.Signal), req.All)
	case shim.OpReopen:
		c := s.find(req.ID)
		if c == nil {
			return shim.Reply{}, errors.New("container is not running")
		}
		return shim.Reply{}, c.log.reopen()
	case shim.OpPause:
		pid, err := s.startPause(req.ID)
		return shim.Reply{Pid: pid}, err
	case shim.OpForget:
		c := s.find(req.ID)
		if c == nil {
			return shim.Reply{}, nil
		}
		<-c.deleted
		s.mu.Lock()
		delete(s.containers, req.ID)
		s.mu.Unlock()
		return shim.Reply{}, nil
	}
	return shim.Reply{}, errors.New("unknown operation " + string(req.Op))
}

// events tells the state of all containers and then every exit. No exit is missed or told twice in between.
func (s *server) events(conn *os.File) {
	s.mu.Lock()
	ch := make(chan shim.Status, 64)
	r := shim.Reply{Pid: os.Getpid()}
	for _, c := range s.containers {
		c.mu.Lock()
		if c.status.Pid != 0 {
			r.Status = append(r.Status, c.status)
		}
		c.mu.Unlock()
	}
	s.watchers = append(s.watchers, ch)
	s.mu.Unlock()
	defer s.unwatch(ch)
	if shim.WriteJSON(conn, shim.KindReply, r) != nil {
		return
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _, _ = shim.ReadFrame(conn)
	}()
	for {
		select {
		case st := <-ch:
			if shim.WriteJSON(conn, shim.KindEvent, st) != nil {
				return
			}
		case <-closed:
			return
		}
	}
}

func (s *server) unwatch(ch chan shim.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range s.watchers {
		if w == ch {
			s.watchers = append(s.watchers[:i], s.watchers[i+1:]...)
			return
		}
	}
}

// publish never waits: a watcher with 64 unread exits is gone, and its successor reads the state anew.
func (s *server) publish(st shim.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watchers {
		select {
		case w <- st:
		default:
		}
	}
}

// shutdown kills what runs and waits until every end is on disk.
func (s *server) shutdown() {
	s.mu.Lock()
	all := make([]*container, 0, len(s.containers))
	for _, c := range s.containers {
		all = append(all, c)
	}
	pause := s.pausePid
	s.mu.Unlock()
	for _, c := range all {
		_ = s.signalContainer(c.status.ID, syscall.SIGKILL, true)
	}
	for _, c := range all {
		c.mu.Lock()
		started := c.status.Pid != 0
		c.mu.Unlock()
		if started {
			<-c.deleted
		}
	}
	if pause != 0 {
		_ = s.reaper.signal(pause, syscall.SIGKILL)
	}
}
