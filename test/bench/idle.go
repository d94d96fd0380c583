package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// measureIdle leaves a cluster alone and looks at it, then does the same with the shop running.
func (b *bench) measureIdle(ctx context.Context) error {
	c, _, err := b.up(ctx, "idle")
	if err != nil {
		return err
	}
	if err := c.observe(ctx, "idle cluster", true); err != nil {
		return err
	}
	if err := c.load(ctx); err != nil {
		return err
	}
	if _, err := c.kubectl(ctx, "apply", "-f", filepath.Join(b.root, "examples", "shop", "shop.yaml")); err != nil {
		return err
	}
	for _, name := range []string{"web", "catalog", "cart", "load"} {
		if _, err := c.kubectl(ctx, "-n", "shop", "rollout", "status", "deployment/"+name, "--timeout=90s"); err != nil {
			return err
		}
	}
	if err := c.observe(ctx, "with the shop under 50 requests/s", false); err != nil {
		return err
	}
	return c.down()
}

// sum is what a set of processes holds and has used.
type sum struct {
	rss, pss, anon, file int64 // bytes
	cpu                  float64
	n                    int
}

// observe waits until the cluster has settled, takes its memory, and counts its CPU. Aims are those of an idle cluster.
func (c *cluster) observe(ctx context.Context, what string, aims bool) error {
	if err := pause(ctx, c.b.settle); err != nil {
		return err
	}
	load := loadAverage()
	pids, err := c.processes(ctx)
	if err != nil {
		return err
	}
	whole, err := measure(slices.Collect(maps.Keys(pids)))
	if err != nil {
		return err
	}
	parts := map[string][]int{}
	for pid, name := range pids {
		if name != "karve" && name != "karve-shim" {
			name = "the application"
		}
		parts[name] = append(parts[name], pid)
	}
	before := map[string]sum{}
	for name, pids := range parts {
		if before[name], err = measure(pids); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := pause(ctx, c.b.idle); err != nil {
		return err
	}
	used := map[string]float64{}
	for name, pids := range parts {
		after, err := measure(pids)
		if err != nil {
			return err
		}
		used[name] = (after.cpu - before[name].cpu) / time.Since(began).Seconds() * 100
	}
	var cpu float64
	for _, u := range used {
		cpu += u
	}
	add := func(f figure, v float64) {
		f.loads, f.values = []float64{load}, []float64{v}
		c.b.report.figures = append(c.b.report.figures, f)
	}
	mem := figure{what: fmt.Sprintf("%s: memory of all %d process(es) after %v of rest, RSS", what, whole.n, c.b.settle), unit: "MiB"}
	proc := figure{what: fmt.Sprintf("%s: CPU over the next %v, all processes", what, c.b.idle), unit: "% of a core"}
	if aims {
		mem.must, mem.aim, proc.must, proc.aim = 128, 64, 2, 1
	}
	add(mem, mib(whole.rss))
	add(figure{what: what + ": PSS", unit: "MiB"}, mib(whole.pss))
	add(figure{what: what + ": RssAnon, what is not the program's file", unit: "MiB"}, mib(whole.anon))
	add(proc, cpu)
	if len(parts) > 1 {
		for _, name := range slices.Sorted(maps.Keys(parts)) {
			add(figure{what: fmt.Sprintf("%s: of that %s, %d process(es), PSS", what, name, len(parts[name])), unit: "MiB"}, mib(before[name].pss))
			add(figure{what: fmt.Sprintf("%s: of that %s, CPU", what, name), unit: "% of a core"}, used[name])
		}
	}
	return nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// measure adds up processes. Children that have ended count with the process that waited for them.
func measure(pids []int) (sum, error) {
	var s sum
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended since
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(f) < 15 {
			return s, fmt.Errorf("read the statistics of process %d: %d fields", pid, len(f))
		}
		for _, ticks := range f[11:15] { // utime, stime, cutime, cstime
			n, err := strconv.ParseFloat(ticks, 64)
			if err != nil {
				return s, fmt.Errorf("read the statistics of process %d: %w", pid, err)
			}
			s.cpu += n / 100
		}
		rollup, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
		if err != nil {
			continue
		}
		s.n++
		for line := range strings.Lines(string(rollup)) {
			key, value, _ := strings.Cut(line, ":")
			to := map[string]*int64{"Rss": &s.rss, "Pss": &s.pss, "Anonymous": &s.anon}[key]
			if to == nil {
				continue
			}
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				return s, fmt.Errorf("read the memory of process %d: %w", pid, err)
			}
			*to += kib << 10
		}
	}
	s.file = s.rss - s.anon
	return s, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
