package patch

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// Who creates an object owns every field it sent. For that the library compares the new object with an empty one and makes
// trees of both. Here a plan is made of each kind's Go type and merge schema once, and the encoded field set is written
// straight from the Go object: first.write is that comparison with an empty object, whose rules the library sets (typed.Compare).

// shape is what a merge schema makes of a Go type.
type shape int

const (
	// leaf is owned as a whole: scalars, atomic lists and maps.
	leaf shape = iota
	// record is a struct whose fields are owned one by one, dictionary a map whose entries are.
	record
	dictionary
	// keyed is a list whose items are told apart by some of their fields, bag a list of distinct scalars.
	keyed
	bag
	// opaque may hold anything: its fields are the library's business.
	opaque
)

// node is the plan of one Go type.
type node struct {
	shape  shape
	fields []nodeField // of a record, by name
	keys   []nodeField // of a keyed list's items, by name
	item   *node
}

type nodeField struct {
	name string
	member
	node *node
}

// omits reports whether the field is left out when it holds v.
func (f *nodeField) omits(v reflect.Value) bool {
	if f.omitEmpty && empty(v) {
		return true
	}
	if !f.omitZero {
		return false
	}
	if z, ok := v.Interface().(interface{ IsZero() bool }); ok {
		return z.IsZero()
	}
	if v.CanAddr() {
		if z, ok := v.Addr().Interface().(interface{ IsZero() bool }); ok {
			return z.IsZero()
		}
	}
	return v.IsZero()
}

var (
	errNoPlan   = errors.New("the kind needs the library")
	marshaler   = reflect.TypeFor[json.Marshaler]()
	convertible = reflect.TypeFor[value.UnstructuredConverter]()
)

// planner makes plans of types of one schema.
type planner struct {
	schema *schema.Schema
	left   []string // dotted paths that nobody owns
	made   map[planKey]*node
}

type planKey struct {
	t    reflect.Type
	name string
}

// planOf returns the plan of a kind; left are the dotted paths of fields that are not its writer's to own.
func planOf(t reflect.Type, p *typed.ParseableType, left []string) (*node, error) {
	l := planner{schema: p.Schema, left: left, made: map[planKey]*node{}}
	return l.plan(t, p.TypeRef, "")
}

func (l *planner) plan(t reflect.Type, ref schema.TypeRef, at string) (*node, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	key := planKey{t: t}
	deep := strings.Count(at, ".") > 2 // beyond every path that is left out
	if ref.NamedType != nil && ref.ElementRelationship == nil && deep {
		key.name = *ref.NamedType
		if n := l.made[key]; n != nil {
			return n, nil
		}
	}
	a, ok := l.schema.Resolve(ref)
	if !ok {
		return nil, errNoPlan
	}
	n := &node{}
	if key.name != "" {
		l.made[key] = n
	}
	p := reflect.PointerTo(t)
	custom := p.Implements(marshaler) || p.Implements(convertible)
	var err error
	switch {
	case a.Scalar != nil && a.List == nil && a.Map == nil:
		n.shape = leaf
	case a.List != nil && a.Scalar == nil && a.Map == nil && !custom && t.Kind() == reflect.Slice:
		err = l.list(n, t, a.List, at)
	case a.Map != nil && a.Scalar == nil && a.List == nil && !custom:
		err = l.object(n, t, a.Map, at)
	default:
		n.shape = opaque
	}
	return n, err
}

func (l *planner) list(n *node, t reflect.Type, a *schema.List, at string) error {
	if a.ElementRelationship != schema.Associative {
		n.shape = leaf
		return nil
	}
	var err error
	if n.item, err = l.plan(t.Elem(), a.ElementType, at+"[]."); err != nil {
		return err
	}
	if len(a.Keys) == 0 {
		n.shape = bag
		if n.item.shape != leaf || t.Elem().Kind() != reflect.String {
			n.shape = opaque
		}
		return nil
	}
	n.shape = keyed
	items := t.Elem()
	for items.Kind() == reflect.Pointer {
		items = items.Elem()
	}
	if items.Kind() != reflect.Struct {
		return fmt.Errorf("%s: %w", at, errNoPlan)
	}
	for _, k := range a.Keys {
		m, ok := members(items)[k]
		if !ok {
			return fmt.Errorf("%s: %w", at, errNoPlan)
		}
		n.keys = append(n.keys, nodeField{name: k, member: m})
	}
	slices.SortFunc(n.keys, func(a, b nodeField) int { return strings.Compare(a.name, b.name) })
	return nil
}

