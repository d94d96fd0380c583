package advice

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

const (
	// maxPaths is how many changed fields are named.
	maxPaths = 5
	// maxManagers is how many writers are named, the last first.
	maxManagers = 4
	// maxVisited bounds the comparison of two objects.
	maxVisited = 20000
)

// Since says who changed an object after the client read it, when, and which fields: Now is the object as it is; Before the
// one the client saw, when it is still known, else nil; Sent what the client sent. Only for those who may read the object.
type Since struct {
	Now, Before, Sent metav1.Object
}

// Text says it.
func (s *Since) Text() string {
	base := s.Before
	if base == nil {
		base = s.Sent
	}
	from := ""
	if base != nil && base.GetResourceVersion() != "" {
		from = " since resourceVersion " + cutWord(base.GetResourceVersion())
	}
	if base != nil && s.Now.GetUID() != base.GetUID() && base.GetUID() != "" {
		return fmt.Sprintf("it was deleted and created anew at %s", when(s.Now.GetCreationTimestamp().Time))
	}
	var fields []string
	if s.Before != nil {
		fields = changed(s.Before, s.Now)
	}
	writers := s.writers(base, len(fields) == 0)
	switch {
	case len(writers) == 0 && len(fields) == 0:
		return fmt.Sprintf("it is at resourceVersion %s now", s.Now.GetResourceVersion())
	case len(writers) == 0:
		return fmt.Sprintf("changed%s: %s; it is at resourceVersion %s now", from, some(fields), s.Now.GetResourceVersion())
	case len(fields) > 0:
		return fmt.Sprintf("changed%s by %s: %s; it is at resourceVersion %s now", from, strings.Join(writers, ", "), some(fields), s.Now.GetResourceVersion())
	}
	return fmt.Sprintf("changed%s by %s; it is at resourceVersion %s now", from, strings.Join(writers, ", "), s.Now.GetResourceVersion())
}

