// Package etcdtest runs upstream's etcd for tests: one member or several on loopback, which tests kill, stop and start
// again, and a proxy in front of one that loses what it is told to lose. Tests of the etcd engine and of servers on it
// import it; programs do not. The server is built from tools/etcd; without it tests are skipped.
package etcdtest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTime is how long a member may take to join and to have a leader.
const startTime = 60 * time.Second

// Cluster is an etcd of one or more members. It ends with the test.
type Cluster struct {
	Members []*Member
	program string
	token   string
}

// Member is one etcd process and its directory, which outlives it.
type Member struct {
	Name string
	// Dir is its data directory. It may be changed while the process is down.
	Dir string
	// URL is where clients reach it; Address is the same as host:port.
	URL, Address string

	t       testing.TB
	cluster *Cluster
	peer    string
	log     string
	args    []string

	mu      sync.Mutex
	process *os.Process
	ended   chan struct{}
}

var program = sync.OnceValues(func() (string, error) {
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "..", "..", "..", "tools", "etcd")
	out, err := exec.Command(filepath.Join(root, "build.sh")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return filepath.Join(root, "bin", "etcd"), nil
})

// Start starts an etcd of n members, and skips the test if there is no etcd and none can be built. args are further
// arguments for each member.
func Start(t testing.TB, n int, args ...string) *Cluster {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Skipf("SKIPPED: NO ETCD TO TEST WITH. tools/etcd/build.sh failed: %v", err)
	}
	c := &Cluster{program: path, token: t.Name()}
	for i := range n {
		m := &Member{Name: fmt.Sprintf("m%d", i), Dir: filepath.Join(t.TempDir(), "data"), t: t, cluster: c, args: args}
		m.Address, m.peer = free(t), free(t)
		m.URL = "http://" + m.Address
		m.log = filepath.Join(filepath.Dir(m.Dir), "log")
		c.Members = append(c.Members, m)
	}
	t.Cleanup(func() {
		for _, m := range c.Members {
			m.Kill()
		}
	})
	var wg sync.WaitGroup
	for _, m := range c.Members {
		wg.Go(m.run)
	}
	wg.Wait()
	for _, m := range c.Members {
		m.wait()
	}
	return c
}

// Endpoints are the members' URLs.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, m := range c.Members {
		out = append(out, m.URL)
	}
	return out
}

// free returns a loopback address that nobody listens on now.
func free(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run starts the process.
func (m *Member) run() {
	var all []string
	for _, o := range m.cluster.Members {
		all = append(all, o.Name+"=http://"+o.peer)
	}
	args := append([]string{"--name", m.Name, "--data-dir", m.Dir, "--listen-client-urls", m.URL, "--advertise-client-urls", m.URL,
		"--listen-peer-urls", "http://" + m.peer, "--initial-advertise-peer-urls", "http://" + m.peer,
		"--initial-cluster", strings.Join(all, ","), "--initial-cluster-token", m.cluster.token, "--log-level", "warn"}, m.args...)
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Error(err)
		return
	}
	started := make(chan error, 1)
	ended := make(chan struct{})
	cmd := exec.Command(m.cluster.program, args...)
	go func() {
		// The thread that starts a process stays until it ends: the kernel ends the process with it, should the test be killed.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer log.Close()
		defer close(ended)
		cmd.Stdout, cmd.Stderr = log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		m.t.Errorf("start etcd: %v", err)
		return
	}
	m.mu.Lock()
	m.process, m.ended = cmd.Process, ended
	m.mu.Unlock()
}

// wait waits until the member is well.
func (m *Member) wait() {
	m.t.Helper()
	client := http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get(m.URL + "/health")
		if err != nil {
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if strings.Contains(string(body), `"true"`) {
			return
		}
	}
	said, _ := os.ReadFile(m.log)
	m.t.Fatalf("etcd %s does not get well; it says:\n%s", m.Name, said[max(0, len(said)-3000):])
}

// Kill ends the process as kill -9 does.
func (m *Member) Kill() {
	m.mu.Lock()
	p, ended := m.process, m.ended
	m.process = nil
	m.mu.Unlock()
	if p != nil {
		_ = p.Signal(syscall.SIGKILL)
		<-ended
	}
}

// Restart starts the process again at its addresses, after Kill, and waits until it is well.
func (m *Member) Restart() {
	m.t.Helper()
	m.run()
	m.wait()
}

// Freeze stops the process without ending it or its connections; Thaw lets it go on.
func (m *Member) Freeze() { m.signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (m *Member) Thaw() { m.signal(syscall.SIGCONT) }

func (m *Member) signal(s syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process != nil {
		_ = m.process.Signal(s)
	}
}

// Move gives the member other addresses and a copy of its directory as it is now, as if it had lost power at this moment
// and been started on another machine. The process is killed; start it with Restart.
func (m *Member) Move() {
	m.t.Helper()
	m.Kill()
	dir := filepath.Join(m.t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(m.Dir)); err != nil {
		m.t.Fatalf("copy data of etcd: %v", err)
	}
	m.Dir, m.Address = dir, free(m.t)
	m.URL = "http://" + m.Address
}
