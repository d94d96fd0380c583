package arch

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport says for a folder (the longest entry that holds a file counts) which folders of ours it may import besides
// itself and what lies in it. "*" is all of them.
var mayImport = map[string][]string{
	"api":            {},
	"config":         {},
	"pki":            {},
	"client":         {"api"},
	"store":          {"api"},
	"apiserver":      {"store", "api", "client", "pki"},
	"controller":     {"client", "api"},
	"scheduler":      {"client", "api"},
	"kubelet":        {"client", "api"},
	"network":        {"client", "api"},
	"engine":         {},
	"cluster":        {"*"},
	"cluster/local":  {"client", "api", "config", "cluster/control"},
	"cmd":            {"*"},
	"cmd/karve-shim": {"engine/shim"},
	"cmd/kubectl":    {},
	"examples":       {},
	"test":           {"*"},
}

// closed are folders whose subfolders may only be imported by the composition root and tests: which engine stores the
// objects, for example, is decided where a server is put together.
var closed = map[string]string{
	"store/engine": "store engines are chosen by whoever composes a server",
}

// testMayImport is what tests of a folder may import beyond mayImport.
var testMayImport = map[string][]string{
	"apiserver":     {"store/engine/mem"},
	"cluster/local": {"pki"}, // its nodes are stood in for by small TLS servers
	"examples":      {"api"}, // its manifests are checked against the API table
}

// ban is a package of others, with all below it, that no program imports. Tests may: they compare us with it, or use it as a
// client would. only names the folders that may too.
type ban struct {
	path, why string
	only      []string
}

// testsToo are banned from tests as well: they would only pull in what nobody wants to build.
var testsToo = []string{"k8s.io/kubernetes", "k8s.io/apiserver/pkg/server", "github.com/stretchr/testify", "github.com/pkg/errors", "io/ioutil"}

func bans() []ban {
	const clientset = "it costs 12 MB and megabytes of idle memory; package client does the same for every kind in a few hundred lines"
	kubectl := []string{"cmd/kubectl"}
	return []ban{
		{path: "k8s.io/kubernetes", why: "karve is written anew; it is not a library either"},
		{path: "k8s.io/apiserver/pkg/server", why: "the generic server is what apiserver replaces; it adds 60 MB and pays for everything at start"},
		{path: "k8s.io/apiserver/pkg/registry", why: "resources are rows here, see apiserver/resource"},
		{path: "k8s.io/apiserver/pkg/storage", why: "the store is ours, see store/DESIGN.md"},
		{path: "k8s.io/apiserver/pkg/endpoints", why: "apiserver/rest is the HTTP edge"},
		{path: "k8s.io/client-go/kubernetes", why: clientset},
		{path: "k8s.io/client-go/informers", why: clientset},
		{path: "k8s.io/client-go/listers", why: clientset},
		{path: "k8s.io/client-go/dynamic", why: clientset},
		{path: "k8s.io/client-go/tools/cache", why: "client.Cache is the watched copy; two of them are two copies of every object"},
		{path: "k8s.io/client-go/util/workqueue", why: "controller/loop is the queue"},
		{path: "k8s.io/client-go/rest", why: "client.NewHTTP is the transport"},
		{path: "k8s.io/client-go/plugin", why: "it is kubectl's", only: kubectl},
		{path: "k8s.io/kubectl", why: "it takes 30 ms at every start of a program; kubectl is one of its own", only: kubectl},
		{path: "k8s.io/component-base/cli", why: "it is kubectl's", only: kubectl},
		{path: "k8s.io/cli-runtime", why: "it is kubectl's", only: kubectl},
		{path: "github.com/containerd/containerd/v2/client", why: "containerd is reached by CRI, see engine/cri"},
		{path: "github.com/opencontainers/runc", why: "runc is a program, built from tools/runc: as a library it runs C before main"},
		{path: "github.com/opencontainers/cgroups", why: "engine/cgroup reads them, runc writes them"},
		{path: "go.etcd.io/etcd", why: "only its engine speaks to etcd", only: []string{"store/engine/etcd"}},
		{path: "github.com/cockroachdb/pebble", why: "only its engine knows Pebble", only: []string{"store/engine/pebble"}},
		{path: "github.com/google/nftables", why: "network/nft is the one place that speaks nftables; cluster/local keeps the one table of the host", only: []string{"network", "cluster/local"}},
		{path: "github.com/vishvananda/netlink", why: "the kernel's network is the business of these folders", only: []string{"network", "cluster/local"}},
		{path: "github.com/spf13/cobra", why: "commands live in cmd", only: []string{"cmd"}},
		{path: "github.com/prometheus/client_golang", why: "a text page of metrics needs no registry with goroutines and reflection"},
		{path: "github.com/sirupsen/logrus", why: "logging is log/slog, passed in"},
		{path: "go.uber.org/zap", why: "logging is log/slog, passed in"},
		{path: "log", why: "logging is log/slog, passed in"},
		{path: "k8s.io/klog/v2", why: "logging is log/slog, passed in; where a library wants a klog.Logger it gets an empty one", only: []string{"scheduler/filter", "scheduler/score", "controller/daemonset", "cmd/kubectl"}},
		{path: "github.com/pkg/errors", why: "errors are the standard library's, wrapped with %w"},
		{path: "github.com/stretchr/testify", why: "tests use the testing package"},
		{path: "io/ioutil", why: "it is deprecated"},
		{path: "plugin", why: "policies are compiled in or reached over the network"},
	}
}

