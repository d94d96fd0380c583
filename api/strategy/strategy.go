// Package strategy says what each kind keeps, drops and fills in when it is written: the API server runs it after defaults
// and mutating admission, before validation. It owns the split between an object and its subresources and the counting of
// generations; it does not judge (validation does) and allocates nothing (addresses, ports and uids are the server's).
package strategy

import (
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Strategy is how one kind is written. The functions change obj in place and never old; where a
// kind keeps a time of its own (PersistentVolume phases, CSR conditions) they read the clock; they may make obj share memory
// with old, so neither may be changed in place afterwards. No function field is nil.
type Strategy struct {
	// PrepareCreate runs before a create is validated.
	PrepareCreate func(obj runtime.Object)
	// PrepareUpdate runs before an update of the object itself is validated.
	PrepareUpdate func(obj, old runtime.Object)
	// Sub holds, by subresource name, what runs instead of PrepareUpdate for a write through that subresource.
	Sub map[string]func(obj, old runtime.Object)
	// Canonicalize brings fields that say the same thing twice in line; it runs last, after the other preparations.
	Canonicalize func(obj runtime.Object)
	// GenerationOf tells whether the kind counts metadata.generation.
	GenerationOf bool
	// AllowCreateOnUpdate lets PUT create the object when it does not exist.
	AllowCreateOnUpdate bool
	// AllowUnconditionalUpdate lets an update leave metadata.resourceVersion out.
	AllowUnconditionalUpdate bool
	// Graceful tells whether a delete waits for the grace period (pods).
	Graceful bool
	// ResetFields lists, per subresource ("" is the object itself), the dotted paths a writer can never own.
	ResetFields map[string][]string
	// HasStatus tells whether the kind has a status subresource.
	HasStatus bool
}

var all = sync.OnceValue(func() map[schema.GroupVersionKind]Strategy {
	t := map[schema.GroupVersionKind]Strategy{}
	for i := range kinds {
		t[kinds[i].gvk()] = kinds[i].strategy()
	}
	return t
})

// For returns the strategy of gvk; a kind without one of its own gets a strategy that keeps everything.
func For(gvk schema.GroupVersionKind) Strategy {
	if s, ok := all()[gvk]; ok {
		return s
	}
	return (&kind{}).strategy()
}

// Metadata keeps what a client may not change, or may leave out, in the metadata of obj: generation, uid, creation and
// deletion times. It is part of every update; a handler that writes without a strategy calls it by itself.
func Metadata(obj, old metav1.Object) {
	obj.SetGeneration(old.GetGeneration())
	if obj.GetUID() == "" {
		obj.SetUID(old.GetUID())
	}
	created := obj.GetCreationTimestamp()
	if created.IsZero() {
		obj.SetCreationTimestamp(old.GetCreationTimestamp())
	}
	if obj.GetDeletionTimestamp() == nil {
		obj.SetDeletionTimestamp(old.GetDeletionTimestamp())
	}
	if old.GetDeletionGracePeriodSeconds() != nil && obj.GetDeletionGracePeriodSeconds() == nil {
		obj.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	}
	obj.SetSelfLink("")
}

// kind is one line of the table: flags for the common shape, functions for what is particular.
type kind struct {
	group, version, name string
	flags                flag
	create               func(obj runtime.Object)
	update               func(obj, old runtime.Object)
	status               func(obj, old runtime.Object)
	sub                  map[string]func(obj, old runtime.Object)
	canon                func(obj runtime.Object)
	// counted lists the fields whose change starts a new generation; Spec when empty.
	counted []string
	reset   map[string][]string
}

type flag int

const (
	hasStatus   flag = 1 << iota // the kind has a status subresource
	generation                   // the kind counts generations
	recount                      // it starts to count at the first change
	countSent                    // what the client sent counts, before anything is dropped from it
	conditional                  // an update must name the resource version
	upsert                       // PUT may create
	keepCreated                  // a status given at create is kept
	statusMeta                   // a write of the status changes no metadata
	graceful
)

func (k *kind) gvk() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: k.group, Version: k.version, Kind: k.name}
}

func (k *kind) has(f flag) bool { return k.flags&f != 0 }

