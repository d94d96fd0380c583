package sandbox

import (
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestResolvConf(t *testing.T) {
	b, err := resolvConf(&runtimeapi.DNSConfig{Servers: []string{"10.96.0.10", "::1"}, Searches: []string{"a.svc", "b"}, Options: []string{"ndots:5"}})
	if err != nil || string(b) != "search a.svc b\nnameserver 10.96.0.10\nnameserver ::1\noptions ndots:5\n" {
		t.Errorf("%q, %v", b, err)
	}
	for _, bad := range []*runtimeapi.DNSConfig{{Servers: []string{"x"}}, {Searches: []string{"a\nnameserver 1.1.1.1"}}, {Options: []string{"a\rb"}}} {
		if b, err := resolvConf(bad); err == nil {
			t.Errorf("accepted %v as %q", bad, b)
		}
	}
}

func TestCheckSysctls(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
		ok   bool
	}{
		{"net.core.somaxconn", Options{}, true},
		{"net.core.somaxconn", Options{HostNetwork: true}, false},
		{"kernel.shmmax", Options{}, true},
		{"kernel.shmmax", Options{HostIPC: true}, false},
		{"kernel.sem", Options{}, true},
		{"fs.mqueue.msg_max", Options{}, true},
		{"vm.overcommit_memory", Options{}, false},
		{"kernel.panic", Options{}, false},
		{"net/../vm.swappiness", Options{}, false},
	} {
		c.o.Sysctls = map[string]string{c.name: "1"}
		if _, err := checkSysctls(c.o); (err == nil) != c.ok {
			t.Errorf("%s with %+v: %v", c.name, c.o, err)
		}
	}
}

// What containers may write to is not in the volatile directory, which is the machine's memory; all else is.
func TestWritableFilesAreOnDisk(t *testing.T) {
	p := At("/run/s", "/var/s", Options{})
	for name, at := range map[string]string{"resolv.conf": p.ResolvConf, "hostname": p.Hostname} {
		if at != "/var/s/"+name {
			t.Errorf("%s is at %s", name, at)
		}
	}
	for _, at := range []string{p.Net, p.IPC, p.UTS, p.Shm, p.Empty} {
		if !strings.HasPrefix(at, "/run/s/") {
			t.Errorf("%s is on the disk", at)
		}
	}
}
