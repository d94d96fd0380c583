// Package control is the private line between the karve command and a running karve process of the same machine: HTTP/1 on
// a Unix socket that only root may open. It carries what is no matter of the Kubernetes API: loading and listing a node's
// images, and how the parts of the process are. Serve is called by cluster, Client by cmd/karve and cluster/local. It knows
// nothing of how images are kept: the node's engine stands behind Images.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Image is one image a node has.
type Image struct {
	ID    string    `json:"id"` // digest of its configuration
	Names []string  `json:"names"`
	Size  int64     `json:"size"` // bytes on disk, unpacked
	Since time.Time `json:"since"`
}

// Images is what a node lets the command do with its images. Its errors reach the user as they are.
type Images interface {
	// Load adds the images of a tarball (docker save, or OCI layout; compressed or not) and returns their names.
	Load(ctx context.Context, path string) ([]string, error)
	List(ctx context.Context) ([]Image, error)
	Remove(ctx context.Context, name string) error
	// Pull fetches an image from its registry and returns its name.
	Pull(ctx context.Context, name string) (string, error)
}

// Component is how one part of a process is.
type Component struct {
	Name    string `json:"name"`
	Healthy bool   `json:"healthy"`
	Message string `json:"message,omitempty"`
}

// Server answers the command.
type Server struct {
	// Images is nil in a process that is no node.
	Images Images
	// Components is called for every question; nil means nothing to tell.
	Components func() []Component
	// Spool is the directory uploads are kept in while they are read; empty means the system's.
	Spool string
}

// Handler returns the routes: GET, POST and DELETE /images, POST /images/pull, GET /components.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /components", func(w http.ResponseWriter, r *http.Request) {
		out := []Component{}
		if s.Components != nil {
			out = append(out, s.Components()...)
		}
		reply(w, out, nil)
	})
	images := func(pattern string, fn func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if s.Images == nil {
				reply(w, nil, errors.New("this process runs no node and has no images"))
				return
			}
			out, err := fn(r)
			reply(w, out, err)
		})
	}
	images("GET /images", func(r *http.Request) (any, error) { return s.Images.List(r.Context()) })
	images("DELETE /images", func(r *http.Request) (any, error) {
		return nil, s.Images.Remove(r.Context(), r.URL.Query().Get("ref"))
	})
	images("POST /images/pull", func(r *http.Request) (any, error) {
		name, err := s.Images.Pull(r.Context(), r.URL.Query().Get("ref"))
		return []string{name}, err
	})
	images("POST /images", s.load)
	return mux
}

func (s *Server) load(r *http.Request) (any, error) {
	f, err := os.CreateTemp(s.Spool, "image-")
	if err != nil {
		return nil, fmt.Errorf("keep upload: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.Copy(f, r.Body); err != nil {
		return nil, fmt.Errorf("keep upload: %w", err)
	}
	return s.Images.Load(r.Context(), f.Name())
}

func reply(w http.ResponseWriter, out any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the asker has gone: nobody to tell
}

// Serve listens on path, mode 0600 in a directory of mode 0700 that is made when missing, and answers until ctx ends. A
// socket left by a dead process is replaced.
func Serve(ctx context.Context, path string, s *Server) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("serve control socket: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return fmt.Errorf("serve control socket: another process already answers on %s", path)
	}
	// Bound under another name and renamed, so that it is never there with a wider mode.
	tmp := path + ".new"
	for _, old := range []string{tmp, path} {
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("serve control socket: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return fmt.Errorf("serve control socket: %w", err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(tmp, 0o600); err != nil {
		return fmt.Errorf("serve control socket: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("serve control socket: %w", err)
	}
	defer os.Remove(path)
	srv := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(rootOnly{l}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

// rootOnly drops connections of other users, should the directory ever be opened to them.
type rootOnly struct{ *net.UnixListener }

func (l rootOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(c); err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return c, nil
		}
		c.Close()
	}
}

func peer(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
