package openapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"

	"karve/api"
	"karve/api/schema"
)

// served is a row with the names of its definitions.
type served struct {
	Row            *api.Row
	Name, ListName string
	custom         bool
}

// document is one OpenAPI document before it is rendered. An empty group and version with all set is the version 2
// document, which has everything.
type document struct {
	group, version string
	all            bool
	rows           []served
	extra          map[string]json.RawMessage
	fixed          []endpoint
	level          string
}

// write renders the document part by part, so that no more than the definitions is ever in memory.
func (d *document) write(to sink) error {
	defs, err := d.definitions()
	if err != nil {
		return err
	}
	if err := to.begin(d.head()); err != nil {
		return err
	}
	ends := slices.Clone(d.fixed)
	for _, s := range d.rows {
		ends = append(ends, resource(s, defs.options)...)
	}
	sort.Slice(ends, func(i, j int) bool { return ends[i].path < ends[j].path })
	common, used := shared{}, map[string]bool{}
	for i := range ends {
		item, err := d.item(&ends[i], common)
		if err != nil {
			return fmt.Errorf("render path %s: %w", ends[i].path, err)
		}
		defs.mark(used, ends[i].ops)
		if err := to.part("paths", ends[i].path, item); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(common) {
		if err := to.part("parameters", name, common[name]); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(used) {
		value, err := defs.render(name, d)
		if err != nil {
			return fmt.Errorf("render definition %s: %w", name, err)
		}
		if err := to.part("schemas", name, value); err != nil {
			return err
		}
	}
	return to.end()
}

func (d *document) item(e *endpoint, common shared) (json.RawMessage, error) {
	if !d.all {
		return encode(e.v3())
	}
	item, err := e.v2(common)
	if err != nil {
		return nil, err
	}
	return encode(item)
}

func (d *document) head() object {
	key := object{"type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication"}
	info := object{"title": "Kubernetes", "version": d.level}
	if d.all {
		return object{"swagger": "2.0", "info": info, "security": []object{{"BearerToken": []string{}}}, "securityDefinitions": object{"BearerToken": key}}
	}
	return object{"openapi": "3.0.0", "info": info, "components": object{"securitySchemes": object{"BearerToken": key}}}
}

// definitions is everything known while one document is rendered.
type definitions struct {
	byName  map[string]*schema.Definition
	queries map[string][]param
}

func (d *document) definitions() (*definitions, error) {
	defs := &definitions{byName: map[string]*schema.Definition{}, queries: map[string][]param{}}
	err := schema.Walk(func(s *schema.Definition) bool {
		defs.byName[s.Name] = s
		return true
	})
	for name, v3 := range d.extra {
		defs.byName[name] = &schema.Definition{Name: name, V3: v3}
	}
	return defs, err
}

// options returns the query parameters that a definition's simple properties make.
func (d *definitions) options(name string) []param {
	if list, ok := d.queries[name]; ok {
		return list
	}
	def := d.byName[name]
	var s struct {
		Properties map[string]struct {
			Type        string
			Description string
			Items       struct{ Type string }
		}
	}
	if def == nil || json.Unmarshal(def.V3, &s) != nil {
		return nil
	}
	var out []param
	for _, p := range sortedKeys(s.Properties) {
		v := s.Properties[p]
		switch {
		case p == "kind" || p == "apiVersion" || v.Type == "" || v.Type == "object":
			continue
		case v.Type == "array":
			v.Type = v.Items.Type
		}
		out = append(out, param{name: p, in: "query", kind: v.Type, text: v.Description})
	}
	d.queries[name] = out
	return out
}

// mark adds the definitions that operations need, directly or not.
func (d *definitions) mark(used map[string]bool, ops []operation) {
	var visit func(string)
	visit = func(name string) {
		def := d.byName[name]
		if used[name] || def == nil {
			return
		}
		used[name] = true
		for _, ref := range schema.Refs(def.V3) {
			visit(ref)
		}
	}
	for _, o := range ops {
		visit(o.body)
		visit(o.result)
	}
}

// render returns a definition in the document's version of OpenAPI.
func (d *definitions) render(name string, doc *document) (json.RawMessage, error) {
	def := d.byName[name]
	value := def.V3
	if doc.all {
		var err error
		if value = def.V2; value == nil {
			if value, err = schemaV2(def.V3); err != nil {
				return nil, err
			}
		}
	}
	kind, found := strings.CutPrefix(name, meta)
	if !found || kind != "DeleteOptions" && kind != "WatchEvent" {
		return value, nil
	}
	// These two are of every group that the document has, and of the core.
	var kinds []object
	for _, gv := range doc.groups() {
		kinds = append(kinds, object{"group": gv[0], "version": gv[1], "kind": kind})
	}
	list, err := encode(kinds)
	if err != nil {
		return nil, err
	}
	return slices.Concat(value[:len(value)-1], []byte(`,"x-kubernetes-group-version-kind":`), list, []byte("}")), nil
}

// groups returns the groups and versions of the document's built-in rows and the core's, sorted. The document of all has
// those too that nothing is served of.
func (d *document) groups() [][2]string {
	out := [][2]string{{"", "v1"}}
	for _, s := range d.rows {
		if gv := [2]string{s.Row.Group, s.Row.Version}; !s.custom && !slices.Contains(out, gv) {
			out = append(out, gv)
		}
	}
	if d.all {
		for _, gv := range unserved {
			group, version, _ := strings.Cut(gv, "/")
			out = append(out, [2]string{group, version})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i][0]+"/"+out[i][1] < out[j][0]+"/"+out[j][1] })
	return out
}

func sortedKeys[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
