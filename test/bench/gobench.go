package main

import (
	"context"
	"regexp"
	"strings"
)

// goBenchmarks are a short selection: packages and the benchmarks of them.
var goBenchmarks = []struct{ pkg, pattern string }{
	{"./store", "Commit|Get|Scan5000|FanOut"},
	{"./network/dns", "Answer|UDP"},
	{"./network/proxy", "Programme"},
	{"./network/pod", "Attach"},
	{"./engine/enginetest", "PodStart"},
	{"./apiserver/authz", "RBAC"},
}

var benchLine = regexp.MustCompile(`^Benchmark(\S+?)(?:-\d+)?\s+(\d+)\s+(.*)$`)

// goResult is one line of go test -bench.
type goResult struct{ pkg, name, count, values string }

func (b *bench) measureGo(ctx context.Context) error {
	for _, g := range goBenchmarks {
		out, err := b.run(ctx, b.root, nil, "go", "test", "-run", "^$", "-bench", g.pattern, "-benchmem", "-benchtime", "0.5s", g.pkg)
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if m := benchLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
				b.report.benchmarks = append(b.report.benchmarks, goResult{g.pkg, m[1], m[2], strings.Join(strings.Fields(strings.ReplaceAll(m[3], "\t", " · ")), " ")})
			}
		}
	}
	return nil
}
