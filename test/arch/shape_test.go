package arch

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

// The limits. They are hard: files aim at 100–300 lines and interfaces at 1–5 methods.
const (
	maxFileLines    = 1000
	maxFuncLines    = 120
	maxMethods      = 10
	maxPackageFiles = 30
)

// grandfathered interfaces may keep more methods than maxMethods, and how many. The list only shrinks.
var grandfathered = map[string]int{}

// nameless are package names that say nothing about what is inside.
var nameless = []string{"util", "utils", "common", "helper", "helpers", "manager", "managers", "types", "base", "internal", "pkg", "misc", "shared", "lib", "core"}

func shapeRules() []rule {
	return []rule{
		{
			name: "every package says what it is", where: "Packages",
			why:   "the comment is the map: what the package is, who calls it, what it owns, what it is not. Whoever opens a folder reads it first",
			check: checkPackageComments,
			bait: map[string]string{
				"kubelet/evict/a.go": "// Package evict ends pods when the node runs short: the kubelet calls it once a minute. It owns nothing.\npackage evict\n",
				"kubelet/evict/b.go": "package evict\n",
				"store/a.go":         "package store\n",
				"pki/a.go":           "// Package pki is good and says a lot about itself: who calls it, and what it owns and what not.\npackage pki\n",
				"pki/b.go":           "// Package pki is good and says a lot about itself: who calls it, and what it owns and what not.\npackage pki\n",
				"client/a.go":        "// Package client: client.\npackage client\n",
				"config/a.go":        "// The config of everything, which somebody reads and somebody else writes, and which is here.\npackage config\n",
			},
			caught: []string{"store", "pki", "client/a.go:1", "config/a.go:1"},
		},
		{
			name: "no file is too long", where: "Sizes",
			why: "a file that nobody reads to its end hides what is in it: cut it along what it does",
			check: func(t *tree) []finding {
				var out []finding
				for _, f := range t.code(func(f *file) bool { return !f.generated() }) {
					if n := strings.Count(f.text, "\n"); n > maxFileLines {
						out = append(out, finding{f.path, fmt.Sprintf("%d lines, the limit is %d", n, maxFileLines)})
					}
				}
				return out
			},
			bait: map[string]string{
				"api/long.go":     "package api\n" + strings.Repeat("//\n", maxFileLines),
				"api/long_gen.go": "package api\n" + strings.Repeat("//\n", maxFileLines),
				"api/fits.go":     "package api\n" + strings.Repeat("//\n", maxFileLines-1),
			},
			caught: []string{"api/long.go"},
		},
		{
			name: "no function is too long", where: "Sizes",
			why: "a function that fits on two screens can be held in the head; name the parts of a longer one. Tests are exempt",
			check: func(t *tree) []finding {
				var out []finding
				for _, f := range t.code(handmade) {
					for _, d := range f.syntax.Decls {
						fn, ok := d.(*ast.FuncDecl)
						if !ok {
							continue
						}
						if n := t.fset.Position(fn.End()).Line - t.line(fn) + 1; n > maxFuncLines {
							out = append(out, finding{t.at(f, t.line(fn)), fmt.Sprintf("%s has %d lines, the limit is %d", fn.Name.Name, n, maxFuncLines)})
						}
					}
				}
				return out
			},
			bait: map[string]string{
				"api/a.go": "package api\nfunc f() {\n" + strings.Repeat("\n", maxFuncLines) + "}\nfunc g() {\n" + strings.Repeat("\n", maxFuncLines-2) + "}\n",
			},
			caught: []string{"api/a.go:2"},
		},
		{
			name: "interfaces are small", where: "Sizes",
			why:   "an interface is what one caller needs, declared by that caller; a large one is a second name for an implementation",
			check: checkInterfaces,
			bait: map[string]string{
				"kubelet/a.go": "package kubelet\ntype Small interface{ A(); B() }\ntype Large interface {\n" + methods(maxMethods+1) + "}\n",
			},
			caught: []string{"kubelet/a.go:3"},
		},
		{
			name: "packages are small", where: "Sizes",
			why: "a folder is read as a whole; what has become two things deserves two names",
			check: func(t *tree) []finding {
				var out []finding
				for dir, files := range t.packages(handmade) {
					if len(files) > maxPackageFiles {
						out = append(out, finding{dir, fmt.Sprintf("%d files, the limit is %d", len(files), maxPackageFiles)})
					}
				}
				return out
			},
			bait: func() map[string]string {
				m := map[string]string{"api/a.go": "package api\n"}
				for i := range maxPackageFiles + 1 {
					m[fmt.Sprintf("store/f%d.go", i)] = "package store\n"
				}
				return m
			}(),
			caught: []string{"store"},
		},
		{
			name: "folders are named by what is in them", where: "Packages",
			why: "util, common, helpers, types and their like tell nobody what to look for there, so everything ends up there",
			check: func(t *tree) []finding {
				var out []finding
				for dir, files := range t.packages(all) {
					for _, part := range strings.Split(dir, "/") {
						if slices.Contains(nameless, part) {
							out = append(out, finding{dir, part + " names no thing"})
						}
					}
					name := strings.TrimSuffix(files[0].syntax.Name.Name, "_test")
					if name != "main" && name != path.Base(dir) && dir != "." {
						out = append(out, finding{dir, fmt.Sprintf("holds package %s: the folder and the package have one name", name)})
					}
				}
				return out
			},
			bait: map[string]string{
				"kubelet/util/a.go": "package util\n", "store/a.go": "package store\n", "pki/a.go": "package certs\n", "cmd/x/a.go": "package main\n",
			},
			caught: []string{"kubelet/util", "pki"},
		},
		{
			name: "generated files say so", where: "Generated code",
			why: "nobody must mend by hand what the next `make gen` overwrites, and nothing generated hides under another name",
			check: func(t *tree) []finding {
				var out []finding
				for _, f := range t.code(all) {
					switch marked := ast.IsGenerated(f.syntax); {
					case f.generated() && !marked:
						out = append(out, finding{f.path, `is named _gen.go but has no line "// Code generated … DO NOT EDIT." before its package clause`})
					case marked && !f.generated() && !f.isTest():
						out = append(out, finding{f.path, "is generated but not named *_gen.go"})
					}
				}
				return out
			},
			bait: map[string]string{
				"api/a_gen.go": "package api\n",
				"api/b.go":     "// Code generated by x. DO NOT EDIT.\n\npackage api\n",
				"api/c_gen.go": "// Code generated by x. DO NOT EDIT.\n\npackage api\n",
			},
			caught: []string{"api/a_gen.go", "api/b.go"},
		},
	}
}

