package resource

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"karve/api"
	"karve/api/convert"
	"karve/api/strategy"
	"karve/api/validation"
	"karve/apiserver/resource/warnings"
)

// view returns a stored object in the version of the request, which is the stored one for all but a few kinds.
func (c *Call) view(o Object) Object {
	if c.Row.Stored.Empty() {
		return o
	}
	return convert.To(o, c.Row.GVK()).(Object)
}

// track records in want's managed fields what the call's manager changes between live (nil on a create) and want. Fields
// are owned in the version they were written in.
func (d *Door) track(c *Call, live, want Object) Object {
	row := c.Row.Hub()
	reset := strategy.For(row.GVK()).ResetFields[c.Sub]
	if row == c.Row {
		return d.managers.Update(row, c.Sub, reset, live, want, c.Manager, d.now()).(Object)
	}
	seen := c.view(want)
	if live != nil {
		live = c.view(live)
	}
	want.SetManagedFields(d.managers.Update(c.Row, c.Sub, reset, live, seen, c.Manager, d.now()).(Object).GetManagedFields())
	return want
}

// Track records in obj, which is not stored, that the call's manager sent it. The bodies of subresources keep no such record.
func (d *Door) Track(c *Call, obj Object) Object {
	if row := api.Of(obj); row == c.Row {
		obj.GetObjectKind().SetGroupVersionKind(row.GVK()) // a body may leave it out
		return d.track(c, nil, obj)
	}
	return obj
}

// dedupOwners drops owner references that are there twice, and tells the client.
func (c *Call) dedupOwners(obj Object) {
	refs := obj.GetOwnerReferences()
	if len(refs) < 2 {
		return
	}
	var kept []metav1.OwnerReference
	var twice []string
	for _, r := range refs {
		if slices.ContainsFunc(kept, func(k metav1.OwnerReference) bool { return equality.Semantic.DeepEqual(k, r) }) {
			if !slices.Contains(twice, string(r.UID)) {
				twice = append(twice, string(r.UID))
			}
			continue
		}
		kept = append(kept, r)
	}
	if len(twice) == 0 {
		return
	}
	obj.SetOwnerReferences(kept)
	c.warn(".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: " + strings.Join(twice, ", "))
}

// warnOf tells the client what there is to say about an object that is taken.
func (c *Call) warnOf(obj, old Object) {
	if c.Warn == nil {
		return
	}
	var before runtime.Object
	if old != nil {
		before = old
	}
	for _, text := range warnings.For(obj, before) {
		c.Warn(text)
	}
}

// rules returns the validation of the call's kind. A group that shows another's objects has rules of its own for them;
// versions of one group share those of the stored one.
func (c *Call) rules() validation.Rules {
	if hub := c.Row.Hub(); hub.Group == c.Row.Group {
		return validation.For(hub.GVK())
	}
	return validation.For(c.Row.GVK())
}

// judged is an object in the form its rules are about.
func (c *Call) judged(o Object) Object {
	if c.Row.Hub().Group == c.Row.Group {
		return o
	}
	return c.view(o)
}
