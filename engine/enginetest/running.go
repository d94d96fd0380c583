package enginetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine"
	"karve/engine/cgroup"
)

func testLimits(b *bench) {
	pod, pc := b.pod(nil)
	c := b.config("sleep 1000")
	c.Linux.Resources = &runtimeapi.LinuxContainerResources{CpuPeriod: 100000, CpuQuota: 50000, CpuShares: 512, MemoryLimitInBytes: 64 << 20, OomScoreAdj: 500}
	id := b.start(pod, pc, c)
	if got := b.exec(id, "cat", "/proc/1/oom_score_adj"); got != "500\n" {
		b.Errorf("oom_score_adj %q", got)
	}
	s, err := b.e.ContainerStats(b.ctx, &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		b.Fatal(err)
	}
	left := func() uint64 {
		s, err = b.e.ContainerStats(b.ctx, &runtimeapi.ContainerStatsRequest{ContainerId: id})
		if err != nil {
			b.Fatal(err)
		}
		return s.Stats.Memory.AvailableBytes.GetValue() + s.Stats.Memory.WorkingSetBytes.GetValue()
	}
	if n := left(); n != 64<<20 {
		b.Errorf("memory limit is %d", n)
	}
	_, err = b.e.UpdateContainerResources(b.ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id,
		Linux: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 96 << 20, CpuQuota: 70000}})
	if err != nil {
		b.Fatal(err)
	}
	if n := left(); n != 96<<20 {
		b.Errorf("memory limit is %d after the update", n)
	}
	if r := b.status(id).Resources.Linux; r.CpuQuota != 70000 || r.CpuShares != 512 || r.MemoryLimitInBytes != 96<<20 {
		b.Errorf("resources %v", r)
	}
}

func testOOM(b *bench) {
	pod, pc := b.pod(nil)
	c := b.config("head -c 100m /dev/zero | tail -c 100m >/dev/null; exit 137")
	c.Command = []string{"sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=100M count=1"}
	c.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 16 << 20}
	if st := b.wait(b.start(pod, pc, c)); st.Reason != "OOMKilled" || st.ExitCode != 137 {
		b.Errorf("status %v", st)
	}
}

func testStop(b *bench) {
	pod, pc := b.pod(nil)
	graceful := b.start(pod, pc, b.config("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"))
	own := b.config("trap 'exit 8' USR1; echo ready; while :; do sleep 0.05; done")
	own.StopSignal = runtimeapi.Signal_SIGUSR1
	custom := b.start(pod, pc, own)
	stubborn := b.start(pod, pc, b.config("trap '' TERM; echo ready; while :; do sleep 0.05; done"))
	if s := b.status(custom).StopSignal; s != runtimeapi.Signal_SIGUSR1 {
		b.Errorf("stop signal %v", s)
	}
	for _, c := range []struct {
		id      string
		timeout int64
		code    int32
	}{{graceful, 60, 7}, {custom, 60, 8}, {stubborn, 1, 137}} {
		for logText(b, b.status(c.id).LogPath, "stdout") == "" {
			b.pause("container to be ready")
		}
		for range 2 {
			if _, err := b.e.StopContainer(b.ctx, &runtimeapi.StopContainerRequest{ContainerId: c.id, Timeout: c.timeout}); err != nil {
				b.Error(err)
			}
		}
		if st := b.status(c.id); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != c.code {
			b.Errorf("want code %d, got %v", c.code, st)
		}
	}
	running := b.start(pod, pc, b.config("sleep 1000"))
	for range 2 {
		if _, err := b.e.RemoveContainer(b.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: running}); err != nil {
			b.Error(err)
		}
	}
	if _, err := b.e.ContainerStatus(b.ctx, &runtimeapi.ContainerStatusRequest{ContainerId: running}); status.Code(err) != codes.NotFound {
		b.Errorf("status of a removed container: %v", err)
	}
	if _, err := b.e.StopContainer(b.ctx, &runtimeapi.StopContainerRequest{ContainerId: running}); err != nil {
		b.Errorf("stop of a removed container: %v", err)
	}
}

