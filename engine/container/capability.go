package container

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// defaultCapabilities are those a container has unless it says otherwise, the same as docker's.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// KnownCapabilities are all capabilities by number. A kernel knows the first so many of them.
var KnownCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
	"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// capabilities computes the sets. ALL is applied before single names, so "drop ALL, add X" leaves X. For users other than
// root the kernel leaves of these what is ambient when the program starts.
func capabilities(sc *runtimeapi.LinuxContainerSecurityContext, known []string) (*specs.LinuxCapabilities, error) {
	if sc.GetPrivileged() {
		return &specs.LinuxCapabilities{Bounding: known, Effective: known, Permitted: known}, nil
	}
	c := sc.GetCapabilities()
	set := slices.Clone(defaultCapabilities)
	add, err := names(c.GetAddCapabilities(), known)
	if err != nil {
		return nil, err
	}
	drop, err := names(c.GetDropCapabilities(), known)
	if err != nil {
		return nil, err
	}
	ambient, err := names(c.GetAddAmbientCapabilities(), known)
	if err != nil {
		return nil, err
	}
	if slices.Contains(add, "ALL") {
		set = slices.Clone(known)
	}
	if slices.Contains(drop, "ALL") {
		set = nil
	}
	for _, n := range slices.Concat(add, ambient) {
		if n != "ALL" && !slices.Contains(set, n) {
			set = append(set, n)
		}
	}
	set = slices.DeleteFunc(set, func(n string) bool { return slices.Contains(drop, n) || !slices.Contains(known, n) })
	out := &specs.LinuxCapabilities{Bounding: set, Effective: set, Permitted: set}
	if len(ambient) > 0 {
		ambient = slices.DeleteFunc(ambient, func(n string) bool { return !slices.Contains(set, n) })
		out.Ambient, out.Inheritable = ambient, ambient
	}
	return out, nil
}

func names(in, known []string) ([]string, error) {
	var out []string
	for _, n := range in {
		n = strings.ToUpper(n)
		if n != "ALL" {
			if !strings.HasPrefix(n, "CAP_") {
				n = "CAP_" + n
			}
			if !slices.Contains(KnownCapabilities, n) {
				return nil, fmt.Errorf("unknown capability %q", n)
			}
			if !slices.Contains(known, n) {
				return nil, fmt.Errorf("this machine does not grant capability %q", n)
			}
		}
		out = append(out, n)
	}
	return out, nil
}
