// Package health answers /healthz, /livez and /readyz: whether a server lives and whether it is of use, as a whole and
// check by check. The API server says which checks there are and hands requests on; it may be asked before anything else
// works. It keeps how often each check went which way, for /metrics/slis.
package health

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"

	"karve/apiserver/metrics"
)

// Probe is a set of endpoints that a check answers on.
type Probe int

const (
	Healthz Probe = 1 << iota
	Livez
	Readyz

	All = Healthz | Livez | Readyz
)

var probes = map[string]Probe{"healthz": Healthz, "livez": Livez, "readyz": Readyz}

// Check is one thing that can be well or not. Run must answer at once and is called concurrently; its error is for the log
// and for those who ask for this check by name.
type Check struct {
	Name string
	On   Probe
	Run  func() error
}

// OK is a check that only shows that requests are answered.
func OK() error { return nil }

// Until is a check that fails as long as done says false, for the reason why.
func Until(done func() bool, why string) func() error {
	err := errors.New(why)
	return func() error {
		if done() {
			return nil
		}
		return err
	}
}

// Handler answers for a list of checks. Safe for concurrent use.
type Handler struct {
	checks []Check
	log    *slog.Logger

	mu     sync.Mutex
	counts map[countKey]*count
}

type countKey struct{ name, probe string }

type count struct {
	up, well, bad uint64
}

// New returns a handler for checks, which are shown in their order.
func New(log *slog.Logger, checks ...Check) *Handler {
	return &Handler{checks: checks, log: log, counts: map[countKey]*count{}}
}

// Paths lists the paths that Serve answers.
func (h *Handler) Paths() []string {
	var out []string
	for probe, bit := range probes {
		out = append(out, "/"+probe)
		for _, c := range h.checks {
			if c.On&bit != 0 {
				out = append(out, "/"+probe+"/"+c.Name)
			}
		}
	}
	sort.Strings(out)
	return out
}

// Serve answers a request whose path is one of health and says whether it was.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) bool {
	probe, name, named := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	bit := probes[probe]
	if bit == 0 {
		return false
	}
	if !named {
		h.all(w, r, probe, bit)
		return true
	}
	for i := range h.checks {
		if c := &h.checks[i]; c.Name == name && c.On&bit != 0 {
			if err := c.Run(); err != nil {
				http.Error(w, "internal server error: "+err.Error(), http.StatusInternalServerError)
			} else {
				plain(w)
				_, _ = w.Write([]byte("ok"))
			}
			return true
		}
	}
	http.Error(w, "404 page not found", http.StatusNotFound)
	return true
}

func plain(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

// all runs the checks of a probe but those that the query excludes. Why one failed is for the log: anybody may ask here.
func (h *Handler) all(w http.ResponseWriter, r *http.Request, probe string, bit Probe) {
	query := r.URL.Query()
	excluded := map[string]bool{}
	for _, name := range query["exclude"] {
		excluded[name] = true
	}
	var text strings.Builder
	var failed []any
	unknown := excluded
	if len(excluded) > 0 {
		unknown = map[string]bool{}
		for name := range excluded {
			unknown[name] = true
		}
	}
	for i := range h.checks {
		c := &h.checks[i]
		if c.On&bit == 0 {
			continue
		}
		if excluded[c.Name] {
			delete(unknown, c.Name)
			fmt.Fprintf(&text, "[+]%s excluded: ok\n", c.Name)
			continue
		}
		err := c.Run()
		h.count(c.Name, probe, err == nil)
		if err != nil {
			failed = append(failed, c.Name, err)
			fmt.Fprintf(&text, "[-]%s failed: reason withheld\n", c.Name)
		} else {
			fmt.Fprintf(&text, "[+]%s ok\n", c.Name)
		}
	}
	if len(unknown) > 0 {
		fmt.Fprintf(&text, "warn: some health checks cannot be excluded: no matches for %s\n", quoted(unknown))
	}
	if len(failed) > 0 {
		h.log.Debug("health checks failed", append([]any{"probe", probe}, failed...)...)
		http.Error(w, text.String()+probe+" check failed", http.StatusInternalServerError)
		return
	}
	plain(w)
	if !query.Has("verbose") {
		_, _ = w.Write([]byte("ok"))
		return
	}
	fmt.Fprintf(&text, "%s check passed\n", probe)
	_, _ = w.Write([]byte(text.String()))
}

func quoted(set map[string]bool) string {
	var out []string
	for name := range set {
		out = append(out, strconv.Quote(name))
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

func (h *Handler) count(name, probe string, well bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.counts[countKey{name, probe}]
	if c == nil {
		c = &count{}
		h.counts[countKey{name, probe}] = c
	}
	if well {
		c.up = 1
		c.well++
	} else {
		c.up = 0
		c.bad++
	}
}

// WriteTo adds how the checks went when they were last run, and how often which way.
func (h *Handler) WriteTo(p *metrics.Page) {
	h.mu.Lock()
	defer h.mu.Unlock()
	each := func(fn func(c *count, name, probe string)) {
		for i := range h.checks {
			for _, probe := range []string{"healthz", "livez", "readyz"} {
				if c := h.counts[countKey{h.checks[i].Name, probe}]; c != nil {
					fn(c, h.checks[i].Name, probe)
				}
			}
		}
	}
	p.Family("kubernetes_healthcheck", "gauge", metrics.Stable, "1 for a check that succeeded when it was last asked, else 0.")
	each(func(c *count, name, probe string) { p.Sample(float64(c.up), "name", name, "type", probe) })
	p.Family("kubernetes_healthchecks_total", "counter", metrics.Stable, "How often each check was asked, by how it ended.")
	each(func(c *count, name, probe string) {
		if c.bad > 0 {
			p.Sample(float64(c.bad), "name", name, "status", "error", "type", probe)
		}
		if c.well > 0 {
			p.Sample(float64(c.well), "name", name, "status", "success", "type", probe)
		}
	})
}
