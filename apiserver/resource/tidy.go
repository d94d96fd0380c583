package resource

import (
	"reflect"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tidy makes an object what it is after a way through the store: lists and maps without entries become none, as their
// stored form cannot tell the two apart, and times lose what is less than a second. Bytes are left alone: theirs can.
func tidy(o Object) {
	v := reflect.ValueOf(o).Elem()
	planOf(v.Type()).run(v)
}

// plan is what there is to tidy below one type.
type plan struct {
	kind   reflect.Kind
	elem   *plan       // of a slice, array or pointer; nil for nothing
	fields []fieldPlan // of a struct
	time   bool        // it is a metav1.Time
	done   bool        // the plan is whole: what it lacks, it will never have
}

type fieldPlan struct {
	index int
	plan  *plan
}

var plans sync.Map // reflect.Type → *plan

func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	p := makePlan(t, map[reflect.Type]*plan{})
	plans.Store(t, p)
	return p
}

// makePlan walks a type; made holds those on the way and behind, for types that contain themselves.
func makePlan(t reflect.Type, made map[reflect.Type]*plan) *plan {
	if p, ok := made[t]; ok {
		return p
	}
	p := &plan{kind: t.Kind()}
	made[t] = p
	if t == reflect.TypeFor[metav1.Time]() {
		p.time, p.done = true, true
		return p
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer, reflect.Array:
		p.elem = worth(makePlan(t.Elem(), made))
	case reflect.Struct:
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() && !isBytes(f.Type) {
				if sub := worth(makePlan(f.Type, made)); sub != nil {
					p.fields = append(p.fields, fieldPlan{i, sub})
				}
			}
		}
	}
	p.done = true
	return p
}

func isBytes(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

// worth drops a plan that does nothing.
func worth(p *plan) *plan {
	if p.time {
		return p
	}
	switch p.kind {
	case reflect.Slice, reflect.Map:
		return p
	case reflect.Pointer, reflect.Array, reflect.Struct:
		if !p.done || p.elem != nil || len(p.fields) > 0 {
			return p
		}
	}
	return nil
}

// run tidies a value that can be set. The values of maps cannot be, and are left as they are.
func (p *plan) run(v reflect.Value) {
	if p.time {
		if t := v.Addr().Interface().(*metav1.Time); t.Nanosecond() != 0 {
			*t = t.Rfc3339Copy()
		}
		return
	}
	switch p.kind {
	case reflect.Slice:
		if n := v.Len(); n == 0 && !v.IsNil() {
			v.SetZero()
		} else if p.elem != nil {
			for i := range n {
				p.elem.run(v.Index(i))
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			p.elem.run(v.Index(i))
		}
	case reflect.Map:
		if v.Len() == 0 && !v.IsNil() {
			v.SetZero()
		}
	case reflect.Pointer:
		if p.elem != nil && !v.IsNil() {
			p.elem.run(v.Elem())
		}
	case reflect.Struct:
		for _, f := range p.fields {
			f.plan.run(v.Field(f.index))
		}
	}
}
