// Command server is the program in the tests' pods: an HTTP server that tells who it is, and small clients.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	mode, arg := "serve", ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	if len(os.Args) > 2 {
		arg = os.Args[2]
	}
	modes := map[string]func(string) error{"serve": serve, "get": get, "dial": dial, "load": load, "eat": eat, "host": host, "srv": srv, "say": say}
	run, ok := modes[mode]
	if !ok {
		run = func(string) error { return fmt.Errorf("there is no mode %s", mode) }
	}
	if err := run(arg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// serve answers until it is told to end, and then for LINGER longer: whoever still has the address is not turned away.
func serve(string) error {
	name, _ := os.Hostname()
	var count, sick atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		count.Add(1)
		fmt.Fprintf(w, "%s %s\n", name, env("VERSION", "v1"))
	})
	mux.HandleFunc("/count", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, count.Load()) })
	mux.HandleFunc("/from", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) })
	mux.HandleFunc("/sick", func(http.ResponseWriter, *http.Request) { sick.Store(1) })
	mux.HandleFunc("/well", func(http.ResponseWriter, *http.Request) { sick.Store(0) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	s := &http.Server{Addr: ":" + env("PORT", "8080"), Handler: mux}
	linger, err := time.ParseDuration(env("LINGER", "0s"))
	if err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	stopped := make(chan error, 1)
	go func() {
		<-ended
		time.Sleep(linger)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- s.Shutdown(ctx)
	}()
	if err := s.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return <-stopped
}

func ask(url string) (string, error) {
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", resp.Status)
	}
	return string(body), err
}

func get(url string) error {
	body, err := ask(url)
	fmt.Print(body)
	return err
}

func dial(addr string) error {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// load asks url again and again, and tells on port 8081 how that went.
func load(url string) error {
	var mu sync.Mutex
	ok, failed, last := 0, 0, "-"
	go func() {
		for {
			_, err := ask(url)
			mu.Lock()
			if err != nil {
				failed, last = failed+1, err.Error()
			} else {
				ok++
			}
			mu.Unlock()
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return http.ListenAndServe(":8081", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, "ok=%d failed=%d last=%s\n", ok, failed, last)
	}))
}

// eat takes memory, a mebibyte at a time, until somebody stops it.
func eat(string) error {
	var all [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = 1
		}
		all = append(all, b)
		if len(all)%64 == 0 {
			fmt.Println(len(all), "MiB")
		}
	}
}

func host(name string) error {
	addrs, err := net.LookupHost(name)
	sort.Strings(addrs)
	fmt.Println(strings.Join(addrs, " "))
	return err
}

func srv(name string) error {
	_, all, err := net.LookupSRV("", "", name)
	for _, s := range all {
		fmt.Println(s.Target, s.Port)
	}
	return err
}

// say writes a numbered line every tenth of a second.
func say(string) error {
	for i := 1; ; i++ {
		fmt.Println("line", i)
		time.Sleep(100 * time.Millisecond)
	}
}