// engineKubernetes is what the container engine may use of the Kubernetes side: CRI's words, and the framing of streams.
var engineKubernetes = []string{"k8s.io/cri-api", "k8s.io/cri-streaming", "k8s.io/streaming",
	"k8s.io/utils/exec"} // cri-streaming knows an exit status by its ExitError

func importRules() []rule {
	return []rule{
		{
			name: "who may import whom", where: "Who may import whom",
			why: "parts speak through the API alone: that is why each also runs by itself, can be replaced, and can be read without the others",
			check: func(t *tree) []finding {
				var out []finding
				for _, f := range t.code(all) {
					from, allowed := permitted(f)
					for imp, spec := range imports(f) {
						to := own(imp)
						if to == "" || under(to, from) || slices.Contains(allowed, "*") {
							continue
						}
						at := t.at(f, t.line(spec))
						if !slices.ContainsFunc(allowed, func(a string) bool { return under(to, a) }) {
							out = append(out, finding{at, fmt.Sprintf("%s imports %s; it may import %s", from, to, orNothing(allowed))})
							continue
						}
						for c, why := range closed {
							if under(to, c) && !under(f.path, c) && !slices.Contains(allowed, to) {
								out = append(out, finding{at, fmt.Sprintf("%s imports %s, but %s", from, to, why)})
							}
						}
					}
				}
				return out
			},
			bait: map[string]string{
				"scheduler/a.go":         "package scheduler\nimport _ \"karve/apiserver/authn\"\nimport _ \"karve/client\"\n",
				"api/row.go":             "package api\nimport _ \"karve/api/defaults\"\nimport _ \"karve/client\"\n",
				"apiserver/server.go":    "package apiserver\nimport _ \"karve/store\"\nimport _ \"karve/store/engine/mem\"\n",
				"apiserver/s_test.go":    "package apiserver\nimport _ \"karve/store/engine/mem\"\n",
				"kubelet/run.go":         "package kubelet\nimport _ \"karve/engine\"\n",
				"cluster/cluster.go":     "package cluster\nimport _ \"karve/engine\"\n",
				"cluster/local/local.go": "package local\nimport _ \"karve/cluster\"\nimport _ \"karve/cluster/control\"\n",
				"novel/x.go":             "package novel\nimport _ \"karve/api\"\n",
			},
			caught: []string{"scheduler/a.go:2", "api/row.go:3", "apiserver/server.go:3", "kubelet/run.go:2", "cluster/local/local.go:2", "novel/x.go:2"},
		},
		{
			name: "foreign packages we do without", where: "Foreign packages",
			why: "each of these is a whole world with memory, start-up time and habits of its own; what it is for has one place here",
			check: func(t *tree) []finding {
				var out []finding
				for _, f := range t.code(all) {
					for imp, spec := range imports(f) {
						for _, b := range bans() {
							if f.forTests() && !slices.Contains(testsToo, b.path) || b.path == "log" && imp != "log" {
								continue
							}
							if under(imp, b.path) && !slices.ContainsFunc(b.only, func(d string) bool { return under(f.path, d) }) {
								out = append(out, finding{t.at(f, t.line(spec)), imp + ": " + b.why})
							}
						}
					}
				}
				return out
			},
			bait: map[string]string{
				"client/c.go":       "package client\nimport _ \"k8s.io/client-go/kubernetes/scheme\"\nimport _ \"k8s.io/client-go/applyconfigurations\"\n",
				"apiserver/s.go":    "package apiserver\nimport _ \"k8s.io/apiserver/pkg/server/options\"\nimport _ \"k8s.io/apiserver/pkg/cel\"\n",
				"kubelet/k.go":      "package kubelet\nimport _ \"log\"\nimport _ \"log/slog\"\n",
				"kubelet/k_test.go": "package kubelet\nimport _ \"log\"\nimport _ \"k8s.io/kubernetes/pkg/kubelet\"\n",
				"cmd/kubectl/k.go":  "package main\nimport _ \"k8s.io/kubectl/pkg/cmd\"\n",
				"network/nft/n.go":  "package nft\nimport _ \"github.com/google/nftables\"\n",
				"controller/foo.go": "package controller\nimport _ \"k8s.io/kubernetes/pkg/controller\"\n",
			},
			caught: []string{"client/c.go:2", "apiserver/s.go:2", "kubelet/k.go:2", "kubelet/k_test.go:3", "controller/foo.go:2"},
		},
		{
			name: "the engine knows no Kubernetes", where: "Who may import whom",
			why: "images, sandboxes and containers make sense without a cluster; CRI v1 is the seam, and other engines fit it too",
			check: func(t *tree) []finding {
				var out []finding
				for _, f := range t.code(func(f *file) bool { return under(f.path, "engine") }) {
					for imp, spec := range imports(f) {
						if strings.HasPrefix(imp, "k8s.io/") && !slices.ContainsFunc(engineKubernetes, func(a string) bool { return under(imp, a) }) {
							out = append(out, finding{t.at(f, t.line(spec)), imp})
						}
					}
				}
				return out
			},
			bait: map[string]string{
				"engine/e.go": "package engine\nimport _ \"k8s.io/api/core/v1\"\nimport _ \"k8s.io/cri-api/pkg/apis/runtime/v1\"\n",
			},
			caught: []string{"engine/e.go:2"},
		},
		{
			name: "a shell is never asked", where: "Security",
			why: "a string that came by the API must not become a command line; programs are run with an argument list",
			check: func(t *tree) []finding {
				var out []finding
				for _, f := range t.code(func(f *file) bool { return program(f) && !under(f.path, "examples") }) {
					for _, c := range calls(f, "os/exec", "Command", "CommandContext") {
						for _, a := range c.Args {
							switch s := literal(a); s {
							case "sh", "bash", "/bin/sh", "/bin/bash":
								out = append(out, finding{t.at(f, t.line(c)), "runs " + s})
							}
						}
					}
				}
				return out
			},
			bait: map[string]string{
				"kubelet/v.go": "package kubelet\nimport \"os/exec\"\nfunc f(s string) {\n\texec.Command(\"sh\", \"-c\", s)\n\texec.Command(\"mount\", s)\n}\n",
			},
			caught: []string{"kubelet/v.go:4"},
		},
	}
}

