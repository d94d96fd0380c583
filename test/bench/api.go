package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"karve/client"
)

// upstream are the figures of Kubernetes 1.36 (kube-apiserver and etcd), recorded with the same load generator on a machine
// with two cores: operations a second, and CPU of the server for each in microseconds.
var upstream = map[string]struct{ rate, cpu float64 }{
	"create":       {966, 1570},
	"get":          {3412, 427},
	"list-all":     {0, 117000},
	"patch-status": {713, 2256},
	"watch-fanout": {19000, 62},
	"delete":       {679, 2230},
	"sched-bound":  {291, 6400},
	"deploy-bound": {108, 17000},
}

// phase is one line of the load generator.
type phase struct {
	name, server   string
	ops            int
	rate, cpu      float64 // per second; µs
	p50, p99, note string
	rss            int // MiB, of the server, after it
	load           float64
}

var phaseLine = regexp.MustCompile(`^(\S+)\s+ops=(\d+)\s+([0-9.]+) ops/s\s+p50=(\S+)\s+p99=(\S+)\s+max=\S+\s+cpu/op=([0-9.]+)us rss=(\d+)MiB hwm=\d+MiB ?(.*)$`)

// measureAPI loads an API server by itself, and a control plane without a node, through upstream's client library.
func (b *bench) measureAPI(ctx context.Context) error {
	source := b.apibench
	if !filepath.IsAbs(source) {
		source = filepath.Join(b.root, source)
	}
	if _, err := os.Stat(filepath.Join(source, "go.mod")); err != nil {
		const skipped = "SKIPPED: the API figures, because the load generator's source is not there (-apibench DIR)."
		fmt.Fprintln(os.Stderr, skipped)
		b.report.notes = append(b.report.notes, skipped)
		return nil
	}
	program := filepath.Join(b.scratch, "apibench")
	if _, err := b.run(ctx, source, nil, "go", "build", "-buildvcs=false", "-o", program, "."); err != nil {
		return err
	}
	node := []string{"--components-kubelet=false", "--components-proxy=false", "--components-dns=false"}
	for range b.rounds { // a new server each time
		err := b.served(ctx, "apiserver", nil, func(ctx context.Context, s *served) error {
			return s.phases(ctx, program, "-n", strconv.Itoa(b.objects), "-phases", "create,get,list,patch,watch,delete")
		})
		if err != nil {
			return err
		}
		for _, args := range [][]string{{"-n", "2000", "-phases", "sched"}, {"-n", "3000", "-phases", "deploy"}} {
			err := b.served(ctx, "server", node, func(ctx context.Context, s *served) error {
				return s.phases(ctx, program, append(args, "-nodes", "1000")...)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// served is a control plane on a port of the loopback.
type served struct {
	b          *bench
	command    string
	kubeconfig string
	pid        int
}

// served runs a command of karve as a control plane for as long as fn takes.
func (b *bench) served(ctx context.Context, command string, flags []string, fn func(context.Context, *served) error) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := l.Addr().String()
	l.Close()
	dir, err := os.MkdirTemp(b.scratch, command+"-")
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	data := filepath.Join(dir, "data")
	cmd := exec.Command(filepath.Join(b.bin, "karve"), append([]string{command, "--data-dir", data, "--state-dir", filepath.Join(dir, "state"),
		"--api-listen", address, "--api-advertise", "127.0.0.1", "--node-name", "bench"}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	ctx, ended := context.WithCancel(ctx) // a server that ends is not waited for
	over := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		ended()
		close(over)
	}()
	defer func() {
		kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-over
		kill.Stop()
	}()
	s := &served{b: b, command: command, kubeconfig: filepath.Join(data, "admin.kubeconfig"), pid: cmd.Process.Pid}
	ready := b.report.figure(map[string]string{"apiserver": "`karve apiserver` started → answers (upstream: 1.6 s)",
		"server": "`karve server` without its node parts, started → answers"}[command], "s")
	ready.begin()
	var took time.Duration
	err = until(ctx, func() error {
		t, err := client.FromKubeconfig(s.kubeconfig, "")
		if err != nil {
			return err
		}
		if _, err := client.Of[*corev1.Namespace](t).Get(ctx, "", "default"); err != nil {
			return err
		}
		took = time.Since(began)
		return nil
	})
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("start karve %s: %w\n%s", command, err, text)
	}
	ready.add(took.Seconds())
	return fn(ctx, s)
}

// phases runs the load generator on it and keeps its lines.
func (s *served) phases(ctx context.Context, program string, args ...string) error {
	load := loadAverage()
	out, err := s.b.run(ctx, "/", nil, program, append([]string{"-kubeconfig", s.kubeconfig, "-pids", strconv.Itoa(s.pid), "-type", "proto"}, args...)...)
	if err != nil {
		return err
	}
	found := 0
	for line := range strings.Lines(out) {
		m := phaseLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			if !strings.HasPrefix(line, "idle ") {
				s.b.report.notes = append(s.b.report.notes, "The load generator said: "+strings.TrimSpace(line))
			}
			continue
		}
		found++
		p := phase{name: m[1], server: s.command, p50: m[4], p99: m[5], note: strings.TrimSpace(m[8]), load: load}
		p.ops, _ = strconv.Atoi(m[2]) // the expression lets nothing but numbers through
		p.rate, _ = strconv.ParseFloat(m[3], 64)
		p.cpu, _ = strconv.ParseFloat(m[6], 64)
		p.rss, _ = strconv.Atoi(m[7])
		s.b.report.phases = append(s.b.report.phases, p)
	}
	if found == 0 {
		return errors.New("the load generator printed no phase: " + out)
	}
	return nil
}
