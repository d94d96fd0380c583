package arch

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// kubernetes is the version of every module that is released together with Kubernetes.
const kubernetes = "v0.36.6"

// unpinned are the k8s.io modules with versions of their own.
var unpinned = []string{"k8s.io/gengo", "k8s.io/gengo/v2", "k8s.io/klog/v2", "k8s.io/kube-openapi", "k8s.io/utils", "k8s.io/system-validators"}

// goMod is what is read of a go.mod.
type goMod struct {
	line     map[string]int    // of each required module
	version  map[string]string // of each required module
	indirect map[string]bool
	tools    []string // packages
	replaced []string
}

func parseMod(text string) goMod {
	m := goMod{line: map[string]int{}, version: map[string]string{}, indirect: map[string]bool{}}
	block := ""
	for i, l := range strings.Split(text, "\n") {
		code, comment, _ := strings.Cut(l, "//")
		words := strings.Fields(code)
		if len(words) == 0 {
			continue
		}
		switch {
		case block == "" && len(words) == 2 && words[1] == "(":
			block = words[0]
			continue
		case words[0] == ")":
			block = ""
			continue
		case block == "":
			block, words = words[0], words[1:]
			m.add(block, words, comment, i+1)
			block = ""
			continue
		}
		m.add(block, words, comment, i+1)
	}
	return m
}

func (m *goMod) add(block string, words []string, comment string, line int) {
	switch {
	case block == "require" && len(words) == 2:
		m.line[words[0]], m.version[words[0]], m.indirect[words[0]] = line, words[1], strings.TrimSpace(comment) == "indirect"
	case block == "tool" && len(words) == 1:
		m.tools = append(m.tools, words[0])
	case block == "replace":
		m.replaced = append(m.replaced, strings.Join(words, " "))
	}
}

// owner is the required module that holds a package, "" for none.
func (m *goMod) owner(pkg string) string {
	best := ""
	for mod := range m.version {
		if under(pkg, mod) && len(mod) > len(best) {
			best = mod
		}
	}
	return best
}

// direct are the modules that we import, and those of tools.
func (m *goMod) direct(t *tree) (imported, tools []string) {
	seen, seenTool := map[string]bool{}, map[string]bool{}
	for _, f := range t.code(all) {
		for imp := range imports(f) {
			if mod := m.owner(imp); mod != "" {
				seen[mod] = true
			}
		}
	}
	for _, p := range m.tools {
		if mod := m.owner(p); mod != "" {
			seenTool[mod] = true
		}
	}
	for mod := range seen {
		imported = append(imported, mod)
	}
	for mod := range seenTool {
		tools = append(tools, mod)
	}
	return imported, tools
}

func (t *tree) find(p string) *file {
	for _, f := range t.files {
		if f.path == p {
			return f
		}
	}
	return nil
}

// reason is a line of docs/dependencies.md: "- `module`: why this one and not another."
var reason = regexp.MustCompile("^- `([^`]+)`: (.+)$")

func moduleRules() []rule {
	const modText = "module karve\n\nrequire (\n\tk8s.io/api v0.36.6\n\tk8s.io/apimachinery v0.37.0\n\tk8s.io/utils v0.0.0-2026\n\texample.org/unused v1.0.0\n\texample.org/used v1.0.0 // indirect\n)\n\nreplace k8s.io/api => ../api\n"
	return []rule{
		{
			name: "one API level", where: "Dependencies",
			why: "types, codecs and schemas of one Kubernetes release fit each other, and we are measured against that release",
			check: func(t *tree) []finding {
				f := t.find("go.mod")
				if f == nil {
					return nil
				}
				var out []finding
				m := parseMod(f.text)
				for mod, v := range m.version {
					if strings.HasPrefix(mod, "k8s.io/") && !slices.Contains(unpinned, mod) && v != kubernetes {
						out = append(out, finding{t.at(f, m.line[mod]), fmt.Sprintf("%s is at %s, not %s", mod, v, kubernetes)})
					}
				}
				for _, r := range m.replaced {
					out = append(out, finding{f.path, "replace " + r + ": a release is used as it is"})
				}
				return out
			},
			bait:   map[string]string{"go.mod": modText},
			caught: []string{"go.mod:5", "go.mod"},
		},
		{
			name: "go.mod is tidy about what we import", where: "Dependencies",
			why: "the first block of go.mod is the list of what we chose; `go mod tidy` keeps it",
			check: func(t *tree) []finding {
				f := t.find("go.mod")
				if f == nil {
					return nil
				}
				var out []finding
				m := parseMod(f.text)
				imported, tools := m.direct(t)
				for mod := range m.version {
					is := slices.Contains(imported, mod)
					switch {
					case is && m.indirect[mod]:
						out = append(out, finding{t.at(f, m.line[mod]), mod + " is imported but marked // indirect"})
					case !is && !m.indirect[mod] && !slices.Contains(tools, mod):
						out = append(out, finding{t.at(f, m.line[mod]), mod + " is not imported by anything"})
					}
				}
				return out
			},
			bait: map[string]string{
				"go.mod":   modText,
				"api/a.go": "package api\nimport _ \"k8s.io/api/core/v1\"\nimport _ \"k8s.io/apimachinery/pkg/runtime\"\nimport _ \"k8s.io/utils/exec\"\nimport _ \"example.org/used/x\"\n",
			},
			caught: []string{"go.mod:7", "go.mod:8"},
		},
		{
			name: "each dependency has a reason", where: "Dependencies",
			why:   "a dependency is code that we answer for; docs/dependencies.md says why this one and not another, and why not none",
			check: checkReasons,
			bait: map[string]string{
				"go.mod":               "module karve\nrequire example.org/a v1.0.0\nrequire example.org/b v1.0.0\nrequire example.org/c v1.0.0\ntool example.org/c/cmd/gen\n",
				"api/a.go":             "package api\nimport _ \"example.org/a/x\"\nimport _ \"example.org/b\"\n",
				"docs/dependencies.md": "# d\n- `example.org/a`: it does what we need and nothing else.\n- `example.org/gone`: nobody knows why it is here any more.\n",
			},
			caught: []string{"docs/dependencies.md", "docs/dependencies.md", "docs/dependencies.md:3"},
		},
	}
}

func checkReasons(t *tree) []finding {
	list := t.find("docs/dependencies.md")
	if list == nil {
		return nil
	}
	var out []finding
	used := map[string]string{} // module → where it is used
	for _, f := range t.files {
		if path.Base(f.path) != "go.mod" {
			continue
		}
		m := parseMod(f.text)
		imported, tools := []string(nil), []string(nil)
		if f.path == "go.mod" {
			imported, tools = m.direct(t)
		} else {
			_, tools = m.direct(&tree{})
		}
		for _, mod := range append(imported, tools...) {
			used[mod] = f.path
		}
	}
	listed := map[string]bool{}
	for i, l := range strings.Split(list.text, "\n") {
		got := reason.FindStringSubmatch(l)
		if got == nil {
			continue
		}
		at := t.at(list, i+1)
		switch mod := got[1]; {
		case listed[mod]:
			out = append(out, finding{at, mod + " is listed twice"})
		case used[mod] == "":
			out = append(out, finding{at, mod + " is not a direct dependency any more: take the line out"})
		case len(got[2]) < 20:
			out = append(out, finding{at, mod + ": that is no reason"})
		}
		listed[got[1]] = true
	}
	for mod, where := range used {
		if !listed[mod] {
			out = append(out, finding{list.path, fmt.Sprintf("%s (%s) has no line: - `%s`: why this one and not another", mod, where, mod)})
		}
	}
	return out
}
