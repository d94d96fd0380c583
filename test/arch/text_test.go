package arch

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The words and places that a text must not hold are put together here, so that this file does not hold them itself.
var (
	unfinished = regexp.MustCompile(`\b(` + strings.Join([]string{"TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"}, "|") + `)\b`)
	// machine are places of somebody's machine: a work folder, a home, a scratch folder.
	machine = regexp.MustCompile(`(^|[\s"'` + "`" + `(=:])(` + strings.Join([]string{"/wo" + "rk/", "/ho" + "me/", "/ro" + "ot/", "/Us" + "ers/", "/t" + "mp/"}, "|") + `)`)
	// beside is the folder next to the checkout, which a fresh clone does not have.
	beside = regexp.MustCompile(`\.\./sha` + `red\b`)
)

func textRules() []rule {
	return []rule{
		{
			name: "nothing unfinished is merged", where: "Unfinished work",
			why: "a note in the code is read by nobody who could act on it: do it, or write an issue, or say what is not done in docs/differences.md",
			check: lines(func(f *file) bool { return true }, func(l string) string {
				if !strings.Contains(l, "TO"+"DO") && !strings.Contains(l, "FIX") && !strings.Contains(l, "X"+"XX") && !strings.Contains(l, "HA"+"CK") {
					return "" // the expression is slow
				}
				return unfinished.FindString(l)
			}),
			bait: map[string]string{
				"api/a.go":   "package api\n// TO" + "DO: later\n// a mastodon\n",
				"Makefile":   "all:\n\t# FIX" + "ME\n",
				"docs/x.md":  "fine\n",
				"api/b.yaml": "a: mktemp X" + "XXXXX\n",
			},
			caught: []string{"api/a.go:2", "Makefile:2"},
		},
		{
			name: "no path of somebody's machine", where: "Unfinished work",
			why: "the checkout works wherever it is cloned. Scratch folders come from os.MkdirTemp and t.TempDir",
			check: lines(func(f *file) bool { return !f.forTests() }, func(l string) string {
				if strings.IndexByte(l, '/') < 0 {
					return ""
				}
				return strings.TrimSpace(machine.FindString(l))
			}),
			bait: map[string]string{
				"api/a.go":      "package api\nvar p = \"/wo" + "rk/main\"\nvar q = \"/framework/x\"\n",
				"Makefile":      "x:\n\tcp a /t" + "mp/b\n",
				"api/a_test.go": "package api\nvar p = \"/t" + "mp/x\"\n",
			},
			caught: []string{"api/a.go:2", "Makefile:2"},
		},
		{
			name: "the checkout is all there is", where: "Unfinished work",
			why: "nothing beside the checkout may be needed, or an outsider's build and tests differ from ours. A test that compares with recordings skips loudly when they are not there",
			check: lines(func(f *file) bool { return !f.forTests() }, func(l string) string {
				if !strings.Contains(l, "../sha"+"red") {
					return ""
				}
				return beside.FindString(l)
			}),
			bait:   map[string]string{"api/a.go": "package api\n// see ../sha" + "red/spec\n", "api/a_test.go": "package api\n// ../sha" + "red\n"},
			caught: []string{"api/a.go:2"},
		},
		{
			name: "libraries do not print", where: "Errors and logs",
			why: "a library returns, or logs to the *slog.Logger it was given: whoever calls it decides what a person sees, and where",
			check: func(t *tree) []finding {
				var out []finding
				for _, f := range t.code(isLibrary) {
					for _, c := range calls(f, "fmt", "Print", "Printf", "Println") {
						out = append(out, finding{t.at(f, t.line(c)), "prints to the standard output"})
					}
					for _, s := range selections(f, "os") {
						if s.Sel.Name == "Stdout" || s.Sel.Name == "Stderr" {
							out = append(out, finding{t.at(f, t.line(s)), "takes os." + s.Sel.Name + " instead of an io.Writer"})
						}
					}
					ast.Inspect(f.syntax, func(n ast.Node) bool {
						if c, ok := n.(*ast.CallExpr); ok {
							if id, ok := c.Fun.(*ast.Ident); ok && id.Obj == nil && (id.Name == "println" || id.Name == "print") {
								out = append(out, finding{t.at(f, t.line(c)), "calls " + id.Name})
							}
						}
						return true
					})
				}
				return out
			},
			bait: map[string]string{
				"store/a.go": "package store\nimport \"fmt\"\nimport \"os\"\nfunc f() {\n\tfmt.Println(1)\n\tfmt.Fprintln(os.Stderr)\n\t_ = fmt.Sprint(1)\n}\n",
				"cmd/k/m.go": "package main\nimport \"fmt\"\nfunc main() { fmt.Println(1) }\n",
			},
			caught: []string{"store/a.go:5", "store/a.go:6"},
		},
		{
			name: "a panic says what is broken", where: "Errors and logs",
			why:   "panic is for an invariant that the program itself broke, and its text, \"package: what must not be\", is all that whoever finds it has. Everything else is an error",
			check: checkPanics,
			bait: map[string]string{
				"store/a.go":      "package store\nimport \"net/http\"\nimport \"fmt\"\nfunc f(err error, p any) {\n\tpanic(err)\n\tpanic(\"store: no such topic\")\n\tpanic(\"store: \" + err.Error())\n\tpanic(fmt.Sprintf(\"store: %v\", err))\n\tpanic(\"oops\")\n\tpanic(http.ErrAbortHandler)\n}\nfunc g() {\n\tif p := recover(); p != nil {\n\t\tpanic(p)\n\t}\n}\n",
				"store/a_test.go": "package store\nfunc g(err error) { panic(err) }\n",
			},
			caught: []string{"store/a.go:5", "store/a.go:9"},
		},
		{
			name: "errors are wrapped", where: "Errors and logs",
			why:   "%w keeps what callers branch on; a text made of an error's text loses it",
			check: checkWraps,
			bait: map[string]string{
				"store/a.go": "package store\nimport \"fmt\"\nfunc f(err error) {\n\t_ = fmt.Errorf(\"open: %v\", err)\n\t_ = fmt.Errorf(\"open: %w\", err)\n\t_ = fmt.Errorf(\"open %s\", \"x\")\n}\n",
			},
			caught: []string{"store/a.go:4"},
			waived: map[string]string{
				"client/http_watch.go": "an end of file inside a frame must not look like the end of the stream",
			},
		},
	}
}

