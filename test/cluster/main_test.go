package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The programs under test and the images of their pods, made once by TestMain.
var (
	karve, kubectl string
	scratch        string // everything the tests write is below it
	images         []string
	unable         string // why nothing can be tried here
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of a test here is waiting for something to happen in a pod.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = flag.Set("test.parallel", "6")
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "karve-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	// What is started by accident without its own must not find the user's.
	os.Setenv("KUBECONFIG", filepath.Join(scratch, "none"))
	os.Setenv("HOME", filepath.Join(scratch, "home"))
	if err := os.Mkdir(os.Getenv("HOME"), 0o700); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if unable, err = prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if one.cluster != nil {
		if out, err := one.cluster.karve("down"); err != nil {
			fmt.Fprintln(os.Stderr, "take down the shared cluster:", err, out)
			code = 1
		}
	}
	return code
}

// prepare finds the programs and packs the images. It returns why it cannot, or an error when it should have been able to.
func prepare() (string, error) {
	if os.Geteuid() != 0 {
		return "these tests start clusters and need root: run sudo make test", nil
	}
	bin := os.Getenv("KARVE_TEST_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return "", err
	}
	karve, kubectl = filepath.Join(bin, "karve"), filepath.Join(bin, "kubectl")
	for _, p := range []string{karve, kubectl} {
		if _, err := os.Stat(p); err != nil {
			return p + " is missing: run make build", nil
		}
	}
	busybox := "/bin/busybox"
	if _, err := os.Stat(busybox); err != nil {
		if _, err := os.Stat("/etc/debian_version"); err == nil {
			_ = exec.Command("apt-get", "install", "-y", "-qq", "busybox-static").Run()
		}
		if _, err := os.Stat(busybox); err != nil {
			return "the pods' programs are a static " + busybox + ", which is missing: install busybox-static", nil
		}
	}
	server := filepath.Join(scratch, "server")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", server, "./testdata/server")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "HOME="+realHome)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the test server: %w\n%s", err, out)
	}
	box := []string{busybox + ":/bin/busybox", busybox + ":/bin/sh", busybox + ":/bin/tar", server + ":/bin/server"}
	for name, flags := range map[string][]string{
		"test/box:v1": {"--entrypoint", "/bin/sh", "--dir", "/tmp"},
		"test/web:v1": {"--entrypoint", "/bin/server", "--env", "VERSION=v1", "--dir", "/tmp"},
		"test/web:v2": {"--entrypoint", "/bin/server", "--env", "VERSION=v2", "--dir", "/tmp"},
	} {
		file := filepath.Join(scratch, strings.NewReplacer("/", "-", ":", "-").Replace(name)+".tar")
		args := append(append([]string{"image", "pack", "-o", file}, flags...), name)
		if out, err := exec.Command(karve, append(args, box...)...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("pack %s: %w\n%s", name, err, out)
		}
		images = append(images, file)
	}
	return "", nil
}

var realHome = os.Getenv("HOME")

// Cluster is a cluster of this machine.
type Cluster struct {
	Name, Dir, Kubeconfig string
	Port                  int // of 127.0.0.1, leads to NodePort 30080
	api                   *api
}

// one is the cluster of one node that tests share when they can.
var one struct {
	sync.Once
	cluster *Cluster
}

func shared(t *testing.T) *Cluster {
	t.Helper()
	need(t)
	one.Do(func() { one.cluster = begin(t, "shared") })
	if one.cluster.api == nil {
		t.Fatal("the shared cluster did not start")
	}
	return one.cluster
}

func need(t *testing.T) {
	t.Helper()
	if unable != "" {
		t.Skip("SKIPPED: " + unable)
	}
}

// fresh starts a cluster that the test has for itself.
func fresh(t *testing.T, name string, flags ...string) *Cluster {
	t.Helper()
	need(t)
	c := named(t, name)
	t.Cleanup(func() {
		if out, err := c.karve("down"); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
	})
	c.up(t, flags...)
	c.load(t)
	return c
}

// named returns a cluster that is not there yet.
func named(t *testing.T, name string) *Cluster {
	t.Helper()
	full := fmt.Sprintf("t-%s-%d", name, os.Getpid())
	return &Cluster{Name: full, Dir: filepath.Join(scratch, full), Kubeconfig: filepath.Join(scratch, full+".kubeconfig"), Port: freePort(t)}
}

func begin(t *testing.T, name string) *Cluster {
	t.Helper()
	c := named(t, name)
	one.cluster = c // so that it is taken down even if it comes up only in part
	c.up(t)
	c.load(t)
	return c
}

func (c *Cluster) up(t *testing.T, flags ...string) {
	t.Helper()
	if out, err := c.karve("up", append(flags, fmt.Sprintf("--publish=%d:30080", c.Port))...); err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	c.connect(t)
}

func (c *Cluster) load(t *testing.T) {
	t.Helper()
	if out, err := c.karve("image", append([]string{"load"}, images...)...); err != nil {
		t.Fatalf("load images: %v\n%s", err, out)
	}
}

// karve runs the program on this cluster. Image commands have a word of their own before the flags.
func (c *Cluster) karve(command string, args ...string) (string, error) {
	all := []string{command}
	if command == "image" {
		all, args = append(all, args[0]), args[1:]
	}
	all = append(append(all, "--name", c.Name, "--data", c.Dir), args...)
	return c.run(exec.Command(karve, all...))
}

// run runs a program within three minutes and returns all it printed.
func (c *Cluster) run(cmd *exec.Cmd) (string, error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !stop.Stop() {
		err = errors.Join(errors.New("it took more than three minutes"), err)
	}
	return out.String(), err
}

// Try runs kubectl and returns all it printed.
func (c *Cluster) Try(args ...string) (string, error) { return c.run(exec.Command(kubectl, args...)) }

// Kubectl runs kubectl, which must succeed.
func (c *Cluster) Kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.Try(args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Apply sends manifests through kubectl apply.
func (c *Cluster) Apply(t *testing.T, ns, manifest string) {
	t.Helper()
	cmd := exec.Command(kubectl, "apply", "-n", ns, "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := c.run(cmd); err != nil {
		t.Fatalf("apply: %v\n%s\n%s", err, out, manifest)
	}
}

// Namespace makes a namespace for the test.
func (c *Cluster) Namespace(t *testing.T) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-", "'", "").Replace(t.Name()))
	name = strings.Trim(name[max(0, len(name)-50):], "-")
	c.Kubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		if t.Failed() {
			pods, _ := c.Try("get", "pods", "-n", name, "-o", "wide")
			events, _ := c.Try("get", "events", "-n", name, "--field-selector=type!=Normal")
			t.Logf("what there was in %s:\n%s%s", name, pods, events)
		}
		_, _ = c.Try("delete", "namespace", name, "--wait=false")
	})
	c.eventually(t, "the service account", func() error {
		_, err := c.get("/api/v1/namespaces/" + name + "/serviceaccounts/default")
		return err
	})
	return name
}

// eventually tries fn until it has no complaint. Two minutes are far beyond what anything here takes.
func (c *Cluster) eventually(t *testing.T, what string, fn func() error) {
	t.Helper()
	within(t, 2*time.Minute, what, fn)
}

func within(t *testing.T, limit time.Duration, what string, fn func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := fn()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %v in vain for %s: %v", limit, what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
