// Package printcolumns renders objects as the rows of a table, the form kubectl get asks for: columns and cells per kind,
// as upstream prints them. The API server calls it; it computes from one object and the time alone.
package printcolumns

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Columns is the table of one kind. It is immutable.
type Columns struct {
	Defs []metav1.TableColumnDefinition
	// Row returns the cells of an object of the kind; ages are counted up to now.
	Row func(obj runtime.Object, now time.Time) []any
	// Compare puts the rows of a list in order; nil leaves them as they are listed.
	Compare func(a, b runtime.Object) int
}

type table map[schema.GroupVersionKind]func() *Columns

var all = sync.OnceValue(func() table {
	t := table{}
	for _, add := range []func(table){addPods, addCore, addStorage, addApps, addBatch, addScaling, addNetwork, addRBAC, addAdmission, addRest} {
		add(t)
	}
	return t
})

// For returns the columns of gvk: its own, or name and creation time.
func For(gvk schema.GroupVersionKind) *Columns {
	if f := all()[gvk]; f != nil {
		return f()
	}
	return Default()
}

// Default is the table of a kind that has none of its own: Name and Created At.
var Default = sync.OnceValue(func() *Columns {
	return &Columns{
		Defs: []metav1.TableColumnDefinition{nameColumn(),
			{Name: "Created At", Type: "date", Description: doc(metav1.ObjectMeta{}, "creationTimestamp")}},
		Row: func(obj runtime.Object, _ time.Time) []any {
			m, ok := obj.(metav1.Object)
			if !ok {
				return []any{"", ""}
			}
			return []any{m.GetName(), m.GetCreationTimestamp().UTC().Format(time.RFC3339)}
		},
	}
})

func add[T runtime.Object](t table, group, version, kind string, row func(o T, now time.Time) []any, defs func() []metav1.TableColumnDefinition) {
	t[schema.GroupVersionKind{Group: group, Version: version, Kind: kind}] = sync.OnceValue(func() *Columns {
		return &Columns{Defs: defs(), Row: func(o runtime.Object, now time.Time) []any { return row(o.(T), now) }}
	})
}

// inOrder puts the rows of a kind that was added in order.
func inOrder[T runtime.Object](t table, group, version, kind string, compare func(a, b T) int) {
	gvk := schema.GroupVersionKind{Group: group, Version: version, Kind: kind}
	plain := t[gvk]
	t[gvk] = sync.OnceValue(func() *Columns {
		c := *plain()
		c.Compare = func(a, b runtime.Object) int { return compare(a.(T), b.(T)) }
		return &c
	})
}

// documented types carry the descriptions of their fields.
type documented interface{ SwaggerDoc() map[string]string }

func doc(t documented, name string) string { return t.SwaggerDoc()[name] }

func nameColumn() metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: doc(metav1.ObjectMeta{}, "name")}
}

func ageColumn() metav1.TableColumnDefinition {
	return text("Age", doc(metav1.ObjectMeta{}, "creationTimestamp"))
}

func text(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Description: description}
}

func number(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "integer", Description: description}
}

func boolean(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "boolean", Description: description}
}

// wide makes a column one that only kubectl get -o wide shows.
func wide(c metav1.TableColumnDefinition) metav1.TableColumnDefinition {
	c.Priority = 1
	return c
}

type columns = []metav1.TableColumnDefinition

func age(t metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

func microAge(t metav1.MicroTime, now time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}
