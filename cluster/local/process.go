package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxLog is how large a log may have grown when its process is started before it is set aside.
const maxLog = 16 << 20

// process is a node's process while Up looks after it.
type process struct {
	node string
	log  string
	done chan struct{} // closed when it has ended
	how  string        // why, set before done is closed
}

// startTime returns when a process started, in ticks since boot; 0 when there is none or it is dead already.
func startTime(pid int) uint64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything: count from the last one.
	_, rest, ok := strings.Cut(string(data[max(0, strings.LastIndexByte(string(data), ')')):]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64)
	return n
}

func (n *Node) alive() bool { return n.PID > 0 && n.Start > 0 && startTime(n.PID) == n.Start }

// adopt finds the process of a node that was started by an Up that did not live to write down which: it is in the node's
// own cgroup and was given the same command line.
func (s *State) adopt(n *Node, argv []string) error {
	procs, err := processesIn(filepath.Join(s.cgroup(), n.Name, "karve"))
	if err != nil {
		return err
	}
	for pid := range procs {
		start := startTime(pid)
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && start > 0 && string(data) == strings.Join(argv, "\x00")+"\x00" {
			n.PID, n.Start = pid, start
			return nil
		}
	}
	return nil
}

// start runs argv as the process of a node, in the node's namespaces and cgroup, detached from the caller's session. File
// descriptor 3 of it is the host's network namespace. What it writes goes to the node's log.
func (s *State) start(n *Node, argv []string) (*process, error) {
	if fi, err := os.Stat(s.LogFile(n.Name)); err == nil && fi.Size() > maxLog {
		if err := os.Rename(s.LogFile(n.Name), s.LogFile(n.Name)+".old"); err != nil {
			return nil, err
		}
	}
	logFile, err := os.OpenFile(s.LogFile(n.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	hostNet, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	defer hostNet.Close()
	hs, err := hierarchies()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = "/", environment()
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{hostNet}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = onThread(func() error {
		for _, h := range hs {
			// A leaf: in v2 a cgroup that hands controllers down to pods can hold no process itself.
			leaf := filepath.Join(s.cgroup(), n.Name, "karve")
			if err := h.ensure(leaf); err != nil {
				return err
			}
			dir := filepath.Join(h.root, leaf)
			if h.v2 {
				fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				if err != nil {
					return fmt.Errorf("open cgroup %s: %w", dir, err)
				}
				defer unix.Close(fd)
				cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, fd
				continue
			}
			// In v1 a thread alone can move, and its child is born where it is.
			if err := os.WriteFile(filepath.Join(dir, "tasks"), []byte(strconv.Itoa(unix.Gettid())), 0o644); err != nil {
				return fmt.Errorf("enter cgroup %s: %w", dir, err)
			}
		}
		if err := enter(s.pin(n.Name, "net"), s.pin(n.Name, "uts"), s.pin(n.Name, "mnt")); err != nil {
			return err
		}
		return cmd.Start()
	})
	if err != nil {
		return nil, fmt.Errorf("start the process of node %s: %w", n.Name, err)
	}
	n.PID, n.Start = cmd.Process.Pid, startTime(cmd.Process.Pid)
	p := &process{node: n.Name, log: s.LogFile(n.Name), done: make(chan struct{})}
	go func() {
		err := cmd.Wait()
		p.how = "it ended by itself"
		if err != nil {
			p.how = err.Error()
		}
		close(p.done)
	}()
	return p, nil
}

// follow looks after a process that an earlier Up has started.
func (s *State) follow(n Node) *process {
	p := &process{node: n.Name, log: s.LogFile(n.Name), done: make(chan struct{}), how: "it ended"}
	fd, err := unix.PidfdOpen(n.PID, 0)
	if err != nil || !n.alive() {
		if err == nil {
			unix.Close(fd)
		}
		close(p.done)
		return p
	}
	go func() {
		defer unix.Close(fd)
		for {
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		close(p.done)
	}()
	return p
}

// environment is what node processes get of ours: the user's shell must not configure them by accident.
func environment() []string {
	out := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "GOTRACEBACK", "GODEBUG", "TZ"} {
		if v, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+v)
		}
	}
	return out
}

// failure tells how a process ended, with the last lines it wrote.
func (p *process) failure() error {
	msg := fmt.Sprintf("the process of node %s has stopped: %s; its log is %s", p.node, p.how, p.log)
	if lines := tail(p.log, 10); lines != "" {
		msg += " and ends:\n" + lines
	}
	return errors.New(msg)
}

func tail(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.Size() > 16<<10 {
		_, _ = f.Seek(-16<<10, io.SeekEnd)
	}
	data, _ := io.ReadAll(f)
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// terminate asks the nodes' own processes to stop and waits a while; whoever is left is killed later with everything else.
func (s *State) terminate(patience time.Duration) {
	var fds []unix.PollFd
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.PID <= 0 {
			continue
		}
		fd, err := unix.PidfdOpen(n.PID, 0)
		if err != nil {
			continue
		}
		if !n.alive() { // asked after the pidfd is held, so the answer is about the same process
			unix.Close(fd)
			continue
		}
		_ = unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0)
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	deadline := time.Now().Add(patience)
	for i := range fds {
		for {
			left := time.Until(deadline)
			if left <= 0 {
				break
			}
			if _, err := unix.Poll(fds[i:i+1], int(left.Milliseconds())+1); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		unix.Close(int(fds[i].Fd))
	}
}

// killNodes kills the recorded processes of nodes, wherever their cgroup may be.
func (s *State) killNodes() {
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.PID <= 0 {
			continue
		}
		fd, err := unix.PidfdOpen(n.PID, 0)
		if err != nil {
			continue
		}
		if n.alive() {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
		}
		unix.Close(fd)
	}
}
