package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// reaper collects every child, ours or inherited. It is the only caller of wait, so a pid it has not handed out as
// exited is still the process it was.
type reaper struct {
	mu      sync.Mutex
	waiting map[int]chan int // closed by delivery of the exit code
	early   map[int]int      // exits nobody asked for yet, kept while a start is under way
	starts  int
}

func newReaper() *reaper {
	r := &reaper{waiting: map[int]chan int{}, early: map[int]int{}}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGCHLD)
	go func() {
		for range ch {
			r.collect()
		}
	}()
	return r
}

func (r *reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		code := ws.ExitStatus()
		if ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		if c, ok := r.waiting[pid]; ok {
			delete(r.waiting, pid)
			c <- code
		} else if r.starts > 0 {
			r.early[pid] = code
		}
	}
}

// begin keeps the exits of unknown children until end, for processes whose pid is learnt only after they started.
func (r *reaper) begin() {
	r.mu.Lock()
	r.starts++
	r.mu.Unlock()
}

func (r *reaper) end() {
	r.mu.Lock()
	if r.starts--; r.starts == 0 {
		clear(r.early)
	}
	r.mu.Unlock()
}

// watch returns the channel that gets the exit code of pid, once.
func (r *reaper) watch(pid int) <-chan int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.watchLocked(pid)
}

func (r *reaper) watchLocked(pid int) chan int {
	c := make(chan int, 1)
	if code, ok := r.early[pid]; ok {
		delete(r.early, pid)
		c <- code
	} else {
		r.waiting[pid] = c
	}
	return c
}

// spawn starts a child and returns the channel of its exit code.
func (r *reaper) spawn(argv []string, attr *syscall.ProcAttr) (int, <-chan int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	if err != nil {
		return 0, nil, err
	}
	return pid, r.watchLocked(pid), nil
}

// signal sends to a process that is still watched; one already reaped is left alone, its number may be another's.
func (r *reaper) signal(pid int, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.waiting[pid]; !ok {
		return syscall.ESRCH
	}
	return syscall.Kill(pid, sig)
}
