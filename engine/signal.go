package engine

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	sigTerm = int(unix.SIGTERM)
	sigKill = int(unix.SIGKILL)
	// The C library keeps the first two real-time signals to itself.
	rtMin, rtMax = 34, 64
)

// parseSignal reads a signal as images and CRI write it: TERM, SIGTERM, 15, SIGRTMIN+3 or SIGRTMINPLUS3. Empty is TERM.
func parseSignal(s string) (int, error) {
	if s == "" {
		return sigTerm, nil
	}
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > rtMax {
			return 0, fmt.Errorf("signal %d is out of range", n)
		}
		return n, nil
	}
	name := strings.NewReplacer("PLUS", "+", "MINUS", "-").Replace(strings.TrimPrefix(strings.ToUpper(s), "SIG"))
	base, rest := 0, ""
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		base, rest = rtMin, name[len("RTMIN"):]
	case strings.HasPrefix(name, "RTMAX"):
		base, rest = rtMax, name[len("RTMAX"):]
	}
	if base != 0 {
		off := 0
		if rest != "" {
			var err error
			if off, err = strconv.Atoi(rest); err != nil {
				return 0, fmt.Errorf("unknown signal %q", s)
			}
		}
		if n := base + off; n >= rtMin && n <= rtMax {
			return n, nil
		}
		return 0, fmt.Errorf("signal %q is out of range", s)
	}
	// Names the table of the system lacks.
	if other, ok := map[string]string{"CLD": "CHLD", "IOT": "ABRT", "POLL": "IO"}[name]; ok {
		name = other
	}
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return int(n), nil
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}

// signalEnum is the CRI value for a signal written in any way; unknown ones are the runtime's default.
func signalEnum(s string) runtimeapi.Signal {
	if s == "" {
		s = "SIGTERM"
	}
	n, err := parseSignal(s)
	if err != nil {
		return runtimeapi.Signal_RUNTIME_DEFAULT
	}
	for v, name := range runtimeapi.Signal_name {
		if v == 0 {
			continue
		}
		if m, err := parseSignal(name); err == nil && m == n && name != "SIGCLD" && name != "SIGIOT" && name != "SIGPOLL" {
			return runtimeapi.Signal(v)
		}
	}
	return runtimeapi.Signal_RUNTIME_DEFAULT
}