func testExec(b *bench) {
	pod, pc := b.pod(nil)
	id := b.start(pod, pc, b.config("sleep 1000"))
	r, err := b.e.ExecSync(b.ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", "echo out; echo err >&2; exit 5"}})
	if err != nil || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" || r.ExitCode != 5 {
		b.Errorf("%v, %v", r, err)
	}
	if _, err := b.e.ExecSync(b.ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sleep", "1000"}, Timeout: 1}); status.Code(err) != codes.DeadlineExceeded {
		b.Errorf("timeout: %v", err)
	}
	if _, err := b.e.ExecSync(b.ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"/no/such"}}); err == nil {
		b.Error("ran a program that does not exist")
	}
	if r, err := b.e.ExecSync(b.ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"head", "-c", "3000000", "/dev/zero"}}); err != nil || len(r.Stdout) != 3000000 {
		b.Errorf("%d bytes, %v", len(r.GetStdout()), err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			r, err := b.e.ExecSync(b.ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", "exit " + strconv.Itoa(i)}})
			if err != nil || int(r.ExitCode) != i {
				b.Errorf("exec %d: %v, %v", i, r, err)
			}
		})
	}
	wg.Wait()
	done := b.start(pod, pc, b.config("true"))
	b.wait(done)
	if _, err := b.e.ExecSync(b.ctx, &runtimeapi.ExecSyncRequest{ContainerId: done, Cmd: []string{"true"}}); err == nil {
		b.Error("exec in a container that has exited")
	}
}

func testExecStream(b *bench) {
	pod, pc := b.pod(nil)
	id := b.start(pod, pc, b.config("sleep 1000"))
	payload := strings.Repeat("0123456789abcdef", 40000)
	var out, errs bytes.Buffer
	code, err := b.e.ExecStream(b.ctx, id, []string{"sh", "-c", "cat; echo done >&2; exit 4"}, false, strings.NewReader(payload), &out, &errs, nil)
	if err != nil || code != 4 || out.String() != payload || errs.String() != "done\n" {
		b.Errorf("code %d, %v, %d bytes, %q", code, err, out.Len(), errs.String())
	}
	out.Reset()
	resize := make(chan engine.TermSize, 1)
	resize <- engine.TermSize{Cols: 77, Rows: 33}
	code, err = b.e.ExecStream(b.ctx, id, []string{"sh", "-c", "tty >/dev/null || exit 1; while [ \"$(stty size)\" != '33 77' ]; do sleep 0.05; done; read x; echo got $x"}, true,
		strings.NewReader("hi\n"), &out, nil, resize)
	if err != nil || code != 0 || !strings.Contains(out.String(), "got hi\r\n") {
		b.Errorf("terminal: code %d, %v, %q", code, err, out.String())
	}
	// Whoever leaves takes the command along.
	ctx, cancel := context.WithCancel(b.ctx)
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := b.e.ExecStream(ctx, id, []string{"sh", "-c", "echo up; exec sleep 4321"}, false, nil, w, nil, nil)
		ended <- err
	}()
	if _, err := r.Read(make([]byte, 10)); err != nil {
		b.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		b.Errorf("cancelled exec: %v", err)
	}
	for strings.Contains(b.exec(id, "ps"), "sleep 4321") {
		b.pause("the command to be gone")
	}
}

func testAttach(b *bench) {
	pod, pc := b.pod(nil)
	c := b.config("while read x; do echo got $x; done; echo end; exit 6")
	c.Stdin, c.StdinOnce = true, true
	id := b.start(pod, pc, c)
	var out bytes.Buffer
	if err := b.e.AttachStream(b.ctx, id, strings.NewReader("one\ntwo\n"), &out, nil, nil); err != nil {
		b.Error(err)
	}
	if out.String() != "got one\ngot two\nend\n" {
		b.Errorf("attached: %q", out.String())
	}
	if st := b.wait(id); st.ExitCode != 6 || logText(b, st.LogPath, "stdout") != out.String() {
		b.Errorf("status %v", st)
	}
}

func testTerminal(b *bench) {
	pod, pc := b.pod(nil)
	c := b.config("tty; echo $TERM; read x; echo got $x; stty size; exit 9")
	c.Stdin, c.Tty = true, true
	id := b.start(pod, pc, c)
	in, typed := io.Pipe()
	resize := make(chan engine.TermSize, 1)
	resize <- engine.TermSize{Cols: 100, Rows: 40}
	done := make(chan error, 1)
	var out bytes.Buffer
	go func() { done <- b.e.AttachStream(b.ctx, id, in, &out, nil, resize) }()
	for b.exec(id, "sh", "-c", "stty size </dev/pts/0") != "40 100\n" {
		b.pause("the new size")
	}
	if _, err := typed.Write([]byte("hello\n")); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Error(err)
	}
	st := b.wait(id)
	if !strings.Contains(out.String(), "got hello\r\n40 100\r\n") || st.ExitCode != 9 {
		b.Errorf("%q, %v", out.String(), st)
	}
	if log := logText(b, st.LogPath, "stdout"); !strings.HasPrefix(log, "/dev/pts/0\r\nxterm\r\n") {
		b.Errorf("log %q", log)
	}
}

