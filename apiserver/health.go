package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime"
	"sort"
	"strings"

	"karve/api"
)

// checks are the names that health endpoints know, in upstream's terms where the part exists here.
var checks = []string{"ping", "log", "etcd", "informer-sync", "poststarthook/start-apiserver-admission-initializer", "poststarthook/rbac/bootstrap-roles",
	"poststarthook/start-apiextensions-controllers", "poststarthook/scheduling/bootstrap-system-priority-classes", "poststarthook/bootstrap-controller"}

// healthy runs one check; until the server is ready everything but being alive fails.
func (s *Server) healthy(name string) bool {
	switch name {
	case "ping", "log":
		return true
	case "etcd":
		return s.store.Err() == nil
	}
	return s.ready.Load()
}

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) bool {
	path := strings.Trim(r.URL.Path, "/")
	root, one, named := strings.Cut(path, "/")
	if root != "healthz" && root != "livez" && root != "readyz" {
		return false
	}
	if named {
		for _, c := range checks {
			if c == one {
				s.reportHealth(w, r, root, []string{c})
				return true
			}
		}
		http.Error(w, "404 page not found", http.StatusNotFound)
		return true
	}
	s.reportHealth(w, r, root, checks)
	return true
}

func (s *Server) reportHealth(w http.ResponseWriter, r *http.Request, root string, names []string) {
	excluded := map[string]bool{}
	for _, x := range r.URL.Query()["exclude"] {
		excluded[x] = true
	}
	var b strings.Builder
	failed := false
	for _, n := range names {
		switch {
		case excluded[n]:
			delete(excluded, n)
			fmt.Fprintf(&b, "[+]%s excluded: ok\n", n)
		case s.healthy(n):
			fmt.Fprintf(&b, "[+]%s ok\n", n)
		default:
			failed = true
			fmt.Fprintf(&b, "[-]%s failed: reason withheld\n", n)
		}
	}
	if len(excluded) > 0 {
		var left []string
		for x := range excluded {
			left = append(left, fmt.Sprintf("%q", x))
		}
		sort.Strings(left)
		fmt.Fprintf(&b, "warn: some health checks cannot be excluded: no matches for %s\n", strings.Join(left, ","))
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if failed {
		http.Error(w, b.String()+root+" check failed", http.StatusInternalServerError)
		return
	}
	if _, verbose := r.URL.Query()["verbose"]; verbose {
		fmt.Fprintf(&b, "%s check passed\n", root)
		_, _ = w.Write([]byte(b.String()))
		return
	}
	_, _ = w.Write([]byte("ok"))
}

func (s *Server) serveVersion(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	b, _ := json.MarshalIndent(map[string]string{"major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
		"gitVersion": api.Version(s.opts.Version), "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
		"goVersion": runtime.Version(), "compiler": runtime.Compiler, "platform": runtime.GOOS + "/" + runtime.GOARCH}, "", "  ")
	_, _ = w.Write(b)
}

// servePaths lists what can be asked, for people who look around.
func (s *Server) servePaths(w http.ResponseWriter, _ *http.Request) {
	set := map[string]bool{"/api": true, "/apis": true, "/healthz": true, "/livez": true, "/readyz": true, "/metrics": true, "/openapi/v2": true, "/openapi/v3": true,
		"/version": true, "/.well-known/openid-configuration": true, "/openid/v1/jwks": true}
	for _, r := range api.Rows() {
		if r.Group == "" {
			set["/api/"+r.Version] = true
			continue
		}
		set["/apis/"+r.Group], set["/apis/"+r.Group+"/"+r.Version] = true, true
	}
	for _, c := range checks {
		set["/healthz/"+c], set["/livez/"+c], set["/readyz/"+c] = true, true, true
	}
	var paths []string
	for p := range set {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	w.Header().Set("Content-Type", "application/json")
	b, _ := json.MarshalIndent(map[string][]string{"paths": paths}, "", "  ")
	_, _ = w.Write(b)
}

// serveMetrics answers with what the server knows of itself in the text exposition format.
func (s *Server) serveMetrics(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprintln(w, "# HELP apiserver_storage_objects [STABLE] Number of stored objects at the time of last check split by kind.")
	fmt.Fprintln(w, "# TYPE apiserver_storage_objects gauge")
	view := s.store.View()
	for _, r := range api.Rows() {
		if r.Prefix != "" && r.Stored.Empty() {
			fmt.Fprintf(w, "apiserver_storage_objects{group=%q,resource=%q} %d\n", r.Group, r.Resource, view.Count("/registry/"+r.Prefix+"/"))
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Fprintf(w, "# TYPE go_goroutines gauge\ngo_goroutines %d\n", runtime.NumGoroutine())
	fmt.Fprintf(w, "# TYPE go_memstats_heap_inuse_bytes gauge\ngo_memstats_heap_inuse_bytes %d\n", m.HeapInuse)
	fmt.Fprintf(w, "# TYPE karve_store_revision counter\nkarve_store_revision %d\n", s.store.Revision())
}

// serveHealthMetrics answers with each health check as a number.
func (s *Server) serveHealthMetrics(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprintln(w, "# HELP kubernetes_healthcheck [STABLE] This metric records the result of a single healthcheck.")
	fmt.Fprintln(w, "# TYPE kubernetes_healthcheck gauge")
	for _, c := range checks {
		up := 0
		if s.healthy(c) {
			up = 1
		}
		for _, kind := range []string{"healthz", "livez", "readyz"} {
			fmt.Fprintf(w, "kubernetes_healthcheck{name=%q,type=%q} %d\n", c, kind, up)
		}
	}
}

var profiles = map[string]http.HandlerFunc{"/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline, "/debug/pprof/profile": pprof.Profile,
	"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace}

func (s *Server) servePprof(w http.ResponseWriter, r *http.Request) bool {
	if h, ok := profiles[r.URL.Path]; ok {
		h(w, r)
		return true
	}
	if strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
		pprof.Index(w, r)
		return true
	}
	return false
}
