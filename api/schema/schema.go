// Package schema knows what every built-in type looks like: its published OpenAPI definition, and its merge schema, which
// says what server-side apply may merge and what it must replace as a whole. The API server's openapi and patch packages
// read it. The data is generated from the Go types (see gen) and embedded; nothing is decoded before it is asked for, and
// of the definitions nothing is kept.
package schema

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
)

//go:generate go run ./gen

//go:embed definitions_gen.json.gz
var definitions []byte

// Definition is the schema of one named type in the form of OpenAPI version 3, references included. V2 is set where
// version 2 has a form of its own; elsewhere it follows from V3.
type Definition struct {
	Name   string
	V3, V2 json.RawMessage
}

// Sum identifies the definitions that this build carries.
var Sum = sync.OnceValue(func() [sha256.Size]byte { return sha256.Sum256(definitions) })

// Walk calls yield for every definition in the order of names until it returns false. What it is given is only valid
// until it returns. The cost is one decompression of about a megabyte.
func Walk(yield func(*Definition) bool) error {
	z, err := gzip.NewReader(bytes.NewReader(definitions))
	if err != nil {
		return fmt.Errorf("open definitions: %w", err)
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	for lines.Scan() {
		d, err := parse(lines.Bytes())
		if err != nil {
			return err
		}
		if !yield(d) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read definitions: %w", err)
	}
	return nil
}

// parse splits one line without decoding the schemas in it: {"name":"…","v2":{…},"v3":{…}}.
func parse(line []byte) (*Definition, error) {
	var raw struct {
		Name string          `json:"name"`
		V2   json.RawMessage `json:"v2"`
		V3   json.RawMessage `json:"v3"`
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return nil, fmt.Errorf("decode definition: %w", err)
	}
	return &Definition{Name: raw.Name, V2: raw.V2, V3: raw.V3}, nil
}

// Refs returns the names of the definitions that an encoded schema refers to, repeated as often as it does.
func Refs(doc []byte) []string {
	var out []string
	const mark = `"#/components/schemas/`
	for {
		i := bytes.Index(doc, []byte(mark))
		if i < 0 {
			return out
		}
		doc = doc[i+len(mark):]
		end := bytes.IndexByte(doc, '"')
		if end < 0 {
			return out
		}
		out = append(out, string(doc[:end]))
		doc = doc[end:]
	}
}

// Name returns the name of a built-in kind's definition, or "" when the kind is none of karve's.
func Name(gvk schema.GroupVersionKind) string {
	o, err := api.Scheme().New(gvk)
	if err != nil {
		return ""
	}
	n, ok := o.(interface{ OpenAPIModelName() string })
	if !ok {
		return ""
	}
	return n.OpenAPIModelName()
}

// CustomName returns the name under which the definition of a kind that is not built in is published: the group's labels
// in reverse, then version and kind.
func CustomName(gvk schema.GroupVersionKind) string {
	labels := strings.Split(gvk.Group, ".")
	for i, j := 0, len(labels)-1; i < j; i, j = i+1, j-1 {
		labels[i], labels[j] = labels[j], labels[i]
	}
	return strings.Join(labels, ".") + "." + gvk.Version + "." + gvk.Kind
}
