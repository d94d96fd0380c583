package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// pure lists the files whose functions depend on their arguments alone, as patterns of path.Match. A folder ends in "/*.go".
var pure = []string{
	"api/*.go", "api/convert/*.go", "api/defaults/*.go", "api/fields/*.go", "api/printcolumns/*.go", "api/strategy/*.go", "api/validation/*.go",
	"apiserver/advice/*.go", "apiserver/authz/policy.go", "apiserver/authz/rules.go", "apiserver/authz/selector.go", "apiserver/fairness/match/*.go", "apiserver/fairness/queue/*.go", "apiserver/patch/*.go", "apiserver/request/*.go",
	"config/config.go",
	"controller/*/plan.go", "controller/deployment/sets.go", "controller/deployment/status.go", "controller/garbagecollector/graph.go", "controller/history/history.go",
	"controller/pods/pods.go",
	"engine/container/capability.go", "engine/container/mounts.go", "engine/container/seccomp.go", "engine/image/reference.go",
	"kubelet/criconfig/*.go", "kubelet/podworker/*.go",
	"network/dns/message.go", "network/dns/zone.go", "network/proxy/layout.go", "network/proxy/ledger.go", "network/proxy/model.go",
	"scheduler/explain/*.go", "scheduler/filter/*.go", "scheduler/score/*.go", "scheduler/snapshot/*.go",
	"store/log.go", "store/view.go",
}

// impure are packages that nothing pure imports.
var impure = []string{"os", "os/exec", "os/signal", "syscall", "crypto/rand", "log", "log/slog"}

// mixed are packages of which pure code uses types, constants and the functions named, and no other function.
var mixed = map[string][]string{
	"net":                               {"ParseIP", "ParseCIDR", "ParseMAC", "JoinHostPort", "SplitHostPort", "IPv4", "CIDRMask", "IP", "IPMask"},
	"net/http":                          {"StatusText", "CanonicalHeaderKey"},
	"golang.org/x/sys/unix":             {},
	"math/rand":                         {},
	"math/rand/v2":                      {"New", "NewPCG"}, // a source with a seed is an argument
	"k8s.io/apimachinery/pkg/util/rand": {"SafeEncodeString"},
	"karve/client":                      {"Key", "Revision"},
}

// clocks are the functions of package time that read one.
var clocks = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"}

func isPure(f *file) bool {
	return !f.isTest() && slices.ContainsFunc(pure, func(p string) bool { ok, _ := path.Match(p, f.path); return ok })
}

