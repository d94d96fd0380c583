// Package serve is how every program of the shop answers HTTP: with probes, and with an end that loses no request. It is
// what a program needs to be updated under load, and nothing else; main of each program calls Run.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// Server is one listening program.
type Server struct {
	Addr    string
	Handler http.Handler
	// Drain is how long it goes on accepting after it was told to stop: the news that it is going takes its time to reach
	// every node, and until then new connections arrive.
	Drain time.Duration
	// Finish bounds how long requests under way may take after that.
	Finish time.Duration
}

// Main serves h on addr until SIGTERM, and ends the program with status 1 if that fails.
func Main(addr string, h http.Handler) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s := &Server{Addr: addr, Handler: h, Drain: 500 * time.Millisecond, Finish: 10 * time.Second}
	if err := s.Run(ctx, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Run serves until ctx ends, then drains. listening, if not nil, is told the address once it accepts. /livez answers as
// long as the program lives; /readyz fails from the moment it is told to stop.
func (s *Server) Run(ctx context.Context, listening func(addr string)) error {
	l, err := net.Listen("tcp", s.Addr)
	if err != nil {
		return err
	}
	if listening != nil {
		listening(l.Addr().String())
	}
	var stopping atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if stopping.Load() {
			http.Error(w, "stopping", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("/", s.Handler)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	stopping.Store(true)
	srv.SetKeepAlivesEnabled(false) // whoever asks again must connect again, and will be led elsewhere
	time.Sleep(s.Drain)
	finish, cancel := context.WithTimeout(context.Background(), s.Finish)
	defer cancel()
	if err := srv.Shutdown(finish); err != nil {
		return err
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// JSON answers with v.
func JSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the asker has gone: nobody to tell
}

// Pod is the name of the pod the program runs in.
func Pod() string {
	name, _ := os.Hostname()
	return name
}

// Env returns an environment variable, or otherwise when it is not set.
func Env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
