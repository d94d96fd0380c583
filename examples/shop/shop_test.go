// Package shop holds the example's manifest; its programs are the folders below. The tests here make sure that the
// manifest means what it says.
package shop

import (
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"karve/api"
)

func manifest(t *testing.T) []runtime.Object {
	t.Helper()
	data, err := os.ReadFile("shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out []runtime.Object
	for _, doc := range strings.Split(string(data), "\n---\n") {
		var head struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		var obj runtime.Object
		for _, row := range api.Rows() {
			if row.Kind == head.Kind && row.GVK().GroupVersion().String() == head.APIVersion {
				obj = row.New()
			}
		}
		if obj == nil {
			t.Fatalf("unknown kind %+v", head)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), obj); err != nil {
			t.Errorf("%s: %v", head.Kind, err)
		}
		out = append(out, obj)
	}
	return out
}

func TestManifestFitsTogether(t *testing.T) {
	pods := map[string]corev1.PodSpec{}
	labels := map[string]string{}
	var services []*corev1.Service
	held := map[string]bool{}
	for _, o := range manifest(t) {
		switch o := o.(type) {
		case *appsv1.Deployment:
			pods[o.Name] = o.Spec.Template.Spec
			labels[o.Name] = o.Spec.Template.Labels["app"]
			if o.Spec.Selector.MatchLabels["app"] != o.Spec.Template.Labels["app"] {
				t.Errorf("%s does not select its own pods", o.Name)
			}
		case *corev1.Service:
			services = append(services, o)
		case *corev1.ConfigMap:
			held["ConfigMap "+o.Name] = true
		case *corev1.Secret:
			held["Secret "+o.Name] = true
		}
	}
	for _, s := range services {
		if labels[s.Name] != s.Spec.Selector["app"] {
			t.Errorf("Service %s selects nothing", s.Name)
		}
		found := false
		for _, c := range pods[s.Name].Containers {
			for _, p := range c.Ports {
				found = found || p.Name == s.Spec.Ports[0].TargetPort.String()
			}
		}
		if !found {
			t.Errorf("Service %s leads to a port no container has", s.Name)
		}
	}
	if len(services) != 4 || len(pods) != 4 {
		t.Errorf("%d Services, %d Deployments", len(services), len(pods))
	}
	for name, spec := range pods {
		volumes := map[string]bool{}
		for _, v := range spec.Volumes {
			volumes[v.Name] = true
			if v.ConfigMap != nil && !held["ConfigMap "+v.ConfigMap.Name] {
				t.Errorf("%s: no ConfigMap %s", name, v.ConfigMap.Name)
			}
		}
		for _, c := range spec.Containers {
			program := strings.TrimSuffix(strings.TrimPrefix(c.Image, "shop/"), ":v1")
			if _, err := os.Stat(program + "/main.go"); err != nil {
				t.Errorf("%s: image %s is of no program here", name, c.Image)
			}
			for _, m := range c.VolumeMounts {
				if !volumes[m.Name] {
					t.Errorf("%s: container %s mounts %s, which is no volume", name, c.Name, m.Name)
				}
			}
			for _, e := range c.Env {
				if e.ValueFrom != nil && !held["Secret "+e.ValueFrom.SecretKeyRef.Name] {
					t.Errorf("%s: no Secret %s", name, e.ValueFrom.SecretKeyRef.Name)
				}
			}
			if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s: container %s has no limits or may write its root", name, c.Name)
			}
		}
	}
}
