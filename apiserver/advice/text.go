package advice

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	yaml "sigs.k8s.io/yaml/goyaml.v3"
)

// Body is the text of a request, for people to be shown where in it a mistake is.
type Body struct {
	Text []byte
	// YAML says that it is read as YAML, which JSON is too.
	YAML bool
	// Secret says that nothing of it may be repeated.
	Secret bool
}

// Malformed says where the text stops being JSON or YAML, as line and column from 1 with the line's text; "" if it does not.
func (b Body) Malformed() string {
	if len(b.Text) == 0 || len(b.Text) > maxJSON || b.YAML && len(b.Text) > maxText {
		return ""
	}
	at := -1
	if b.YAML {
		at = stopsYAML(b.Text)
	} else {
		at = stopsJSON(b.Text)
	}
	if at < 0 {
		return ""
	}
	return "at " + b.position(at)
}

func stopsJSON(text []byte) int {
	var raw json.RawMessage
	var syntax *json.SyntaxError
	if !errors.As(json.Unmarshal(text, &raw), &syntax) {
		return -1
	}
	return max(int(syntax.Offset)-1, 0)
}

// lookahead is how many characters the YAML scanner wants to see before it decides on the first of them.
const lookahead = 4

// stopsYAML finds where the parser gives up by how much it has read: its errors name a line, not always the right one, and
// no column.
func stopsYAML(text []byte) int {
	padded := append(bytes.Clone(bytes.TrimRight(text, " \n")), "\n\n\n\n\n\n"...)
	r := bytes.NewReader(padded)
	err := yaml.NewDecoder(sip{r}).Decode(&yaml.Node{})
	if err == nil || err == io.EOF {
		return -1
	}
	at := min(len(padded)-r.Len()-lookahead, len(text)-1)
	if tab := bytes.IndexByte(text[max(at, 0):], '\t'); tab >= 0 && strings.Contains(err.Error(), "a tab character") {
		return max(at, 0) + tab // it need not look far to see that one
	}
	for at > 0 && (text[at] == '\n' || text[at] == ' ' || text[at] == '\r') {
		at--
	}
	if at <= 0 || strings.IndexByte("\t@`%:", text[at]) >= 0 && here(err.Error()) {
		return max(at, 0)
	}
	for at > 0 && strings.IndexByte(" \n", text[at-1]) < 0 { // it has read the whole word that it cannot place
		at--
	}
	return at
}

// sip reads one byte at a time.
type sip struct{ r *bytes.Reader }

func (s sip) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 1)]) }

