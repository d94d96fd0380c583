package advice

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Misfit says which value of a well-formed body does not fit t, which decoding it failed with: the field, the value (not of
// a Secret), and what may stand there. "" if none is found.
func (b Body) Misfit(t reflect.Type) string {
	root := b.read()
	if root == nil {
		return ""
	}
	m := misfit(t, root, "")
	if m == nil {
		return ""
	}
	text := m.path
	if text == "" {
		text = "the body"
	}
	if v := m.node.json; v != "" && !b.Secret {
		if len(v) > maxQuote {
			v = strings.ToValidUTF8(v[:maxQuote], "") + "..."
		}
		text += ": " + v
	}
	text += " is not " + m.want
	if m.quotable() {
		text += ": put it in quotes"
	}
	if b.lines() {
		hidden := b
		hidden.Secret = true // the value has been said
		text += " (" + hidden.position(m.node.at) + ")"
	}
	return text
}

type mistake struct {
	path, want string
	node       *node
	t          reflect.Type
}

// quotable says that the value would do as a string.
func (m *mistake) quotable() bool {
	return m.t.Kind() == reflect.String && (m.node.kind == 'n' || m.node.kind == 'b')
}

// misfit finds the first value below n that t cannot hold.
func misfit(t reflect.Type, n *node, path string) *mistake {
	t = bare(t)
	if n.kind == '0' || n.kind == '?' || t.Kind() == reflect.Interface {
		return nil
	}
	wrong := &mistake{path, expected(t), n, t}
	switch {
	case opaque(t):
		if forms[t.Name()] != "" && !takes(t, n) {
			return wrong
		}
	case t.Kind() == reflect.Struct:
		if n.kind != 'o' {
			return wrong
		}
		types := map[string]reflect.Type{}
		for _, f := range fieldsOf(t) {
			types[f.name] = f.t
		}
		for _, e := range n.fields {
			if inner := types[e.name]; inner != nil {
				if m := misfit(inner, e.value, join(path, e.name)); m != nil {
					return m
				}
			}
		}
	case t.Kind() == reflect.Map:
		if n.kind != 'o' {
			return wrong
		}
		for _, e := range n.fields {
			if m := misfit(t.Elem(), e.value, path+"["+cutWord(e.name)+"]"); m != nil {
				return m
			}
		}
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		if n.kind != 'l' {
			return wrong
		}
		for i, e := range n.elements {
			if m := misfit(t.Elem(), e, fmt.Sprintf("%s[%d]", path, i)); m != nil {
				return m
			}
		}
	default:
		if !takes(t, n) {
			return wrong
		}
	}
	return nil
}

func cutWord(s string) string {
	if len(s) > maxWord {
		return strings.ToValidUTF8(s[:maxWord], "") + "..."
	}
	return s
}

// takes reports whether t can be read from a scalar.
func takes(t reflect.Type, n *node) bool {
	if n.kind == 'o' || n.kind == 'l' {
		return false
	}
	text := n.json
	if t.Kind() == reflect.String && !opaque(t) {
		return n.kind == 's'
	}
	if t.Kind() == reflect.Slice { // base64
		return n.kind == 's' && json.Unmarshal([]byte(text), new([]byte)) == nil
	}
	if len(text) > 4*maxQuote { // no number, time or quantity is that long
		return false
	}
	return json.Unmarshal([]byte(text), reflect.New(t).Interface()) == nil
}
