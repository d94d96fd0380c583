package main

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// figure is one quantity, smaller is better. must and aim are 0 where there is none.
type figure struct {
	what, unit    string
	must, aim     float64
	values, loads []float64
}

// begin notes how busy the machine is.
func (f *figure) begin() { f.loads = append(f.loads, loadAverage()) }

func (f *figure) add(v float64) { f.values = append(f.values, v) }

// quantile of the values; there must be some.
func (f *figure) quantile(q float64) float64 {
	s := slices.Sorted(slices.Values(f.values))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func (f *figure) verdict() string {
	switch m := f.quantile(0.5); {
	case f.must == 0:
		return ""
	case m <= f.aim:
		return "aim reached"
	case m <= f.must:
		return "must reached"
	default:
		return "**missed**"
	}
}

type report struct {
	machine    []string
	figures    []figure
	phases     []phase
	benchmarks []goResult
	notes      []string
}

// figure returns the one of that name, made on first use.
func (r *report) figure(what, unit string) *figure {
	for i := range r.figures {
		if r.figures[i].what == what {
			return &r.figures[i]
		}
	}
	r.figures = append(r.figures, figure{what: what, unit: unit})
	return &r.figures[len(r.figures)-1]
}

func loadAverage() float64 {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	first, _, _ := strings.Cut(string(data), " ")
	v, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return v
}

func describeMachine(b *bench) []string {
	var u unix.Utsname
	var i unix.Sysinfo_t
	_, _ = unix.Uname(&u), unix.Sysinfo(&i)
	cpu := "unknown processor"
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			cpu = strings.TrimSpace(value)
			break
		}
	}
	size := int64(0)
	if fi, err := os.Stat(b.bin + "/karve"); err == nil {
		size = fi.Size()
	}
	return []string{
		"date: " + time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		fmt.Sprintf("machine: %d cores (%s), %.0f GiB of memory, Linux %s", runtime.NumCPU(), cpu, float64(i.Totalram)*float64(i.Unit)/(1<<30), unix.ByteSliceToString(u.Release[:])),
		fmt.Sprintf("program: Kubernetes API 1.36, %s, %d MiB on disk", runtime.Version(), size>>20),
		fmt.Sprintf("load average when it began: %.1f", loadAverage()),
	}
}

// number is empty for 0: no aim, or nothing to compare with.
func number(v float64) string {
	switch {
	case v == 0:
		return ""
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// value is number of what was measured: 0 is shown.
func value(v float64) string {
	if v == 0 {
		return "0"
	}
	return number(v)
}

func (f *figure) loadRange() string {
	lo, hi := slices.Min(f.loads), slices.Max(f.loads)
	if hi-lo < 0.1 {
		return fmt.Sprintf("%.1f", lo)
	}
	return fmt.Sprintf("%.1f–%.1f", lo, hi)
}

func (r *report) markdown() string {
	var w strings.Builder
	w.WriteString("# Measurements\n\nWritten by `sudo make bench` (`test/bench`): do not edit. What else runs on the machine shows in the load average; look at\n" +
		"CPU per operation and at medians first. must is what a release has to reach, aim is what we want.\n\n")
	for _, m := range r.machine {
		w.WriteString("- " + m + "\n")
	}
	if len(r.figures) > 0 {
		w.WriteString("\n## Clusters\n\n| what | unit | must | aim | runs | min | median | p90 | max | load | |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
		for i := range r.figures {
			f := &r.figures[i]
			fmt.Fprintf(&w, "| %s | %s | %s | %s | %d | %s | **%s** | %s | %s | %s | %s |\n", f.what, f.unit, number(f.must), number(f.aim), len(f.values),
				value(f.quantile(0)), value(f.quantile(0.5)), value(f.quantile(0.9)), value(f.quantile(1)), f.loadRange(), f.verdict())
		}
	}
	r.writeAPI(&w)
	r.writeGo(&w)
	if len(r.notes) > 0 {
		w.WriteString("\n## Notes\n\n")
		for _, n := range r.notes {
			w.WriteString("- " + strings.ReplaceAll(n, "\n", " ") + "\n")
		}
	}
	return w.String()
}

func (r *report) writeAPI(w *strings.Builder) {
	if len(r.phases) == 0 {
		return
	}
	w.WriteString("\n## API\n\nThrough client-go with protobuf, 64 workers on 8 connections; the load generator shares the machine. CPU is the server's, per\n" +
		"operation. Each row is the run with the median of CPU. Beside it Kubernetes 1.36 (kube-apiserver with etcd) under the same load\n" +
		"on a machine of two cores; after 5,000 pods it held 1,036 MiB.\n\n" +
		"| phase | server | ops | CPU µs, least–most | CPU µs | upstream | CPU ratio | ops/s | upstream | p50 | p99 | RSS MiB | runs | load | |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	var order []string
	runs := map[string][]phase{}
	for _, p := range r.phases {
		key := p.server + "/" + p.name + "/" + strconv.Itoa(p.ops)
		if runs[key] == nil {
			order = append(order, key)
		}
		runs[key] = append(runs[key], p)
	}
	for _, key := range order {
		all := runs[key]
		slices.SortFunc(all, func(a, b phase) int { return cmp.Compare(a.cpu, b.cpu) })
		p := all[len(all)/2]
		u := upstream[p.name]
		ratio := ""
		if u.cpu > 0 && p.cpu > 0 {
			ratio = fmt.Sprintf("**1/%.1f**", u.cpu/p.cpu)
		}
		fmt.Fprintf(w, "| %s | %s | %d | %s–%s | **%s** | %s | %s | %s | %s | %s | %s | %d | %d | %.1f | %s |\n", p.name, p.server, p.ops, number(all[0].cpu),
			number(all[len(all)-1].cpu), number(p.cpu), number(u.cpu), ratio, number(p.rate), number(u.rate), p.p50, p.p99, p.rss, len(all), p.load, p.note)
	}
}

func (r *report) writeGo(w *strings.Builder) {
	if len(r.benchmarks) == 0 {
		return
	}
	w.WriteString("\n## Go benchmarks\n\n| package | benchmark | runs | | load |\n|---|---|---|---|---|\n")
	ns := map[string]float64{}
	for _, g := range r.benchmarks {
		ns[g.name] = g.ns
		fmt.Fprintf(w, "| %s | %s | %s | %s | %.1f |\n", strings.TrimPrefix(g.pkg, "./"), g.name, g.count, g.values, g.load)
	}
	w.WriteString("\n| ratio | |\n|---|---|\n")
	for _, p := range ratios {
		if ns[p.a] > 0 && ns[p.b] > 0 {
			fmt.Fprintf(w, "| %s | %s |\n", p.what, number(ns[p.a]/ns[p.b]))
		}
	}
}

// summary is a line per figure that has an aim.
func (r *report) summary() string {
	var w strings.Builder
	for i := range r.figures {
		if f := &r.figures[i]; f.must > 0 {
			fmt.Fprintf(&w, "%-90s %8s %s (must %s, aim %s)\n", f.what, number(f.quantile(0.5)), f.unit, number(f.must), number(f.aim))
		}
	}
	return w.String()
}
