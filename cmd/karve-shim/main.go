// Command karve-shim stays with the containers of one pod sandbox.
//
// The engine starts it with a listening unix socket on descriptor 3 and talks to it in the protocol of engine/shim.
// It starts containers through the OCI runtime, is the parent that reaps them, records how they ended, writes their logs
// and holds their terminals and input, so that the engine may die and come back. It knows nothing of pods, images,
// snapshots or networks, keeps no state but its containers, and is kept small on purpose.
package main

import (
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "pause" {
		pause(os.Args[2])
		return
	}
	debug.SetGCPercent(25)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE, syscall.SIGTERM)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fatal("become subreaper: " + err.Error())
	}
	// The kernel should pick containers before the process that reports on them.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0)
	syscall.CloseOnExec(3)
	if err := syscall.SetNonblock(3, true); err != nil {
		fatal("listening socket: " + err.Error())
	}
	s := &server{reaper: newReaper(), containers: map[string]*container{}}
	s.serve(os.NewFile(3, "listener"))
}

func fatal(msg string) {
	os.Stderr.WriteString("karve-shim: " + msg + "\n")
	os.Exit(1)
}
