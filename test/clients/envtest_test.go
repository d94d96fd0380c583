package clients

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// envtest starts two programs of upstream's, etcd and kube-apiserver, with flags of theirs. Here the test itself is both, by
// the name it is called by: the one only says that it is well, the other starts karve and stands in front of it, since karve
// has no flags for what envtest hands over: the certificate to serve with, the authority of the clients, and to make pods
// without their service account.
func TestMain(m *testing.M) {
	standIns := map[string]func(ctx context.Context, flags map[string]string) error{"etcd": standInForEtcd, "kube-apiserver": standInForAPIServer}
	run := standIns[filepath.Base(os.Args[0])]
	if run == nil {
		os.Exit(m.Run())
	}
	flags := map[string]string{}
	for _, a := range os.Args[1:] {
		name, value, _ := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		flags[name] = value
	}
	if _, help := flags["help"]; help { // envtest looks for flags of older versions
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, flags); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func standInForEtcd(ctx context.Context, flags map[string]string) error {
	u, err := url.Parse(flags["listen-client-urls"])
	if err != nil {
		return err
	}
	return serve(ctx, u.Host, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, `{"health":"true"}`) }))
}

// serve serves until ctx ends.
func serve(ctx context.Context, address string, config *tls.Config, h http.Handler) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, TLSConfig: config, ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if config == nil {
		err = s.Serve(l)
	} else {
		err = s.ServeTLS(l, "", "")
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func standInForAPIServer(ctx context.Context, flags map[string]string) error {
	dir := flags["cert-dir"]
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "apiserver.crt"), filepath.Join(dir, "apiserver.key"))
	if err != nil {
		return err
	}
	pem, err := os.ReadFile(flags["client-ca-file"])
	if err != nil {
		return err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(pem)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	behind := l.Addr().String()
	l.Close()
	c := exec.CommandContext(ctx, os.Getenv("KARVE"), "apiserver", "--data", filepath.Join(dir, "data"), "--state", filepath.Join(dir, "state"), "--listen", behind,
		"--network-service-cidr", flags["service-cluster-ip-range"], "--network-dns", "10.0.0.10")
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	if err := c.Start(); err != nil {
		return err
	}
	defer func() { _ = c.Wait() }()
	f, err := inFront(ctx, filepath.Join(dir, "data", "admin.kubeconfig"))
	if err != nil {
		return err
	}
	return serve(ctx, net.JoinHostPort(flags["bind-address"], flags["secure-port"]), &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients}, f)
}

// front passes requests on to karve in the name of who sent them.
type front struct {
	admin  kubernetes.Interface
	named  *httputil.ReverseProxy // with the administrator's right to act for others
	nobody *httputil.ReverseProxy
}

// inFront waits until karve answers.
func inFront(ctx context.Context, kubeconfig string) (*front, error) {
	for {
		f, err := tryFront(ctx, kubeconfig)
		if err == nil {
			return f, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

func tryFront(ctx context.Context, kubeconfig string) (*front, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	f := &front{}
	if f.admin, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	if f.named, err = proxyTo(config); err != nil {
		return nil, err
	}
	if f.nobody, err = proxyTo(rest.AnonymousClientConfig(config)); err != nil {
		return nil, err
	}
	f.named.ModifyResponse = func(res *http.Response) error { return f.account(res) }
	for _, ns := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} {
		if err := f.makeAccount(ctx, ns); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func proxyTo(config *rest.Config) (*httputil.ReverseProxy, error) {
	to, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	tr, err := rest.TransportFor(config)
	if err != nil {
		return nil, err
	}
	return &httputil.ReverseProxy{Transport: tr, FlushInterval: -1, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to) }}, nil
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.VerifiedChains) == 0 {
		f.nobody.ServeHTTP(w, r)
		return
	}
	if r.Header.Get("Impersonate-User") == "" {
		who := r.TLS.PeerCertificates[0].Subject
		r.Header.Set("Impersonate-User", who.CommonName)
		r.Header["Impersonate-Group"] = append(who.Organization, "system:authenticated")
	}
	f.named.ServeHTTP(w, r)
}

// account gives a namespace that was just made the service account without which it could have no pods.
func (f *front) account(res *http.Response) error {
	if res.Request.Method != http.MethodPost || path.Base(res.Request.URL.Path) != "namespaces" || res.StatusCode != http.StatusCreated {
		return nil
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	res.Body = io.NopCloser(bytes.NewReader(b))
	l, err := f.admin.CoreV1().Namespaces().List(res.Request.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, ns := range l.Items {
		if err := f.makeAccount(res.Request.Context(), ns.Name); err != nil {
			return err
		}
	}
	return nil
}

func (f *front) makeAccount(ctx context.Context, ns string) error {
	_, err := f.admin.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) || apierrors.IsForbidden(err) { // it goes already
		return nil
	}
	return err
}

// TestEnvtest runs controller-runtime's envtest as everybody does, with a folder of programs, and the reconciler on it.
func TestEnvtest(t *testing.T) {
	t.Setenv("KARVE", program(t))
	self, err := os.Executable()
	must(t, err)
	dir := t.TempDir()
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl"} {
		must(t, os.Symlink(self, filepath.Join(dir, name)))
	}
	env := &envtest.Environment{BinaryAssetsDirectory: dir, ControlPlaneStartTimeout: patience, ControlPlaneStopTimeout: patience}
	config, err := env.Start()
	must(t, err)
	defer func() { must(t, env.Stop()) }()
	cs := clientset(t, config)
	_, err = cs.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}}, metav1.CreateOptions{})
	must(t, err)
	_, err = cs.CoreV1().Pods("team").Create(t.Context(), pod("p"), metav1.CreateOptions{})
	must(t, err)
	// A user of the environment is who it says, and may nothing yet.
	someone, err := env.AddUser(envtest.User{Name: "someone", Groups: []string{"people"}}, nil)
	must(t, err)
	if _, err := clientset(t, someone.Config()).CoreV1().Pods("team").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `User "someone"`) {
		t.Errorf("someone lists pods: %v", err)
	}
	reconcileIn(t, config, "team")
}
