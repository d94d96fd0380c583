package schema

import (
	_ "embed"
	"fmt"
	"sort"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"karve/api/schema/merge"
)

//go:embed merge_gen.jsonl
var table string

// Types turns objects of the built-in kinds into values that can be merged field by field, and back. It reads the schema of
// a kind when the first object of it comes and keeps it; what kinds share (a pod template, metadata) it keeps once. Safe
// for concurrent use.
type Types struct {
	mu     sync.Mutex
	kinds  map[schema.GroupVersionKind]*typed.ParseableType
	shared map[string]*entry
}

type entry struct {
	def  smd.TypeDef
	refs []string
}

// NewTypes returns an empty set; making one costs nothing.
func NewTypes() *Types {
	return &Types{kinds: map[schema.GroupVersionKind]*typed.ParseableType{}, shared: map[string]*entry{}}
}

// ObjectToTyped returns o, a Go struct or unstructured, as a typed value. The error of an object that does not fit its
// schema names the fields; the one of an unknown kind is the library's.
func (t *Types) ObjectToTyped(o runtime.Object, opts ...typed.ValidationOptions) (*typed.TypedValue, error) {
	p, err := t.Of(o.GetObjectKind().GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if p == nil {
		return unknown(o)
	}
	if u, ok := o.(*unstructured.Unstructured); ok {
		return p.FromUnstructured(u.UnstructuredContent(), opts...)
	}
	return p.FromStructured(o, opts...)
}

// TypedToObject returns the value as an unstructured object.
func (t *Types) TypedToObject(v *typed.TypedValue) (runtime.Object, error) {
	content, ok := v.AsValue().Unstructured().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("convert typed value: %T is not an object", v.AsValue().Unstructured())
	}
	return &unstructured.Unstructured{Object: content}, nil
}

// unknown returns the library's own error for a kind without a schema: it tells that one from the others, and exports no
// way to make it but to ask.
func unknown(o runtime.Object) (*typed.TypedValue, error) {
	none, err := managedfields.NewTypeConverter(nil, false)
	if err != nil {
		return nil, fmt.Errorf("make empty type converter: %w", err)
	}
	return none.ObjectToTyped(o)
}

// Of returns the type of a kind, nil when there is none. It is shared: read only.
func (t *Types) Of(gvk schema.GroupVersionKind) (*typed.ParseableType, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.kinds[gvk]; p != nil {
		return p, nil
	}
	name := Name(gvk)
	if name == "" {
		return nil, nil
	}
	defs := map[string]smd.TypeDef{}
	if err := t.collect(name, defs); err != nil {
		return nil, fmt.Errorf("read merge schema of %s: %w", gvk.Kind, err)
	}
	// The library compares types by name and by the schema they are in, so that each kind has a schema of its own, made of
	// shared parts.
	s := &smd.Schema{Types: make([]smd.TypeDef, 0, len(defs))}
	for _, d := range defs {
		s.Types = append(s.Types, d)
	}
	p := &typed.ParseableType{Schema: s, TypeRef: smd.TypeRef{NamedType: &name}}
	t.kinds[gvk] = p
	return p, nil
}

// collect adds the named type and all it refers to.
func (t *Types) collect(name string, into map[string]smd.TypeDef) error {
	if _, ok := into[name]; ok {
		return nil
	}
	e := t.shared[name]
	if e == nil {
		line, ok := lookup(name)
		if !ok {
			return fmt.Errorf("find %s: not generated", name)
		}
		atom, refs, err := merge.Decode([]byte(line))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		e = &entry{def: smd.TypeDef{Name: name, Atom: atom}, refs: refs}
		t.shared[name] = e
	}
	into[name] = e.def
	for _, r := range e.refs {
		if err := t.collect(r, into); err != nil {
			return err
		}
	}
	return nil
}

// lookup finds a type's line in the table, which is sorted by name, without splitting the table up.
func lookup(name string) (string, bool) {
	start := func(i int) int { return strings.LastIndexByte(table[:i], '\n') + 1 }
	// The first position whose line's name is not below name is where that line begins.
	i := sort.Search(len(table), func(i int) bool {
		n, _, _ := strings.Cut(table[start(i):], "\t")
		return n >= name
	})
	if i == len(table) {
		return "", false
	}
	i = start(i)
	line, _, _ := strings.Cut(table[i:], "\n")
	n, rest, _ := strings.Cut(line, "\t")
	return rest, n == name
}
