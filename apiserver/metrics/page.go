package metrics

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Level is how much a metric's name and labels can be relied on.
type Level string

const (
	Alpha  Level = "ALPHA"
	Beta   Level = "BETA"
	Stable Level = "STABLE"
	// none is for what Go and the process tell of themselves.
	none Level = ""
)

// Page is a page of metrics in the text exposition format. Families come in the order they are added, and the samples of a
// family right after it.
type Page struct {
	buf  bytes.Buffer
	name string
}

// NewPage returns an empty page.
func NewPage() *Page { return &Page{} }

// Bytes returns what is on the page; it is valid until more is added.
func (p *Page) Bytes() []byte { return p.buf.Bytes() }

// Write implements io.Writer for those who write their families themselves.
func (p *Page) Write(b []byte) (int, error) { return p.buf.Write(b) }

// Family begins a metric; kind is counter, gauge or histogram.
func (p *Page) Family(name, kind string, level Level, help string) {
	p.name = name
	if level != none {
		help = "[" + string(level) + "] " + help
	}
	p.print("# HELP ", name, " ", helpEscape.Replace(help), "\n# TYPE ", name, " ", kind, "\n")
}

// Sample adds a value of the present family. labels are names and values in turn, names in alphabetical order.
func (p *Page) Sample(value float64, labels ...string) { p.sample("", value, "", labels) }

var (
	helpEscape  = strings.NewReplacer("\\", `\\`, "\n", `\n`)
	valueEscape = strings.NewReplacer("\\", `\\`, "\n", `\n`, `"`, `\"`)
)

func (p *Page) print(parts ...string) {
	for _, s := range parts {
		p.buf.WriteString(s)
	}
}

func (p *Page) sample(suffix string, value float64, le string, labels []string) {
	p.print(p.name, suffix)
	open := "{"
	for i := 0; i+1 < len(labels); i += 2 {
		p.print(open, labels[i], `="`, valueEscape.Replace(labels[i+1]), `"`)
		open = ","
	}
	if le != "" {
		p.print(open, `le="`, le, `"`)
		open = ","
	}
	if open == "," {
		p.print("}")
	}
	p.print(" ")
	if value == math.Trunc(value) && math.Abs(value) < 1e15 {
		p.buf.Write(strconv.AppendInt(p.buf.AvailableBuffer(), int64(value), 10))
	} else {
		p.buf.Write(strconv.AppendFloat(p.buf.AvailableBuffer(), value, 'g', -1, 64))
	}
	p.print("\n")
}

// histogram adds a histogram that has seen anything.
func (p *Page) histogram(h *histogram, b *bounds, labels ...string) {
	total := uint64(0)
	counts := make([]uint64, len(h.counts))
	for i := range h.counts {
		counts[i] = h.counts[i].Load()
		total += counts[i]
	}
	if total == 0 {
		return
	}
	seen := uint64(0)
	for i, text := range b.text {
		seen += counts[i]
		p.sample("_bucket", float64(seen), text, labels)
	}
	p.sample("_bucket", float64(total), "+Inf", labels)
	p.sample("_sum", float64(h.sum.Load())/b.unit, "", labels)
	p.sample("_count", float64(total), "", labels)
}

// Registered adds how many metrics the page has, by level; it comes last.
func (p *Page) Registered() {
	p.Family("registered_metrics_total", "counter", Beta, "How many metric families this page has, by stability level.")
	counts := map[string]int{}
	for line := range bytes.Lines(p.buf.Bytes()) {
		if head, ok := bytes.CutPrefix(line, []byte("# HELP ")); ok {
			if _, help, ok := bytes.Cut(head, []byte(" [")); ok {
				level, _, _ := bytes.Cut(help, []byte("]"))
				counts[string(level)]++
			}
		}
	}
	for _, l := range []Level{Alpha, Beta, Stable} {
		if n := counts[string(l)]; n > 0 {
			p.Sample(float64(n), "deprecated_version", "", "stability_level", string(l))
		}
	}
}

// sorted returns the keys of m in order.
func sorted[K comparable, V any](m map[K]V, by func(a, b K) int) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, by)
	return out
}

// before compares lists of strings one by one.
func before(pairs ...string) int {
	for i := 0; i+1 < len(pairs); i += 2 {
		if c := cmp.Compare(pairs[i], pairs[i+1]); c != 0 {
			return c
		}
	}
	return 0
}