func when(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func some(fields []string) string {
	if len(fields) > maxPaths {
		return strings.Join(fields[:maxPaths], ", ") + fmt.Sprintf(" and %d more", len(fields)-maxPaths)
	}
	return strings.Join(fields, ", ")
}

// writers lists the managers whose record is new or other than in base, the last first. Without a base that has records it is
// the last writer alone.
func (s *Since) writers(base metav1.Object, paths bool) []string {
	now := slices.Clone(s.Now.GetManagedFields())
	slices.SortStableFunc(now, func(a, b metav1.ManagedFieldsEntry) int { return timeOf(b).Compare(timeOf(a)) })
	var known []metav1.ManagedFieldsEntry
	if base != nil {
		known = base.GetManagedFields()
	}
	var out []string
	for i := range now {
		e := &now[i]
		k := slices.IndexFunc(known, func(k metav1.ManagedFieldsEntry) bool {
			return k.Manager == e.Manager && k.Operation == e.Operation && k.Subresource == e.Subresource && k.APIVersion == e.APIVersion
		})
		var was *metav1.FieldsV1
		if k >= 0 {
			was = known[k].FieldsV1
		}
		gained := newlyOwned(was, e.FieldsV1)
		if k >= 0 && timeOf(known[k]).Equal(timeOf(*e)) && len(gained) == 0 { // others may have taken fields from it
			continue
		}
		text := quote(e.Manager)
		if e.Subresource != "" {
			text += " (" + cutWord(e.Subresource) + ")"
		}
		if e.Time != nil {
			text += " at " + when(e.Time.Time)
		}
		if paths && k >= 0 && len(gained) > 0 {
			text += " (" + some(gained) + ")"
		}
		out = append(out, text)
		if len(known) == 0 || len(out) == maxManagers {
			break
		}
	}
	return out
}

func timeOf(e metav1.ManagedFieldsEntry) time.Time {
	if e.Time == nil {
		return time.Time{}
	}
	return e.Time.Time
}

// newlyOwned lists the fields in now that are not in was.
func newlyOwned(was, now *metav1.FieldsV1) []string {
	if now == nil || len(now.GetRawBytes()) > maxText {
		return nil
	}
	var a, b fieldpath.Set
	if was != nil && a.FromJSON(bytes.NewReader(was.GetRawBytes())) != nil || b.FromJSON(bytes.NewReader(now.GetRawBytes())) != nil {
		return nil
	}
	var out []string
	b.Difference(&a).Leaves().Iterate(func(p fieldpath.Path) {
		if len(out) < maxPaths+100 {
			out = append(out, strings.TrimPrefix(p.String(), "."))
		}
	})
	return out
}

// unsaid are fields that every write changes.
var unsaid = map[string]bool{"metadata.managedFields": true, "metadata.resourceVersion": true, "metadata.generation": true}

// changed lists the paths at which two objects of one Go type differ, spec before status.
func changed(a, b any) []string {
	c := &comparison{}
	c.values(reflect.ValueOf(a), reflect.ValueOf(b), "")
	slices.SortStableFunc(c.paths, func(x, y string) int { return rank(x) - rank(y) })
	return c.paths
}

func rank(path string) int {
	switch {
	case strings.HasPrefix(path, "status"):
		return 2
	case strings.HasPrefix(path, "metadata"):
		return 1
	}
	return 0
}

type comparison struct {
	paths   []string
	visited int
}

func (c *comparison) add(path string) {
	if !unsaid[path] {
		c.paths = append(c.paths, path)
	}
}

func (c *comparison) values(a, b reflect.Value, path string) {
	if c.visited++; c.visited > maxVisited || len(c.paths) > 100 || unsaid[path] {
		return
	}
	for a.Kind() == reflect.Pointer && b.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil() {
		a, b = a.Elem(), b.Elem()
	}
	if a.Type() != b.Type() {
		return
	}
	t := a.Type()
	switch {
	case a.Kind() == reflect.Pointer || a.Kind() == reflect.Interface:
		if a.IsNil() != b.IsNil() || !a.IsNil() && !reflect.DeepEqual(a.Interface(), b.Interface()) {
			c.add(path)
		}
	case a.Kind() == reflect.Struct && opaque(t):
		if x, err := json.Marshal(a.Interface()); err == nil {
			if y, err := json.Marshal(b.Interface()); err == nil && !bytes.Equal(x, y) {
				c.add(path)
			}
		}
	case a.Kind() == reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case !f.IsExported() || name == "-":
			case name == "" && (f.Anonymous || strings.Contains(options, "inline")):
				if f.Name != "TypeMeta" {
					c.values(a.Field(i), b.Field(i), path)
				}
			case name != "":
				c.values(a.Field(i), b.Field(i), join(path, name))
			}
		}
	case a.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		c.maps(a, b, path)
	case a.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && a.Len() == b.Len():
		for i := range a.Len() {
			c.values(a.Index(i), b.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		if !reflect.DeepEqual(a.Interface(), b.Interface()) && !(a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0) {
			c.add(path)
		}
	}
}

func (c *comparison) maps(a, b reflect.Value, path string) {
	var keys []string
	for _, m := range []reflect.Value{a, b} {
		for _, k := range m.MapKeys() {
			if k := k.String(); len(keys) < 200 && !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		key := reflect.ValueOf(k).Convert(a.Type().Key())
		x, y := a.MapIndex(key), b.MapIndex(key)
		if x.IsValid() != y.IsValid() || !reflect.DeepEqual(x.Interface(), y.Interface()) {
			c.add(path + "[" + cutWord(k) + "]")
		}
	}
}

// Owners says when the managers last wrote that an apply is in conflict with, and how to take their fields over.
func Owners(now metav1.Object, causes []metav1.StatusCause) string {
	var out []string
	for i, e := range now.GetManagedFields() {
		name := fmt.Sprintf("conflict with %q", e.Manager)
		if e.Time == nil || len(out) == maxManagers || i == 100 ||
			!slices.ContainsFunc(causes, func(c metav1.StatusCause) bool {
				return c.Type == metav1.CauseTypeFieldManagerConflict && strings.HasPrefix(c.Message, name)
			}) {
			continue
		}
		text := quote(e.Manager)
		if e.Subresource != "" {
			text += " (" + cutWord(e.Subresource) + ")"
		}
		out = append(out, text+" last wrote at "+when(e.Time.Time))
	}
	when := ""
	if len(out) > 0 {
		when = strings.Join(out, ", ") + "; "
	}
	return when + "leave the fields out, send the values they have, or take them over with force=true"
}
