package container

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func base() Input {
	return Input{
		Config: &runtimeapi.ContainerConfig{Command: []string{"run"}, Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{}}},
		Rootfs: "/r", Cgroup: "/kubepods/x", Host: Host{Unified: true, Hugetlb: true, Capabilities: KnownCapabilities},
		Sandbox: Sandbox{Hostname: "h", NetNS: "/ns/net", IPCNS: "/ns/ipc", UTSNS: "/ns/uts", Shm: "/shm", ResolvConf: "/rc"},
	}
}

func TestArguments(t *testing.T) {
	img := v1.Config{Entrypoint: []string{"/entry"}, Cmd: []string{"a", "b"}}
	for _, c := range []struct{ command, args, want []string }{
		{nil, nil, []string{"/entry", "a", "b"}},
		{nil, []string{"x"}, []string{"/entry", "x"}},
		{[]string{"c"}, nil, []string{"c"}},
		{[]string{"c"}, []string{"x"}, []string{"c", "x"}},
	} {
		got, err := arguments(&runtimeapi.ContainerConfig{Command: c.command, Args: c.args}, img)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v %v: got %v, %v", c.command, c.args, got, err)
		}
	}
	if _, err := arguments(&runtimeapi.ContainerConfig{}, v1.Config{}); err == nil {
		t.Error("ran nothing")
	}
}

func TestCapabilities(t *testing.T) {
	for _, c := range []struct {
		add, drop []string
		has, not  []string
		bad       bool
	}{
		{has: []string{"CAP_CHOWN", "CAP_NET_RAW"}, not: []string{"CAP_SYS_ADMIN"}},
		{add: []string{"sys_admin"}, has: []string{"CAP_SYS_ADMIN", "CAP_CHOWN"}},
		{add: []string{"ALL"}, drop: []string{"CAP_BPF"}, has: []string{"CAP_SYS_ADMIN"}, not: []string{"CAP_BPF"}},
		{drop: []string{"ALL"}, not: []string{"CAP_CHOWN"}},
		{add: []string{"NET_BIND_SERVICE"}, drop: []string{"all"}, has: []string{"CAP_NET_BIND_SERVICE"}, not: []string{"CAP_CHOWN"}},
		{add: []string{"NONSENSE"}, bad: true},
	} {
		sc := &runtimeapi.LinuxContainerSecurityContext{Capabilities: &runtimeapi.Capability{AddCapabilities: c.add, DropCapabilities: c.drop}}
		got, err := capabilities(sc, KnownCapabilities)
		if (err != nil) != c.bad {
			t.Errorf("+%v -%v: %v", c.add, c.drop, err)
			continue
		}
		for _, n := range c.has {
			if !slices.Contains(got.Effective, n) {
				t.Errorf("+%v -%v lacks %s", c.add, c.drop, n)
			}
		}
		for _, n := range c.not {
			if slices.Contains(got.Bounding, n) {
				t.Errorf("+%v -%v has %s", c.add, c.drop, n)
			}
		}
	}
}

func TestMounts(t *testing.T) {
	in := base()
	in.Config.Mounts = []*runtimeapi.Mount{
		{ContainerPath: "/a/b/c", HostPath: "/3"}, {ContainerPath: "/a", HostPath: "/1", Readonly: true, RecursiveReadOnly: true},
		{ContainerPath: "/dev/shm", HostPath: "/own"}, {ContainerPath: "/p", HostPath: "/2", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
	}
	s, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]specs.Mount{}
	var order []string
	for _, m := range s.Mounts {
		if _, dup := at[m.Destination]; dup {
			t.Errorf("%s is mounted twice", m.Destination)
		}
		at[m.Destination] = m
		order = append(order, m.Destination)
	}
	if slices.Index(order, "/a") > slices.Index(order, "/a/b/c") || at["/dev/shm"].Source != "/own" || at["/etc/resolv.conf"].Source != "/rc" {
		t.Errorf("order %v", order)
	}
	if !slices.Contains(at["/a"].Options, "rro") || !slices.Contains(at["/p"].Options, "rshared") || s.Linux.RootfsPropagation != "rshared" {
		t.Errorf("options %v %v", at["/a"], at["/p"])
	}
	for _, bad := range []*runtimeapi.Mount{{ContainerPath: "/", HostPath: "/x"}, {ContainerPath: "/x", HostPath: "rel"}, {ContainerPath: "/x", HostPath: "/y", RecursiveReadOnly: true}} {
		in.Config.Mounts = []*runtimeapi.Mount{bad}
		if _, err := Spec(in); err == nil {
			t.Errorf("accepted %v", bad)
		}
	}
}

func TestNamespaces(t *testing.T) {
	list := func(in Input) string {
		s, err := Spec(in)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, n := range s.Linux.Namespaces {
			out = append(out, string(n.Type)+":"+n.Path)
		}
		return strings.Join(out, " ")
	}
	in := base()
	if got := list(in); got != "mount: network:/ns/net ipc:/ns/ipc uts:/ns/uts pid: cgroup:" {
		t.Error(got)
	}
	in.Sandbox = Sandbox{HostPID: true}
	in.Host.Unified = false
	if got := list(in); got != "mount:" {
		t.Error(got)
	}
}

func TestSecurity(t *testing.T) {
	in := base()
	sc := in.Config.Linux.SecurityContext
	sc.MaskedPaths, sc.NoNewPrivs, sc.Seccomp = []string{"/proc/kcore"}, true, &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	s, err := Spec(in)
	if err != nil {
		t.Fatal(err)
	}
	if s.Linux.Seccomp == nil || s.Linux.Seccomp.DefaultAction != specs.ActErrno || !s.Process.NoNewPrivileges || len(s.Linux.MaskedPaths) != 1 || s.Linux.Resources.Devices[0].Allow {
		t.Errorf("%+v", s.Linux)
	}
	sc.Privileged = true
	if s, err = Spec(in); err != nil || s.Linux.Seccomp != nil || s.Linux.MaskedPaths != nil || !s.Linux.Resources.Devices[0].Allow || len(s.Process.Capabilities.Bounding) != len(KnownCapabilities) {
		t.Errorf("privileged: %+v, %v", s.Linux, err)
	}
}

