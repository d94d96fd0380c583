package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func write(t *testing.T, text string, path ...string) {
	t.Helper()
	p := filepath.Join(path...)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func read(path ...string) string {
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		return "-"
	}
	return strings.TrimSpace(string(b))
}

var limits = &runtimeapi.LinuxContainerResources{CpuShares: 512, CpuQuota: 50000, CpuPeriod: 100000, MemoryLimitInBytes: 64 << 20}

// Directories stand for the two hierarchies: what is written where is the point.
func TestOneTreePerController(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []string{"cpu", "memory", "pids"} {
		write(t, "", dir, c, "cgroup.procs")
	}
	tree := Open(dir)
	if err := tree.Ensure("/kubepods/pod1", limits); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(read(dir, "cpu/kubepods/pod1/cpu.shares"), read(dir, "cpu/kubepods/pod1/cpu.cfs_quota_us"), " ", read(dir, "memory/kubepods/pod1/memory.limit_in_bytes"))
	if got != "51250000 67108864" {
		t.Error(got)
	}
	// Without limits there are none: the kernel's are "no limit".
	if err := tree.Ensure("/kubepods/pod2", &runtimeapi.LinuxContainerResources{CpuShares: 2}); err != nil {
		t.Fatal(err)
	}
	got = fmt.Sprint(read(dir, "cpu/kubepods/pod2/cpu.shares"), read(dir, "cpu/kubepods/pod2/cpu.cfs_quota_us"), read(dir, "memory/kubepods/pod2/memory.limit_in_bytes"))
	if got != "2--" {
		t.Error(got)
	}
}

func TestSingleTree(t *testing.T) {
	dir := t.TempDir()
	for _, at := range []string{"", "kubepods", "kubepods/pod1"} {
		write(t, "cpu memory pids rdma", dir, at, "cgroup.controllers")
		write(t, "memory", dir, at, "cgroup.subtree_control")
	}
	if err := Open(dir).Ensure("/kubepods/pod1", limits); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"cpu.weight": "20", "cpu.max": "50000 100000", "memory.max": "67108864"} {
		if got := read(dir, "kubepods/pod1", file); got != want {
			t.Errorf("%s is %s, want %s", file, got, want)
		}
	}
	// One is on already, one is not for pods: what was switched on last is the other two's second.
	for _, at := range []string{"", "kubepods", "kubepods/pod1"} {
		if got := read(dir, at, "cgroup.subtree_control"); got != "+pids" {
			t.Errorf("at %q the last controller switched on is %s", at, got)
		}
	}
	for shares, want := range map[int64]string{2: "1", 1024: "39", 262144: "10000"} {
		if err := Open(dir).Ensure("/kubepods/pod1", &runtimeapi.LinuxContainerResources{CpuShares: shares}); err != nil || read(dir, "kubepods/pod1/cpu.weight") != want {
			t.Errorf("%d shares weigh %s, want %s (%v)", shares, read(dir, "kubepods/pod1/cpu.weight"), want, err)
		}
	}
}

// On the machine's own cgroups: made, limited, and removed with what is below, in whatever hierarchy they are.
func TestKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: making cgroups needs root")
	}
	const mount = "/sys/fs/cgroup"
	tree := Open(mount)
	name := fmt.Sprintf("/karve-cgrouptest-%d", os.Getpid())
	probe := filepath.Join(mount, name)
	if !tree.unified {
		probe = filepath.Join(mount, "memory", name)
	}
	if err := os.Mkdir(probe, 0o755); errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, os.ErrNotExist) {
		t.Skip("SKIPPED: no cgroups can be made here: ", err)
	}
	t.Cleanup(func() {
		if err := tree.Remove(name); err != nil {
			t.Error(err)
		}
	})
	if err := tree.Ensure(name+"/pod", limits); err != nil {
		t.Skip("SKIPPED: the machine has not the controllers: ", err)
	}
	limit := filepath.Join(mount, name, "pod/memory.max")
	if !tree.unified {
		limit = filepath.Join(mount, "memory", name, "pod/memory.limit_in_bytes")
	}
	if got := read(limit); got != "67108864" {
		t.Errorf("the kernel's memory limit is %s", got)
	}
	for range 2 { // what is gone is no error
		if err := tree.Remove(name); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(probe); err == nil {
		t.Error("the cgroup is still there")
	}
}

func TestNoTree(t *testing.T) {
	var none Tree
	if err := errors.Join(none.Ensure("/x", limits), none.Remove("/x")); err != nil {
		t.Error(err)
	}
}
