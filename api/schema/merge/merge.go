// Package merge is the notation of merge schemas: which lists are sets or maps by key, which structures change as a whole.
// The generator writes it, package schema reads it back into the form that the structured-merge-diff library walks. It
// holds data types only and reads no files.
package merge

import (
	"encoding/json"
	"fmt"
	"sort"

	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// Atom is what a value may be: exactly one of the three for almost every type, more for types that take anything.
type Atom struct {
	Scalar string `json:"s,omitempty"`
	List   *List  `json:"l,omitempty"`
	Map    *Map   `json:"m,omitempty"`
}

// Ref is a named type or one written in place. Override replaces the relation of the named type's elements.
type Ref struct {
	Name     string `json:"n,omitempty"`
	Override string `json:"o,omitempty"`
	Atom
}

// List is a list whose elements merge as Relation says; Keys name the fields that identify an element.
type List struct {
	Relation string   `json:"r,omitempty"`
	Keys     []string `json:"k,omitempty"`
	Element  Ref      `json:"e"`
}

// Map is a structure or a map. Element is the type of what Fields does not name; nil forbids it.
type Map struct {
	Relation string           `json:"r,omitempty"`
	Fields   map[string]Field `json:"f,omitempty"`
	Element  *Ref             `json:"e,omitempty"`
}

// Field is a structure's field. Default matters where the field is part of a list's key.
type Field struct {
	Ref
	Default any `json:"d,omitempty"`
}

// Decode reads one type back. refs are the names of the types it refers to, in no order and perhaps repeated.
func Decode(line []byte) (out smd.Atom, refs []string, err error) {
	var a Atom
	if err := json.Unmarshal(line, &a); err != nil {
		return smd.Atom{}, nil, fmt.Errorf("decode merge schema: %w", err)
	}
	d := decoder{}
	return d.atom(&a), d.refs, nil
}

type decoder struct{ refs []string }

// The scalars are shared: there are only four.
var scalars = map[string]*smd.Scalar{}

func init() {
	for _, s := range []smd.Scalar{smd.Numeric, smd.String, smd.Boolean, smd.Untyped} {
		scalars[string(s)] = &s
	}
}

func (d *decoder) atom(a *Atom) smd.Atom {
	out := smd.Atom{Scalar: scalars[a.Scalar]}
	if a.List != nil {
		out.List = &smd.List{ElementRelationship: smd.ElementRelationship(a.List.Relation), Keys: a.List.Keys, ElementType: d.ref(&a.List.Element)}
	}
	if a.Map != nil {
		out.Map = &smd.Map{ElementRelationship: smd.ElementRelationship(a.Map.Relation)}
		if a.Map.Element != nil {
			out.Map.ElementType = d.ref(a.Map.Element)
		}
		names := make([]string, 0, len(a.Map.Fields))
		for name := range a.Map.Fields {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			f := a.Map.Fields[name]
			out.Map.Fields = append(out.Map.Fields, smd.StructField{Name: name, Type: d.ref(&f.Ref), Default: f.Default})
		}
	}
	return out
}

func (d *decoder) ref(r *Ref) smd.TypeRef {
	out := smd.TypeRef{}
	if r.Name != "" {
		name := r.Name
		out.NamedType = &name
		d.refs = append(d.refs, name)
	} else {
		out.Inlined = d.atom(&r.Atom)
	}
	if r.Override != "" {
		o := smd.ElementRelationship(r.Override)
		out.ElementRelationship = &o
	}
	return out
}
