// Command demo shows the shop on a cluster of this machine as a list of checks: each line can fail, and the program ends
// with status 1 if one does. It drives what a user would type, bin/karve and bin/kubectl, and leaves the cluster running.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	name := flag.String("name", "karve", "name of the cluster")
	nodes := flag.Int("nodes", 1, "how many nodes")
	port := flag.Int("port", 8080, "port of 127.0.0.1 for the shop; the next one is for the load's figures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exe, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	d := &demo{name: *name, nodes: *nodes, port: *port, bin: filepath.Dir(exe), root: filepath.Dir(filepath.Dir(exe))}
	l := &list{out: os.Stdout}
	d.run(ctx, l)
	fmt.Println()
	if l.failed > 0 {
		fmt.Printf("%d of %d checks failed.\n", l.failed, l.done)
	} else {
		fmt.Printf("All %d checks passed in %.1f s.\n", l.done, time.Since(l.started).Seconds())
	}
	fmt.Printf("\nThe cluster goes on running. The shop:       http://127.0.0.1:%d/\n", d.port)
	fmt.Printf("Look around:   bin/karve kubectl -n shop get pods -o wide\n")
	fmt.Printf("Remove it all: bin/karve down%s (as root)\n", d.nameFlag())
	if l.failed > 0 {
		os.Exit(1)
	}
}

// list prints checks as they are made.
type list struct {
	out          *os.File
	started      time.Time
	done, failed int
}

// check runs fn, which returns what it has seen, and reports whether it went well.
func (l *list) check(ctx context.Context, what string, limit time.Duration, fn func(ctx context.Context) (string, error)) bool {
	if l.started.IsZero() {
		l.started = time.Now()
	}
	started := time.Now()
	lead := ""
	if fi, err := l.out.Stat(); err == nil && fi.Mode()&os.ModeCharDevice != 0 { // a terminal
		fmt.Fprintf(l.out, "  … %s", what)
		lead = "\r\x1b[K"
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	seen, err := fn(ctx)
	l.done++
	mark := "✓"
	if err != nil {
		l.failed++
		mark, seen = "✗", strings.TrimSpace(err.Error())
	}
	fmt.Fprintf(l.out, "%s  %s %-34s %6.2f s  %s\n", lead, mark, what, time.Since(started).Seconds(), seen)
	return err == nil
}
