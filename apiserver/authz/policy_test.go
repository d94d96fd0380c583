package authz

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"karve/client"
)

func TestBootstrapPolicyIsWhole(t *testing.T) {
	roles, names := map[string]bool{}, map[string]bool{}
	for _, o := range BootstrapPolicy() {
		key := reflect.TypeOf(o).String() + " " + client.Key(o)
		if names[key] {
			t.Errorf("%s twice", key)
		}
		names[key] = true
		if o.GetLabels()["kubernetes.io/bootstrapping"] != "rbac-defaults" || o.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] != "true" {
			t.Errorf("%s is not marked as a default", key)
		}
		switch o := o.(type) {
		case *rbacv1.ClusterRole:
			roles["ClusterRole/"+o.Name] = true
			if len(o.Rules) == 0 && o.AggregationRule == nil {
				t.Errorf("%s grants nothing", key)
			}
		case *rbacv1.Role:
			roles["Role"+o.Namespace+"/"+o.Name] = true
		case *rbacv1.ClusterRoleBinding:
			if !roles[o.RoleRef.Kind+"/"+o.RoleRef.Name] {
				t.Errorf("%s names no role", key)
			}
		case *rbacv1.RoleBinding:
			if !roles[o.RoleRef.Kind+o.Namespace+"/"+o.RoleRef.Name] {
				t.Errorf("%s names no role", key)
			}
		}
	}
	if len(names) < 120 {
		t.Errorf("only %d objects", len(names))
	}
}

// TestBootstrapPolicyIsUpstreams compares every object with the recorded facts where those are at hand.
func TestBootstrapPolicyIsUpstreams(t *testing.T) {
	files, _ := filepath.Glob("../../../shared/spec/rbac/*.yaml")
	if len(files) == 0 {
		t.Skip("SKIPPED: ../shared/spec/rbac is not here, so that the default policy is NOT compared with upstream's")
	}
	want := map[string]client.Object{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var l struct{ Items []map[string]any }
		if err := yaml.Unmarshal(raw, &l); err != nil {
			t.Fatal(err)
		}
		for _, item := range l.Items {
			o := map[string]client.Object{"ClusterRole": &rbacv1.ClusterRole{}, "Role": &rbacv1.Role{},
				"ClusterRoleBinding": &rbacv1.ClusterRoleBinding{}, "RoleBinding": &rbacv1.RoleBinding{}}[item["kind"].(string)]
			one, err := yaml.Marshal(item)
			if err != nil {
				t.Fatal(err)
			}
			if err := yaml.UnmarshalStrict(one, o); err != nil {
				t.Fatal(err)
			}
			key := item["kind"].(string) + " " + client.Key(o)
			reflect.ValueOf(o).Elem().FieldByName("TypeMeta").SetZero()
			want[key] = o
		}
	}
	for _, o := range BootstrapPolicy() {
		key := reflect.TypeOf(o).Elem().Name() + " " + client.Key(o)
		w, ok := want[key]
		if !ok {
			t.Errorf("%s is not upstream's", key)
			continue
		}
		delete(want, key)
		got, _ := yaml.Marshal(o)
		exp, _ := yaml.Marshal(w)
		if string(got) != string(exp) {
			t.Errorf("%s:\n%s\nupstream:\n%s", key, got, exp)
		}
	}
	for key := range want {
		t.Errorf("%s is missing", key)
	}
}
