package garbagecollector_test

import (
	"context"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
	"karve/controller/controllertest"
	"karve/controller/garbagecollector"
	"karve/controller/loop"
)

var old = metav1.NewTime(time.Now().Add(-time.Hour))

func ref(kind, name, uid string, block bool) metav1.OwnerReference {
	version := "apps/v1"
	if kind == "ConfigMap" {
		version = "v1"
	}
	return metav1.OwnerReference{APIVersion: version, Kind: kind, Name: name, UID: types.UID(uid), BlockOwnerDeletion: &block}
}

func set(name string, owners ...metav1.OwnerReference) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", UID: types.UID("uid-of-" + name), CreationTimestamp: old, OwnerReferences: owners}}
}

func pod(name string, owners ...metav1.OwnerReference) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", UID: types.UID("uid-of-" + name), CreationTimestamp: old, OwnerReferences: owners}}
}

func start(t *testing.T, s *controllertest.Server) *controllertest.Events {
	return controllertest.Run(t, s, func(e *loop.Env) []*loop.Controller { return []*loop.Controller{garbagecollector.New(e)} })
}

func remove(t *testing.T, s *controllertest.Server, name string, p metav1.DeletionPropagation) {
	t.Helper()
	if err := client.Of[*appsv1.ReplicaSet](s).Delete(context.Background(), "a", name, metav1.DeleteOptions{PropagationPolicy: &p}); err != nil {
		t.Fatal(err)
	}
}

func gone[T client.Object](s *controllertest.Server, name string) bool {
	_, err := client.Of[T](s).Get(context.Background(), "a", name)
	return apierrors.IsNotFound(err)
}

func TestBackground(t *testing.T) {
	s := controllertest.New(set("rs"), pod("p1", ref("ReplicaSet", "rs", "uid-of-rs", true)), pod("p2"),
		pod("p3", ref("ReplicaSet", "rs", "an-older-uid", true)), pod("p4", ref("ReplicaSet", "never", "no-uid", true)),
		pod("p5", ref("ReplicaSet", "never", "no-uid", true), ref("ReplicaSet", "stay", "uid-of-stay", true)), set("stay"))
	start(t, s)
	controllertest.Eventually(t, "pods of absent owners go", func() bool { return gone[*corev1.Pod](s, "p3") && gone[*corev1.Pod](s, "p4") })
	controllertest.Eventually(t, "only the absent one of two owners is cut", func() bool {
		o := controllertest.MustGet[*corev1.Pod](s, "a", "p5").OwnerReferences
		return len(o) == 1 && o[0].Name == "stay"
	})
	if gone[*corev1.Pod](s, "p1") {
		t.Fatal("p1 went although its owner is there")
	}
	remove(t, s, "rs", metav1.DeletePropagationBackground)
	controllertest.Eventually(t, "p1 goes with its owner", func() bool { return gone[*corev1.Pod](s, "p1") })
	if gone[*corev1.Pod](s, "p2") || gone[*corev1.Pod](s, "p5") {
		t.Error("a pod went that should stay")
	}
}

func TestForegroundWaitsForDependents(t *testing.T) {
	p := pod("p1", ref("ReplicaSet", "rs", "uid-of-rs", true))
	p.Finalizers = []string{"test/hold"}
	s := controllertest.New(set("rs"), p, pod("free", ref("ReplicaSet", "rs", "uid-of-rs", false)))
	start(t, s)
	remove(t, s, "rs", metav1.DeletePropagationForeground)
	controllertest.Eventually(t, "the dependent is being deleted", func() bool {
		return controllertest.MustGet[*corev1.Pod](s, "a", "p1").DeletionTimestamp != nil
	})
	if gone[*appsv1.ReplicaSet](s, "rs") {
		t.Fatal("the owner went before its dependent")
	}
	if _, err := client.Of[*corev1.Pod](s).Patch(context.Background(), "a", "p1", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)); err != nil {
		t.Fatal(err)
	}
	controllertest.Eventually(t, "all go", func() bool {
		return gone[*appsv1.ReplicaSet](s, "rs") && gone[*corev1.Pod](s, "p1") && gone[*corev1.Pod](s, "free")
	})
}

func TestOrphan(t *testing.T) {
	s := controllertest.New(set("rs"), pod("p1", ref("ReplicaSet", "rs", "uid-of-rs", true)))
	start(t, s)
	remove(t, s, "rs", metav1.DeletePropagationOrphan)
	controllertest.Eventually(t, "the owner goes", func() bool { return gone[*appsv1.ReplicaSet](s, "rs") })
	if n := len(controllertest.MustGet[*corev1.Pod](s, "a", "p1").OwnerReferences); n != 0 {
		t.Errorf("%d owners are left", n)
	}
}

func TestOwnerInOtherNamespaceIsAbsent(t *testing.T) {
	s := controllertest.New(set("rs"))
	p := pod("p1", ref("ReplicaSet", "rs", "uid-of-rs", true))
	p.Namespace = "b"
	if _, err := client.Of[*corev1.Pod](s).Create(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	events := start(t, s)
	controllertest.Eventually(t, "the pod goes", func() bool { return len(controllertest.All[*corev1.Pod](s, "b")) == 0 })
	if !events.Has(`garbage-collector-controller OwnerRefInvalidNamespace ownerRef [apps/v1/ReplicaSet, namespace: b, name: rs, uid: uid-of-rs] does not exist in namespace "b"`) {
		t.Errorf("events %q", events.List())
	}
}

func TestForegroundThroughTwoLevels(t *testing.T) {
	s := controllertest.New(set("top"), set("mid", ref("ReplicaSet", "top", "uid-of-top", true)), pod("p1", ref("ReplicaSet", "mid", "uid-of-mid", true)))
	start(t, s)
	remove(t, s, "top", metav1.DeletePropagationForeground)
	controllertest.Eventually(t, "all go", func() bool {
		return gone[*appsv1.ReplicaSet](s, "top") && gone[*appsv1.ReplicaSet](s, "mid") && gone[*corev1.Pod](s, "p1")
	})
}
