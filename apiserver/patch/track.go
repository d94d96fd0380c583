package patch

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"karve/api"
)

// maxUpdaters is how many managers that do not apply may own fields before the oldest are merged into one, as upstream does.
const maxUpdaters = 10

// owner is an entry of managed fields with its fields as a set.
type owner struct {
	metav1.ManagedFieldsEntry
	set *fieldpath.Set
}

// same reports whether two entries are of one manager: an applier is the same in every version.
func (o *owner) same(e *metav1.ManagedFieldsEntry) bool {
	return o.Manager == e.Manager && o.Operation == e.Operation && o.Subresource == e.Subresource &&
		(o.APIVersion == e.APIVersion || o.Operation == metav1.ManagedFieldsOperationApply)
}

// track computes what the library's field manager would for an update, at a fraction of its cost: only the parts in which
// live and obj differ are compared, and field sets are parsed once, however many objects have the same. It returns false,
// with nothing changed, for what is better left to the library: entries in other versions, and managers beyond the limit.
func (m *Managers) track(row *api.Row, sub string, filter fieldpath.Filter, live, obj runtime.Object, manager string, now time.Time) (bool, error) {
	was, err := meta.Accessor(live)
	if err != nil {
		return false, nil
	}
	is, err := meta.Accessor(obj)
	if err != nil {
		return false, nil
	}
	version := row.GVK().GroupVersion().String()
	owners, ok := m.owners(row, version, sub, was, is)
	if !ok {
		return false, nil
	}
	self := entryOf(row, sub, manager)
	if len(owners) == 0 && was.GetUID() != "" { // an object whose fields nobody owns stays like that until it is applied
		is.SetManagedFields(nil)
		return true, nil
	}
	if len(owners) >= maxUpdaters && updaters(owners) >= maxUpdaters {
		return false, nil
	}
	is.SetManagedFields(nil)
	live = shallow(live)
	live.(metav1.Object).SetManagedFields(nil)
	diff, err := m.compare(live, obj)
	if err != nil {
		return false, err
	}
	if diff != nil {
		owners, err = hand(owners, &self, diff, filter, now)
		if err != nil {
			return false, err
		}
	}
	entries := make([]metav1.ManagedFieldsEntry, len(owners))
	for i := range owners {
		entries[i] = owners[i].ManagedFieldsEntry
	}
	slices.SortStableFunc(entries, earlier)
	if len(entries) > 0 {
		is.SetManagedFields(entries)
	}
	return true, nil
}

func updaters(owners []owner) int {
	n := 0
	for i := range owners {
		if owners[i].Operation == metav1.ManagedFieldsOperationUpdate {
			n++
		}
	}
	return n
}

// owners reads the entries to start from: those a client sent, unless it sent none or may not, then those of the live object.
func (m *Managers) owners(row *api.Row, version, sub string, was, is metav1.Object) ([]owner, bool) {
	sent := is.GetManagedFields()
	if sub != "" {
		sent = nil
	} else if sent != nil && (len(sent) == 0 || len(sent) == 1 && reflect.DeepEqual(sent[0], metav1.ManagedFieldsEntry{})) {
		return nil, true // the way to make the server forget who owns what
	}
	for _, entries := range [][]metav1.ManagedFieldsEntry{sent, was.GetManagedFields()} {
		if len(entries) == 0 {
			continue
		}
		owners := make([]owner, 0, len(entries)+1)
		bad := false
		for i := range entries {
			e := &entries[i]
			if e.APIVersion != version {
				return nil, false
			}
			known := e.Operation == metav1.ManagedFieldsOperationApply || e.Operation == metav1.ManagedFieldsOperationUpdate
			var set *fieldSet
			if known && e.FieldsType == "FieldsV1" {
				set = m.sets.of(m.types, row, e.FieldsV1)
			}
			if bad = set == nil; bad {
				break
			}
			o := owner{*e, set.Set}
			o.FieldsV1 = set.fields
			if at := slices.IndexFunc(owners, func(x owner) bool { return x.same(e) }); at >= 0 {
				owners[at] = o
			} else {
				owners = append(owners, o)
			}
		}
		if !bad {
			return owners, true
		}
	}
	return nil, true
}