func methods(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\tM%d()\n", i)
	}
	return b.String()
}

// minComment is the length in characters below which a package comment cannot say what the package is, who calls it and
// what it owns.
const minComment = 60

func checkPackageComments(t *tree) []finding {
	var out []finding
	for dir, files := range t.packages(func(f *file) bool { return !f.isTest() }) {
		var with []*file
		for _, f := range files {
			if f.syntax.Doc != nil && f.syntax.Doc.Text() != "" && !f.generated() {
				with = append(with, f)
			}
		}
		if len(with) == 0 {
			out = append(out, finding{dir, "no file has a package comment"})
			continue
		}
		if len(with) > 1 {
			var names []string
			for _, f := range with {
				names = append(names, path.Base(f.path))
			}
			out = append(out, finding{dir, "one file holds the package comment, not " + strings.Join(names, ", ")})
			continue
		}
		f, doc := with[0], with[0].syntax.Doc.Text()
		want := "Package " + f.syntax.Name.Name + " "
		if f.syntax.Name.Name == "main" {
			want = "Command " + path.Base(dir) + " "
		}
		at := t.at(f, t.line(f.syntax.Doc))
		switch {
		case !strings.HasPrefix(doc, want):
			out = append(out, finding{at, fmt.Sprintf("the package comment begins with %q", want)})
		case len(doc) < minComment:
			out = append(out, finding{at, "the package comment says next to nothing: what is it, who calls it, what does it own, what is it not?"})
		}
	}
	return out
}

func checkInterfaces(t *tree) []finding {
	var out []finding
	for _, f := range t.code(handmade) {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			it, ok := spec.Type.(*ast.InterfaceType)
			if !ok {
				return true
			}
			count := 0
			for _, m := range it.Methods.List {
				count += max(1, len(m.Names))
			}
			limit := maxMethods
			if g, ok := grandfathered[f.dir()+"."+spec.Name.Name]; ok {
				limit = g
			}
			if count > limit {
				out = append(out, finding{t.at(f, t.line(spec)), fmt.Sprintf("%s has %d methods, the limit is %d", spec.Name.Name, count, limit)})
			}
			return true
		})
	}
	return out
}