func pureRules() []rule {
	return []rule{
		{
			name: "the core is pure", where: "Core and shell",
			why:   "what decides is a function of its arguments: it is tested by tables, replayed and understood without clock, goroutine or kernel. Time is a parameter; reading and writing belong into the shell around it",
			check: checkPure,
			bait: map[string]string{
				"controller/job/plan.go":          "package job\nimport \"time\"\nimport \"os\"\nvar _ = os.Args\nfunc f(now time.Time) bool { return time.Now().After(now) }\nfunc g() {\n\tgo f(time.Time{})\n}\n",
				"controller/job/job.go":           "package job\nimport \"time\"\nfunc h() { time.Now() }\n",
				"kubelet/podworker/step.go":       "package podworker\nimport \"time\"\nfunc s(now time.Time, d time.Duration) time.Time { return now.Add(d) }\n",
				"network/proxy/model.go":          "package proxy\nimport \"net\"\nvar _ net.IP = net.ParseIP(\"::\")\nfunc l() { net.LookupHost(\"x\") }\n",
				"scheduler/filter/x_test.go":      "package filter\nimport \"time\"\nvar _ = time.Now\n",
				"scheduler/filter/ports.go":       "package filter\nimport wall \"time\"\nvar _ = wall.Since\n",
				"controller/deployment/status.go": "package deployment\nfunc p(c chan int) {\n\tselect {\n\tcase <-c:\n\t}\n}\n",
			},
			caught: []string{"controller/job/plan.go:3", "controller/job/plan.go:5", "controller/job/plan.go:7", "network/proxy/model.go:4", "scheduler/filter/ports.go:3", "controller/deployment/status.go:3"},
		},
		{
			name: "no package keeps state", where: "Core and shell",
			why:   "two clusters in one process, or two tests at once, must not meet in a variable of a package; state lives in a value that somebody owns. Tables that never change, errors and values made on first use (sync.Once…) are fine",
			check: checkGlobals,
			bait: map[string]string{
				"store/a.go": "package store\nimport \"sync\"\nvar mu sync.Mutex\nvar n int\nvar table = map[string]int{\"a\": 1}\nvar seen = map[string]bool{}\nvar once = sync.OnceValue(func() int { return 1 })\nvar queue = make(chan int)\nfunc f() {\n\tn++\n\tseen[\"x\"] = true\n\tm := table[\"a\"]\n\tm++\n}\n",
				"store/b.go": "package store\nfunc g() {\n\tn = 3\n}\nfunc h(n int) int {\n\tn = 4\n\treturn n\n}\n",
			},
			caught: []string{"store/a.go:3", "store/a.go:8", "store/a.go:10", "store/a.go:11", "store/b.go:3"},
		},
		{
			name: "a context comes from the caller", where: "Core and shell",
			why: "what starts with context.Background cannot be stopped by whoever stops the program. The program itself and tests make one; work that has to outlive its caller takes context.WithoutCancel",
			check: func(t *tree) []finding {
				var out []finding
				for _, f := range t.code(isLibrary) {
					for _, c := range calls(f, "context", "Background", "TO"+"DO") {
						out = append(out, finding{t.at(f, t.line(c)), "takes no context from its caller"})
					}
				}
				return out
			},
			bait: map[string]string{
				"store/a.go":      "package store\nimport \"context\"\nvar _ = context.Canceled\nfunc f() { _ = context.Background() }\n",
				"store/a_test.go": "package store\nimport \"context\"\nfunc g() { _ = context.Background() }\n",
				"cmd/k/m.go":      "package main\nimport \"context\"\nfunc main() { _ = context.Background() }\n",
			},
			caught: []string{"store/a.go:4"},
			waived: map[string]string{
				"api/validation/admission.go": "the validator of custom resource definitions asks for a context and never waits; validation is pure and has none",
			},
		},
	}
}

func checkPure(t *tree) []finding {
	var out []finding
	for _, f := range t.code(isPure) {
		for imp, spec := range imports(f) {
			if slices.Contains(impure, imp) {
				out = append(out, finding{t.at(f, t.line(spec)), "imports " + imp})
			}
		}
		for pkg, allowed := range mixed {
			for _, s := range called(f, pkg) {
				if !slices.Contains(allowed, s.Sel.Name) {
					out = append(out, finding{t.at(f, t.line(s)), "calls " + pkg + "." + s.Sel.Name})
				}
			}
		}
		for _, s := range selections(f, "time") {
			if slices.Contains(clocks, s.Sel.Name) {
				out = append(out, finding{t.at(f, t.line(s)), "reads the clock: time." + s.Sel.Name})
			}
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt:
				out = append(out, finding{t.at(f, t.line(n)), "starts a goroutine"})
			case *ast.SelectStmt, *ast.SendStmt:
				out = append(out, finding{t.at(f, t.line(n)), "waits for a channel"})
			}
			return true
		})
	}
	return out
}

// TestPureFilesExist keeps the list true: a pattern that matches nothing guards nothing.
func TestPureFilesExist(t *testing.T) {
	tr := checkout(t)
	for _, p := range pure {
		if !slices.ContainsFunc(tr.files, func(f *file) bool { ok, err := path.Match(p, f.path); return ok && err == nil }) {
			t.Errorf("%s matches no file: correct the list in test/arch/pure_test.go", p)
		}
	}
}

// checkGlobals looks for package variables that can hold state (locks, channels, atomics) and for assignments to others.
func checkGlobals(t *tree) []finding {
	var out []finding
	for _, files := range t.packages(func(f *file) bool { return program(f) && !f.generated() }) {
		vars := map[string]bool{}
		for _, f := range files {
			for _, d := range f.syntax.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, s := range g.Specs {
					spec := s.(*ast.ValueSpec)
					for _, n := range spec.Names {
						vars[n.Name] = n.Name != "_"
					}
					if what := holdsState(spec); what != "" {
						out = append(out, finding{t.at(f, t.line(spec)), spec.Names[0].Name + " is a " + what})
					}
				}
			}
		}
		for _, f := range files {
			for _, d := range f.syntax.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil && !(fn.Recv == nil && fn.Name.Name == "init") {
					out = append(out, assignments(t, f, fn, vars)...)
				}
			}
		}
	}
	return out
}

