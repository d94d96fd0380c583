package emit

import (
	"os"
	"strings"
	"testing"

	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

func TestPlainElements(t *testing.T) {
	text := func(d any) *spec.Schema {
		return &spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"string"}, Default: d}}
	}
	list := spec.ArrayProperty(spec.MapProperty(text("")))
	s := plainElements(&spec.Schema{SchemaProps: spec.SchemaProps{Properties: map[string]spec.Schema{"kept": *text("yes"), "list": *list}}})
	if s.Properties["kept"].Default != "yes" {
		t.Error("a field lost its default")
	}
	if e := s.Properties["list"].Items.Schema.AdditionalProperties.Schema; e.Default != nil {
		t.Errorf("an element of an element has the default %q", e.Default)
	}
}

func TestKinds(t *testing.T) {
	k := kinds()
	if got := k["io.k8s.api.core.v1.Pod"]; len(got) != 1 || got[0].(map[string]any)["kind"] != "Pod" {
		t.Errorf("a Pod is %v", got)
	}
	for _, name := range []string{"DeleteOptions", "ListOptions", "CreateOptions", "WatchEvent"} {
		if got := k["io.k8s.apimachinery.pkg.apis.meta.v1."+name]; got != nil {
			t.Errorf("%s is registered in every group, and counts as a kind: %v", name, got)
		}
	}
}

// A kind that nothing was generated for ends the work before a file is written.
func TestMissingDefinition(t *testing.T) {
	dir := t.TempDir()
	err := Write(dir, func(common.ReferenceCallback) map[string]common.OpenAPIDefinition { return nil })
	if err == nil || !strings.Contains(err.Error(), "not generated") {
		t.Errorf("wrote schemas of nothing: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}
