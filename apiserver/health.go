package apiserver

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"runtime"
	"sort"
	"strings"

	"karve/api"
	"karve/apiserver/health"
)

// hooks are what upstream's checks of its start are called, where the part exists here. All are done when the server is.
var hooks = []string{"start-apiserver-admission-initializer", "priority-and-fairness-config-consumer", "priority-and-fairness-filter",
	"start-apiextensions-controllers", "rbac/bootstrap-roles", "scheduling/bootstrap-system-priority-classes",
	"priority-and-fairness-config-producer", "bootstrap-controller"}

// healthChecks are the checks of the health endpoints under upstream's names.
func (s *Server) healthChecks() *health.Handler {
	began := health.Until(s.began.Load, "not finished")
	list := []health.Check{{Name: "ping", On: health.All, Run: health.OK}, {Name: "log", On: health.All, Run: health.OK},
		{Name: "etcd", On: health.All, Run: s.store.Err}, {Name: "etcd-readiness", On: health.Readyz, Run: s.store.Err},
		{Name: "informer-sync", On: health.Readyz, Run: began}}
	for _, name := range hooks {
		list = append(list, health.Check{Name: "poststarthook/" + name, On: health.All, Run: began})
	}
	stopping := health.Until(func() bool { return s.ready.Load() || !s.began.Load() }, "process is shutting down")
	return health.New(s.log, append(list, health.Check{Name: "shutdown", On: health.Readyz, Run: stopping})...)
}

func (s *Server) serveVersion(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	b, _ := json.MarshalIndent(map[string]string{"major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
		"gitVersion": api.Version(s.opts.Version), "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
		"goVersion": runtime.Version(), "compiler": runtime.Compiler, "platform": runtime.GOOS + "/" + runtime.GOARCH}, "", "  ")
	_, _ = w.Write(b)
}

// paths lists what can be asked, sorted.
func (s *Server) paths() []string {
	set := map[string]bool{"/.well-known/openid-configuration": true, "/api": true, "/apis": true, "/debug/pprof": true, "/flagz": true, "/metrics": true,
		"/metrics/slis": true, "/openapi/v2": true, "/openapi/v3": true, "/openapi/v3/": true, "/openid/v1/jwks": true, "/statusz": true, "/version": true}
	for _, r := range api.Rows() {
		if r.Group == "" {
			set["/api/"+r.Version] = true
			continue
		}
		set["/apis/"+r.Group], set["/apis/"+r.Group+"/"+r.Version] = true, true
	}
	for _, p := range s.health.Paths() {
		set[p] = true
	}
	out := make([]string, 0, len(set))
	for p := range set {
		out = append(out, p)
	}
	sort.Strings(out)
	return out
}

// servePaths lists what can be asked, for people who look around.
func (s *Server) servePaths(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	b, _ := json.MarshalIndent(map[string][]string{"paths": s.paths()}, "", "  ")
	_, _ = w.Write(b)
}

var profiles = map[string]http.HandlerFunc{"/debug/pprof": pprof.Index, "/debug/pprof/": pprof.Index, "/debug/pprof/cmdline": pprof.Cmdline,
	"/debug/pprof/profile": pprof.Profile, "/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/trace": pprof.Trace}

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
