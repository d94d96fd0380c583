// Package enginetest is the conformance suite of the container engine: what the kubelet relies on, seen from outside.
//
// Tests call Run with a function that opens an engine. It owns the images it packs and the containers it makes, and
// checks that nothing of them is left. It needs root, and a process in mount, PID and network namespaces of its own:
// Main provides those.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine"
	"karve/engine/cgroup"
	"karve/engine/image"
	"karve/engine/sandbox"
)

// Open opens an engine in the given directories. Opening the same directories again is a restart.
type Open func(t testing.TB, root, state string, n engine.Network) *engine.Engine

// inside marks the process that Main has put into its namespaces.
const inside = "KARVE_ENGINETEST_INSIDE"

// Main runs m in namespaces of its own, so that no mount, process or address can survive the tests. Without root it
// just runs m, whose tests then skip.
func Main(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
		if err := cmd.Run(); err != nil {
			os.Stderr.WriteString("enginetest: " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(Victim) != "" {
		os.Exit(m.Run()) // a child of a test, in its namespaces
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		panic(err)
	}
	if err := sandbox.LoopbackUp(); err != nil {
		panic(err)
	}
	code := m.Run()
	os.Exit(code)
}

// Victim is set, to the directories of its engine, in a process that a test starts in order to kill it.
const Victim = "KARVE_ENGINETEST_VICTIM"

// CgroupRoot is where test engines put their control groups; the suite removes it.
const CgroupRoot = "/karve-enginetest"

// busyboxPath is the static busybox that test images are made of.
const busyboxPath = "/bin/busybox"

// BusyboxImage is the name of the image that Busybox packs.
const BusyboxImage = "karve.test/busybox:1"

// Busybox packs an image of the machine's static busybox and returns the file. It skips the test where there is none.
func Busybox(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root")
	}
	out, err := exec.Command(busyboxPath, "--list").Output()
	if err != nil {
		t.Skipf("SKIPPED: needs a static %s: %v", busyboxPath, err)
	}
	links := map[string]string{}
	for name := range strings.FieldsSeq(string(out)) {
		if name != "busybox" {
			links["/bin/"+name] = "busybox"
		}
	}
	file := filepath.Join(t.TempDir(), "busybox.tar")
	err = image.Pack(file, image.PackOptions{
		Name: BusyboxImage, Files: map[string]string{"/bin/busybox": busyboxPath}, Symlinks: links, Dirs: []string{"/tmp", "/root"},
		Data: map[string][]byte{
			"/etc/passwd": []byte("root:x:0:0::/root:/bin/sh\nalice:x:1234:1235::/:/bin/sh\n"),
			"/etc/group":  []byte("root:x:0:\nalice:x:1235:\nstaff:x:50:alice\n"),
		},
		Cmd: []string{"/bin/sh"}, Env: []string{"FROM_IMAGE=yes", "BOTH=image"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// Loopback is a Network that connects nothing: pods have the loopback interface only. It remembers who is attached.
type Loopback struct{ Attached map[string]bool }

// Attach notes the pod.
func (l *Loopback) Attach(_ context.Context, _ string, p engine.PodNetworkRequest) (engine.PodNetworkResult, error) {
	if l.Attached == nil {
		l.Attached = map[string]bool{}
	}
	l.Attached[p.SandboxID] = true
	return engine.PodNetworkResult{IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}}, nil
}

// Detach forgets the pod.
func (l *Loopback) Detach(_ context.Context, _ string, p engine.PodNetworkRequest) error {
	delete(l.Attached, p.SandboxID)
	return nil
}

// bench is an engine with what a test needs around it.
type bench struct {
	testing.TB
	ctx         context.Context
	e           *engine.Engine
	net         *Loopback
	open        Open
	root, state string
	logs        string
}

func newBench(t testing.TB, open Open) *bench {
	t.Helper()
	tar := Busybox(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	b := &bench{TB: t, ctx: ctx, open: open, root: t.TempDir(), state: t.TempDir(), logs: t.TempDir(), net: &Loopback{}}
	b.e = open(t, b.root, b.state, b.net)
	t.Cleanup(b.clean)
	if _, err := b.e.Images().Load(ctx, tar, ""); err != nil {
		t.Fatal(err)
	}
	return b
}

// restart replaces the engine by one that finds the state of the last.
func (b *bench) restart() {
	b.Helper()
	b.e.Close()
	b.e = b.open(b, b.root, b.state, b.net)
}

// clean removes all sandboxes and checks that nothing stays.
func (b *bench) clean() {
	list, err := b.e.ListPodSandbox(b.ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		b.Error(err)
		return
	}
	for _, p := range list.Items {
		b.remove(p.Id)
	}
	b.e.Close()
	for _, dir := range []string{b.root + "/sandboxes", b.root + "/containers", b.state + "/s", b.state + "/c", b.state + "/runc"} {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			b.Errorf("left in %s: %v", dir, left)
		}
	}
	tree, err := cgroup.Detect()
	if err != nil {
		b.Error(err)
	}
	for err = tree.Remove(CgroupRoot); errors.Is(err, unix.EBUSY) && b.ctx.Err() == nil; err = tree.Remove(CgroupRoot) {
		time.Sleep(10 * time.Millisecond) // the shims are about to end
	}
	if err != nil {
		b.Error(err)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, b.root) || strings.Contains(line, b.state) {
			b.Errorf("left mounted: %s", line)
		}
	}
	if len(b.net.Attached) > 0 {
		b.Errorf("left on the network: %v", b.net.Attached)
	}
}

func (b *bench) remove(pod string) {
	b.Helper()
	if _, err := b.e.RemovePodSandbox(b.ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod}); err != nil {
		b.Errorf("remove sandbox: %v", err)
	}
}

var attempt uint32

// pod runs a sandbox, after adjust has changed its configuration.
func (b *bench) pod(adjust func(*runtimeapi.PodSandboxConfig)) (string, *runtimeapi.PodSandboxConfig) {
	b.Helper()
	attempt++
	c := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "default", Uid: "u", Attempt: attempt},
		Hostname: "pod-host", LogDirectory: b.logs, Labels: map[string]string{"app": "x"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}},
		DnsConfig: &runtimeapi.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"default.svc"}},
	}
	if adjust != nil {
		adjust(c)
	}
	r, err := b.e.RunPodSandbox(b.ctx, &runtimeapi.RunPodSandboxRequest{Config: c})
	if err != nil {
		b.Fatal(err)
	}
	return r.PodSandboxId, c
}

