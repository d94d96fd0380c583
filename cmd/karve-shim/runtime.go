package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"karve/engine/shim"
)

// runtimeEnv is what the OCI runtime itself gets; a container's environment comes from its specification.
var runtimeEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR=/run"}

// process is one runtime call that leaves a process behind: a container's init or an exec.
type process struct {
	rt       shim.Runtime
	args     []string // subcommand and its flags, without --pid-file and --console-socket
	id       string
	scratch  string // path prefix for the files of this call
	terminal bool
	files    [3]*os.File // for the new process when there is no terminal
}

// run calls the runtime and returns the pid it reported, the terminal if asked for, and the channel of the exit code.
func (s *server) run(p process) (pid int, console *os.File, exit <-chan int, err error) {
	s.reaper.begin()
	defer s.reaper.end()
	logFile, pidFile := p.scratch+"log", p.scratch+"pid"
	defer os.Remove(logFile)
	defer os.Remove(pidFile)
	argv := []string{p.rt.Path, "--root", p.rt.Root, "--log", logFile, "--log-format", "json"}
	argv = append(argv, p.args...)
	argv = append(argv, "--pid-file", pidFile)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return 0, nil, nil, err
	}
	defer null.Close()
	fds := []uintptr{null.Fd(), null.Fd(), null.Fd()}
	var consoles *consoleSocket
	if p.terminal {
		if consoles, err = listenConsole(p.scratch + "tty"); err != nil {
			return 0, nil, nil, err
		}
		defer consoles.close()
		argv = append(argv, "--console-socket", consoles.path)
	} else {
		for i, f := range p.files {
			if f != nil {
				fds[i] = f.Fd()
			}
		}
	}
	argv = append(argv, p.id)
	_, done, err := s.reaper.spawn(argv, &syscall.ProcAttr{Env: runtimeEnv, Files: fds, Dir: "/"})
	if err != nil {
		return 0, nil, nil, errors.New("run " + p.rt.Path + ": " + err.Error())
	}
	if code := <-done; code != 0 {
		return 0, nil, nil, errors.New(runtimeError(logFile, code))
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, nil, nil, err
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil || pid <= 0 {
		return 0, nil, nil, errors.New("runtime wrote a bad pid file")
	}
	exit = s.reaper.watch(pid)
	if consoles != nil {
		if console, err = consoles.receive(); err != nil {
			_ = s.reaper.signal(pid, syscall.SIGKILL)
			return 0, nil, nil, err
		}
	}
	return pid, console, exit, nil
}

// call runs a runtime command that leaves nothing behind.
func (s *server) call(rt shim.Runtime, args ...string) error {
	argv := append([]string{rt.Path, "--root", rt.Root}, args...)
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	_, done, err := s.reaper.spawn(argv, &syscall.ProcAttr{Env: runtimeEnv, Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}, Dir: "/"})
	if err != nil {
		return err
	}
	if code := <-done; code != 0 {
		return errors.New(args[0] + " exited with " + strconv.Itoa(code))
	}
	return nil
}

// runtimeError is the last message in the runtime's log, which is where runc says what went wrong.
func runtimeError(path string, code int) string {
	b, _ := os.ReadFile(path)
	msg := ""
	for _, line := range bytes.Split(b, []byte{'\n'}) {
		var e struct{ Level, Msg string }
		if json.Unmarshal(line, &e) == nil && e.Level == "error" && e.Msg != "" {
			msg = e.Msg
		}
	}
	if msg == "" {
		msg = "runtime exited with " + strconv.Itoa(code)
	}
	return msg
}

// consoleSocket receives the master side of a terminal from the runtime.
type consoleSocket struct {
	path string
	fd   int
	dir  int
}

func listenConsole(path string) (*consoleSocket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// A socket address holds 107 bytes; through a descriptor of its directory any path fits. The runtime opens it so too.
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	_ = os.Remove(path)
	c := &consoleSocket{path: path, fd: fd, dir: dir}
	short := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(dir) + "/" + filepath.Base(path)
	if len(path) > 100 {
		c.path = short
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: c.path}); err != nil {
		c.close()
		return nil, errors.New("bind console socket: " + err.Error())
	}
	if err := unix.Listen(fd, 1); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *consoleSocket) close() {
	_ = os.Remove(c.path)
	unix.Close(c.fd)
	unix.Close(c.dir)
}

// receive is called after the runtime returned, so the message is already queued and nothing here waits.
func (c *consoleSocket) receive() (*os.File, error) {
	_ = unix.SetNonblock(c.fd, true)
	conn, _, err := unix.Accept4(c.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, errors.New("accept console: " + err.Error())
	}
	defer unix.Close(conn)
	oob := make([]byte, unix.CmsgSpace(4))
	buf := make([]byte, 256)
	_, n, _, _, err := unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, errors.New("receive console: " + err.Error())
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, errors.New("receive console: no descriptor")
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("receive console: no descriptor")
	}
	_ = unix.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), "console"), nil
}
