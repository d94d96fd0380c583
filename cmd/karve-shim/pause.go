package main

import (
	"errors"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// startPause makes the PID namespace that a pod's containers share, with a process of our own as its init.
// dir is an empty directory that becomes all that process can see.
func (s *server) startPause(dir string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pausePid != 0 {
		return s.pausePid, nil
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	pid, _, err := s.reaper.spawn([]string{exe, "pause", dir}, &syscall.ProcAttr{
		Env:   []string{"GOMAXPROCS=1"},
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), w.Fd()},
		Sys:   &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS},
	})
	w.Close()
	if err != nil {
		return 0, errors.New("start pod init: " + err.Error())
	}
	buf := make([]byte, 256)
	n, _ := r.Read(buf)
	if string(buf[:n]) != "ok" {
		_ = s.reaper.signal(pid, syscall.SIGKILL)
		return 0, errors.New("start pod init " + strconv.Itoa(pid) + ": " + string(buf[:n]))
	}
	s.pausePid = pid
	return pid, nil
}

// pause is the init of a shared PID namespace. It gives up everything first: containers see it in their /proc.
func pause(dir string) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	ready := os.NewFile(3, "ready")
	if err := confine(dir); err != nil {
		ready.WriteString(err.Error())
		os.Exit(1)
	}
	ready.WriteString("ok")
	ready.Close()
	for range children {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
	}
}

func confine(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(65535, 65535, 65535); err != nil {
		return err
	}
	if err := syscall.Setresuid(65535, 65535, 65535); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}