// lines makes a check of every line of the text files that pass keep: match returns what is wrong, "" for nothing.
func lines(keep func(*file) bool, match func(line string) string) func(*tree) []finding {
	return func(t *tree) []finding {
		var out []finding
		for _, f := range t.files {
			if !keep(f) || f.generated() || path.Base(f.path) == "LICENSE" {
				continue
			}
			for i, l := range strings.Split(f.text, "\n") {
				if what := match(l); what != "" {
					out = append(out, finding{t.at(f, i+1), what})
				}
			}
		}
		return out
	}
}

func checkPanics(t *tree) []finding {
	var out []finding
	for _, f := range t.code(program) {
		recovered := recoveredNames(f)
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok || len(c.Args) != 1 {
				return true
			}
			if id, ok := c.Fun.(*ast.Ident); !ok || id.Name != "panic" || id.Obj != nil {
				return true
			}
			switch a := c.Args[0].(type) {
			case *ast.SelectorExpr:
				if a.Sel.Name == "ErrAbortHandler" {
					return true
				}
			case *ast.Ident:
				if a.Obj != nil && recovered[a.Obj] {
					return true // hands on what it cannot judge
				}
			}
			if text := firstLiteral(c.Args[0]); !strings.Contains(text, ": ") {
				out = append(out, finding{t.at(f, t.line(c)), fmt.Sprintf(`the text is %q, not "%s: what must not be"`, text, f.syntax.Name.Name)})
			}
			return true
		})
	}
	return out
}

// recoveredNames are the variables that hold what recover returned.
func recoveredNames(f *file) map[*ast.Object]bool {
	out := map[*ast.Object]bool{}
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if a, ok := n.(*ast.AssignStmt); ok && len(a.Lhs) == 1 && len(a.Rhs) == 1 {
			c, isCall := a.Rhs[0].(*ast.CallExpr)
			id, isName := a.Lhs[0].(*ast.Ident)
			if isCall && isName {
				if fn, ok := c.Fun.(*ast.Ident); ok && fn.Name == "recover" {
					out[id.Obj] = true
				}
			}
		}
		return true
	})
	return out
}

// firstLiteral finds the text that an expression begins with: "a", "a" + b, Sprintf("a", b).
func firstLiteral(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.BasicLit:
		return literal(x)
	case *ast.BinaryExpr:
		return firstLiteral(x.X)
	case *ast.CallExpr:
		if len(x.Args) > 0 {
			return firstLiteral(x.Args[0])
		}
	}
	return ""
}

// checkWraps looks for an argument named err, or ending in Err, in an Errorf without %w.
func checkWraps(t *tree) []finding {
	var out []finding
	for _, f := range t.code(func(f *file) bool { return program(f) && !under(f.path, "examples") }) {
		for _, c := range calls(f, "fmt", "Errorf") {
			format := firstLiteral(c.Args[0])
			if format == "" || strings.Contains(format, "%w") {
				continue
			}
			if slices.ContainsFunc(c.Args[1:], func(a ast.Expr) bool {
				id, ok := a.(*ast.Ident)
				return ok && (id.Name == "err" || strings.HasSuffix(id.Name, "Err"))
			}) {
				out = append(out, finding{t.at(f, t.line(c)), "an error without %w"})
			}
		}
	}
	return out
}
