package store

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// patience bounds every wait of these tests. It is no expectation of how fast anything is.
const patience = time.Minute

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
		t.Skipf("SKIPPED: no karve to test, so nothing is known of the API server here (make build makes it; KARVE names another): %v", err)
	}
	return path
}

// server is an API server process on one data directory, which a test may kill and start again.
type server struct {
	testing.TB
	data, listen string
	log          *os.File
	process      *exec.Cmd
	ended        chan struct{}
	http         *http.Client
}

func newServer(t testing.TB, data string) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{TB: t, data: data, listen: l.Addr().String(), log: log}
	t.Cleanup(func() {
		s.end(syscall.SIGTERM)
		log.Close()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the end of the server's log:\n%s", b[max(0, len(b)-4000):])
		}
	})
	return s
}

// begin starts the process.
func (s *server) begin() {
	s.Helper()
	c := exec.Command(program(s), "apiserver", "--data", s.data, "--listen", s.listen)
	c.Env = append(os.Environ(), "KARVE_CONFIG=")
	c.Stdout, c.Stderr = s.log, s.log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing is left if the test is killed
	if err := c.Start(); err != nil {
		s.Fatal(err)
	}
	s.process, s.ended = c, make(chan struct{})
	go func(ended chan struct{}) {
		_ = c.Wait()
		close(ended)
	}(s.ended)
}

// ready waits until the server says that it is.
func (s *server) ready() {
	s.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		select {
		case <-s.ended:
			b, _ := os.ReadFile(s.log.Name())
			s.Fatalf("the API server ended early:\n%s", b[max(0, len(b)-4000):])
		default:
		}
		err := s.connect()
		if err == nil {
			var res *http.Response
			if res, err = s.http.Get("https://" + s.listen + "/readyz"); err == nil {
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					return
				}
				err = fmt.Errorf("readyz: %s", res.Status)
			}
		}
		if time.Now().After(deadline) {
			s.Fatalf("the API server does not get ready: %v", err)
		}
	}
}

// end ends the process and waits until it is gone.
func (s *server) end(signal syscall.Signal) {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(signal)
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.Errorf("the API server does not end at %v", signal)
		_ = s.process.Process.Kill()
		<-s.ended
	}
	s.process = nil
	if s.http != nil {
		s.http.CloseIdleConnections()
	}
}

// connect makes a client of the administrator's file.
func (s *server) connect() error {
	text, err := os.ReadFile(filepath.Join(s.data, "admin.kubeconfig"))
	if err != nil {
		return err
	}
	var k struct {
		Clusters []struct {
			Cluster struct {
				CA []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(text, &k); err != nil || len(k.Clusters) != 1 || len(k.Users) != 1 {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	cert, err := tls.X509KeyPair(k.Users[0].User.Cert, k.Users[0].User.Key)
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(k.Clusters[0].Cluster.CA)
	if s.http != nil {
		s.http.CloseIdleConnections()
	}
	s.http = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}}}
	return nil
}

// object is as much of an API object, list or status as the tests here look at.
type object struct {
	Kind     string            `json:"kind,omitempty"`
	Code     int               `json:"code,omitempty"`
	Message  string            `json:"message,omitempty"`
	Reason   string            `json:"reason,omitempty"`
	Data     map[string]string `json:"data,omitempty"`
	Items    []object          `json:"items,omitempty"`
	Metadata struct {
		Name            string `json:"name,omitempty"`
		ResourceVersion string `json:"resourceVersion,omitempty"`
		Remaining       int64  `json:"remainingItemCount,omitempty"`
	} `json:"metadata"`
}

// send asks the server. The error is of the way there and back; what the server says against it is in the code.
func (s *server) send(ctx context.Context, client *http.Client, method, path string, body *object) (o object, code int, err error) {
	var b []byte
	if body != nil {
		if b, err = json.Marshal(body); err != nil {
			return o, 0, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+s.listen+path, bytes.NewReader(b))
	if err != nil {
		return o, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return o, 0, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return o, 0, err
	}
	if err := json.Unmarshal(answer, &o); err != nil {
		return o, 0, fmt.Errorf("%s: %w: %.200s", res.Status, err, strings.TrimSpace(string(answer)))
	}
	return o, res.StatusCode, nil
}
