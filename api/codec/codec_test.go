package codec

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"karve/api"
)

// objects are several kinds with everything in them that is written in its own way: times, quantities, numbers or strings,
// bytes, maps, text that JSON escapes, empty and long lists.
func objects() []runtime.Object {
	m := metav1.ObjectMeta{Name: "näme", Namespace: "ns", UID: "u", ResourceVersion: "12", Generation: 1 << 40,
		CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), Labels: map[string]string{"b": "2", "a": "<&>\u2028\"\\"}}
	half := intstr.FromString("50%")
	three := int32(3)
	pod := &corev1.Pod{ObjectMeta: m, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c", Image: "i",
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("1.5Gi")}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &m.CreationTimestamp}}
	return []runtime.Object{pod,
		&corev1.Secret{ObjectMeta: m, Data: map[string][]byte{"k": {0, 255, 10}, "empty": {}}},
		&corev1.ConfigMap{},
		&corev1.ConfigMap{ObjectMeta: m, Data: map[string]string{"long": strings.Repeat("x", 1<<15)}},
		&appsv1.Deployment{ObjectMeta: m, Spec: appsv1.DeploymentSpec{Replicas: &three, Strategy: appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &half}}}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"*"}}}}}
}

// upstream is what apimachinery's serializer writes for an object that carries its kind.
func upstream(t *testing.T, mediaType string, o runtime.Object) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Serializer(mediaType, false).Encode(o, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBytesAreUpstreams(t *testing.T) {
	for _, o := range objects() {
		row := api.Of(o)
		typed := o.DeepCopyObject()
		typed.GetObjectKind().SetGroupVersionKind(row.GVK())
		for _, in := range []runtime.Object{o, typed} { // with and without its kind: the body never has one
			body, err := Body(o)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := Envelope(row.GVK(), body), upstream(t, Protobuf, typed); !bytes.Equal(got, want) {
				t.Errorf("%s as protobuf:\n got %q\nwant %q", row.Kind, got, want)
			}
			text, err := JSONBody(in)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := append(Typed(row.GVK(), text), '\n'), upstream(t, JSON, typed); !bytes.Equal(got, want) {
				t.Errorf("%s as JSON:\n got %s\nwant %s", row.Kind, got, want)
			}
		}
		if typed.GetObjectKind().GroupVersionKind() != row.GVK() {
			t.Errorf("encoding took the kind off the %s itself", row.Kind)
		}
	}
}

func TestStoredComesBack(t *testing.T) {
	for _, o := range objects() {
		row := api.Of(o)
		want := o.DeepCopyObject()
		want.GetObjectKind().SetGroupVersionKind(row.GVK())
		body, err := Body(o)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		for _, stored := range [][]byte{Envelope(row.GVK(), body), text} {
			got, err := DecodeStored(row, stored)
			if err != nil || !equality.Semantic.DeepEqual(got, want) {
				t.Errorf("%s read back from %.8q: %+v, %v", row.Kind, stored, got, err)
			}
		}
		for cut := range 12 {
			if b := Envelope(row.GVK(), body); len(body) > 40 {
				if _, err := DecodeStored(row, b[:len(b)-8-cut]); err == nil {
					t.Errorf("%s without its last %d bytes was read", row.Kind, 8+cut)
				}
			}
		}
	}
	if _, err := DecodeStored(api.Of(&corev1.Pod{}), []byte("k8s\x00\xff")); err == nil {
		t.Error("rubbish was read")
	}
}

// Protobuf drops the kind of an object inside an object; a StatefulSet's claims have it all the same.
func TestStoredClaimsHaveTheirKind(t *testing.T) {
	s := &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{VolumeClaimTemplates: make([]corev1.PersistentVolumeClaim, 2)}}
	body, err := Body(s)
	if err != nil {
		t.Fatal(err)
	}
	row := api.Of(s)
	got, err := DecodeStored(row, Envelope(row.GVK(), body))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range got.(*appsv1.StatefulSet).Spec.VolumeClaimTemplates {
		if c.Kind != "PersistentVolumeClaim" || c.APIVersion != "v1" {
			t.Errorf("claim = %+v", c.TypeMeta)
		}
	}
}

// A list made of bodies that were encoded one by one is the list that upstream writes.
func TestListsAreComposed(t *testing.T) {
	list := &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: "77", Continue: "more"}}
	for _, size := range []int{0, 1, 127, 128, 70000} { // the lengths of lengths
		list.Items = append(list.Items, corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"k": strings.Repeat("y", size)}})
	}
	gvk := corev1.SchemeGroupVersion.WithKind("ConfigMapList")
	head, err := ListHeader(&list.ListMeta)
	if err != nil {
		t.Fatal(err)
	}
	parts := [][]byte{head}
	for i := range list.Items {
		body, err := Body(&list.Items[i])
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, AppendItemHead(nil, len(body)), body)
	}
	list.SetGroupVersionKind(gvk)
	if got := Envelope(gvk, parts...); !bytes.Equal(got, upstream(t, Protobuf, list)) {
		t.Error("the composed list has other bytes than the one encoded whole")
	}
	obj, _, err := Serializer(Protobuf, false).Decode(Envelope(gvk, parts...), nil, nil)
	if err != nil || meta.LenList(obj) != len(list.Items) {
		t.Errorf("the composed list reads as %d items, %v", meta.LenList(obj), err)
	}
}

func TestStrictReportsAndLaxDoesNot(t *testing.T) {
	body := []byte(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"dta":{},"data":{"k":"1","k":"2"}}`)
	for _, mediaType := range []string{JSON, YAML} {
		if _, _, err := Serializer(mediaType, false).Decode(body, nil, nil); mediaType == JSON && err != nil {
			t.Errorf("%s: %v", mediaType, err)
		}
		_, _, err := Serializer(mediaType, true).Decode(body, nil, nil)
		if err == nil {
			t.Errorf("%s: unknown and doubled fields pass as strict", mediaType)
		}
	}
	obj, _, err := Serializer(JSON, true).Decode(body, nil, nil)
	if strict, ok := runtime.AsStrictDecodingError(err); !ok || len(strict.Errors()) != 2 || obj == nil {
		t.Errorf("strict JSON: object %v, %v: want the object and two problems", obj, err)
	}
	if Serializer("text/plain", false) != nil {
		t.Error("there is a serializer of text/plain")
	}
}