func (k *kind) strategy() Strategy {
	s := Strategy{
		PrepareCreate: k.prepareCreate, PrepareUpdate: k.prepareUpdate, Canonicalize: func(runtime.Object) {},
		Sub: map[string]func(obj, old runtime.Object){}, GenerationOf: k.has(generation), AllowCreateOnUpdate: k.has(upsert),
		AllowUnconditionalUpdate: !k.has(conditional), Graceful: k.has(graceful), HasStatus: k.has(hasStatus), ResetFields: map[string][]string{},
	}
	if k.canon != nil {
		s.Canonicalize = k.canon
	}
	if k.has(hasStatus) {
		s.Sub["status"] = k.prepareStatus
		s.ResetFields[""] = []string{"status"}
		s.ResetFields["status"] = []string{"spec"}
		if k.has(statusMeta) {
			s.ResetFields["status"] = []string{"spec", "metadata"}
		}
	}
	for name, f := range k.sub {
		s.Sub[name] = func(obj, old runtime.Object) {
			metadata(obj, old)
			f(obj, old)
		}
	}
	for name, paths := range k.reset {
		s.ResetFields[name] = paths
	}
	return s
}

func (k *kind) prepareCreate(obj runtime.Object) {
	if k.has(hasStatus) && !k.has(keepCreated) {
		clearField(obj, "Status")
	}
	if m, ok := obj.(metav1.Object); ok {
		m.SetGeneration(0)
		if k.has(generation) {
			m.SetGeneration(1)
		}
	}
	if k.create != nil {
		k.create(obj)
	}
	if k.canon != nil {
		k.canon(obj)
	}
}

func (k *kind) prepareUpdate(obj, old runtime.Object) {
	metadata(obj, old)
	if k.has(hasStatus) {
		copyField(obj, old, "Status")
	}
	counts := k.has(generation) || k.has(recount)
	changed := counts && k.has(countSent) && k.changed(obj, old)
	if k.update != nil {
		k.update(obj, old)
	}
	if k.canon != nil {
		k.canon(obj)
	}
	if counts && !k.has(countSent) {
		changed = k.changed(obj, old)
	}
	if changed {
		m := obj.(metav1.Object)
		m.SetGeneration(m.GetGeneration() + 1)
	}
}

// changed reports whether a counted field differs.
func (k *kind) changed(obj, old runtime.Object) bool {
	fields := k.counted
	if len(fields) == 0 {
		fields = []string{"Spec"}
	}
	for _, f := range fields {
		if f == "Annotations" || f == "Labels" {
			a, b := obj.(metav1.Object), old.(metav1.Object)
			if f == "Annotations" && !equality.Semantic.DeepEqual(a.GetAnnotations(), b.GetAnnotations()) ||
				f == "Labels" && !equality.Semantic.DeepEqual(a.GetLabels(), b.GetLabels()) {
				return true
			}
			continue
		}
		if !equality.Semantic.DeepEqual(field(obj, f).Interface(), field(old, f).Interface()) {
			return true
		}
	}
	return false
}

func (k *kind) prepareStatus(obj, old runtime.Object) {
	metadata(obj, old)
	copyField(obj, old, "Spec")
	if k.has(statusMeta) {
		resetMeta(obj.(metav1.Object), old.(metav1.Object))
	}
	if k.status != nil {
		k.status(obj, old)
	}
	if k.canon != nil {
		k.canon(obj)
	}
}

func metadata(obj, old runtime.Object) {
	a, ok := obj.(metav1.Object)
	b, ok2 := old.(metav1.Object)
	if ok && ok2 {
		Metadata(a, b)
	}
}

// resetMeta keeps all the metadata a status write may not change.
func resetMeta(obj, old metav1.Object) {
	obj.SetDeletionTimestamp(old.GetDeletionTimestamp())
	obj.SetLabels(old.GetLabels())
	obj.SetAnnotations(old.GetAnnotations())
	obj.SetFinalizers(old.GetFinalizers())
	obj.SetOwnerReferences(old.GetOwnerReferences())
}

func field(obj runtime.Object, name string) reflect.Value {
	return reflect.ValueOf(obj).Elem().FieldByName(name)
}

func clearField(obj runtime.Object, name string) {
	if f := field(obj, name); f.IsValid() {
		f.SetZero()
	}
}

func copyField(obj, old runtime.Object, name string) {
	if f := field(obj, name); f.IsValid() {
		f.Set(field(old, name))
	}
}

func only[T runtime.Object](f func(T)) func(runtime.Object) {
	return func(o runtime.Object) { f(o.(T)) }
}

func both[T runtime.Object](f func(obj, old T)) func(obj, old runtime.Object) {
	return func(obj, old runtime.Object) { f(obj.(T), old.(T)) }
}
