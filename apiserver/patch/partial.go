package patch

import (
	"encoding/json"
	"reflect"
	"strings"
	"sync"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/runtime"

	"karve/api"
)

// A patch names few fields of a large object. Turning the whole object into JSON and back would cost more than everything
// else a write does, so only what a patch touches takes that way: the patch is applied to an object that has nothing but the
// fields it names, and those are carried over into a copy of the real one. Whatever does not fit that scheme, and every
// patch that fails, takes the long way over the whole object, so that answers are the same.

// part is a set of fields of a Go type, each as an index for reflect.Value.FieldByIndex.
type part [][]int

// member is one JSON field of a struct.
type member struct {
	index []int
	// inner is the struct type a patch of the field is looked into; nil for a field that is taken whole.
	inner reflect.Type
	// omitEmpty and omitZero say when the field is left out.
	omitEmpty, omitZero bool
}

// memberTables are the tables of the types of all rows and of the structs in them.
var memberTables = sync.OnceValue(func() map[reflect.Type]map[string]member {
	all := map[reflect.Type]map[string]member{}
	for _, row := range api.Rows() {
		if row.New != nil {
			tabulate(reflect.TypeOf(row.New()).Elem(), all)
		}
	}
	return all
})

func tabulate(t reflect.Type, all map[reflect.Type]map[string]member) {
	if all[t] != nil {
		return
	}
	table := membersOf(t)
	all[t] = table
	for _, m := range table {
		if m.inner != nil {
			tabulate(m.inner, all)
		}
	}
}

// members lists the JSON fields of struct type t, with those of inlined structs. The table is shared.
func members(t reflect.Type) map[string]member {
	if m := memberTables()[t]; m != nil {
		return m
	}
	return membersOf(t)
}

func membersOf(t reflect.Type) map[string]member {
	out := map[string]member{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Type.Kind() == reflect.Struct && (options == "inline" || f.Anonymous && name == ""):
			for inner, m := range membersOf(f.Type) {
				m.index = append([]int{i}, m.index...)
				out[inner] = m
			}
		case name == "" || name == "-" || !f.IsExported():
		default:
			m := member{index: []int{i}, omitEmpty: strings.Contains(options, "omitempty"), omitZero: strings.Contains(options, "omitzero")}
			if f.Type.Kind() == reflect.Struct && !reflect.PointerTo(f.Type).Implements(unmarshaler) {
				m.inner = f.Type
			}
			out[name] = m
		}
	}
	return out
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

func join(base, index []int) []int { return append(base[:len(base):len(base)], index...) }

// named collects the fields of t that a merge patch or strategic merge patch names. It returns false for a patch that names
// an unknown field, or t itself by a directive.
func (p *part) named(t reflect.Type, base []int, change map[string]any) bool {
	table := members(t)
	for key, v := range change {
		m, ok := table[key]
		if !ok {
			return false
		}
		index := join(base, m.index)
		if inner, ok := v.(map[string]any); ok && m.inner != nil {
			mark := len(*p)
			if p.named(m.inner, index, inner) {
				continue
			}
			*p = (*p)[:mark]
		}
		*p = append(*p, index)
	}
	return true
}

var pointerEscapes = strings.NewReplacer("~1", "/", "~0", "~")

// pointed collects the fields of t that a JSON patch reads or writes; false as above.
func (p *part) pointed(t reflect.Type, ops jsonpatch.Patch) bool {
	for _, op := range ops {
		path, err := op.Path()
		if err != nil || !p.pointer(t, path) {
			return false
		}
		if from, err := op.From(); err == nil && !p.pointer(t, from) {
			return false
		}
	}
	return true
}

func (p *part) pointer(t reflect.Type, path string) bool {
	if len(path) < 2 || path[0] != '/' {
		return false
	}
	var index []int
	for segment := range strings.SplitSeq(path[1:], "/") {
		m, ok := members(t)[pointerEscapes.Replace(segment)]
		if !ok {
			return false
		}
		index = join(index, m.index)
		if m.inner == nil {
			break
		}
		t = m.inner
	}
	*p = append(*p, index)
	return true
}

// of returns a new object with the part's fields of o and no others. It shares what they refer to.
func (p part) of(o runtime.Object) runtime.Object {
	out := newLike(o)
	out.GetObjectKind().SetGroupVersionKind(o.GetObjectKind().GroupVersionKind())
	p.carry(o, out)
	return out
}

// onto returns a copy of o with the part's fields of changed.
func (p part) onto(o, changed runtime.Object) runtime.Object {
	out := o.DeepCopyObject()
	p.carry(changed, out)
	return out
}

func (p part) carry(from, to runtime.Object) {
	src, dst := reflect.ValueOf(from).Elem(), reflect.ValueOf(to).Elem()
	for _, index := range p {
		dst.FieldByIndex(index).Set(src.FieldByIndex(index))
	}
}
