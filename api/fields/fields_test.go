package fields

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
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
		{schema.GroupVersionKind{Version: "v1", Kind: "Node"}, "metadata.namespace", "field label not supported: metadata.namespace"},
		{schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, "metadata.namespace", "field label not supported: metadata.namespace"},
		{schema.GroupVersionKind{Group: "certificates.k8s.io", Version: "v1", Kind: "CertificateSigningRequest"}, "metadata.namespace", "field label not supported: metadata.namespace"},
		{schema.GroupVersionKind{Group: "resource.k8s.io", Version: "v1", Kind: "ResourceSlice"}, "spec.pool", "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: spec.pool"},
	} {
		if _, _, err := Convert(c.gvk, c.label, "x"); err == nil || err.Error() != c.want {
			t.Errorf("Convert(%s, %s) = %v, want %s", c.gvk.Kind, c.label, err, c.want)
		}
	}
	if to, _, err := Convert(schema.GroupVersionKind{Version: "v1", Kind: "PersistentVolume"}, "metadata.namespace", "a"); err != nil || to != "metadata.namespace" {
		t.Errorf("a namespace of a volume = %s, %v", to, err)
	}
	if to, _, err := Convert(pods, "spec.host", "a"); err != nil || to != "spec.nodeName" {
		t.Errorf("spec.host = %s, %v", to, err)
	}
}

func TestNewEventsHaveTheOldSource(t *testing.T) {
	for _, c := range []struct {
		source, controller, want string
	}{{"kubelet", "c", "kubelet"}, {"", "c", "c"}} {
		set := For(schema.GroupVersionKind{Group: "events.k8s.io", Version: "v1", Kind: "Event"})(&eventsv1.Event{
			DeprecatedSource: corev1.EventSource{Component: c.source}, ReportingController: c.controller})
		if set["source"] != c.want || set["reportingController"] != c.controller {
			t.Errorf("source %q and controller %q: %v", c.source, c.controller, set)
		}
	}
}
