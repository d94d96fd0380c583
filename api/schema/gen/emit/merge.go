package emit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"

	"karve/api/schema/merge"
)

// writeMerge writes the merge schema of every definition, one line each, sorted by name.
func writeMerge(path string, defs map[string]*spec.Schema) error {
	s, err := schemaconv.ToSchemaFromOpenAPI(defs, false)
	if err != nil {
		return fmt.Errorf("derive merge schemas: %w", err)
	}
	lines := map[string][]byte{}
	for _, t := range s.Types {
		line, err := json.Marshal(atom(&t.Atom))
		if err != nil {
			return fmt.Errorf("encode merge schema of %s: %w", t.Name, err)
		}
		lines[t.Name] = line
	}
	var buf bytes.Buffer
	for _, name := range sorted(lines) {
		fmt.Fprintf(&buf, "%s\t%s\n", name, lines[name])
	}
	return os.WriteFile(path, buf.Bytes(), 0o644)
}

func atom(a *smd.Atom) merge.Atom {
	out := merge.Atom{}
	if a.Scalar != nil {
		out.Scalar = string(*a.Scalar)
	}
	if a.List != nil {
		out.List = &merge.List{Relation: string(a.List.ElementRelationship), Keys: a.List.Keys, Element: ref(&a.List.ElementType)}
	}
	if a.Map != nil {
		m := &merge.Map{Relation: string(a.Map.ElementRelationship)}
		if e := ref(&a.Map.ElementType); e != (merge.Ref{}) {
			m.Element = &e
		}
		for i := range a.Map.Fields {
			f := &a.Map.Fields[i]
			if m.Fields == nil {
				m.Fields = map[string]merge.Field{}
			}
			m.Fields[f.Name] = merge.Field{Ref: ref(&f.Type), Default: f.Default}
		}
		out.Map = m
	}
	return out
}

func ref(r *smd.TypeRef) merge.Ref {
	out := merge.Ref{Atom: atom(&r.Inlined)}
	if r.NamedType != nil {
		out.Name = *r.NamedType
	}
	if r.ElementRelationship != nil {
		out.Override = string(*r.ElementRelationship)
	}
	return out
}
