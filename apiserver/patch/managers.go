package patch

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"karve/api"
	"karve/api/convert"
	"karve/api/defaults"
	types "karve/api/schema"
)

// Managers records who owns which fields: one library field manager per kind and subresource, made on first use. Safe
// for concurrent use.
type Managers struct {
	types *types.Types
	sets  fieldSets
	mu    sync.Mutex
	all   map[managerKey]*kindManager
}

// kindManager is the library's field manager of a kind and subresource, with what it leaves to others to own.
type kindManager struct {
	*managedfields.FieldManager
	filter fieldpath.Filter
	plan   *node // of what a creator owns; nil if only the library knows
}

type managerKey struct {
	kind schema.GroupVersionKind
	sub  string
}

// NewManagers returns an empty set. The merge schema of a kind is read when its first object is written.
func NewManagers() *Managers {
	return &Managers{all: map[managerKey]*kindManager{}, types: types.NewTypes()}
}

func (m *Managers) of(row *api.Row, sub string, reset []string) (*kindManager, error) {
	key := managerKey{row.GVK(), sub}
	m.mu.Lock()
	defer m.mu.Unlock()
	if fm := m.all[key]; fm != nil {
		return fm, nil
	}
	gv := key.kind.GroupVersion()
	k := &kindManager{}
	var filter map[fieldpath.APIVersion]fieldpath.Filter
	if len(reset) > 0 {
		set := fieldpath.NewSet()
		for _, p := range reset {
			set.Insert(path(p))
		}
		k.filter = fieldpath.NewExcludeSetFilter(set)
		filter = map[fieldpath.APIVersion]fieldpath.Filter{fieldpath.APIVersion(gv.String()): k.filter}
	}
	var err error
	k.FieldManager, err = managedfields.NewDefaultFieldManager(m.types, versions{}, defaulter{}, creater{}, key.kind, gv, sub, filter)
	if err != nil {
		return nil, fmt.Errorf("make field manager of %s: %w", row.Resource, err)
	}
	if p, err := m.types.Of(key.kind); err == nil && p != nil && sub == "" {
		if plan, err := planOf(reflect.TypeOf(row.New()).Elem(), p, append(slices.Clone(reset), unownedPaths...)); err == nil {
			k.plan = plan
		}
	}
	m.all[key] = k
	return k, nil
}

// Update records what manager changed now between live (nil on create) and obj in obj's managed fields. It never fails: an
// object whose fields cannot be tracked (a list entry without its key) is written without a record.
func (m *Managers) Update(row *api.Row, sub string, reset []string, live, obj runtime.Object, manager string, now time.Time) runtime.Object {
	fm, err := m.of(row, sub, reset)
	if err != nil {
		return obj
	}
	if live == nil {
		if fm.plan != nil && m.first(fm.plan, row, obj, manager, now) {
			return obj
		}
		live = row.New()
		live.GetObjectKind().SetGroupVersionKind(row.GVK())
	}
	done, err := m.track(row, sub, fm.filter, live, obj, manager, now)
	if done {
		return obj
	}
	out := obj
	if err == nil {
		out, err = fm.Update(shallow(live), obj, manager)
	}
	if err != nil {
		if m, err := meta.Accessor(obj); err == nil {
			m.SetManagedFields(nil)
		}
		return obj
	}
	return out
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

// versions turns objects into the versions that fields are owned in. Few kinds have two; of the others the only version there
// is stays what it is, and a version that is not served has no owners.
type versions struct{}

func (versions) Convert(in, out, context any) error {
	return fmt.Errorf("convert %T: not a conversion", in)
}

// ConvertToVersion returns in, which is untyped when it comes out of a merge, as the Go type of its kind in the target version.
func (versions) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	kind := in.GetObjectKind().GroupVersionKind()
	if u, ok := in.(runtime.Unstructured); ok {
		out, err := creater{}.New(kind)
		if err != nil {
			return nil, err
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.UnstructuredContent(), out); err != nil {
			return nil, err
		}
		in = out
	}
	gv, ok := target.(schema.GroupVersion)
	if !ok || gv == kind.GroupVersion() {
		return in, nil
	}
	to := gv.WithKind(kind.Kind)
	if !api.Scheme().Recognizes(to) {
		return nil, runtime.NewNotRegisteredErrForKind(api.Scheme().Name(), to)
	}
	return convert.To(in, to), nil
}

func (versions) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
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
