// Package emit turns generated OpenAPI definitions into the two files of package schema. The program that gen compiles
// calls it; nothing of it is in karve itself.
package emit

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"

	"k8s.io/kube-openapi/pkg/builder3/util"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"karve/api"
)

const (
	refPrefix   = "#/components/schemas/"
	v2Extension = common.ExtensionV2Schema
	gvkKey      = "x-kubernetes-group-version-kind"
	meta        = "io.k8s.apimachinery.pkg.apis.meta.v1."
	core        = "io.k8s.api.core.v1."
)

// roots are the published types that no row's kind refers to, and the ones that describe query parameters.
var roots = []string{meta + "APIGroup", meta + "APIGroupList", meta + "APIResourceList", meta + "APIVersions", meta + "DeleteOptions",
	meta + "Patch", meta + "Status", meta + "WatchEvent", "io.k8s.apimachinery.pkg.version.Info",
	meta + "CreateOptions", meta + "GetOptions", meta + "ListOptions", meta + "PatchOptions", meta + "UpdateOptions",
	core + "NodeProxyOptions", core + "PodAttachOptions", core + "PodExecOptions", core + "PodLogOptions", core + "PodPortForwardOptions",
	core + "PodProxyOptions", core + "ServiceProxyOptions"}

// everyGroup are the types that belong to every group; who serves a document says which of them it names.
var everyGroup = map[string]bool{"DeleteOptions": true, "WatchEvent": true}

type named interface{ OpenAPIModelName() string }

// Write writes both files into the folder dir.
func Write(dir string, get common.GetOpenAPIDefinitions) error {
	defs := get(func(name string) spec.Ref { return spec.MustCreateRef(refPrefix + name) })
	kinds := kinds()
	v3, v2 := map[string]*spec.Schema{}, map[string]*spec.Schema{}
	for name, d := range defs {
		s := d.Schema
		if old, ok := s.Extensions[v2Extension].(spec.Schema); ok {
			delete(s.Extensions, v2Extension)
			v2[name] = &old
		}
		if list := kinds[name]; len(list) > 0 {
			s.AddExtension(gvkKey, list)
		}
		v3[name] = util.WrapRefs(plainElements(&s))
	}
	keep, err := reachable(v3, kinds)
	if err != nil {
		return err
	}
	for name := range v3 {
		if !keep[name] {
			delete(v3, name)
			delete(v2, name)
		}
	}
	if err := writeDefinitions(filepath.Join(dir, "definitions_gen.json.gz"), v3, v2); err != nil {
		return err
	}
	return writeMerge(filepath.Join(dir, "merge_gen.jsonl"), v3)
}

// kinds says which kinds each definition is the schema of.
func kinds() map[string][]any {
	scheme := api.Scheme()
	seen := map[string][]any{}
	for gvk, t := range scheme.AllKnownTypes() {
		n, ok := reflect.New(t).Interface().(named)
		if !ok || everyGroup[gvk.Kind] || gvk.Version == "__internal" {
			continue
		}
		seen[n.OpenAPIModelName()] = append(seen[n.OpenAPIModelName()], map[string]any{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind})
	}
	for name, list := range seen {
		// What is registered in many groups (the options of requests) is no group's kind.
		if len(list) > 1 {
			delete(seen, name)
		}
	}
	return seen
}

// plainElements drops the defaults of list elements and map values, as upstream publishes none: they are the zero value of
// the Go type and say nothing.
func plainElements(s *spec.Schema) *spec.Schema {
	for name, p := range s.Properties {
		s.Properties[name] = *plainElements(&p)
	}
	var e *spec.Schema
	if s.Items != nil {
		e = s.Items.Schema
	} else if s.AdditionalProperties != nil {
		e = s.AdditionalProperties.Schema
	}
	if e != nil {
		e.Default = nil
		plainElements(e)
	}
	return s
}

// reachable returns the definitions that the rows' kinds and roots refer to, directly or not.
func reachable(defs map[string]*spec.Schema, kinds map[string][]any) (map[string]bool, error) {
	keep := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if keep[name] {
			return nil
		}
		s := defs[name]
		if s == nil {
			return fmt.Errorf("find definition %s: not generated", name)
		}
		keep[name] = true
		doc, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("encode definition %s: %w", name, err)
		}
		for _, part := range bytes.Split(doc, []byte(`"`+refPrefix))[1:] {
			ref, _, _ := bytes.Cut(part, []byte(`"`))
			if err := visit(string(ref)); err != nil {
				return err
			}
		}
		return nil
	}
	want := append([]string(nil), roots...)
	scheme := api.Scheme()
	for _, row := range api.Rows() {
		gvks := []any{row.New()}
		if row.NewList != nil {
			gvks = append(gvks, row.NewList())
		}
		for _, sub := range row.Sub {
			if sub.Kind == "" {
				continue
			}
			gv := row.GVK()
			gv.Group, gv.Version, gv.Kind = sub.Group, sub.Version, sub.Kind
			if gv.Version == "" {
				gv.Version = row.Version
			}
			o, err := scheme.New(gv)
			if err != nil {
				return nil, fmt.Errorf("make %s: %w", gv, err)
			}
			gvks = append(gvks, o)
		}
		for _, o := range gvks {
			want = append(want, o.(named).OpenAPIModelName())
		}
	}
	for _, name := range want {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return keep, nil
}

// writeDefinitions writes one JSON object a line, sorted by name: {"name":…,"v3":{…}} and, where version 2 of OpenAPI
// cannot say the same, "v2":{…}.
func writeDefinitions(path string, v3, v2 map[string]*spec.Schema) error {
	var buf bytes.Buffer
	z, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(z)
	enc.SetEscapeHTML(false)
	for _, name := range sorted(v3) {
		line := map[string]any{"name": name}
		if line["v3"], err = generic(v3[name]); err != nil {
			return fmt.Errorf("encode definition %s: %w", name, err)
		}
		if old := v2[name]; old != nil {
			if line["v2"], err = generic(old); err != nil {
				return fmt.Errorf("encode definition %s: %w", name, err)
			}
		}
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("encode definition %s: %w", name, err)
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress definitions: %w", err)
	}
	return os.WriteFile(path, buf.Bytes(), 0o644)
}

// generic is the schema as plain JSON values, which encode with their keys in order.
func generic(s *spec.Schema) (any, error) {
	doc, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	return v, d.Decode(&v)
}

func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
