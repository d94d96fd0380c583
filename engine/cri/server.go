// Package cri puts CRI v1 on a unix socket: Serve offers an engine there, Dial reaches one, ours or another.
//
// cluster calls Serve for people who use crictl or another kubelet, and Dial when the kubelet is told to use containerd
// or CRI-O. It owns the socket and, while serving, a listener on the loopback interface for the streams of exec, attach
// and port-forward, which CRI hands out as URLs with a token that is good once. It adds nothing to the engine's answers.
package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/utils/exec"

	"karve/engine"
)

// maxMessage bounds a message in either direction, in bytes, as other runtimes do.
const maxMessage = 16 << 20

// Serve offers eng on a socket that only its owner may use, until ctx is done.
func Serve(ctx context.Context, eng *engine.Engine, socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("serve CRI: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("serve CRI: %w", err)
	}
	defer l.Close()
	if err := os.Chmod(socket, 0o600); err != nil {
		return fmt.Errorf("serve CRI: %w", err)
	}
	streams, stopStreams, err := serveStreams(eng)
	if err != nil {
		return fmt.Errorf("serve CRI streams: %w", err)
	}
	defer stopStreams()
	s := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	srv := &server{Engine: eng, streams: streams}
	runtimeapi.RegisterRuntimeServiceServer(s, srv)
	runtimeapi.RegisterImageServiceServer(s, srv)
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve CRI: %w", err)
	}
	return nil
}

// server has the engine's methods. What the engine lacks is answered as unimplemented, one level further down so that
// it never hides a method of the engine.
type server struct {
	*engine.Engine
	rest
	streams streaming.Server
}

type rest struct{ unimplemented }

type unimplemented struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer
}

func (s *server) Exec(ctx context.Context, r *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	if _, err := s.running(ctx, r.ContainerId); err != nil {
		return nil, err
	}
	return s.streams.GetExec(r)
}

func (s *server) Attach(ctx context.Context, r *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	if _, err := s.running(ctx, r.ContainerId); err != nil {
		return nil, err
	}
	return s.streams.GetAttach(r)
}

func (s *server) running(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	r, err := s.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return nil, err
	}
	if r.Status.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, fmt.Errorf("container %s is not running", id)
	}
	return r.Status, nil
}

func (s *server) PortForward(ctx context.Context, r *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	if _, err := s.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: r.PodSandboxId}); err != nil {
		return nil, err
	}
	return s.streams.GetPortForward(r)
}

func (s *server) GetContainerEvents(_ *runtimeapi.GetEventsRequest, out grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	for ev := range s.Events(out.Context()) {
		if err := out.Send(ev); err != nil {
			return err
		}
	}
	return out.Context().Err()
}

// serveStreams listens on the loopback interface for the streams that CRI hands out.
func serveStreams(eng *engine.Engine) (streaming.Server, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	cfg := streaming.DefaultConfig
	cfg.BaseURL = &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/"}
	s, err := streaming.NewServer(cfg, streamRuntime{eng})
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	h := &http.Server{Handler: s, ReadHeaderTimeout: 30 * time.Second}
	go func() { _ = h.Serve(l) }()
	return s, func() { h.Close() }, nil
}

type streamRuntime struct{ e *engine.Engine }

func (s streamRuntime) Exec(ctx context.Context, id string, cmd []string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	sizes, stop := relaySizes(resize)
	defer stop()
	code, err := s.e.ExecStream(ctx, id, cmd, tty, in, writer(out), writer(errs), sizes)
	if err == nil && code != 0 {
		return exec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
	}
	return err
}

func (s streamRuntime) Attach(ctx context.Context, id string, in io.Reader, out, errs io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	sizes, stop := relaySizes(resize)
	defer stop()
	return s.e.AttachStream(ctx, id, in, writer(out), writer(errs), sizes)
}

func (s streamRuntime) PortForward(ctx context.Context, id string, port int32, conn io.ReadWriteCloser) error {
	return s.e.PortForwardStream(ctx, id, port, conn)
}

// writer keeps an absent stream absent.
func writer(w io.WriteCloser) io.Writer {
	if w == nil {
		return nil
	}
	return w
}

func relaySizes(in <-chan remotecommand.TerminalSize) (<-chan engine.TermSize, func()) {
	if in == nil {
		return nil, func() {}
	}
	out, done := make(chan engine.TermSize), make(chan struct{})
	go func() {
		for {
			select {
			case z, ok := <-in:
				if !ok {
					return
				}
				select {
				case out <- engine.TermSize{Cols: z.Width, Rows: z.Height}:
				case <-done:
					return
				}
			case <-done:
				return
			}
		}
	}()
	return out, func() { close(done) }
}