// hand moves what diff changed from those who own it to self.
func hand(owners []owner, self *metav1.ManagedFieldsEntry, diff *typed.Comparison, filter fieldpath.Filter, now time.Time) ([]owner, error) {
	gained := diff.Modified.Union(diff.Added)
	taken, removed := gained, diff.Removed
	if filter != nil {
		taken, removed = filter.Filter(gained), filter.Filter(diff.Removed)
	}
	var err error
	kept := owners[:0]
	for _, o := range owners {
		left := o.set.Difference(taken).Difference(removed)
		if left.Empty() {
			continue
		}
		if left.Size() != o.set.Size() {
			if o.FieldsV1, err = fieldsOf(left); err != nil {
				return nil, err
			}
			o.set = left
		}
		kept = append(kept, o)
	}
	gained = taken.Difference(unowned)
	if gained.Empty() {
		return kept, nil
	}
	at := slices.IndexFunc(kept, func(o owner) bool { return o.same(self) })
	if at < 0 {
		kept = append(kept, owner{*self, gained})
		at = len(kept) - 1
	} else {
		kept[at].set = kept[at].set.Union(gained)
	}
	kept[at].Time = &metav1.Time{Time: now.UTC().Truncate(time.Second)}
	kept[at].FieldsV1, err = fieldsOf(kept[at].set)
	return kept, err
}

// unownedPaths are the fields that nobody owns: who may write them is not a question of managers.
var unownedPaths = []string{"apiVersion", "kind", "metadata.name", "metadata.namespace", "metadata.creationTimestamp", "metadata.selfLink",
	"metadata.uid", "metadata.clusterName", "metadata.generation", "metadata.managedFields", "metadata.resourceVersion"}

var unowned = func() *fieldpath.Set {
	s := fieldpath.NewSet(path("metadata"))
	for _, p := range unownedPaths {
		s.Insert(path(p))
	}
	return s
}()

// first records manager as the one who made obj; false when the library has to.
func (m *Managers) first(plan *node, row *api.Row, obj runtime.Object, manager string, now time.Time) bool {
	is, err := meta.Accessor(obj)
	if err != nil || is.GetManagedFields() != nil {
		return false
	}
	fields, ok := firstFields(plan, obj)
	if !ok {
		return false
	}
	if fields == nil {
		return true
	}
	e := entryOf(row, "", manager)
	e.FieldsV1, e.Time = fields, &metav1.Time{Time: now.UTC().Truncate(time.Second)}
	is.SetManagedFields([]metav1.ManagedFieldsEntry{e})
	return true
}

// entryOf returns the entry of a manager that updates, without fields and time.
func entryOf(row *api.Row, sub, manager string) metav1.ManagedFieldsEntry {
	if manager == "" {
		manager = "unknown"
	}
	return metav1.ManagedFieldsEntry{Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate,
		APIVersion: row.GVK().GroupVersion().String(), Subresource: sub, FieldsType: "FieldsV1"}
}

func fieldsOf(s *fieldpath.Set) (*metav1.FieldsV1, error) {
	raw, err := s.ToJSON()
	if err != nil {
		return nil, err
	}
	f := &metav1.FieldsV1{}
	f.SetRawBytes(raw)
	return f, nil
}

// earlier orders entries as upstream writes them.
func earlier(a, b metav1.ManagedFieldsEntry) int {
	if c := strings.Compare(string(a.Operation), string(b.Operation)); c != 0 {
		return c
	}
	if c := seconds(a.Time) - seconds(b.Time); c != 0 {
		return int(max(-1, min(1, c)))
	}
	if c := strings.Compare(a.Manager, b.Manager); c != 0 {
		return c
	}
	if c := strings.Compare(a.APIVersion, b.APIVersion); c != 0 {
		return c
	}
	return strings.Compare(a.Subresource, b.Subresource)
}

func seconds(t *metav1.Time) int64 {
	if t == nil {
		return 0
	}
	return t.Unix()
}

// compare returns in which fields obj differs from live, or nil if in none.
func (m *Managers) compare(live, obj runtime.Object) (*typed.Comparison, error) {
	a, b := newLike(live), newLike(obj)
	if !differing(reflect.ValueOf(live).Elem(), reflect.ValueOf(obj).Elem(), reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()) {
		return nil, nil
	}
	gvk := obj.GetObjectKind().GroupVersionKind()
	a.GetObjectKind().SetGroupVersionKind(gvk)
	b.GetObjectKind().SetGroupVersionKind(gvk)
	was, err := m.types.ObjectToTyped(a, typed.AllowDuplicates)
	if err != nil {
		return nil, err
	}
	is, err := m.types.ObjectToTyped(b, typed.AllowDuplicates)
	if err != nil {
		return nil, err
	}
	return was.Compare(is)
}

// differing copies from x and y to a and b the fields in which they differ, going into structs, and reports whether there are
// any. What is alike would be compared for nothing.
func differing(x, y, a, b reflect.Value) bool {
	found := false
	for _, m := range members(x.Type()) {
		fx, fy := x.FieldByIndex(m.index), y.FieldByIndex(m.index)
		if m.inner != nil {
			if differing(fx, fy, a.FieldByIndex(m.index), b.FieldByIndex(m.index)) {
				found = true
			}
			continue
		}
		if !reflect.DeepEqual(fx.Interface(), fy.Interface()) {
			a.FieldByIndex(m.index).Set(fx)
			b.FieldByIndex(m.index).Set(fy)
			found = true
		}
	}
	return found
}
