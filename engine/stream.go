package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine/sandbox"
	"karve/engine/shim"
	"karve/engine/shim/client"
)

// TermSize is the size of a terminal in characters.
type TermSize = client.Size

// maxSyncOutput bounds what ExecSync returns of either stream, in bytes.
const maxSyncOutput = 16 << 20

// ExecSync runs a command in a container and returns its output. A timeout, in seconds, kills it with DeadlineExceeded.
func (e *Engine) ExecSync(ctx context.Context, r *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	var stdout, stderr capped
	timeout := time.Duration(max(r.Timeout, 0)) * time.Second
	st, err := e.exec(ctx, r.ContainerId, r.Cmd, false, timeout, client.Streams{Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return nil, err
	}
	if st.TimedOut {
		return nil, status.Errorf(codes.DeadlineExceeded, "command %q timed out: timeout %s exceeded", r.Cmd, timeout)
	}
	return &runtimeapi.ExecSyncResponse{Stdout: stdout.b, Stderr: stderr.b, ExitCode: int32(st.ExitCode)}, nil
}

// capped keeps the first part of what is written and swallows the rest.
type capped struct{ b []byte }

func (c *capped) Write(p []byte) (int, error) {
	c.b = append(c.b, p[:min(len(p), maxSyncOutput-len(c.b))]...)
	return len(p), nil
}

// ExecStream runs a command in a container, connected to the given streams; nil ones are absent. It returns when the
// command ended, with its exit code, or when ctx is done, which hangs the command up.
func (e *Engine) ExecStream(ctx context.Context, containerID string, cmd []string, tty bool, stdin io.Reader, stdout, stderr io.Writer, resize <-chan TermSize) (int, error) {
	st, err := e.exec(ctx, containerID, cmd, tty, 0, client.Streams{Stdin: stdin, Stdout: stdout, Stderr: stderr, Resize: resize})
	return st.ExitCode, err
}

func (e *Engine) exec(ctx context.Context, id string, cmd []string, tty bool, timeout time.Duration, s client.Streams) (shim.Status, error) {
	if len(cmd) == 0 {
		return shim.Status{}, status.Error(codes.InvalidArgument, "no command specified")
	}
	c, p, err := e.running(id)
	if err != nil {
		return shim.Status{}, err
	}
	var spec struct{ Process *specs.Process }
	if err := load(filepath.Join(e.ctrState(id), "config.json"), &spec); err != nil || spec.Process == nil {
		return shim.Status{}, fmt.Errorf("exec in container %s: read specification: %w", id, err)
	}
	proc := spec.Process
	proc.Args, proc.Terminal, proc.ConsoleSize = cmd, tty, nil
	if tty && !c.config.Tty {
		proc.Env = append(proc.Env, "TERM=xterm")
	}
	raw, err := json.Marshal(proc)
	if err != nil {
		return shim.Status{}, err
	}
	st, err := p.shim.Stream(ctx, shim.Request{Op: shim.OpExec, ID: id,
		Exec: &shim.Exec{Process: raw, Terminal: tty, Stdin: s.Stdin != nil, Timeout: int64(timeout)}}, s)
	if err != nil {
		return st, fmt.Errorf("exec in container %s: %w", id, err)
	}
	return st, nil
}

// AttachStream connects streams to a running container's own; nil ones are absent. It returns when the container ended
// or ctx is done, which leaves the container as it is.
func (e *Engine) AttachStream(ctx context.Context, containerID string, stdin io.Reader, stdout, stderr io.Writer, resize <-chan TermSize) error {
	c, p, err := e.running(containerID)
	if err != nil {
		return err
	}
	if !c.config.Stdin {
		stdin = nil
	}
	_, err = p.shim.Stream(ctx, shim.Request{Op: shim.OpAttach, ID: containerID, Stdin: stdin != nil},
		client.Streams{Stdin: stdin, Stdout: stdout, Stderr: stderr, Resize: resize})
	if err != nil && !(errors.Is(err, client.ErrDetached) && c.ended()) {
		return fmt.Errorf("attach to container %s: %w", containerID, err)
	}
	return nil
}

func (c *ctr) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// PortForwardStream connects conn to a port on the loopback interface of a sandbox, IPv4 before IPv6. It returns when
// the other side has sent everything, or conn fails, or ctx is done. It does not close conn.
func (e *Engine) PortForwardStream(ctx context.Context, sandboxID string, port int32, conn io.ReadWriteCloser) error {
	p, err := e.findPod(sandboxID)
	if err != nil {
		return err
	}
	if !p.ready() {
		return status.Errorf(codes.FailedPrecondition, "sandbox %q is not running", sandboxID)
	}
	if port < 1 || port > 65535 {
		return status.Errorf(codes.InvalidArgument, "port %d is out of range", port)
	}
	var to net.Conn
	err = sandbox.In(p.paths.Net, func() error {
		var errs []error
		for _, host := range []string{"127.0.0.1", "::1"} {
			d := net.Dialer{Timeout: 5 * time.Second}
			var err error
			if to, err = d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port)))); err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("forward port %d of sandbox %s: %w", port, sandboxID, err)
	}
	defer to.Close()
	stop := context.AfterFunc(ctx, func() { to.Close() })
	defer stop()
	go func() {
		_, err := io.Copy(to, conn)
		if t, ok := to.(*net.TCPConn); ok && err == nil {
			_ = t.CloseWrite()
		} else {
			to.Close()
		}
	}()
	if _, err := io.Copy(conn, to); err != nil && ctx.Err() == nil {
		return fmt.Errorf("forward port %d of sandbox %s: %w", port, sandboxID, err)
	}
	return ctx.Err()
}
