package clients

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestTypedEverywhere lists and watches every resource there is through client-go's generated clients, and finds that there
// is one for every resource that is served.
func TestTypedEverywhere(t *testing.T) {
	s := start(t)
	cs := s.clientset()
	want := map[string]bool{}
	everyResource(t, cs, func(gv string, r *metav1.APIResource) {
		group, _, _ := strings.Cut(gv, "/")
		switch {
		case !slices.Contains(r.Verbs, "list"), group == "apiextensions.k8s.io", group == "apiregistration.k8s.io": // have clientsets of their own
		default:
			want[gv+" "+r.Name] = slices.Contains(r.Verbs, "watch")
		}
	})
	ctx := reflect.ValueOf(t.Context())
	second := int64(1)
	options := reflect.ValueOf(metav1.ListOptions{TimeoutSeconds: &second})
	asked := 0
	all := reflect.ValueOf(cs)
	for i := range all.NumMethod() {
		if f := all.Method(i).Type(); f.NumIn() > 0 || f.NumOut() != 1 {
			continue
		}
		group := all.Method(i).Call(nil)[0]
		client, ok := group.Interface().(interface{ RESTClient() rest.Interface })
		if !ok {
			continue
		}
		version := client.RESTClient().APIVersion().String()
		for j := range group.NumMethod() {
			m := group.Method(j)
			if m.Type().NumOut() != 1 || m.Type().NumIn() > 1 || m.Type().NumIn() == 1 && m.Type().In(0).Kind() != reflect.String {
				continue
			}
			var args []reflect.Value
			if m.Type().NumIn() == 1 {
				args = append(args, reflect.ValueOf("default"))
			}
			of := m.Call(args)[0]
			list := of.MethodByName("List")
			if !list.IsValid() {
				continue
			}
			resource := version + " " + strings.ToLower(group.Elem().Type().Method(j).Name)
			watched, served := want[resource]
			out := list.Call([]reflect.Value{ctx, options})
			err, _ := out[1].Interface().(error)
			if !served {
				if !apierrors.IsNotFound(err) {
					t.Errorf("%s is not served, and its list: %v", resource, err)
				}
				continue
			}
			asked++
			delete(want, resource)
			if err != nil {
				t.Errorf("list %s: %v", resource, err)
			}
			if !watched {
				continue
			}
			out = of.MethodByName("Watch").Call([]reflect.Value{ctx, options})
			if err, _ := out[1].Interface().(error); err != nil {
				t.Errorf("watch %s: %v", resource, err)
				continue
			}
			out[0].MethodByName("Stop").Call(nil)
		}
	}
	if len(want) > 0 || asked < 50 {
		t.Errorf("%d asked; no client for %v", asked, want)
	}
}