// config is a container that runs a shell script.
func (b *bench) config(script string) *runtimeapi.ContainerConfig {
	attempt++
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c", Attempt: attempt}, Image: &runtimeapi.ImageSpec{Image: BusyboxImage},
		Command: []string{"sh", "-c", script}, LogPath: "c-" + time.Now().Format("150405.000000000") + ".log",
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}},
	}
}

func (b *bench) create(pod string, pc *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) string {
	b.Helper()
	r, err := b.e.CreateContainer(b.ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: c, SandboxConfig: pc})
	if err != nil {
		b.Fatal(err)
	}
	return r.ContainerId
}

func (b *bench) start(pod string, pc *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) string {
	b.Helper()
	id := b.create(pod, pc, c)
	if _, err := b.e.StartContainer(b.ctx, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		b.Fatal(err)
	}
	return id
}

func (b *bench) status(id string) *runtimeapi.ContainerStatus {
	b.Helper()
	r, err := b.e.ContainerStatus(b.ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		b.Fatal(err)
	}
	return r.Status
}

// wait returns the status of a container after it exited.
func (b *bench) wait(id string) *runtimeapi.ContainerStatus {
	b.Helper()
	for {
		st := b.status(id)
		if st.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			return st
		}
		b.pause("container to exit")
	}
}

func (b *bench) pause(what string) {
	b.Helper()
	if b.ctx.Err() != nil {
		b.Fatalf("gave up waiting for %s", what)
	}
	time.Sleep(10 * time.Millisecond)
}

// output runs a script to its end and returns what it logged to stdout, and its status.
func (b *bench) output(pod string, pc *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) (string, *runtimeapi.ContainerStatus) {
	b.Helper()
	st := b.wait(b.start(pod, pc, c))
	return logText(b, st.LogPath, "stdout"), st
}

// logText puts the lines of one stream of a CRI log together again.
func logText(t testing.TB, path, stream string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for line := range bytes.Lines(raw) {
		f := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(" "), 4)
		if len(f) != 4 {
			t.Fatalf("log line %q", line)
		}
		if _, err := time.Parse(time.RFC3339Nano, string(f[0])); err != nil {
			t.Fatal(err)
		}
		if string(f[1]) != stream {
			continue
		}
		out.Write(f[3])
		if string(f[2]) == "F" {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

func (b *bench) exec(id string, cmd ...string) string {
	b.Helper()
	r, err := b.e.ExecSync(b.ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: 60})
	if err != nil {
		b.Fatal(err)
	}
	if r.ExitCode != 0 {
		b.Fatalf("%q exited with %d: %s%s", cmd, r.ExitCode, r.Stdout, r.Stderr)
	}
	return string(r.Stdout)
}
