package enginetest

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine"
)

func TestMain(m *testing.M) { Main(m) }

func openEngine(t testing.TB, root, state string, n engine.Network) *engine.Engine {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	e, err := engine.Open(ctx, engine.Options{Root: root, State: state, CgroupRoot: CgroupRoot, Network: n, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEngine(t *testing.T) { Run(t, openEngine) }

// TestKill kills a process with an engine in it, hard, and checks that its container neither ends nor stops logging.
func TestKill(t *testing.T) {
	if os.Getenv(Victim) != "" {
		runVictim(t)
		return
	}
	b := newBench(t, openEngine)
	b.e.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), Victim+"="+strings.Join([]string{b.root, b.state, b.logs}, ":"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	id, logPath, _ := strings.Cut(strings.TrimSpace(line), " ")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	before := len(logText(t, logPath, "stdout"))
	for len(logText(t, logPath, "stdout")) <= before {
		b.pause("the container to go on logging")
	}
	b.net.Attached = map[string]bool{}
	b.restart()
	if st := b.status(id); st.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("status %v", st)
	}
	if got := b.exec(id, "echo", "alive"); got != "alive\n" {
		t.Errorf("exec %q", got)
	}
	if _, err := b.e.StopContainer(b.ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: 60}); err != nil {
		t.Error(err)
	}
	if st := b.status(id); st.ExitCode != 9 {
		t.Errorf("status %v", st)
	}
}

func runVictim(t *testing.T) {
	dirs := strings.Split(os.Getenv(Victim), ":")
	b := &bench{TB: t, ctx: t.Context(), root: dirs[0], state: dirs[1], logs: dirs[2], net: &Loopback{}, open: openEngine}
	b.e = openEngine(t, b.root, b.state, b.net)
	pod, pc := b.pod(nil)
	id := b.start(pod, pc, b.config("trap 'exit 9' TERM; while :; do echo tick; sleep 0.02; done"))
	fmt.Println(id, b.status(id).LogPath)
	select {}
}

// BenchmarkPodStart is the time from nothing to a running container, with the image present, and its parts.
func BenchmarkPodStart(b *testing.B) {
	be := newBench(b, openEngine)
	parts := map[string][]time.Duration{}
	for b.Loop() {
		began := time.Now()
		pod, pc := be.pod(nil)
		sandboxed := time.Now()
		c := be.config("sleep 1000")
		c.Linux.SecurityContext.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
		id := be.create(pod, pc, c)
		created := time.Now()
		if _, err := be.e.StartContainer(be.ctx, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
			b.Fatal(err)
		}
		started := time.Now()
		be.remove(pod)
		for name, d := range map[string]time.Duration{"p50": started.Sub(began), "p50-sandbox": sandboxed.Sub(began),
			"p50-create": created.Sub(sandboxed), "p50-start": started.Sub(created), "p50-remove": time.Since(started)} {
			parts[name] = append(parts[name], d)
		}
	}
	for name, all := range parts {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-"+name)
	}
}

// TestDirectoriesAreClosed checks that no other user of the machine gets through to the files of containers, among which
// are programs with the set-uid bit of whatever image it is.
func TestDirectoriesAreClosed(t *testing.T) {
	b := newBench(t, openEngine)
	pod, pc := b.pod(nil)
	id := b.create(pod, pc, b.config("true"))
	for _, dir := range []string{b.root + "/containers", b.root + "/containers/" + id, b.root + "/sandboxes", b.root + "/sandboxes/" + pod,
		b.root + "/snapshots", b.root + "/images", b.state + "/c", b.state + "/c/" + id[:20], b.state + "/s"} {
		fi, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", dir, fi.Mode().Perm())
		}
	}
}
