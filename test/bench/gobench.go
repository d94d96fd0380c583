package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// goBenchmarks are a short selection: packages and the benchmarks of them.
var goBenchmarks = []struct{ pkg, pattern, time string }{
	{"./store", "Commit|Get|Scan5000|FanOut", "0.5s"},
	{"./network/dns", "Answer|UDP", "0.5s"},
	{"./network/proxy", "Programme", "0.5s"},
	{"./network/pod", "Attach", "30x"},
	{"./engine/enginetest", "PodStart", "30x"},
	{"./apiserver/authz", "RBAC", "0.5s"},
}

// ratios are pairs of benchmarks whose quotient says more than either. What a machine does besides cancels out.
var ratios = []struct{ what, a, b string }{
	{"64 writers beside one, durable: commits share a flush", "Commit/pebble/writers=1", "Commit/pebble/writers=64"},
	{"durable beside in memory, 64 writers", "Commit/pebble/writers=64", "Commit/mem/writers=64"},
	{"scanning 5,000 objects beside getting one", "Scan5000", "Get"},
	{"a DNS answer through the socket beside making it", "UDP", "Answer"},
}

var benchLine = regexp.MustCompile(`^Benchmark(\S+?)(?:-\d+)?\s+(\d+)\s+(.*)$`)

// goResult is one line of go test -bench.
type goResult struct {
	pkg, name, count, values string
	ns                       float64 // per operation
	load                     float64
}

func (b *bench) measureGo(ctx context.Context) error {
	for _, g := range goBenchmarks {
		load := loadAverage()
		out, err := b.run(ctx, b.root, nil, "go", "test", "-run", "^$", "-bench", g.pattern, "-benchmem", "-benchtime", g.time, g.pkg)
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if m := benchLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				r := goResult{pkg: g.pkg, name: m[1], count: m[2], values: strings.Join(strings.Fields(strings.ReplaceAll(m[3], "\t", " · ")), " "), load: load}
				first, _, _ := strings.Cut(r.values, " ")
				if r.ns, err = strconv.ParseFloat(first, 64); err != nil {
					return fmt.Errorf("read benchmark %s: %w", r.name, err)
				}
				b.report.benchmarks = append(b.report.benchmarks, r)
			}
		}
	}
	return nil
}
