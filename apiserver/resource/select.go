package resource

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"karve/api"
	"karve/api/codec"
	"karve/api/convert"
	rowfields "karve/api/fields"
	"karve/store"
)

// Selector decides which objects a list or watch is about. A nil part selects everything.
type Selector struct {
	row    *api.Row
	labels labels.Selector
	fields fields.Selector
	get    func(runtime.Object) fields.Set
	// name is set when the field selector asks for exactly one name.
	name string
}

// Picks reports whether the selector picks the object of a record. It is not decoded for labels, nor for fields that can be
// read from its bytes.
func (s *Selector) Picks(r *store.Record) bool {
	stored, ok := codec.Open(r.Value)
	if !ok {
		o := ObjectOf(r)
		return o != nil && (s.labels == nil || s.labels.Matches(labels.Set(o.GetLabels()))) && (s.fields == nil || s.fields.Matches(s.get(o)))
	}
	if s.labels != nil && !s.labels.Matches(stored.Labels()) {
		return false
	}
	return s.fields == nil || s.fields.Matches(&recordFields{s: s, record: r})
}

// recordFields reads an object's selectable fields from its record. It is a fields.Fields.
type recordFields struct {
	s      *Selector
	record *store.Record
	all    fields.Set // of the decoded object, once one was needed
}

// Has implements fields.Fields.
func (f *recordFields) Has(string) bool { return true }

// Get implements fields.Fields.
func (f *recordFields) Get(name string) string {
	if f.s.row == f.s.row.Hub() {
		if path := rowfields.Path(f.s.row.GVK(), name); path != nil {
			return codec.Text(f.record.Value, path...)
		}
	}
	if f.all == nil {
		o := ObjectOf(f.record)
		if o == nil {
			return ""
		}
		f.all = f.s.get(o)
	}
	return f.all.Get(name)
}

// Everything reports whether the selector picks all objects.
func (s *Selector) Everything() bool { return s.labels == nil && s.fields == nil }

// NewSelector parses the selectors of opts in the terms of a row; the errors are BadRequest as upstream words them.
func NewSelector(row *api.Row, opts *metav1.ListOptions) (*Selector, error) {
	s := &Selector{row: row}
	if opts.LabelSelector != "" {
		sel, err := labels.Parse(opts.LabelSelector)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if !sel.Empty() {
			s.labels = sel
		}
	}
	if opts.FieldSelector == "" {
		return s, nil
	}
	sel, err := fields.ParseSelector(opts.FieldSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	sel, err = sel.Transform(func(label, value string) (string, string, error) { return rowfields.Convert(row.GVK(), label, value) })
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if sel.Empty() {
		return s, nil
	}
	s.fields = sel
	s.get = rowfields.For(row.GVK())
	if row != row.Hub() {
		own := s.get
		s.get = func(o runtime.Object) fields.Set { return own(convert.To(o, row.GVK())) }
	}
	if name, ok := sel.RequiresExactMatch("metadata.name"); ok {
		s.name = name
	}
	return s, nil
}