// A profile that cannot be enforced is no reason to run without one.
func TestProfilesDoNotFailOpen(t *testing.T) {
	local := func(ref string) *runtimeapi.SecurityProfile {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: ref}
	}
	in := base()
	sc := in.Config.Linux.SecurityContext
	for name, c := range map[string]struct {
		seccomp, apparmor *runtimeapi.SecurityProfile
		has, ok           bool
	}{
		"seccomp profile that was not read":      {seccomp: local("x")},
		"AppArmor on a machine without":          {apparmor: local("x")},
		"AppArmor profile without a name":        {apparmor: local(""), has: true},
		"AppArmor on a machine that has it":      {apparmor: local("localhost/x"), has: true, ok: true},
		"the default where AppArmor is not used": {apparmor: &runtimeapi.SecurityProfile{}, ok: true},
	} {
		sc.Seccomp, sc.Apparmor, in.Host.AppArmor = c.seccomp, c.apparmor, c.has
		s, err := Spec(in)
		if (err == nil) != c.ok || c.ok && c.has && s.Process.ApparmorProfile != "x" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDefaultSeccomp checks the calls that decide whether the profile is worth anything, and that each is listed once.
func TestDefaultSeccomp(t *testing.T) {
	allowed := func(caps []string, call string) bool {
		for _, r := range DefaultSeccomp(caps).Syscalls {
			if r.Action == specs.ActAllow && len(r.Args) == 0 && slices.Contains(r.Names, call) {
				return true
			}
		}
		return false
	}
	for _, c := range []string{"mount", "unshare", "setns", "bpf", "keyctl", "add_key", "kexec_load", "init_module", "open_by_handle_at", "userfaultfd", "io_uring_setup", "clone", "reboot", "swapon", "pivot_root", "nfsservctl", "perf_event_open"} {
		if allowed(nil, c) {
			t.Errorf("%s is allowed to everybody", c)
		}
	}
	for _, c := range []string{"read", "openat", "execve", "futex", "epoll_pwait", "clock_gettime", "statx", "getrandom", "rt_sigreturn", "exit_group"} {
		if !allowed(nil, c) {
			t.Errorf("%s is not allowed", c)
		}
	}
	if !allowed([]string{"CAP_SYS_ADMIN"}, "mount") || !allowed([]string{"CAP_SYS_ADMIN"}, "clone") {
		t.Error("CAP_SYS_ADMIN cannot mount")
	}
	names := strings.Fields(alwaysAllowed)
	slices.Sort(names)
	if n := len(slices.Compact(slices.Clone(names))); n != len(names) {
		t.Errorf("%d names are listed twice", len(names)-n)
	}
}

func TestResources(t *testing.T) {
	r := &runtimeapi.LinuxContainerResources{CpuShares: 2, CpuQuota: -1, CpuPeriod: 100, MemoryLimitInBytes: 5, MemorySwapLimitInBytes: 6,
		HugepageLimits: []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 9}}, Unified: map[string]string{"memory.min": "1"}}
	got := Resources(r, Host{Unified: true, Hugetlb: true})
	if *got.CPU.Shares != 2 || *got.CPU.Quota != -1 || *got.Memory.Limit != 5 || got.Memory.Swap != nil || got.HugepageLimits[0].Limit != 9 || got.Unified["memory.min"] != "1" {
		t.Errorf("%+v", got)
	}
	if got := Resources(r, Host{Swap: true}); *got.Memory.Swap != 6 || got.HugepageLimits != nil || got.Unified != nil {
		t.Errorf("%+v", got)
	}
}

func TestResolveUser(t *testing.T) {
	root := t.TempDir()
	outside := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(outside, []byte("evil:x:666:666::/:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(root+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, s string) {
		if err := os.WriteFile(root+"/etc/"+name, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Two accounts have numbers for names, to be taken for somebody they are not.
	write("passwd", "root:x:0:0::/:\n1000:x:0:0::/:\n4294967296:x:0:0::/:\nbob:x:7:8::/:\nbroken\n")
	write("group", "g:x:9:bob\nh:x:10:\n43:x:0:\n4294967296:x:0:\n")
	for _, c := range []struct {
		image string
		want  User
		bad   bool
	}{
		{"", User{0, 0, []uint32{0}}, false}, {"bob", User{7, 8, []uint32{8, 9}}, false}, {"bob:h", User{7, 10, []uint32{10, 9}}, false},
		{"7", User{7, 8, []uint32{8, 9}}, false}, {"42:43", User{42, 43, []uint32{43}}, false}, {"nobody", User{}, true}, {"bob:none", User{}, true},
		{"1000", User{1000, 0, []uint32{0}}, false}, {"007", User{7, 8, []uint32{8, 9}}, false}, {"4294967296", User{}, true}, {"bob:4294967296", User{}, true},
	} {
		got, err := ResolveUser(root, c.image, &runtimeapi.LinuxContainerSecurityContext{})
		if (err != nil) != c.bad || err == nil && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, %v", c.image, got, err)
		}
	}
	// A link that leaves the root is resolved inside it, where there is nothing.
	if err := os.Remove(root + "/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, root+"/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	if u, err := ResolveUser(root, "evil", nil); err == nil {
		t.Errorf("read a file outside of the root: %+v", u)
	}
}
