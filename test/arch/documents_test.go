package arch

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// hard are the packages whose comment is not enough.
var hard = []string{"store", "engine", "kubelet/podworker", "network/proxy", "scheduler"}

const maxDesignLines = 150

// maxRecordLines is a page.
const maxRecordLines = 60

// mention is a path of ours in a document: `store/commit.go`, `docs/map.md`, `controller/deployment/`.
var mention = regexp.MustCompile("`([a-z.][-A-Za-z0-9_.]*(?:/[-A-Za-z0-9_.]+)*/?)`")

// made are files that are named in documents and made by make or by running karve, or that a reader is to write.
var made = regexp.MustCompile(`^(bin|engine/runtime/bin)(/|$)`)

// declared is a file with something that is declared in it: `store/commit.go` (`Store.Commit` …
var declared = regexp.MustCompile("`([-a-z0-9_./]+\\.go)`[ \n]+\\(`([A-Za-z.]+)`")

// target is a target of the Makefile that a reader is told to make.
var target = regexp.MustCompile("`(?:sudo )?make ([a-z]+)")

func documentRules() []rule {
	return []rule{
		{
			name: "documents name what is there", where: "Documents",
			why:   "a document that sends its reader to a file that was moved is worse than none",
			check: checkMentions,
			bait: map[string]string{
				"docs/map.md":     "See `store/commit.go` and `store/`.\nSee `store/gone.go`.\nNot a path: `kubectl`, `a/b`, `v1.Pod`, `controller/NAME/plan.go`.\nIn `store/commit.go` (`Store.Commit`),\nand `store.Nope` in `store/commit.go`\n(`Gone` and more).\n",
				"store/commit.go": "package store\ntype Store struct{}\nfunc (s *Store) Commit() {}\n",
			},
			caught: []string{"docs/map.md:2", "docs/map.md:5"},
		},
		{
			name: "documents name targets that are there", where: "Documents",
			why: "what a reader is told to type has to work",
			check: func(t *tree) []finding {
				mk := t.find("Makefile")
				if mk == nil {
					return nil
				}
				var out []finding
				for _, f := range t.files {
					if path.Ext(f.path) != ".md" {
						continue
					}
					for i, l := range strings.Split(f.text, "\n") {
						for _, m := range target.FindAllStringSubmatch(l, -1) {
							if !strings.Contains("\n"+mk.text, "\n"+m[1]+":") {
								out = append(out, finding{t.at(f, i+1), "make " + m[1] + ": the Makefile has no such target"})
							}
						}
					}
				}
				return out
			},
			bait:   map[string]string{"Makefile": "build:\n\tgo build\n", "README.md": "`make build`, `sudo make gone`.\nto make more\n"},
			caught: []string{"README.md:1"},
		},
		{
			name: "hard packages explain themselves", where: "Documents",
			why: "where the comment of a package is not enough, a DESIGN.md of at most a few pages says purpose, flow and why not otherwise",
			check: func(t *tree) []finding {
				var out []finding
				for _, dir := range hard {
					if t.find("go.mod") != nil && t.find(dir+"/DESIGN.md") == nil {
						out = append(out, finding{dir, "has no DESIGN.md"})
					}
				}
				for _, f := range t.files {
					if n := strings.Count(f.text, "\n"); path.Base(f.path) == "DESIGN.md" && n > maxDesignLines {
						out = append(out, finding{f.path, fmt.Sprintf("%d lines, the limit is %d", n, maxDesignLines)})
					}
				}
				return out
			},
			bait: func() map[string]string {
				m := map[string]string{"go.mod": "module karve\n", "pki/DESIGN.md": strings.Repeat("\n", maxDesignLines+1)}
				for _, dir := range hard[1:] {
					m[dir+"/DESIGN.md"] = "# d\n"
				}
				return m
			}(),
			caught: []string{hard[0], "pki/DESIGN.md"},
		},
		{
			name: "decisions are recorded in one form", where: "Documents",
			why:   "context, decision, consequences, on a page: what a later reader needs before changing it",
			check: checkRecords,
			bait: map[string]string{
				"docs/adr/0001-a.md": "# 1. A\n\n## Context\n\n## Decision\n\n## Consequences\n",
				"docs/adr/0003-b.md": "# 3. B\n\n## Context\n\n## Decision\n",
				"docs/adr/other.md":  "# O\n",
			},
			caught: []string{"docs/adr/0003-b.md", "docs/adr/0003-b.md", "docs/adr/other.md"},
		},
	}
}

func checkMentions(t *tree) []finding {
	there, tops := map[string]bool{}, map[string]bool{}
	for _, f := range t.files {
		there[f.path] = true
		for d := f.dir(); d != "."; d = path.Dir(d) {
			there[d] = true
		}
		if i := strings.IndexByte(f.path, '/'); i > 0 {
			tops[f.path[:i]] = true
		}
	}
	var out []finding
	for _, f := range t.files {
		if path.Ext(f.path) != ".md" || !under(f.path, "docs") && f.path != "README.md" && f.path != "CONTRIBUTING.md" {
			continue
		}
		for i, l := range strings.Split(f.text, "\n") {
			for _, m := range mention.FindAllStringSubmatch(l, -1) {
				p := strings.TrimSuffix(m[1], "/")
				top, _, deep := strings.Cut(p, "/")
				// Only what begins with a folder of ours is a path; a word in capitals stands for any name.
				if !deep || !tops[top] || there[p] || made.MatchString(p) || strings.Contains(p, "/NAME") || strings.Contains(p, "/NNNN") {
					continue
				}
				out = append(out, finding{t.at(f, i+1), p + " is not there"})
			}
		}
		for _, m := range declared.FindAllStringSubmatchIndex(f.text, -1) {
			in, name := t.find(f.text[m[2]:m[3]]), f.text[m[4]:m[5]]
			name = name[strings.LastIndexByte(name, '.')+1:]
			if in != nil && !declares(in.text, name) {
				out = append(out, finding{t.at(f, 1+strings.Count(f.text[:m[2]], "\n")), in.path + " declares no " + name})
			}
		}
	}
	return out
}

// declares says whether a function, method or type of that name stands in a Go text.
func declares(text, name string) bool {
	return regexp.MustCompile(`(?m)^(func (\([^)]*\) )?|type )` + regexp.QuoteMeta(name) + `\b`).MatchString(text)
}

var recordName = regexp.MustCompile(`^docs/adr/(\d{4})-[a-z0-9-]+\.md$`)

func checkRecords(t *tree) []finding {
	var out []finding
	next := 1
	for _, f := range t.files {
		if f.dir() != "docs/adr" || path.Base(f.path) == "README.md" {
			continue
		}
		m := recordName.FindStringSubmatch(f.path)
		if m == nil {
			out = append(out, finding{f.path, "is not named NNNN-title.md"})
			continue
		}
		if want := fmt.Sprintf("%04d", next); m[1] != want {
			out = append(out, finding{f.path, "the next number is " + want})
		}
		next++
		at := 0
		for _, h := range []string{"\n## Context\n", "\n## Decision\n", "\n## Consequences\n"} {
			i := strings.Index(f.text[at:], h)
			if i < 0 {
				out = append(out, finding{f.path, "has no section" + strings.ReplaceAll(h, "\n", " ") + "in its place"})
				break
			}
			at += i
		}
		if n := strings.Count(f.text, "\n"); n > maxRecordLines {
			out = append(out, finding{f.path, fmt.Sprintf("%d lines are more than a page (%d)", n, maxRecordLines)})
		}
	}
	return out
}
