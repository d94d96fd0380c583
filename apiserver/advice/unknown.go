package advice

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

const unknownField = `unknown field "`

// maxUnknown is how many problems of one body are advised on.
const maxUnknown = 16

// Unknown adds to each strict decoding problem about an unknown field of t the field that was probably meant: one with a
// similar name in the same object, or one of the same name elsewhere. Where there is neither it names the fields there are,
// if they are few.
func Unknown(t reflect.Type, problems []error) []error {
	seen := shapes{}
	out := make([]error, len(problems))
	for i, e := range problems {
		out[i] = e
		text := e.Error()
		if i >= maxUnknown || !strings.HasPrefix(text, unknownField) || !strings.HasSuffix(text, `"`) {
			continue
		}
		if hint := seen.meant(t, text[len(unknownField):len(text)-1]); hint != "" {
			out[i] = errors.New(text + " (" + hint + ")")
		}
	}
	return out
}

// shapes are the fields of types that were looked at: reading them is what a search costs.
type shapes map[reflect.Type][]known

func (s shapes) of(t reflect.Type) []known {
	f, ok := s[t]
	if !ok {
		f = fieldsOf(t)
		s[t] = f
	}
	return f
}

func (s shapes) meant(t reflect.Type, path string) string {
	p := follow(t, path)
	names := namesOf(fieldsOf(p.t))
	if len(p.left) > maxWord || len(names) == 0 {
		return ""
	}
	if n := nearest(p.left, names); n != "" {
		return fmt.Sprintf("did you mean %q?", join(p.at, n))
	}
	found := s.elsewhere(p.t, p.at, p.left)
	if len(found) == 0 && p.at != "" {
		found = s.elsewhere(t, "", p.left)
	}
	if n := len(found); n > 0 && n <= 4 {
		return "did you mean " + strings.Join(quoted(found), " or ") + "?"
	}
	if len(names) <= maxNames {
		return "known here: " + strings.Join(names, ", ")
	}
	return ""
}

func quoted(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = quote(n)
	}
	return out
}

// elsewhere returns the paths below at, whose type is t, of the fields called word, all of the same least depth. A status is
// not searched: it is not for clients to write.
func (s shapes) elsewhere(t reflect.Type, at, word string) []string {
	type step struct {
		t  reflect.Type
		at string
	}
	of, _ := items(t)
	seen := map[reflect.Type]bool{of: true}
	level := []step{{of, at}}
	word = fold(word)
	for depth := 0; depth < 6 && len(level) > 0; depth++ {
		var found []string
		var next []step
		for _, at := range level {
			for _, f := range s.of(at.t) {
				path := join(at.at, f.name)
				if fold(f.name) == word {
					found = append(found, path)
				}
				inner, suffix := items(f.t)
				if path == "status" || f.name == "managedFields" || seen[inner] {
					continue
				}
				seen[inner] = true
				next = append(next, step{inner, path + suffix})
			}
		}
		if len(found) > 0 {
			return found
		}
		if level = next; len(level) > 500 {
			return nil
		}
	}
	return nil
}

var undeclared = regexp.MustCompile(`(\.[^\s:]+): field not declared in schema`)

// Undeclared says what an apply probably meant by the fields that it was refused for.
func Undeclared(t reflect.Type, message string) string {
	seen := shapes{}
	var out []string
	for _, m := range undeclared.FindAllStringSubmatch(message[:min(len(message), maxText)], maxUnknown) {
		path := listKey.ReplaceAllString(strings.TrimPrefix(m[1], "."), "[*]")
		if hint := seen.meant(t, path); hint != "" {
			out = append(out, cutWord(path)+": "+hint)
		}
	}
	return strings.Join(out, ", ")
}

// listKey is how a merge names an item of a list: [name="web"].
var listKey = regexp.MustCompile(`\[[^\]]*\]`)
