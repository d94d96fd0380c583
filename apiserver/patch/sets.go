package patch

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"karve/api"
)

const (
	// setsPerKind bounds what is remembered of one kind, twice: objects of one origin have the same few field sets.
	setsPerKind = 512
	// longestSet is the length in bytes of the encoded sets that are worth remembering.
	longestSet = 8 << 10
)

// fieldSets remembers parsed field sets by their encoded form. Sets are shared: read only. Safe for concurrent use.
type fieldSets struct {
	mu    sync.Mutex
	kinds map[schema.GroupVersionKind]*setsOfKind
}

// fieldSet is a parsed field set and its usual encoding; a client may have sent another.
type fieldSet struct {
	*fieldpath.Set
	fields *metav1.FieldsV1
}

// setsOfKind keeps two generations: the older one is dropped when the younger is full.
type setsOfKind struct {
	young, old map[string]*fieldSet
	none       *typed.TypedValue // an empty object of the kind, for its schema
}

// of returns the set that f encodes, fit to today's schema of the row's kind; nil if it cannot be read.
func (s *fieldSets) of(types managedfields.TypeConverter, row *api.Row, f *metav1.FieldsV1) *fieldSet {
	if f == nil {
		f = metav1.NewFieldsV1("{}")
	}
	gvk := row.GVK()
	raw := f.GetRawBytes()
	s.mu.Lock()
	k := s.kinds[gvk]
	if k == nil {
		k = &setsOfKind{young: map[string]*fieldSet{}}
		if s.kinds == nil {
			s.kinds = map[schema.GroupVersionKind]*setsOfKind{}
		}
		s.kinds[gvk] = k
	}
	set := k.young[string(raw)]
	if set == nil {
		if set = k.old[string(raw)]; set != nil {
			k.keep(string(raw), set)
		}
	}
	none := k.none
	s.mu.Unlock()
	if set != nil {
		return set
	}
	if none == nil {
		o := row.New()
		o.GetObjectKind().SetGroupVersionKind(gvk)
		var err error
		if none, err = types.ObjectToTyped(o); err != nil {
			return nil
		}
	}
	parsed := &fieldpath.Set{}
	if err := parsed.FromJSON(f.GetRawReader()); err != nil {
		return nil
	}
	switch fit, err := typed.ReconcileFieldSetWithSchema(parsed, none); {
	case err != nil:
		return nil
	case fit != nil:
		parsed = fit
	}
	fields, err := fieldsOf(parsed)
	if err != nil {
		return nil
	}
	set = &fieldSet{parsed, fields}
	s.mu.Lock()
	k.none = none
	if len(raw) <= longestSet {
		k.keep(string(raw), set)
	}
	s.mu.Unlock()
	return set
}

func (k *setsOfKind) keep(raw string, set *fieldSet) {
	if len(k.young) >= setsPerKind {
		k.young, k.old = map[string]*fieldSet{}, k.young
	}
	k.young[raw] = set
}
