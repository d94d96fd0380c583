package openapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"

	"k8s.io/kube-openapi/pkg/validation/spec"
)

type object = map[string]any

const (
	v3Ref = "#/components/schemas/"
	v2Ref = "#/definitions/"
)

// extend adds to out what both versions write alike: what the operation is called and which kind it acts on.
func (o *operation) extend(out object) object {
	out["description"], out["operationId"], out["tags"] = o.text, o.id, []string{o.tag}
	if !o.noKind {
		out["x-kubernetes-action"] = o.action
		out["x-kubernetes-group-version-kind"] = object{"group": o.kind.Group, "version": o.kind.Version, "kind": o.kind.Kind}
	}
	return out
}

func reference(prefix, definition string) object {
	if definition == "" {
		return object{"type": "string"}
	}
	return object{"$ref": prefix + definition}
}

func content(types []string, definition string) object {
	out := object{}
	for _, t := range types {
		out[t] = object{"schema": reference(v3Ref, definition)}
	}
	return out
}

// v3 returns the endpoint as a path item of OpenAPI version 3.
func (e *endpoint) v3() object {
	item := object{}
	if len(e.common) > 0 {
		item["parameters"] = paramsV3(e.common)
	}
	for i := range e.ops {
		o := &e.ops[i]
		op := o.extend(object{})
		if len(o.params) > 0 {
			op["parameters"] = paramsV3(o.params)
		}
		if o.body != "" {
			body := object{"content": content(o.consumes, o.body)}
			if o.bodyRequired {
				body["required"] = true
			}
			op["requestBody"] = body
		}
		answers := object{"401": object{"description": "Unauthorized"}}
		for _, a := range o.answers {
			answers[a.code] = object{"description": a.text, "content": content(o.produce, o.result)}
		}
		op["responses"] = answers
		item[o.method] = op
	}
	return item
}

func paramsV3(list []param) []object {
	var out []object
	for _, p := range list {
		q := object{"name": p.name, "in": p.in, "schema": object{"type": p.kind, "uniqueItems": true}}
		if p.text != "" {
			q["description"] = p.text
		}
		if p.required {
			q["required"] = true
		}
		out = append(out, q)
	}
	return out
}

// shared are the parameters of a version 2 document that are written once and referred to.
type shared map[string]json.RawMessage

// v2 returns the endpoint as a path item of OpenAPI version 2.
func (e *endpoint) v2(s shared) (object, error) {
	item := object{}
	var err error
	if len(e.common) > 0 {
		if item["parameters"], err = s.params(e.common, nil); err != nil {
			return nil, err
		}
	}
	for i := range e.ops {
		o := &e.ops[i]
		op := o.extend(object{"produces": o.produce, "schemes": []string{"https"}})
		if o.consumes != nil {
			op["consumes"] = o.consumes
		}
		if len(o.params) > 0 || o.body != "" {
			if op["parameters"], err = s.params(o.params, o); err != nil {
				return nil, err
			}
		}
		answers := object{"401": object{"description": "Unauthorized"}}
		for _, a := range o.answers {
			answers[a.code] = object{"description": a.text, "schema": reference(v2Ref, o.result)}
		}
		op["responses"] = answers
		item[o.method] = op
	}
	return item, nil
}

// params encodes parameters and, where o has one, the body, which version 2 counts among them and sorts by its name.
func (s shared) params(list []param, o *operation) ([]any, error) {
	out := []any{}
	add := func(p *spec.Parameter, own bool) error {
		doc, err := json.Marshal(p)
		if err != nil {
			return fmt.Errorf("encode parameter %s: %w", p.Name, err)
		}
		if own {
			out = append(out, json.RawMessage(doc))
			return nil
		}
		h := fnv.New64()
		_, _ = h.Write(doc)
		name := p.Name + "-" + base64.URLEncoding.EncodeToString(h.Sum(nil)[:6])
		s[name] = doc
		out = append(out, object{"$ref": "#/parameters/" + name})
		return nil
	}
	body := func() error {
		p := &spec.Parameter{ParamProps: spec.ParamProps{Name: "body", In: "body", Required: o.bodyRequired, Schema: spec.RefSchema(v2Ref + o.body)}}
		return add(p, !strings.HasPrefix(o.body, meta))
	}
	pending := o != nil && o.body != ""
	for _, q := range list {
		if pending && q.name > "body" {
			if err := body(); err != nil {
				return nil, err
			}
			pending = false
		}
		p := &spec.Parameter{ParamProps: spec.ParamProps{Name: q.name, In: q.in, Description: q.text, Required: q.required},
			SimpleSchema: spec.SimpleSchema{Type: q.kind}, CommonValidations: spec.CommonValidations{UniqueItems: true}}
		// kubectl finds out what a server can do by these two being in place; a name's description has the kind in it.
		if err := add(p, q.name == "name" || q.name == "dryRun" || q.name == "fieldValidation"); err != nil {
			return nil, err
		}
	}
	if pending {
		if err := body(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// schemaV2 turns a version 3 schema into what version 2 can say: no defaults, and references with their siblings beside
// them.
func schemaV2(doc json.RawMessage) (json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var s object
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("decode definition: %w", err)
	}
	older(s)
	return encode(s)
}

func older(s object) {
	delete(s, "default")
	if all, ok := s["allOf"].([]any); ok && len(all) == 1 {
		if one, ok := all[0].(object); ok && one["$ref"] != nil {
			delete(s, "allOf")
			s["$ref"] = one["$ref"]
		}
	}
	if ref, ok := s["$ref"].(string); ok {
		s["$ref"] = v2Ref + strings.TrimPrefix(ref, v3Ref)
	}
	if props, ok := s["properties"].(object); ok {
		for _, p := range props {
			if p, ok := p.(object); ok {
				older(p)
			}
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if e, ok := s[key].(object); ok {
			older(e)
		}
	}
	for _, key := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := s[key].([]any)
		for _, e := range list {
			if e, ok := e.(object); ok {
				older(e)
			}
		}
	}
}

func encode(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