func (l *planner) object(n *node, t reflect.Type, a *schema.Map, at string) (err error) {
	switch {
	case a.ElementRelationship == schema.Atomic:
		n.shape = leaf
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		n.shape = dictionary
		n.item, err = l.plan(t.Elem(), a.ElementType, at+"[].")
	case t.Kind() == reflect.Struct:
		n.shape = record
		err = l.record(n, t, a, at)
	default:
		n.shape = opaque
	}
	return err
}

func (l *planner) record(n *node, t reflect.Type, a *schema.Map, at string) error {
	for name, m := range members(t) {
		if slices.Contains(l.left, at+name) {
			continue
		}
		ref := a.ElementType
		if sf, ok := a.FindField(name); ok {
			ref = sf.Type
		}
		if ref == (schema.TypeRef{}) {
			return fmt.Errorf("%s%s is not in the merge schema: %w", at, name, errNoPlan)
		}
		inner, err := l.plan(t.FieldByIndex(m.index).Type, ref, at+name+".")
		if err != nil {
			return err
		}
		n.fields = append(n.fields, nodeField{name, m, inner})
	}
	slices.SortFunc(n.fields, func(a, b nodeField) int { return strings.Compare(a.name, b.name) })
	return nil
}

// first writes the fields that the creator of an object owns.
type first struct {
	out  []byte
	fail bool // something the plan does not cover: what was written is worth nothing
}

// firstFields returns the encoded set of the fields of obj, nil if it has none; false for what only the library can answer.
func firstFields(n *node, obj runtime.Object) (*metav1.FieldsV1, bool) {
	w := first{out: make([]byte, 0, 1024)}
	w.out = append(w.out, '{')
	w.record(n, reflect.ValueOf(obj).Elem(), false)
	if w.fail {
		return nil, false
	}
	if len(w.out) == 1 {
		return nil, true
	}
	f := &metav1.FieldsV1{}
	f.SetRawBytes(append(slices.Clip(w.out), '}'))
	return f, true
}

// record writes the fields of struct v. added says that an empty object would not have v at all; otherwise it would have v
// with all fields empty.
func (w *first) record(n *node, v reflect.Value, added bool) {
	for i := range n.fields {
		f := &n.fields[i]
		fv := v.FieldByIndex(f.index)
		if f.omits(fv) {
			continue
		}
		// An empty object has the fields that are never left out.
		w.element(f.node, fv, added || f.omitZero || f.omitEmpty && fv.Kind() != reflect.Struct, func() { w.name(f.name) })
	}
}

// element writes one member of a struct, map or list, with what is below it, under the name that label writes. Nothing is
// written of what an empty object has as well.
func (w *first) element(n *node, v reflect.Value, added bool, label func()) {
	null := false // an empty object has null where this is
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v, null = v.Elem(), true
	}
	shape := n.shape
	switch {
	case !added && !null && v.IsZero():
		return
	case shape == opaque:
		w.fail = true
		return
	case hollow(n, v): // a list or an object with nothing in it is a leaf
		if !added && !null && v.Kind() == reflect.Struct {
			return
		}
		shape = leaf
	case shape == leaf && !added && !null && v.Kind() == reflect.Struct:
		w.fail = true // whether it is written like an empty one is for the library to say
		return
	}
	start := len(w.out)
	if w.out[start-1] != '{' {
		w.out = append(w.out, ',')
	}
	label()
	w.out = append(w.out, ":{"...)
	if shape == leaf {
		w.out = append(w.out, '}')
		return
	}
	inside := len(w.out)
	if added {
		w.out = append(w.out, `".":{}`...)
	}
	switch shape {
	case record:
		w.record(n, v, added || null)
	case dictionary:
		w.dictionary(n, v)
	case keyed:
		w.keyed(n, v)
	case bag:
		w.bag(v)
	}
	if len(w.out) == inside {
		w.out = w.out[:start]
		return
	}
	w.out = append(w.out, '}')
}

