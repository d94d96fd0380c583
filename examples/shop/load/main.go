// Command load asks the shop for its page again and again and counts the answers by version, and the failures. It prints a
// line every second and tells the totals at /stats. Nothing is tried twice: every request that goes wrong is counted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"karve/examples/shop/serve"
)

func main() {
	rate, err := strconv.Atoi(serve.Env("RATE", "50"))
	if err != nil || rate < 1 || rate > 10000 {
		fmt.Fprintln(os.Stderr, "RATE is not a number of requests per second")
		os.Exit(1)
	}
	l := newLoad(serve.Env("TARGET", "http://web:8080/page"))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go l.run(ctx, time.Second/time.Duration(rate))
	go l.report(ctx, os.Stdout)
	serve.Main(serve.Env("LISTEN", ":8080"), l.handler())
}

// stats are totals since the start.
type stats struct {
	Requests  int            `json:"requests"`
	Failed    int            `json:"failed"`
	Versions  map[string]int `json:"versions"`
	LastError string         `json:"lastError,omitempty"`
}

type load struct {
	target string
	client *http.Client
	mu     sync.Mutex
	stats  stats
}

func newLoad(target string) *load {
	// A connection per request: one kept open would stay with one pod, and Go would hide a stale one by asking again.
	return &load{target: target, stats: stats{Versions: map[string]int{}},
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// run starts a request every interval, whether or not earlier ones have come back, up to 500 at once.
func (l *load) run(ctx context.Context, interval time.Duration) {
	slots := make(chan struct{}, 500)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case slots <- struct{}{}:
			go func() {
				l.one(ctx)
				<-slots
			}()
		default:
			l.count("", errors.New("500 requests have not come back"))
		}
	}
}

func (l *load) one(ctx context.Context) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.target, nil)
	if err != nil {
		l.count("", err)
		return
	}
	resp, err := l.client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
	}
	if ctx.Err() != nil {
		return // we are the one who gave up
	}
	version := ""
	if err == nil {
		if version = resp.Header.Get("X-Shop-Version"); version == "" {
			err = errors.New("an answer without a version")
		}
	}
	l.count(version, err)
}

func (l *load) count(version string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Requests++
	if err != nil {
		l.stats.Failed++
		l.stats.LastError = err.Error()
		return
	}
	l.stats.Versions[version]++
}

func (l *load) totals() stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Versions = maps.Clone(s.Versions)
	return s
}

func (l *load) report(ctx context.Context, out io.Writer) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	before := l.totals()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := l.totals()
			fmt.Fprintln(out, line(before, now))
			before = now
		}
	}
}

// line says what has happened between two totals.
func line(before, now stats) string {
	parts := []string{fmt.Sprintf("requests %d", now.Requests-before.Requests), fmt.Sprintf("failed %d", now.Failed-before.Failed)}
	for _, v := range slices.Sorted(maps.Keys(now.Versions)) {
		if n := now.Versions[v] - before.Versions[v]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", v, n))
		}
	}
	if now.Failed > before.Failed {
		parts = append(parts, "last error: "+now.LastError)
	}
	return strings.Join(parts, ", ")
}

func (l *load) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { serve.JSON(w, l.totals()) })
	return mux
}
