// Command bench measures karve on this machine and writes docs/measurements.md. `make bench` runs it, as root, because it
// makes clusters of its own: their names begin with "b-", their data lies in a scratch folder, and they are removed at the
// end, however it comes. Every load stops by itself. It judges nothing: figures beside their aims are for a reader, and no
// test depends on them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench is what all measurements work with.
type bench struct {
	root, bin, scratch string // of the source, of the programs, of everything written here
	images             []string
	runs, pods, rounds int
	settle, idle       time.Duration
	apibench           string // folder of the load generator's source; may be missing
	objects            int
	made               []*cluster // to be removed
	report             report
}

// measurements are the names of -only, in order.
var measurements = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"start", (*bench).measureStart},
	{"idle", (*bench).measureIdle},
	{"pods", (*bench).measurePods},
	{"api", (*bench).measureAPI},
	{"go", (*bench).measureGo},
}

func main() {
	var names []string
	for _, m := range measurements {
		names = append(names, m.name)
	}
	b := &bench{}
	flag.StringVar(&b.root, "root", ".", "the checkout")
	flag.StringVar(&b.apibench, "apibench", "../shared/apibench", "folder of the API load generator's source; its phases are left out without it")
	only := flag.String("only", strings.Join(names, ","), "what to measure")
	out := flag.String("o", "docs/measurements.md", "file to write, below the checkout; - prints it")
	flag.IntVar(&b.runs, "runs", 5, "clusters to start for each of the start figures")
	flag.IntVar(&b.pods, "pods", 30, "pods to start one after the other")
	flag.IntVar(&b.rounds, "rounds", 3, "API servers to load one after the other")
	flag.IntVar(&b.objects, "objects", 5000, "objects of the API load")
	flag.DurationVar(&b.settle, "settle", time.Minute, "how long a cluster is left alone before it counts as idle")
	flag.DurationVar(&b.idle, "idle", time.Minute, "how long idle CPU is counted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.main(ctx, strings.Split(*only, ","), *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) main(ctx context.Context, only []string, out string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("clusters are made of namespaces: run it as root (sudo make bench)")
	}
	if b.root, err = filepath.Abs(b.root); err != nil {
		return err
	}
	b.bin = filepath.Join(b.root, "bin")
	if b.scratch, err = os.MkdirTemp("", "karve-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.cleanUp()) }()
	b.report.machine = describeMachine(b)
	if err := b.keepPrograms(); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	var failed []error
	for _, m := range measurements {
		if !slices.Contains(only, m.name) {
			b.report.notes = append(b.report.notes, "Not measured this time: "+m.name+".")
			continue
		}
		fmt.Fprintf(os.Stderr, "%s …\n", m.name)
		if err := m.run(b, ctx); err != nil {
			err = fmt.Errorf("measure %s: %w", m.name, err)
			fmt.Fprintln(os.Stderr, err)
			failed = append(failed, err)
			b.report.notes = append(b.report.notes, "FAILED: "+err.Error())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	text := b.report.markdown()
	if out == "-" {
		fmt.Print(text)
	} else if err := os.WriteFile(filepath.Join(b.root, out), []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Fprint(os.Stderr, b.report.summary())
	return errors.Join(failed...)
}

// keepPrograms puts the programs aside, so that one that is built meanwhile is not measured in part.
func (b *bench) keepPrograms() error {
	aside := filepath.Join(b.scratch, "bin")
	if err := os.Mkdir(aside, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"karve", "kubectl"} {
		from, to := filepath.Join(b.bin, name), filepath.Join(aside, name)
		if os.Link(from, to) == nil {
			continue
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("run make build first: %w", err)
		}
		if err := os.WriteFile(to, data, 0o755); err != nil {
			return err
		}
	}
	b.bin = aside
	return nil
}

// prepare packs the image the pods run, and those of the shop.
func (b *bench) prepare(ctx context.Context) error {
	type image struct{ name, pkg, program string }
	all := []image{{"bench/app:v1", "./test/bench/testdata/app", "app"}}
	for _, p := range []string{"web", "sidecar", "catalog", "cart", "load"} {
		all = append(all, image{"shop/" + p + ":v1", "./examples/shop/" + p, p})
	}
	for _, im := range all {
		program := filepath.Join(b.scratch, im.program)
		if _, err := b.run(ctx, b.root, nil, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, im.pkg); err != nil {
			return err
		}
		tar := program + ".tar"
		if _, err := b.run(ctx, "/", nil, filepath.Join(b.bin, "karve"), "image", "pack", "-o", tar, "--user", "65532:65532", im.name, program+":/"+im.program); err != nil {
			return err
		}
		b.images = append(b.images, tar)
	}
	return nil
}

func (b *bench) cleanUp() error {
	var errs []error
	for _, c := range b.made {
		errs = append(errs, c.down())
	}
	return errors.Join(append(errs, os.RemoveAll(b.scratch))...)
}