func (w *first) dictionary(n *node, v reflect.Value) {
	keys := make([]string, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		keys = append(keys, it.Key().String())
	}
	slices.Sort(keys)
	kt := v.Type().Key()
	for _, k := range keys {
		item := v.MapIndex(reflect.ValueOf(k).Convert(kt))
		w.element(n.item, item, true, func() { w.name(k) })
	}
}

// listItem is an item of a keyed list with what its key fields hold, in the order of their names.
type listItem struct {
	v    reflect.Value
	keys [4]scalar
}

// scalar is a value that orders and writes as a list's key: a string or a number.
type scalar struct {
	text   string
	number int64
	isText bool
}

func (a scalar) compare(b scalar) int {
	return cmp.Or(cmp.Compare(a.number, b.number), strings.Compare(a.text, b.text))
}

func (w *first) keyed(n *node, v reflect.Value) {
	if len(n.keys) > len(listItem{}.keys) {
		w.fail = true
		return
	}
	items := make([]listItem, v.Len())
	for i := range items {
		it := &items[i]
		it.v = v.Index(i)
		for it.v.Kind() == reflect.Pointer && !it.v.IsNil() {
			it.v = it.v.Elem()
		}
		for k := range n.keys {
			f := it.v.FieldByIndex(n.keys[k].index)
			if n.keys[k].omitEmpty && empty(f) {
				w.fail = true
				return
			}
			for f.Kind() == reflect.Pointer && !f.IsNil() {
				f = f.Elem()
			}
			switch {
			case f.Kind() == reflect.String:
				it.keys[k] = scalar{text: f.String(), isText: true}
			case f.CanInt():
				it.keys[k] = scalar{number: f.Int()}
			default:
				w.fail = true
				return
			}
		}
	}
	order := func(a, b listItem) int { return slices.CompareFunc(a.keys[:], b.keys[:], scalar.compare) }
	slices.SortFunc(items, order)
	for i := range items {
		if i > 0 && order(items[i-1], items[i]) == 0 {
			w.fail = true // duplicates are no items of their own
			return
		}
		w.element(n.item, items[i].v, true, func() { w.key(n.keys, items[i].keys[:len(n.keys)]) })
	}
}

func (w *first) bag(v reflect.Value) {
	items := make([]string, v.Len())
	for i := range items {
		items[i] = v.Index(i).String()
	}
	slices.Sort(items)
	for i, s := range items {
		if i > 0 && items[i-1] == s {
			w.fail = true
			return
		}
		if w.out[len(w.out)-1] != '{' {
			w.out = append(w.out, ',')
		}
		w.out = append(w.out, `"v:\"`...)
		w.plain(s)
		w.out = append(w.out, `\"":{}`...)
	}
}

func (w *first) name(s string) {
	w.out = append(w.out, `"f:`...)
	w.plain(s)
	w.out = append(w.out, '"')
}

func (w *first) key(fields []nodeField, values []scalar) {
	w.out = append(w.out, `"k:{`...)
	for i := range fields {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		w.out = append(w.out, `\"`...)
		w.out = append(w.out, fields[i].name...)
		w.out = append(w.out, `\":`...)
		if !values[i].isText {
			w.out = strconv.AppendInt(w.out, values[i].number, 10)
			continue
		}
		w.out = append(w.out, `\"`...)
		w.plain(values[i].text)
		w.out = append(w.out, `\"`...)
	}
	w.out = append(w.out, `}"`...)
}

// plain writes text that needs no escape, which nearly all names are.
func (w *first) plain(s string) {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			w.fail = true
			return
		}
	}
	w.out = append(w.out, s...)
}

// empty reports what omitempty leaves out.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String, reflect.Array:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// hollow reports whether v is a list or an object without anything in it.
func hollow(n *node, v reflect.Value) bool {
	switch n.shape {
	case dictionary, keyed, bag:
		return v.Len() == 0
	case record:
		if v.Kind() != reflect.Struct { // a nil pointer
			return true
		}
		for i := range n.fields {
			f := &n.fields[i]
			if !f.omits(v.FieldByIndex(f.index)) {
				return false
			}
		}
		return true
	}
	return false
}
