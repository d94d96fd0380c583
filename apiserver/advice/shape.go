package advice

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// known is a JSON field of a Go type.
type known struct {
	name string
	t    reflect.Type
}

// bare is t without pointers.
func bare(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// opaque says that a type reads its JSON itself: its Go fields are not what a client writes.
func opaque(t reflect.Type) bool { return reflect.PointerTo(t).Implements(unmarshaler) }

// fieldsOf lists the JSON fields of an object type in the order of their names, nil for any other type.
func fieldsOf(t reflect.Type) []known {
	t = bare(t)
	if t.Kind() != reflect.Struct || opaque(t) {
		return nil
	}
	var out []known
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "" && (f.Anonymous || strings.Contains(options, "inline")):
			out = append(out, fieldsOf(f.Type)...)
		case name != "" && name != "-" && f.IsExported():
			out = append(out, known{name, f.Type})
		}
	}
	slices.SortFunc(out, func(a, b known) int { return strings.Compare(a.name, b.name) })
	return out
}

func namesOf(fields []known) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.name
	}
	return out
}

// items goes through lists to what is in them.
func items(t reflect.Type) (of reflect.Type, suffix string) {
	for t = bare(t); t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8; t = bare(t.Elem()) {
		suffix += "[*]"
	}
	return t, suffix
}

// place is how far a path can be followed into a type.
type place struct {
	// t is the type of the last part that is known, at the path to it, and left is what follows there.
	t        reflect.Type
	at, left string
}

// follow walks along a path as errors write it: spec.containers[0].image.
func follow(t reflect.Type, path string) place {
	p := place{t: bare(t), left: path}
	for range 40 {
		if p.left == "" {
			return p
		}
		p.t, _ = items(p.t)
		name, rest, _ := strings.Cut(p.left, ".")
		word, index, _ := strings.Cut(name, "[")
		var next reflect.Type
		if p.t.Kind() == reflect.Map {
			next = p.t.Elem()
		} else {
			for _, f := range fieldsOf(p.t) {
				if f.name == word {
					next = f.t
				}
			}
		}
		if next == nil {
			return p
		}
		if index != "" { // the step into a list
			next, _ = items(next)
		}
		p.t, p.at, p.left = bare(next), join(p.at, name), rest
	}
	return p
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// expected says what a client may write for a type.
func expected(t reflect.Type) string {
	t = bare(t)
	if text := forms[t.Name()]; text != "" && opaque(t) {
		return text
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("a whole number (%s)", t.Kind())
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Map:
		return "an object with " + many(t.Elem()) + " by name"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "text in base64"
		}
		return "a list of " + many(t.Elem())
	case reflect.Struct:
		if names := namesOf(fieldsOf(t)); len(names) > 0 && len(names) <= maxNames {
			return "an object with " + strings.Join(names, ", ")
		}
		return "an object"
	}
	return ""
}

// many is what a list or map is said to hold.
func many(t reflect.Type) string {
	switch bare(t).Kind() {
	case reflect.String:
		return "strings"
	case reflect.Int32, reflect.Int64:
		return "whole numbers"
	}
	if bare(t).Name() == "Quantity" {
		return "quantities"
	}
	return "objects"
}

// forms says how types that read their JSON themselves are written.
var forms = map[string]string{
	"Quantity":    `a quantity such as "100m", "1.5" or "2Gi"`,
	"Time":        `a time such as "2006-01-02T15:04:05Z"`,
	"MicroTime":   `a time such as "2006-01-02T15:04:05.000000Z"`,
	"Duration":    `a duration such as "1h30m"`,
	"IntOrString": `a whole number or a string`,
}