func testLogRotation(b *bench) {
	pod, pc := b.pod(nil)
	c := b.config("echo first; while [ ! -e /go ]; do sleep 0.05; done; echo second")
	id := b.start(pod, pc, c)
	path := b.status(id).LogPath
	for logText(b, path, "stdout") == "" {
		b.pause("the first line")
	}
	if err := os.Rename(path, path+".old"); err != nil {
		b.Fatal(err)
	}
	if _, err := b.e.ReopenContainerLog(b.ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		b.Fatal(err)
	}
	b.exec(id, "touch", "/go")
	b.wait(id)
	if old, now := logText(b, path+".old", "stdout"), logText(b, path, "stdout"); old != "first\n" || now != "second\n" {
		b.Errorf("old %q, new %q", old, now)
	}
}

// duplex is a connection whose ends are in memory.
type duplex struct {
	io.Reader
	io.Writer
}

func (duplex) Close() error { return nil }

func testPortForward(b *bench) {
	pod, pc := b.pod(nil)
	id := b.start(pod, pc, b.config("echo ready; nc -l -p 8080 -e sh -c 'read x; echo answer $x'"))
	for !strings.Contains(b.exec(id, "netstat", "-ltn"), ":8080") {
		b.pause("the server")
	}
	var out bytes.Buffer
	if err := b.e.PortForwardStream(b.ctx, pod, 8080, duplex{strings.NewReader("question\n"), &out}); err != nil {
		b.Error(err)
	}
	if out.String() != "answer question\n" {
		b.Errorf("got %q", out.String())
	}
	if err := b.e.PortForwardStream(b.ctx, pod, 8081, duplex{strings.NewReader(""), &out}); err == nil {
		b.Error("connected to a closed port")
	}
}

func testEvents(b *bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	events := b.e.Events(ctx)
	pod, pc := b.pod(nil)
	id := b.start(pod, pc, b.config("exit 2"))
	b.wait(id)
	b.remove(pod)
	want := []struct {
		id   string
		kind runtimeapi.ContainerEventType
	}{
		{pod, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT}, {pod, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT},
		{id, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT}, {id, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT},
		{id, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT}, {id, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT},
		{pod, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT},
	}
	for _, w := range want {
		ev := <-events
		if ev.ContainerId != w.id || ev.ContainerEventType != w.kind || ev.PodSandboxStatus.GetId() != pod {
			b.Errorf("event %v, want %v", ev, w)
		}
		if w.id == id && w.kind == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT && (len(ev.ContainersStatuses) != 1 || ev.ContainersStatuses[0].ExitCode != 2) {
			b.Errorf("statuses %v", ev.ContainersStatuses)
		}
	}
	cancel()
	for range events {
	}
}

func testAdoption(b *bench) {
	pod, pc := b.pod(nil)
	lives := b.start(pod, pc, b.config("echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two; exit 5"))
	flag := b.TempDir()
	c := b.config("while [ ! -e /flag/go ]; do sleep 0.05; done; exit 6")
	c.Mounts = []*runtimeapi.Mount{{ContainerPath: "/flag", HostPath: flag}}
	dies := b.start(pod, pc, c)
	created := b.create(pod, pc, b.config("exit 8"))
	before := b.status(lives)
	b.e.Close()
	if err := os.WriteFile(flag+"/go", nil, 0o600); err != nil {
		b.Fatal(err)
	}
	for exit := filepath.Join(b.root, "containers", dies, "exit.json"); ; b.pause("the exit to be recorded") {
		if _, err := os.Stat(exit); err == nil {
			break
		}
	}
	b.restart()
	if st := b.status(dies); st.State != runtimeapi.ContainerState_CONTAINER_EXITED || st.ExitCode != 6 {
		b.Errorf("exited while the engine was away: %v", st)
	}
	if st := b.status(lives); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING || st.StartedAt != before.StartedAt {
		b.Errorf("adopted: %v, before %v", st, before)
	}
	if st := b.status(created); st.State != runtimeapi.ContainerState_CONTAINER_CREATED {
		b.Errorf("created: %v", st)
	}
	b.exec(lives, "touch", "/go")
	if st := b.wait(lives); st.ExitCode != 5 || logText(b, st.LogPath, "stdout") != "one\ntwo\n" {
		b.Errorf("status %v", st)
	}
	if _, err := b.e.StartContainer(b.ctx, &runtimeapi.StartContainerRequest{ContainerId: created}); err != nil {
		b.Error(err)
	}
	if st := b.wait(created); st.ExitCode != 8 {
		b.Errorf("status %v", st)
	}
}

func (b *bench) shimPid(pod string) int {
	r, err := b.e.PodSandboxStatus(b.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true})
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(r.Info["info"], `"shimPid":`)
	n, err := strconv.Atoi(strings.TrimRight(rest, "}"))
	if err != nil {
		b.Fatal(err)
	}
	return n
}

