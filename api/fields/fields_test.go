package fields

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var pods = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}

func TestPod(t *testing.T) {
	set := For(pods)(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n"}, Spec: corev1.PodSpec{NodeName: "a"},
		Status: corev1.PodStatus{Phase: "Running", PodIPs: []corev1.PodIP{{IP: "10.1.1.1"}}}})
	for k, want := range map[string]string{"metadata.name": "p", "metadata.namespace": "n", "spec.nodeName": "a", "status.phase": "Running", "status.podIP": "10.1.1.1", "spec.hostNetwork": "false"} {
		if set[k] != want {
			t.Errorf("%s = %q, want %q", k, set[k], want)
		}
	}
	for _, label := range Supported(pods) {
		if to, _, err := Convert(pods, label, "x"); err != nil || !set.Has(to) {
			t.Errorf("supported label %s: %s, %v", label, to, err)
		}
	}
}

func TestConvertErrors(t *testing.T) {
	for _, c := range []struct {
		gvk         schema.GroupVersionKind
		label, want string
	}{
		{pods, "spec.containers", "field label not supported: spec.containers"},
		{schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, "data.k", `"data.k" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		{schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"}, "status.active", `field label "status.active" not supported for Job`},
	} {
		if _, _, err := Convert(c.gvk, c.label, "x"); err == nil || err.Error() != c.want {
			t.Errorf("Convert(%s, %s) = %v, want %s", c.gvk.Kind, c.label, err, c.want)
		}
	}
	if to, _, err := Convert(pods, "spec.host", "a"); err != nil || to != "spec.nodeName" {
		t.Errorf("spec.host = %s, %v", to, err)
	}
}
