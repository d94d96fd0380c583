package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestParse(t *testing.T) {
	mixed := parse("30 20 0:1 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"31 20 0:2 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n" +
		"32 20 0:3 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n" +
		"33 20 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n")
	if mixed.Unified() {
		t.Error("mixed hierarchy taken for unified")
	}
	if got := mixed.OOMFile("/a/b"); got != "/sys/fs/cgroup/memory/a/b/memory.oom_control" {
		t.Error(got)
	}
	if got := mixed.dir("cpuacct", "/a"); got != "/sys/fs/cgroup/cpu,cpuacct/a" {
		t.Error(got)
	}
	if n := len(mixed.mounts()); n != 4 {
		t.Errorf("%d mounts", n)
	}
	pure := parse("33 20 0:4 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
	if !pure.Unified() || pure.OOMFile("/x") != "/sys/fs/cgroup/x/memory.events" || len(pure.KillDirs("/x")) != 1 {
		t.Errorf("%+v", pure)
	}
	if err := pure.Remove("/"); err == nil {
		t.Error("removed the root")
	}
}

func TestReadV2(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"cpu.stat": "usage_usec 1500\nuser_usec 1\n", "memory.current": "1000\n", "memory.max": "max\n",
		"memory.stat": "anon 300\ninactive_file 400\npgfault 7\npgmajfault 2\n", "pids.current": "3\n",
		"cpu.pressure": "some avg10=1.50 avg60=0.20 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := readV2(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.CPUNanos != 1500000 || s.MemoryWorking != 600 || s.MemoryRSS != 300 || s.MemoryLimit != 0 || s.Pids != 3 || s.MajorPageFaults != 2 {
		t.Errorf("%+v", s)
	}
	if p := s.PSI["cpu"]; p.Some.Avg10 != 1.5 || p.Some.Total != 12000 || p.Full.Total != 3000 {
		t.Errorf("%+v", p)
	}
	if _, err := readV2(filepath.Join(dir, "none")); err != ErrGone {
		t.Error(err)
	}
}
