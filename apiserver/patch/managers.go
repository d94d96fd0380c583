package patch

import (
	"fmt"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"karve/api"
	"karve/api/defaults"
	types "karve/api/schema"
)

// Managers records who owns which fields: one library field manager per kind and subresource, made on first use. Safe
// for concurrent use.
type Managers struct {
	types managedfields.TypeConverter
	mu    sync.Mutex
	all   map[managerKey]*managedfields.FieldManager
}

type managerKey struct {
	kind schema.GroupVersionKind
	sub  string
}

// NewManagers returns an empty set. The merge schema of a kind is read when its first object is written.
func NewManagers() *Managers {
	return &Managers{all: map[managerKey]*managedfields.FieldManager{}, types: types.NewTypes()}
}

func (m *Managers) of(row *api.Row, sub string, reset []string) (*managedfields.FieldManager, error) {
	key := managerKey{row.GVK(), sub}
	m.mu.Lock()
	defer m.mu.Unlock()
	if fm := m.all[key]; fm != nil {
		return fm, nil
	}
	gv := key.kind.GroupVersion()
	var filter map[fieldpath.APIVersion]fieldpath.Filter
	if len(reset) > 0 {
		set := fieldpath.NewSet()
		for _, p := range reset {
			set.Insert(path(p))
		}
		filter = map[fieldpath.APIVersion]fieldpath.Filter{fieldpath.APIVersion(gv.String()): fieldpath.NewExcludeSetFilter(set)}
	}
	fm, err := managedfields.NewDefaultFieldManager(m.types, same{}, defaulter{}, creater{}, key.kind, gv, sub, filter)
	if err != nil {
		return nil, fmt.Errorf("make field manager of %s: %w", row.Resource, err)
	}
	m.all[key] = fm
	return fm, nil
}

// Update records what manager changed between live (nil on create) and obj in obj's managed fields. It never fails: an
// object whose fields cannot be tracked keeps the record it has.
func (m *Managers) Update(row *api.Row, sub string, reset []string, live, obj runtime.Object, manager string) runtime.Object {
	fm, err := m.of(row, sub, reset)
	if err != nil {
		return obj
	}
	if live == nil {
		live = row.New()
		live.GetObjectKind().SetGroupVersionKind(row.GVK())
	}
	return fm.UpdateNoErrors(shallow(live), obj, manager)
}

// Apply merges applied (the manager's whole intent, untyped as it was sent) into live and returns the result; the error is
// a conflict with causes when other managers own what it changes and force is not set.
func (m *Managers) Apply(row *api.Row, sub string, reset []string, live, applied runtime.Object, manager string, force bool) (runtime.Object, error) {
	fm, err := m.of(row, sub, reset)
	if err != nil {
		return nil, err
	}
	return fm.Apply(shallow(live), applied, manager, force)
}

// shallow copies the struct itself: the library clears the managed fields of what it is given.
func shallow(o runtime.Object) runtime.Object {
	c := reflect.New(reflect.TypeOf(o).Elem())
	c.Elem().Set(reflect.ValueOf(o).Elem())
	return c.Interface().(runtime.Object)
}

func path(dotted string) fieldpath.Path {
	var p fieldpath.Path
	start := 0
	for i := 0; i <= len(dotted); i++ {
		if i == len(dotted) || dotted[i] == '.' {
			name := dotted[start:i]
			p = append(p, fieldpath.PathElement{FieldName: &name})
			start = i + 1
		}
	}
	return p
}

// One Go type serves each kind, so converting between versions is the identity.
type same struct{}

func (same) Convert(in, out, context any) error {
	return fmt.Errorf("convert %T: not a conversion", in)
}

// ConvertToVersion only has to make what a merge results in, which is untyped, an object of its kind's Go type.
func (same) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	u, ok := in.(runtime.Unstructured)
	if !ok {
		return in, nil
	}
	out, err := creater{}.New(in.GetObjectKind().GroupVersionKind())
	if err != nil {
		return nil, err
	}
	return out, runtime.DefaultUnstructuredConverter.FromUnstructured(u.UnstructuredContent(), out)
}
func (same) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

type creater struct{}

func (creater) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	o, err := api.Scheme().New(kind)
	if err == nil {
		o.GetObjectKind().SetGroupVersionKind(kind)
	}
	return o, err
}

type defaulter struct{}

func (defaulter) Default(o runtime.Object) {
	gvk := o.GetObjectKind().GroupVersionKind()
	if f := defaults.For(gvk); f != nil {
		f(o)
	}
}
