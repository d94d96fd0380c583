// Package validation judges objects, kind by kind: the API server runs it after defaults and strategy, before validating
// admission. It owns upstream's rules and the wording of their causes; it changes nothing and looks at nothing but the
// object and the one it replaces.
package validation

import (
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Rules are the checks of one kind. Every list is complete (all causes, not the first), metadata included.
type Rules struct {
	// Create judges a new object. Never nil.
	Create func(obj runtime.Object) field.ErrorList
	// Update judges an object that replaces old. Never nil.
	Update func(obj, old runtime.Object) field.ErrorList
	// Sub judges a write through a subresource. A subresource that is not in it has no rules beyond metadata.
	Sub map[string]func(obj, old runtime.Object) field.ErrorList
}

// entry is a line of the table, under construction.
type entry struct {
	namespaced bool
	name       nameFunc
	create     func(obj runtime.Object) field.ErrorList
	update     func(obj, old runtime.Object) field.ErrorList
	// foreign kinds are not upstream's core: a plain word will do as the name of a finalizer.
	foreign bool
	// bare kinds carry no metadata to check (reviews).
	bare bool
	sub  map[string]func(obj, old runtime.Object) field.ErrorList
	// repeat makes an update report what the checks find twice, as upstream does for some kinds.
	repeat bool
	// whole replaces create and update on an update.
	whole func(obj, old runtime.Object) field.ErrorList
}

type table map[schema.GroupVersionKind]*entry

var all = sync.OnceValue(func() map[schema.GroupVersionKind]Rules {
	t := table{}
	for _, add := range families {
		add(t)
	}
	rules := make(map[schema.GroupVersionKind]Rules, len(t))
	for gvk, e := range t {
		rules[gvk] = e.rules()
	}
	return rules
})

// For returns the rules of gvk. A kind that has none of its own gets those of metadata.
func For(gvk schema.GroupVersionKind) Rules {
	if r, ok := all()[gvk]; ok {
		return r
	}
	return Rules{
		Create: func(obj runtime.Object) field.ErrorList { return fallback(obj).rules().Create(obj) },
		Update: func(obj, old runtime.Object) field.ErrorList { return fallback(obj).rules().Update(obj, old) },
	}
}

// fallback is a line for a kind that has none: the door has put the object where its kind belongs.
func fallback(obj runtime.Object) *entry {
	m, err := meta.Accessor(obj)
	return &entry{foreign: true, namespaced: err == nil && m.GetNamespace() != "", name: path.ValidatePathSegmentName}
}

func (e *entry) rules() Rules {
	at := field.NewPath("metadata")
	r := Rules{Sub: map[string]func(obj, old runtime.Object) field.ErrorList{}}
	r.Create = func(obj runtime.Object) field.ErrorList {
		var errs field.ErrorList
		if !e.bare {
			if m, err := meta.Accessor(obj); err == nil {
				errs = e.meta(m, at)
			}
		}
		if e.create != nil {
			errs = append(errs, e.create(obj)...)
		}
		return errs
	}
	r.Update = func(obj, old runtime.Object) field.ErrorList {
		errs := e.metaUpdate(obj, old, at, true)
		if e.whole != nil {
			return append(errs, e.whole(obj, old)...)
		}
		if e.create != nil {
			errs = append(errs, e.create(obj)...)
			if e.repeat {
				errs = append(errs, e.create(obj)...)
			}
		}
		if e.update != nil {
			errs = append(errs, e.update(obj, old)...)
		}
		return errs
	}
	for name, f := range e.sub {
		r.Sub[name] = func(obj, old runtime.Object) field.ErrorList {
			return append(e.metaUpdate(obj, old, at, false), f(obj, old)...)
		}
	}
	return r
}

// meta judges the metadata of an object as its kind does.
func (e *entry) meta(m metav1.Object, at *field.Path) field.ErrorList {
	errs := ObjectMeta(m, e.namespaced, e.name, at)
	for i, f := range m.GetFinalizers() {
		if !e.foreign && !strings.Contains(f, "/") && !standardFinalizer(f) {
			errs = append(errs, field.Invalid(at.Child("finalizers").Index(i), f, unqualifiedFinalizer))
		}
	}
	return errs
}

// metaUpdate judges the metadata of an update twice, once for the door and once for the kind, as upstream does: causes are
// counted by clients. A subresource checks only what may not change for its part.
func (e *entry) metaUpdate(obj, old runtime.Object, at *field.Path, all bool) field.ErrorList {
	if e.bare {
		return nil
	}
	m, err := meta.Accessor(obj)
	o, err2 := meta.Accessor(old)
	if err != nil || err2 != nil {
		return nil
	}
	errs := ObjectMetaUpdate(m, o, at)
	errs = append(errs, ObjectMeta(m, e.namespaced, path.ValidatePathSegmentName, at)...)
	errs = append(errs, ObjectMetaUpdate(m, o, at)...)
	if all {
		errs = append(errs, e.meta(m, at)...)
	}
	return errs
}

// option changes a line of the table.
type option func(*entry)

// rule adds the line of a kind. check runs on create and update, change on update only; either may be nil.
func rule[T runtime.Object](t table, group, version, kind string, namespaced bool, name nameFunc, check func(T) field.ErrorList, change func(obj, old T) field.ErrorList, opts ...option) {
	e := &entry{namespaced: namespaced, name: name, sub: map[string]func(obj, old runtime.Object) field.ErrorList{}}
	if check != nil {
		e.create = func(o runtime.Object) field.ErrorList { return check(o.(T)) }
	}
	if change != nil {
		e.update = func(o, old runtime.Object) field.ErrorList { return change(o.(T), old.(T)) }
	}
	for _, o := range opts {
		o(e)
	}
	t[schema.GroupVersionKind{Group: group, Version: version, Kind: kind}] = e
}

// onSub adds the rules of a subresource.
func onSub[T runtime.Object](name string, f func(obj, old T) field.ErrorList) option {
	return func(e *entry) {
		e.sub[name] = func(o, old runtime.Object) field.ErrorList { return f(o.(T), old.(T)) }
	}
}

// ownUpdate replaces what an update runs beside the rules of metadata: f alone, not the checks of a create.
func ownUpdate[T runtime.Object](f func(obj, old T) field.ErrorList) option {
	return func(e *entry) {
		e.whole = func(o, old runtime.Object) field.ErrorList { return f(o.(T), old.(T)) }
	}
}

// twice marks a kind that reports what it finds twice on an update.
func twice(e *entry) { e.repeat = true }

// foreign marks a kind whose finalizers may be plain words.
func foreign(e *entry) { e.foreign = true }

// bare marks a kind whose metadata is not checked.
func bare(e *entry) { e.bare = true }

// families add the lines of the table, one function per kind family.
var families = []func(table){addPods, addApps, addBatch, addScaling, addCore, addEvents, addServices, addDiscovery, addRBAC, addNetworking, addStorage, addSmall, addFlow, addAdmission, addExtensions, addDevices, addReviews}
