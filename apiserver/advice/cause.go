package advice

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxCauses is how many causes of one error are advised on.
const maxCauses = 32

// Invalid is what a validation failed on.
type Invalid struct {
	// Type is the Go type of the kind, for what may stand in a field.
	Type reflect.Type
	// Sent is the object as it came, and Stored the one that it was to replace; each may be nil, and is when this user may
	// not read it.
	Sent, Stored any
	// Secret says that no value may be repeated.
	Secret bool
}

// Advise adds to the causes of st, which it changes, and to its message where that repeats them: the supported value that was
// probably meant, what a required field takes, what may not change from, which names there are.
func (v *Invalid) Advise(st *metav1.Status) {
	if st.Details == nil {
		return
	}
	for i := range st.Details.Causes {
		if i == maxCauses {
			return
		}
		c := &st.Details.Causes[i]
		text := v.cause(c)
		if text == "" {
			continue
		}
		said := c.Field + ": " + c.Message
		c.Message += " (" + text + ")"
		st.Message = strings.Replace(st.Message, said, said+" ("+text+")", 1)
	}
}

func (v *Invalid) cause(c *metav1.StatusCause) string {
	switch c.Type {
	case metav1.CauseTypeFieldValueNotSupported:
		return supported(c.Message)
	case metav1.CauseTypeFieldValueRequired:
		if c.Message != "Required value" {
			return ""
		}
		if p := follow(v.Type, c.Field); p.left == "" {
			if text := expected(p.t); text != "" {
				return text
			}
		}
	case metav1.CauseTypeFieldValueNotFound:
		return v.notFound(c)
	case metav1.CauseTypeFieldValueInvalid:
		if strings.HasSuffix(c.Message, ": field is immutable") {
			return v.immutable(c.Field)
		}
	}
	return ""
}

// supported picks the nearest of the values that the message lists.
func supported(message string) string {
	rest, ok := strings.CutPrefix(message, "Unsupported value: ")
	if !ok {
		return ""
	}
	got, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return ""
	}
	value, err := strconv.Unquote(got)
	rest, ok = strings.CutPrefix(rest[len(got):], ": supported values: ")
	if err != nil || !ok {
		return ""
	}
	var names []string
	for len(names) < 100 {
		q, err := strconv.QuotedPrefix(rest)
		if err != nil {
			break
		}
		if n, err := strconv.Unquote(q); err == nil {
			names = append(names, n)
		}
		rest = strings.TrimPrefix(rest[len(q):], ", ")
	}
	if n := nearest(value, names); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	return ""
}

// immutable says what a field has to stay.
func (v *Invalid) immutable(path string) string {
	const how = "to change it, delete the object and create it anew"
	if v.Stored == nil || v.Secret {
		return how
	}
	is, ok := valueAt(reflect.ValueOf(v.Stored), path)
	if !ok {
		return how
	}
	b, err := json.Marshal(is.Interface())
	if err != nil || len(b) > 3*maxQuote {
		return how
	}
	return fmt.Sprintf("it is %s: %s", b, how)
}

// volumeUse is a field that names a volume of the pod it is in.
var volumeUse = regexp.MustCompile(`^((?:[a-zA-Z.]+\.)?spec\.|spec\.)(?:containers|initContainers|ephemeralContainers)\[\d+\]\.(?:volumeMounts|volumeDevices)\[\d+\]\.name$`)

// notFound lists the volumes of the pod for one that is not among them.
func (v *Invalid) notFound(c *metav1.StatusCause) string {
	m := volumeUse.FindStringSubmatch(c.Field)
	if m == nil || v.Sent == nil {
		return ""
	}
	list, ok := valueAt(reflect.ValueOf(v.Sent), m[1]+"volumes")
	if !ok || list.Kind() != reflect.Slice {
		return ""
	}
	if list.Len() == 0 {
		return fmt.Sprintf("there are no volumes in %svolumes", m[1])
	}
	var names []string
	for i := range min(list.Len(), 100) {
		if n, ok := valueAt(list.Index(i), "name"); ok {
			names = append(names, n.String())
		}
	}
	text := fmt.Sprintf("%svolumes has %s", m[1], listed(names))
	if q, err := strconv.Unquote(strings.TrimPrefix(c.Message, "Not found: ")); err == nil {
		if n := nearest(q, names); n != "" {
			text = fmt.Sprintf("did you mean %q? %s", n, text)
		}
	}
	return text
}

// valueAt reads the value at a path of JSON names and indexes in a Go object; false if there is none.
func valueAt(o reflect.Value, path string) (reflect.Value, bool) {
	for range 40 {
		for o.Kind() == reflect.Pointer || o.Kind() == reflect.Interface {
			if o.IsNil() {
				return o, false
			}
			o = o.Elem()
		}
		if path == "" {
			return o, true
		}
		var name string
		name, path, _ = strings.Cut(path, ".")
		name, index, _ := strings.Cut(name, "[")
		if o.Kind() != reflect.Struct || opaque(o.Type()) {
			return o, false
		}
		if o = fieldNamed(o, name); !o.IsValid() {
			return o, false
		}
		if index == "" {
			continue
		}
		for o.Kind() == reflect.Pointer && !o.IsNil() {
			o = o.Elem()
		}
		i, err := strconv.Atoi(strings.TrimSuffix(index, "]"))
		if err != nil || o.Kind() != reflect.Slice || i < 0 || i >= o.Len() {
			return o, false
		}
		o = o.Index(i)
	}
	return o, false
}

func fieldNamed(o reflect.Value, name string) reflect.Value {
	for i := range o.NumField() {
		f := o.Type().Field(i)
		got, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if got == name && name != "" && f.IsExported() {
			return o.Field(i)
		}
		if got == "" && f.Type.Kind() == reflect.Struct && (f.Anonymous || strings.Contains(options, "inline")) {
			if v := fieldNamed(o.Field(i), name); v.IsValid() {
				return v
			}
		}
	}
	return reflect.Value{}
}
