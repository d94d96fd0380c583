// Package probe asks containers how they are: by a command, HTTP, TCP or gRPC, as often as their spec says, and reports
// what changes. kubelet/podrun starts it with a container and ends it with it. It judges nothing beyond thresholds; what
// an answer means for the pod is podworker's business.
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Execer runs the commands of exec probes.
type Execer interface {
	ExecSync(context.Context, *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error)
}

// Checker carries out single checks. It is safe for concurrent use.
type Checker struct {
	exec   Execer
	client *http.Client
}

// NewChecker returns a checker whose commands run through exec.
func NewChecker(exec Execer) *Checker {
	return &Checker{exec: exec, client: &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true, Proxy: nil,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, // a probe asks for life, not for identity
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Hostname() != via[0].URL.Hostname() || len(via) >= 10 {
				return http.ErrUseLastResponse
			}
			return nil
		}}}
}

const maxBody = 10 << 10

// Check does one check. ok tells success; err tells that no answer was reached at all for reasons of the node, which
// counts neither way. The text says what happened.
func (c *Checker) Check(ctx context.Context, p *corev1.Probe, container *corev1.Container, id, ip string) (ok bool, text string, err error) {
	timeout := time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case p.Exec != nil:
		return c.command(ctx, id, p.Exec.Command, timeout)
	case p.HTTPGet != nil:
		return c.HTTP(ctx, p.HTTPGet, container, ip)
	case p.TCPSocket != nil:
		return tcp(ctx, p.TCPSocket, container, ip)
	case p.GRPC != nil:
		return grpcHealth(ctx, p.GRPC, ip, timeout)
	}
	return false, "", fmt.Errorf("missing probe handler for container %s", container.Name)
}

func (c *Checker) command(ctx context.Context, id string, cmd []string, timeout time.Duration) (bool, string, error) {
	r, err := c.exec.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: int64(timeout / time.Second)})
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
			return false, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(cmd, " "), timeout), nil
		}
		return false, "", err
	}
	text := string(r.Stdout) + string(r.Stderr)
	if len(text) > maxBody {
		text = text[:maxBody]
	}
	return r.ExitCode == 0, text, nil
}

// Port returns the number of a port that may be named.
func Port(p intstr.IntOrString, c *corev1.Container) (int, error) {
	n := p.IntValue()
	if p.Type == intstr.String {
		for _, cp := range c.Ports {
			if cp.Name == p.StrVal {
				n = int(cp.ContainerPort)
			}
		}
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("couldn't find port: %s", p.String())
	}
	return n, nil
}

// Request returns the request of an HTTP action.
func Request(ctx context.Context, a *corev1.HTTPGetAction, c *corev1.Container, ip string) (*http.Request, error) {
	port, err := Port(a.Port, c)
	if err != nil {
		return nil, err
	}
	host := a.Host
	if host == "" {
		host = ip
	}
	scheme := strings.ToLower(string(a.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(host, strconv.Itoa(port))
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "kube-probe/1.36")
	r.Header.Set("Accept", "*/*")
	seen := map[string]bool{}
	for _, h := range a.HTTPHeaders {
		key := http.CanonicalHeaderKey(h.Name)
		if !seen[key] {
			r.Header.Del(key)
			seen[key] = true
		}
		if key == "Host" {
			r.Host = h.Value
		}
		if h.Value != "" || key != "Accept" && key != "User-Agent" {
			r.Header.Add(key, h.Value)
		}
	}
	return r, nil
}

// HTTP does one HTTP check.
func (c *Checker) HTTP(ctx context.Context, a *corev1.HTTPGetAction, container *corev1.Container, ip string) (bool, string, error) {
	r, err := Request(ctx, a, container, ip)
	if err != nil {
		return false, "", err
	}
	resp, err := c.client.Do(r)
	if err != nil {
		return false, err.Error(), nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return false, err.Error(), nil
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 400 {
		return true, string(b), nil
	}
	return false, fmt.Sprintf("HTTP probe failed with statuscode: %d", resp.StatusCode), nil
}

func tcp(ctx context.Context, a *corev1.TCPSocketAction, c *corev1.Container, ip string) (bool, string, error) {
	port, err := Port(a.Port, c)
	if err != nil {
		return false, "", err
	}
	host := a.Host
	if host == "" {
		host = ip
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false, err.Error(), nil
	}
	conn.Close()
	return true, "", nil
}

func grpcHealth(ctx context.Context, a *corev1.GRPCAction, ip string, timeout time.Duration) (bool, string, error) {
	service := ""
	if a.Service != nil {
		service = *a.Service
	}
	addr := net.JoinHostPort(ip, strconv.Itoa(int(a.Port)))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("kube-probe/1.36"))
	if err != nil {
		return false, err.Error(), nil
	}
	defer conn.Close()
	r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	if err != nil {
		switch status.Code(err) {
		case codes.Unimplemented:
			return false, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", status.Convert(err).Message()), nil
		case codes.DeadlineExceeded:
			return false, fmt.Sprintf("timeout: failed to connect service %q within %v: %v", addr, timeout, err), nil
		}
		return false, fmt.Sprintf("error: health rpc probe failed: %v", err), nil
	}
	if r.Status != healthpb.HealthCheckResponse_SERVING {
		return false, fmt.Sprintf("service unhealthy (responded with %q)", r.Status), nil
	}
	return true, "service healthy", nil
}
