package fields

import (
	"reflect"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
)

// computed are the labels that are more than the field of that name.
var computed = map[string]bool{"status.podIP": true, "status.podIPs": true}

// Path returns the protobuf field numbers that lead from an object of gvk to the string that label is, nil for a label that
// is computed from the object. What it leads to is what For reads. The slice is shared.
func Path(gvk schema.GroupVersionKind, label string) []int { return paths()[gvk][label] }

var paths = sync.OnceValue(func() map[schema.GroupVersionKind]map[string][]int {
	all := map[schema.GroupVersionKind]map[string][]int{}
	for _, row := range api.Rows() {
		if row.New == nil {
			continue
		}
		of := map[string][]int{}
		t := reflect.TypeOf(row.New()).Elem()
		for _, label := range append([]string{nameKey, namespaceKey}, table()[row.GVK()].names...) {
			if path := numbers(t, strings.Split(label, ".")); path != nil && !computed[label] {
				of[label] = path
			}
		}
		all[row.GVK()] = of
	}
	return all
})

// numbers follows JSON names from struct type t to a string and returns the protobuf numbers on the way.
func numbers(t reflect.Type, names []string) []int {
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != names[0] {
			continue
		}
		// protobuf:"bytes,10,opt,name=nodeName"
		parts := strings.Split(f.Tag.Get("protobuf"), ",")
		if len(parts) < 2 || parts[0] != "bytes" {
			return nil
		}
		n, err := strconv.Atoi(parts[1])
		if err != nil {
			return nil
		}
		if len(names) > 1 {
			if rest := numbers(f.Type, names[1:]); rest != nil {
				return append([]int{n}, rest...)
			}
			return nil
		}
		if f.Type.Kind() != reflect.String {
			return nil
		}
		return []int{n}
	}
	return nil
}