// here says that an error is about the very character that was to be read next.
func here(text string) bool {
	for _, s := range []string{"not allowed in this context", "cannot start any token", "a tab character"} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// position writes the line and column of an offset and, unless it is a secret, what stands there.
func (b Body) position(at int) string {
	at = min(max(at, 0), len(b.Text))
	start := bytes.LastIndexByte(b.Text[:at], '\n') + 1
	line := b.Text[start:]
	if end := bytes.IndexByte(line, '\n'); end >= 0 {
		line = line[:end]
	}
	where := fmt.Sprintf("line %d, column %d", 1+bytes.Count(b.Text[:start], []byte("\n")), 1+len([]rune(string(b.Text[start:at]))))
	if b.Secret || holdsSecret(b.Text) {
		return where
	}
	cut := ""
	if from := at - start - maxQuote/2; len(line) > maxQuote && from > 0 {
		line, cut = line[from:], "..."
	}
	return where + ": " + cut + quote(strings.ToValidUTF8(string(line), "?"))
}

// holdsSecret says that a text that cannot be read may be that of a Secret, wherever it was sent.
func holdsSecret(text []byte) bool {
	for {
		i := bytes.Index(text, []byte("kind"))
		if i < 0 {
			return false
		}
		text = bytes.TrimLeft(text[i+4:], "\"': \t\r\n")
		if bytes.HasPrefix(text, []byte("Secret")) {
			return true
		}
	}
}

// many lines are what a person wrote; a program's are on one line, and a place in it helps nobody.
func (b Body) lines() bool { return bytes.IndexByte(bytes.TrimSpace(b.Text), '\n') >= 0 }

// node is a value of a body with its offset.
type node struct {
	at int
	// fields of an object, elements of a list; otherwise a scalar
	fields   []entry
	elements []*node
	kind     byte   // 'o', 'l', 's' string, 'n' number, 'b' bool, '0' null, '?' unknown
	json     string // a scalar as JSON
}

type entry struct {
	name  string
	value *node
}

const maxDepth = 64

var errDeep = errors.New("too deep")

// read parses a body that is well formed.
func (b Body) read() *node {
	if len(b.Text) == 0 || len(b.Text) > maxText {
		return nil
	}
	if !b.YAML {
		d := json.NewDecoder(bytes.NewReader(b.Text))
		d.UseNumber()
		n, err := readJSON(d, b.Text, 0)
		if err != nil {
			return nil
		}
		return n
	}
	var doc yaml.Node
	if yaml.Unmarshal(b.Text, &doc) != nil || len(doc.Content) != 1 {
		return nil
	}
	starts := []int{0}
	for i, c := range b.Text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return readYAML(doc.Content[0], starts, 0)
}

func readJSON(d *json.Decoder, text []byte, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, errDeep
	}
	at := int(d.InputOffset())
	for at < len(text) && strings.IndexByte(" \t\r\n,:", text[at]) >= 0 {
		at++
	}
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	n := &node{at: at}
	switch v := tok.(type) {
	case json.Delim:
		if n.kind = 'l'; v == '{' {
			n.kind = 'o'
		}
		for d.More() {
			name := ""
			if n.kind == 'o' {
				key, err := d.Token()
				if err != nil {
					return nil, err
				}
				name, _ = key.(string)
			}
			inner, err := readJSON(d, text, depth+1)
			if err != nil {
				return nil, err
			}
			if n.kind == 'o' {
				n.fields = append(n.fields, entry{name, inner})
			} else {
				n.elements = append(n.elements, inner)
			}
		}
		_, err = d.Token()
		return n, err
	case string:
		n.kind = 's'
	case json.Number:
		n.kind = 'n'
	case bool:
		n.kind = 'b'
	default:
		n.kind = '0'
	}
	n.json = string(text[at:d.InputOffset()])
	return n, nil
}

// tags are the kinds of YAML's scalars.
var tags = map[string]byte{"!!str": 's', "!!int": 'n', "!!float": 'n', "!!bool": 'b', "!!null": '0'}

// oldBools are the words that YAML 1.1, which clients are used to, takes for true and false.
var oldBools = map[string]string{"yes": "true", "on": "true", "no": "false", "off": "false"}

func readYAML(y *yaml.Node, starts []int, depth int) *node {
	n := &node{kind: '?'}
	if y.Line > 0 && y.Line <= len(starts) {
		n.at = starts[y.Line-1] + y.Column - 1
	}
	if depth > maxDepth {
		return n
	}
	switch y.Kind {
	case yaml.MappingNode:
		n.kind = 'o'
		for i := 0; i+1 < len(y.Content); i += 2 {
			n.fields = append(n.fields, entry{y.Content[i].Value, readYAML(y.Content[i+1], starts, depth+1)})
		}
	case yaml.SequenceNode:
		n.kind = 'l'
		for _, c := range y.Content {
			n.elements = append(n.elements, readYAML(c, starts, depth+1))
		}
	case yaml.ScalarNode:
		if n.kind = tags[y.ShortTag()]; n.kind == 0 {
			n.kind = '?'
		}
		n.json = y.Value
		if b := oldBools[strings.ToLower(y.Value)]; b != "" && y.Style == 0 {
			n.kind, n.json = 'b', b
		}
		if n.kind == 's' {
			text, err := json.Marshal(y.Value)
			if err != nil {
				n.kind = '?'
			}
			n.json = string(text)
		}
	}
	return n
}
