package advice

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/api"
)

// Path says what a client probably meant that asked for a resource, subresource or group that is not there. Only what is
// built in is suggested, which is public.
func Path(gvr schema.GroupVersionResource, sub string) string {
	if row := api.ByResource(gvr); row != nil {
		if sub == "" || row.Subresource(sub) != nil {
			return ""
		}
		var subs []string
		for _, s := range row.Sub {
			subs = append(subs, s.Name)
		}
		if len(subs) == 0 {
			return row.Resource + " has no subresources"
		}
		return row.Resource + " has the subresources " + listed(subs)
	}
	if text := resource(gvr); text != "" {
		return text
	}
	return group(gvr)
}

// Unscoped says where a resource is that was looked for in a namespace.
func Unscoped(r *api.Row) string {
	return fmt.Sprintf("%s are in no namespace: %s", r.Resource, where(r))
}

// resource suggests rows with the resource's name in other groups or versions, by its short name, singular or kind, or with a
// similar name.
func resource(gvr schema.GroupVersionResource) string {
	word := gvr.Resource
	if word == "" || len(word) > maxWord {
		return ""
	}
	var same, here []string
	for _, r := range api.Rows() {
		if r.Resource == word || r.Singular == word || slices.Contains(r.Short, word) || strings.EqualFold(r.Kind, word) || strings.EqualFold(r.Resource, word) {
			same = append(same, where(r))
		}
		if r.Group == gvr.Group {
			here = append(here, r.Resource)
		}
	}
	if len(same) > 0 {
		return "did you mean " + strings.Join(same, " or ") + "?"
	}
	if n := nearest(word, here); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	var all []string
	for _, r := range api.Rows() {
		all = append(all, r.Resource)
	}
	n := nearest(word, all)
	for _, r := range api.Rows() {
		if r.Resource == n {
			return "did you mean " + where(r) + "?"
		}
	}
	return ""
}

// group suggests a group or version for one that is not served.
func group(gvr schema.GroupVersionResource) string {
	var groups, versions []string
	for _, r := range api.Rows() {
		if r.Group == gvr.Group {
			if !slices.Contains(versions, r.Version) {
				versions = append(versions, r.Version)
			}
		} else if r.Group != "" && !slices.Contains(groups, r.Group) {
			groups = append(groups, r.Group)
		}
	}
	if len(versions) > 0 && !slices.Contains(versions, gvr.Version) {
		return fmt.Sprintf("%s is served as %s", named(gvr.Group), listed(versions))
	}
	if len(versions) == 0 {
		if n := nearest(gvr.Group, groups); n != "" {
			return fmt.Sprintf("did you mean the group %q?", n)
		}
		for _, g := range groups { // networking for networking.k8s.io
			if first, _, _ := strings.Cut(g, "."); gvr.Group != "" && first == gvr.Group {
				return fmt.Sprintf("did you mean the group %q?", g)
			}
		}
	}
	return ""
}

func named(group string) string {
	if group == "" {
		return "the core group"
	}
	return "group " + quote(group)
}

// where is the path of a resource.
func where(r *api.Row) string {
	at := "/apis/" + r.Group + "/" + r.Version
	if r.Group == "" {
		at = "/api/" + r.Version
	}
	if r.Namespaced {
		at += "/namespaces/NAMESPACE"
	}
	return at + "/" + r.Resource
}

// Kind says what to do about a body that names got where want belongs.
func Kind(got, want schema.GroupVersionKind) string {
	if got == want {
		return ""
	}
	rows := api.Rows()
	var kinds []string
	for _, r := range rows {
		if r.GVK() == got && (r.Prefix != "" || r.Has("create")) {
			return fmt.Sprintf("a %s is sent to %s", got.Kind, where(r))
		}
		kinds = append(kinds, r.Kind)
	}
	if base, ok := strings.CutSuffix(got.Kind, "List"); ok && (base == want.Kind || base == "") {
		return "send the objects of a list one by one"
	}
	if got.Kind == want.Kind {
		return fmt.Sprintf("here the body's apiVersion is %q", want.GroupVersion())
	}
	if strings.EqualFold(got.Kind, want.Kind) || nearest(got.Kind, []string{want.Kind}) != "" {
		return fmt.Sprintf("did you mean kind %q?", want.Kind)
	}
	text := fmt.Sprintf("here the body has apiVersion %q and kind %q", want.GroupVersion(), want.Kind)
	if n := nearest(got.Kind, kinds); n != "" {
		text += fmt.Sprintf(" (did you mean %q, which is sent elsewhere?)", n)
	}
	return text
}

// Methods says what may be done on a path that does not serve a method.
func Methods(verbs []string) string {
	if len(verbs) == 0 {
		return "nothing can be done there by itself"
	}
	return "what can be done there: " + strings.Join(verbs, ", ")
}
