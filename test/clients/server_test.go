package clients

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// patience bounds every wait of these tests. It is no expectation of how fast anything is.
const patience = time.Minute

// server is an API server that a test started, and may stop and start again at the same address with the same data.
type server struct {
	t       testing.TB
	dir     string
	listen  string
	host    string // as a URL
	log     *os.File
	process *exec.Cmd
	ended   chan error
}

// program is the karve that is tested.
func program(t testing.TB) string {
	t.Helper()
	path := os.Getenv("KARVE")
	if path == "" {
		path = filepath.Join("..", "..", "bin", "karve")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no karve to test (make build makes it; KARVE names another): %v", err)
	}
	return path
}

// start runs an API server until the test ends.
func start(t testing.TB) *server {
	t.Helper()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: dir, listen: freeAddress(t), log: log}
	s.run()
	s.host = s.config().Host
	t.Cleanup(func() {
		s.stop()
		log.Close()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the end of the server's log:\n%s", b[max(0, len(b)-4000):])
		}
	})
	return s
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run starts the process and waits until it says that it is ready.
func (s *server) run() {
	s.t.Helper()
	c := exec.Command(program(s.t), "apiserver", "--data", filepath.Join(s.dir, "data"), "--state", filepath.Join(s.dir, "state"), "--listen", s.listen)
	c.Env = append(os.Environ(), "KARVE_CONFIG=")
	c.Stdout, c.Stderr = s.log, s.log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing is left if the test is killed
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.process, s.ended = c, make(chan error, 1)
	go func(c *exec.Cmd, ended chan<- error) { ended <- c.Wait() }(c, s.ended)
	eventually(s.t, "the API server is ready", func() error {
		select {
		case err := <-s.ended:
			s.ended <- err
			b, _ := os.ReadFile(s.log.Name())
			s.t.Fatalf("the API server ended early: %v\n%s", err, b)
		default:
		}
		config, err := s.tryConfig()
		if err != nil {
			return err
		}
		transport, err := rest.HTTPClientFor(config)
		if err != nil {
			return err
		}
		defer transport.CloseIdleConnections()
		res, err := transport.Get(config.Host + "/readyz")
		if err != nil {
			return err
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz: %s", res.Status)
		}
		return nil
	})
}

// stop ends the process as an operator would.
func (s *server) stop() { s.end(syscall.SIGTERM) }

// kill ends the process without a warning.
func (s *server) kill() { s.end(syscall.SIGKILL) }

func (s *server) end(sig syscall.Signal) {
	s.t.Helper()
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(sig)
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = s.process.Process.Kill()
		<-s.ended
		s.t.Errorf("the API server did not end after %v", sig)
	}
	s.process = nil
}

func (s *server) tryConfig() (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.dir, "data", "admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	c.QPS = -1 // the tests are about the server, not about the client's manners
	return c, nil
}

// config is how an administrator reaches the server.
func (s *server) config() *rest.Config {
	s.t.Helper()
	c, err := s.tryConfig()
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *server) clientset() kubernetes.Interface {
	s.t.Helper()
	return clientset(s.t, s.config())
}

func clientset(t testing.TB, c *rest.Config) kubernetes.Interface {
	t.Helper()
	cs, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

// serviceAccount gives a namespace what its pods need: no controller runs that would.
func (s *server) serviceAccount(namespace string) {
	s.t.Helper()
	_, err := s.clientset().CoreV1().ServiceAccounts(namespace).Create(s.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	must(s.t, err)
}

// namespace makes a namespace.
func (s *server) namespace(name string) {
	s.t.Helper()
	_, err := s.clientset().CoreV1().Namespaces().Create(s.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(s.t, err)
}

// eventually asks until the answer is nil, and fails with the last one when patience is at its end.
func eventually(t testing.TB, what string, ask func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// when is nil when the condition holds.
func when(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return errors.New(strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"value": value}}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "demo"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "registry.example/c:1"}}}}
}