func testShimDeath(b *bench) {
	pod, pc := b.pod(nil)
	id := b.start(pod, pc, b.config("sleep 1000"))
	if err := syscall.Kill(b.shimPid(pod), syscall.SIGKILL); err != nil {
		b.Fatal(err)
	}
	if st := b.wait(id); st.ExitCode != 255 || st.Reason != "Unknown" {
		b.Errorf("status %v", st)
	}
	r, err := b.e.PodSandboxStatus(b.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	if err != nil || r.Status.State != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		b.Errorf("sandbox %v, %v", r, err)
	}
}

func testDamage(b *bench) {
	pod, pc := b.pod(nil)
	id := b.start(pod, pc, b.config("sleep 1000"))
	for _, dir := range []string{"sandboxes/broken", "containers/broken"} {
		if err := os.MkdirAll(filepath.Join(b.root, dir), 0o700); err != nil {
			b.Fatal(err)
		}
		for _, f := range []string{"sandbox.json", "container.json"} {
			if err := os.WriteFile(filepath.Join(b.root, dir, f), []byte("{\"ID\":"), 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.restart()
	if st := b.status(id); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		b.Errorf("status %v", st)
	}
	os.RemoveAll(filepath.Join(b.root, "sandboxes/broken"))
	os.RemoveAll(filepath.Join(b.root, "containers/broken"))
}

func testSharedPID(b *bench) {
	pod, pc := b.pod(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	})
	first := b.config("sleep 4000 & sleep 5000")
	first.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	a := b.start(pod, pc, first)
	second := b.config("sleep 6000")
	second.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
	z := b.start(pod, pc, second)
	for ps := ""; !strings.Contains(ps, "sleep 4000") || !strings.Contains(ps, "sleep 5000"); b.pause("the other container's processes") {
		ps = b.exec(z, "ps")
	}
	b.restart()
	// The init of the shared namespace can see nothing of the machine.
	if out := b.exec(z, "sh", "-c", "ls /proc/1/root/ 2>&1 || true"); strings.Contains(out, "etc") {
		b.Errorf("the machine's files are visible: %q", out)
	}
	if _, err := b.e.StopContainer(b.ctx, &runtimeapi.StopContainerRequest{ContainerId: a}); err != nil {
		b.Fatal(err)
	}
	for ps := b.exec(z, "ps"); strings.Contains(ps, "sleep 4000"); ps = b.exec(z, "ps") {
		b.pause("all processes of the stopped container to be gone")
	}
	// An ephemeral container joins the namespace of its target.
	alone, apc := b.pod(nil)
	target := b.start(alone, apc, b.config("exec sleep 7000"))
	debug := b.config("ps")
	debug.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_TARGET, TargetId: target}
	if out, _ := b.output(alone, apc, debug); !strings.Contains(out, "1 0 ") && !strings.Contains(out, "sleep 7000") {
		b.Errorf("target's processes: %q", out)
	}
}

func testHost(b *bench) {
	pod, pc := b.pod(func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions = &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_NODE, Ipc: runtimeapi.NamespaceMode_NODE}
	})
	c := b.config("for n in net ipc uts pid; do readlink /proc/self/ns/$n; done")
	c.Linux.SecurityContext.NamespaceOptions = pc.Linux.SecurityContext.NamespaceOptions
	out, _ := b.output(pod, pc, c)
	want := ""
	for _, n := range []string{"net", "ipc", "uts", "pid"} {
		l, err := os.Readlink("/proc/self/ns/" + n)
		if err != nil {
			b.Fatal(err)
		}
		want += l + "\n"
	}
	if out != want {
		b.Errorf("namespaces %q, want %q", out, want)
	}
	if len(b.net.Attached) != 0 {
		b.Error("a pod on the host's network was attached to another")
	}
}

func testStats(b *bench) {
	pod, pc := b.pod(nil)
	id := b.start(pod, pc, b.config("head -c 300000 /dev/zero >/file; sleep 1000"))
	for {
		r, err := b.e.PodSandboxStats(b.ctx, &runtimeapi.PodSandboxStatsRequest{PodSandboxId: pod})
		if err != nil {
			b.Fatal(err)
		}
		l := r.Stats.Linux
		if len(l.Containers) == 1 && l.Containers[0].Attributes.Id == id && l.Containers[0].Cpu.UsageCoreNanoSeconds.Value > 0 && l.Memory.WorkingSetBytes.Value > 0 && l.Network != nil && l.Process.ProcessCount.Value > 0 {
			break
		}
		b.pause("numbers")
	}
	info, err := b.e.ImageFsInfo(b.ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || info.ImageFilesystems[0].UsedBytes.Value == 0 {
		b.Errorf("%v, %v", info, err)
	}
	tree, err := cgroup.Detect()
	if err != nil {
		b.Fatal(err)
	}
	b.remove(pod)
	if tree.Exists(CgroupRoot + "/" + pod) {
		b.Error("the pod's cgroup is left")
	}
}
