package api

import (
	"reflect"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// What every row promises the handlers, which know no kind.
func TestRows(t *testing.T) {
	seen := map[string]string{}
	once := func(what, by string) {
		if other := seen[what]; other != "" {
			t.Errorf("%s is of both %s and %s", what, other, by)
		}
		seen[what] = by
	}
	for _, r := range Rows() {
		id := r.GVR().String()
		once("resource "+id, id)
		for _, s := range r.Short {
			if by := seen["short name "+s]; by != "" && by != r.GR().String() && r.Group != "events.k8s.io" {
				t.Errorf("%s is short for both %s and %s", s, by, r.GR())
			}
			seen["short name "+s] = r.GR().String()
		}
		if ByResource(r.GVR()) != r {
			t.Errorf("%s is not found by its name", id)
		}
		obj := r.New()
		if gvk := obj.GetObjectKind().GroupVersionKind(); !gvk.Empty() {
			t.Errorf("%s is made as %s", id, gvk)
		}
		kinds, _, err := Scheme().ObjectKinds(obj)
		if err != nil || !contains(kindsOf(kinds), r.GVK().String()) {
			t.Errorf("%s: the scheme knows %T as %v, %v", id, obj, kinds, err)
		}
		if r.New() == obj {
			t.Errorf("%s: New returns one object twice", id)
		}
		if r.Has("list") {
			list := r.NewList()
			if _, err := meta.ListAccessor(list); err != nil || r.ListKind().Kind == "" {
				t.Errorf("%s: a list is a %T: %v", id, list, err)
			}
			items, err := meta.GetItemsPtr(list)
			if err != nil || reflect.TypeOf(items).Elem().Elem() != reflect.TypeOf(obj).Elem() {
				t.Errorf("%s: a list has %T, %v", id, items, err)
			}
		}
		if _, ok := obj.(metav1.Object); r.Prefix != "" && !ok {
			t.Errorf("%s is stored and has no metadata", id)
		}
		if strings.ToLower(r.Singular) != r.Singular || strings.ToLower(r.Resource) != r.Resource || len(r.Verbs) == 0 {
			t.Errorf("%s: singular %q, verbs %v", id, r.Singular, r.Verbs)
		}
		if !r.Has("get") && r.Has("update") {
			t.Errorf("%s can be changed and not read", id)
		}
		for i := range r.Sub {
			if s := &r.Sub[i]; r.Subresource(s.Name) != s || len(s.Verbs) == 0 || !s.Has(s.Verbs[0]) || s.Has("none") {
				t.Errorf("%s: subresource %q", id, s.Name)
			}
		}
		if h := r.Hub(); h == nil || h.Prefix != r.Prefix && r.Prefix != "" {
			t.Errorf("%s: stored as %v", id, h)
		}
	}
}

func kindsOf(list []schema.GroupVersionKind) (out []string) {
	for _, k := range list {
		out = append(out, k.String())
	}
	return out
}

func TestLookups(t *testing.T) {
	d := Of(&appsv1.Deployment{})
	if d == nil || d.Resource != "deployments" || !d.Namespaced || ByKind(appsv1.SchemeGroupVersion.WithKind("Deployment")) != d || d.Subresource("scale") == nil || d.Subresource("nothing") != nil {
		t.Errorf("deployments are %+v", d)
	}
	if n := Of(&corev1.Node{}); n.Namespaced || n.Prefix != "minions" || n.GR() != corev1.Resource("nodes") {
		t.Errorf("nodes are %+v", n)
	}
	if Of(&corev1.PodList{}) != nil || ByResource(corev1.SchemeGroupVersion.WithResource("pod")) != nil || ByKind(corev1.SchemeGroupVersion.WithKind("Nothing")) != nil {
		t.Error("something is found that is no resource")
	}
}

func TestVersion(t *testing.T) {
	for in, want := range map[string]string{"v1.2.3": "v" + Level + "+karve.1.2.3", "dev": "v" + Level + "+karve.dev"} {
		if got := Version(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