// permitted returns the entry of mayImport a file falls under and what it may import.
func permitted(f *file) (from string, allowed []string) {
	best := f.dir()
	found := false
	for folder := range mayImport {
		if under(f.path, folder) && (!found || len(folder) > len(best)) {
			best, found = folder, true
		}
	}
	allowed = slices.Clone(mayImport[best])
	if f.forTests() {
		for folder, more := range testMayImport {
			if under(f.path, folder) {
				allowed = append(allowed, more...)
			}
		}
	}
	return best, allowed
}

func orNothing(list []string) string {
	if len(list) == 0 {
		return "nothing of ours"
	}
	return strings.Join(list, ", ")
}

// closures are programs and what must not be linked into them, however indirectly: single packages, or everything below
// what ends in "/".
var closures = []struct {
	program string
	not     []string
	why     string
}{
	{"./cmd/karve", []string{"k8s.io/kubernetes/", "k8s.io/apiserver/pkg/server", "k8s.io/apiserver/pkg/registry/", "k8s.io/client-go/kubernetes",
		"k8s.io/client-go/informers/", "k8s.io/kubectl/", "k8s.io/cli-runtime/", "go.etcd.io/etcd/server/", "github.com/opencontainers/runc/", "testing"},
		"what is linked is paid for in size, start and idle memory by everybody"},
	{"./cmd/karve-shim", []string{"net", "net/http", "crypto/tls", "log/slog", "k8s.io/", "google.golang.org/", "github.com/"},
		"one shim runs per pod: its idle memory is multiplied by the pods of a node"},
}

// TestClosures asks the go tool what the programs are linked from.
func TestClosures(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("SKIPPED: no go in PATH, so what the programs are linked from is NOT checked")
	}
	for _, c := range closures {
		cmd := exec.Command("go", "list", "-deps", c.program)
		cmd.Dir = root(t)
		out, err := cmd.Output()
		if err != nil {
			if e, ok := err.(*exec.ExitError); ok {
				t.Errorf("go list -deps %s: %v\n%s", c.program, err, e.Stderr)
				continue
			}
			t.Fatal(err)
		}
		for _, dep := range strings.Fields(string(out)) {
			for _, not := range c.not {
				if dep == not || strings.HasSuffix(not, "/") && strings.HasPrefix(dep+"/", not) {
					t.Errorf("%s links %s.\nwhy not: %s\nthe rule: docs/rules.md, \"Foreign packages\"", c.program, dep, c.why)
				}
			}
		}
	}
}
