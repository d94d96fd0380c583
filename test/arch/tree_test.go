package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "karve"

// file is one text file of the checkout. syntax is nil for what is not Go.
type file struct {
	path   string // from the root, with slashes
	text   string
	syntax *ast.File
}

func (f *file) dir() string     { return path.Dir(f.path) }
func (f *file) isTest() bool    { return strings.HasSuffix(f.path, "_test.go") }
func (f *file) generated() bool { return strings.HasSuffix(f.path, "_gen.go") }

// forTests says whether the file is part of no program: a test, or a package that only tests import.
func (f *file) forTests() bool {
	return f.isTest() || f.path == "test" || strings.HasPrefix(f.path, "test/") || testPackage(f.dir())
}

// testPackage knows packages for tests by their name: storetest, enginetest, testnet …
func testPackage(dir string) bool {
	name := path.Base(dir)
	return len(name) > 4 && (strings.HasSuffix(name, "test") || strings.HasPrefix(name, "test"))
}

// tree is the checkout: its text files, the Go ones parsed.
type tree struct {
	fset  *token.FileSet
	files []*file
}

func (t *tree) line(n ast.Node) int { return t.fset.Position(n.Pos()).Line }

// code yields the Go files of the main module that pass keep.
func (t *tree) code(keep func(*file) bool) []*file {
	var out []*file
	for _, f := range t.files {
		if f.syntax != nil && keep(f) {
			out = append(out, f)
		}
	}
	return out
}

func all(*file) bool        { return true }
func program(f *file) bool  { return !f.forTests() }
func handmade(f *file) bool { return !f.isTest() && !f.generated() }
func isLibrary(f *file) bool {
	return program(f) && f.syntax.Name.Name != "main" && !under(f.path, "examples")
}

// packages groups the Go files that pass keep by folder.
func (t *tree) packages(keep func(*file) bool) map[string][]*file {
	out := map[string][]*file{}
	for _, f := range t.code(keep) {
		out[f.dir()] = append(out[f.dir()], f)
	}
	return out
}

// under says whether a path is a folder or lies in it.
func under(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

// textNames are the files without one of textSuffixes that are read too.
var textNames = []string{"Makefile", "LICENSE", ".gitignore", "go.mod", "run"}

var textSuffixes = []string{".go", ".md", ".sh", ".yaml", ".yml", ".json", ".conf", ".toml", ".mod", ".service", ".nft", ".txt"}

func isText(name string) bool {
	return slices.Contains(textNames, name) || slices.Contains(textSuffixes, path.Ext(name))
}

// root finds the folder of go.mod.
func root(tb testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			tb.Fatal("no go.mod above the test")
		}
		dir = up
	}
}

// read parses the checkout once for all tests.
var read = sync.OnceValues(func() (*tree, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return readTree(filepath.Dir(filepath.Dir(dir)))
})

func checkout(tb testing.TB) *tree {
	t, err := read()
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func readTree(dir string) (*tree, error) {
	texts := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if d.IsDir() {
			// The go tool does not look into these either.
			if n := d.Name(); rel == "bin" || n == "vendor" || n == "testdata" || n[0] == '_' || n[0] == '.' && rel != "." && rel != ".ci" {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !isText(d.Name()) {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		texts[filepath.ToSlash(rel)] = string(b)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return plant(texts)
}

// plant makes a tree of texts by path.
func plant(texts map[string]string) (*tree, error) {
	t := &tree{fset: token.NewFileSet()}
	for p, text := range texts {
		f := &file{path: p, text: text}
		if strings.HasSuffix(p, ".go") {
			mode := parser.ParseComments
			if f.generated() {
				mode |= parser.ImportsOnly
			}
			syntax, err := parser.ParseFile(t.fset, p, text, mode)
			if err != nil {
				return nil, err
			}
			f.syntax = syntax
		}
		t.files = append(t.files, f)
	}
	slices.SortFunc(t.files, func(a, b *file) int { return strings.Compare(a.path, b.path) })
	return t, nil
}

// imports returns the paths a file imports, with their nodes.
func imports(f *file) map[string]*ast.ImportSpec {
	out := map[string]*ast.ImportSpec{}
	for _, s := range f.syntax.Imports {
		out[strings.Trim(s.Path.Value, `"`)] = s
	}
	return out
}

// own returns the folder of an import of this module, "" for others.
func own(imp string) string {
	if rest, ok := strings.CutPrefix(imp, module+"/"); ok {
		return rest
	}
	return ""
}
