package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"

	"karve/kubelet/cri"
	"karve/kubelet/podworker"
)

const (
	idleTimeout   = 4 * time.Hour
	createTimeout = 30 * time.Second
)

// container returns the running container that a request means; it answers itself when there is none.
func (s *Server) container(w http.ResponseWriter, r *http.Request) (id string, ok bool) {
	v, found := s.Pods.Find(r.PathValue("ns"), r.PathValue("pod"), types.UID(r.PathValue("uid")))
	if !found {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return "", false
	}
	name := r.PathValue("container")
	if c := v.Observed.Latest(name); c != nil && c.State == podworker.Running {
		return c.ID, true
	}
	http.Error(w, fmt.Sprintf("container not found (%q)", name), http.StatusNotFound)
	return "", false
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id, ok := s.container(w, r)
	if !ok {
		return
	}
	cmd := r.Form["command"]
	if len(cmd) == 0 {
		http.Error(w, "you must specify a command", http.StatusBadRequest)
		return
	}
	do := func(ctx context.Context, st *Streams) (int, error) {
		return s.Runtime.ExecStream(ctx, id, cmd, st.TTY, st.Stdin, st.Stdout, st.Stderr, st.Resize)
	}
	if wantsV5(r) {
		serveV5(w, r, opts, do)
		return
	}
	remotecommand.ServeExec(w, r, runner(do), "", "", id, cmd, opts, idleTimeout, createTimeout, remotecommand.SupportedStreamingProtocols)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id, ok := s.container(w, r)
	if !ok {
		return
	}
	do := func(ctx context.Context, st *Streams) (int, error) {
		return 0, s.Runtime.AttachStream(ctx, id, st.TTY, st.Stdin, st.Stdout, st.Stderr, st.Resize)
	}
	if wantsV5(r) {
		serveV5(w, r, opts, do)
		return
	}
	remotecommand.ServeAttach(w, r, runner(do), "", "", id, opts, idleTimeout, createTimeout, remotecommand.SupportedStreamingProtocols)
}

// run answers with the output of a command.
func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	id, ok := s.container(w, r)
	if !ok {
		return
	}
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	got, err := s.Runtime.ExecSync(r.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: r.Form["cmd"]})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Write(got.Stdout)
	w.Write(got.Stderr)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	v, ok := s.Pods.Find(r.PathValue("ns"), r.PathValue("pod"), types.UID(r.PathValue("uid")))
	if !ok {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return
	}
	sb := v.Observed.Sandbox()
	if sb == nil {
		http.Error(w, "pod is not running", http.StatusNotFound)
		return
	}
	if wantsTunnel(r) {
		s.tunnel(w, r, sb.ID)
		return
	}
	opts := &portforward.V4Options{}
	if wsstream.IsWebSocketRequest(r) {
		var err error
		if opts, err = portforward.NewV4Options(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	portforward.ServePortForward(w, r, forwarder{s.Runtime}, sb.ID, "", opts, idleTimeout, createTimeout, portforward.SupportedProtocols)
}

type forwarder struct{ cri.Streams }

// PortForward implements portforward.PortForwarder; name is the sandbox.
func (f forwarder) PortForward(ctx context.Context, name, _ string, port int32, stream io.ReadWriteCloser) error {
	return f.PortForwardStream(ctx, name, port, stream)
}

// Streams are the ends of a process that a caller holds; those not wanted are nil.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	Resize         <-chan cri.Size
}

// runner lets the streaming library run what it has opened streams for.
type runner func(context.Context, *Streams) (int, error)

// ExecInContainer implements remotecommand.Executor.
func (f runner) ExecInContainer(ctx context.Context, _, _, _ string, _ []string, in io.Reader, out, errw io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	code, err := f(ctx, &Streams{Stdin: in, Stdout: writer(out), Stderr: writer(errw), TTY: tty, Resize: sizes(ctx, resize)})
	if err == nil && code != 0 {
		return utilexec.CodeExitError{Code: code, Err: fmt.Errorf("command terminated with exit code %d", code)}
	}
	return err
}

// AttachContainer implements remotecommand.Attacher.
func (f runner) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, errw io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	return f.ExecInContainer(ctx, "", "", "", nil, in, out, errw, tty, resize, 0)
}

// writer keeps a nil interface nil.
func writer(w io.WriteCloser) io.Writer {
	if w == nil {
		return nil
	}
	return w
}

func sizes(ctx context.Context, in <-chan remotecommand.TerminalSize) <-chan cri.Size {
	if in == nil {
		return nil
	}
	out := make(chan cri.Size)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case v, ok := <-in:
				if !ok {
					return
				}
				select {
				case out <- cri.Size{Width: v.Width, Height: v.Height}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}