func holdsState(spec *ast.ValueSpec) string {
	exprs := slices.Clone(spec.Values)
	if spec.Type != nil {
		exprs = append(exprs, spec.Type)
	}
	for _, e := range exprs {
		switch x := e.(type) {
		case *ast.CompositeLit:
			e = x.Type
		case *ast.UnaryExpr:
			if l, ok := x.X.(*ast.CompositeLit); ok {
				e = l.Type
			}
		case *ast.CallExpr:
			if id, ok := x.Fun.(*ast.Ident); ok && id.Name == "make" && len(x.Args) > 0 {
				e = x.Args[0]
			}
		}
		if ix, ok := e.(*ast.IndexExpr); ok {
			e = ix.X
		}
		switch x := e.(type) {
		case *ast.ChanType:
			return "channel"
		case *ast.SelectorExpr:
			if id, ok := x.X.(*ast.Ident); ok && (id.Name == "sync" && slices.Contains([]string{"Mutex", "RWMutex", "Map", "WaitGroup", "Cond"}, x.Sel.Name) || id.Name == "atomic") {
				return id.Name + "." + x.Sel.Name
			}
		}
	}
	return ""
}

// assignments finds where a function changes one of vars. A name that a local declaration hides resolves within the file
// and is not meant.
func assignments(t *tree, f *file, fn *ast.FuncDecl, vars map[string]bool) []finding {
	var out []finding
	note := func(e ast.Expr, n ast.Node) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.StarExpr:
				e = x.X
			case *ast.Ident:
				if !vars[x.Name] {
					return
				}
				if x.Obj != nil {
					if spec, ok := x.Obj.Decl.(*ast.ValueSpec); !ok || !topLevel(f, spec) {
						return
					}
				}
				out = append(out, finding{t.at(f, t.line(n)), fmt.Sprintf("%s changes the package's %s", fn.Name.Name, x.Name)})
				return
			default:
				return
			}
		}
	}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		switch s := n.(type) {
		case *ast.AssignStmt:
			if s.Tok != token.DEFINE {
				for _, e := range s.Lhs {
					note(e, s)
				}
			}
		case *ast.IncDecStmt:
			note(s.X, s)
		case *ast.CallExpr:
			if id, ok := s.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(s.Args) > 0 {
				note(s.Args[0], s)
			}
		}
		return true
	})
	return out
}

func topLevel(f *file, spec *ast.ValueSpec) bool {
	for _, d := range f.syntax.Decls {
		if g, ok := d.(*ast.GenDecl); ok && slices.Contains(g.Specs, ast.Spec(spec)) {
			return true
		}
	}
	return false
}

// selections returns where a file uses the package imported as pkg: time.Now and the like.
func selections(f *file, pkg string) []*ast.SelectorExpr {
	spec, ok := imports(f)[pkg]
	if !ok {
		return nil
	}
	name := path.Base(pkg)
	if name == "v2" {
		name = path.Base(path.Dir(pkg))
	}
	if spec.Name != nil {
		name = spec.Name.Name
	}
	var out []*ast.SelectorExpr
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if id, ok := s.X.(*ast.Ident); ok && id.Name == name && id.Obj == nil {
				out = append(out, s)
			}
		}
		return true
	})
	return out
}

// called returns the functions of a package that a file calls.
func called(f *file, pkg string) []*ast.SelectorExpr {
	used := map[ast.Expr]bool{}
	for _, s := range selections(f, pkg) {
		used[s] = true
	}
	if len(used) == 0 {
		return nil
	}
	var out []*ast.SelectorExpr
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok && used[c.Fun] {
			out = append(out, c.Fun.(*ast.SelectorExpr))
		}
		return true
	})
	return out
}

// calls returns the calls of some functions of a package.
func calls(f *file, pkg string, funcs ...string) []*ast.CallExpr {
	meant := map[ast.Expr]bool{}
	for _, s := range selections(f, pkg) {
		meant[s] = slices.Contains(funcs, s.Sel.Name)
	}
	var out []*ast.CallExpr
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok && meant[c.Fun] {
			out = append(out, c)
		}
		return true
	})
	return out
}

// literal returns the text of a string literal, "" for anything else.
func literal(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		return strings.Trim(l.Value, "\"`")
	}
	return ""
}
