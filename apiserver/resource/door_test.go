package resource

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"karve/api"
	"karve/apiserver/authn"
	"karve/client"
	"karve/store"
	"karve/store/engine/mem"
)

func door(t *testing.T) (*Door, client.Transport) {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Engine: mem.New(), Topic: Topic, Attach: Attach})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	d := New(st, slog.New(slog.DiscardHandler))
	return d, &Local{Door: d, User: &authn.User{Name: "test"}, Manager: "test"}
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: labels},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}
}

func TestLife(t *testing.T) {
	_, tr := door(t)
	ctx := t.Context()
	res := client.Of[*appsv1.Deployment](tr)
	made, err := res.Create(ctx, deployment("web", 2))
	if err != nil {
		t.Fatal(err)
	}
	if made.UID == "" || made.Generation != 1 || made.ResourceVersion == "" || made.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		t.Fatalf("created without uid, generation, revision or defaults: %+v", made)
	}
	if len(made.ManagedFields) != 1 || made.ManagedFields[0].Manager != "test" {
		t.Fatalf("managed fields: %+v", made.ManagedFields)
	}
	if _, err := res.Create(ctx, deployment("web", 2)); !apierrors.IsAlreadyExists(err) {
		t.Fatalf("second create: %v", err)
	}
	next := made.DeepCopy()
	*next.Spec.Replicas = 3
	next.Status.Replicas = 9
	changed, err := res.Update(ctx, next)
	if err != nil {
		t.Fatal(err)
	}
	if changed.Generation != 2 || changed.Status.Replicas != 0 {
		t.Fatalf("generation %d, status replicas %d: a spec change must raise the one and not touch the other", changed.Generation, changed.Status.Replicas)
	}
	if *made.Spec.Replicas != 2 {
		t.Fatal("an object that had been read was changed")
	}
	if _, err := res.Update(ctx, next); !apierrors.IsConflict(err) {
		t.Fatalf("stale update: %v", err)
	}
	same, err := res.Update(ctx, changed)
	if err != nil || same.ResourceVersion != changed.ResourceVersion {
		t.Fatalf("an update without a change spent a revision: %v", err)
	}
	st := changed.DeepCopy()
	st.Status.Replicas, *st.Spec.Replicas = 3, 7
	st, err = res.UpdateStatus(ctx, st)
	if err != nil || st.Status.Replicas != 3 || *st.Spec.Replicas != 3 || st.Generation != 2 {
		t.Fatalf("status update: %v %+v", err, st)
	}
	if err := res.Delete(ctx, "default", "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := res.Get(ctx, "default", "web"); !apierrors.IsNotFound(err) {
		t.Fatalf("get after delete: %v", err)
	}
}

func TestPatches(t *testing.T) {
	_, tr := door(t)
	ctx := t.Context()
	res := client.Of[*appsv1.Deployment](tr)
	if _, err := res.Create(ctx, deployment("web", 2)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind types.PatchType
		body string
		want int32
	}{
		{types.MergePatchType, `{"spec":{"replicas":4}}`, 4},
		{types.StrategicMergePatchType, `{"spec":{"replicas":5,"template":{"spec":{"containers":[{"name":"side","image":"j"}]}}}}`, 5},
		{types.JSONPatchType, `[{"op":"replace","path":"/spec/replicas","value":6}]`, 6},
	} {
		got, err := res.Patch(ctx, "default", "web", c.kind, []byte(c.body))
		if err != nil || *got.Spec.Replicas != c.want {
			t.Fatalf("%s: %v", c.kind, err)
		}
	}
	got, _ := res.Get(ctx, "default", "web")
	if n := len(got.Spec.Template.Spec.Containers); n != 2 {
		t.Fatalf("strategic merge kept %d containers, want 2 by name", n)
	}
	if _, err := res.Patch(ctx, "default", "web", types.JSONPatchType, []byte(`[{"op":"test","path":"/spec/replicas","value":1}]`)); err == nil {
		t.Fatal("a failing test operation passed")
	}
}

func apply(t *testing.T, tr client.Transport, manager, body string, force bool) (client.Object, error) {
	t.Helper()
	o, err := tr.Do(t.Context(), &client.Request{Verb: "patch", Resource: appsv1.SchemeGroupVersion.WithResource("deployments"), Namespace: "default", Name: "web",
		PatchType: types.ApplyPatchType, Patch: []byte(body), FieldManager: manager, Force: force})
	if err != nil {
		return nil, err
	}
	return o.(client.Object), nil
}

func TestServerSideApply(t *testing.T) {
	_, tr := door(t)
	body := func(replicas int) string {
		b, _ := json.Marshal(map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web"},
			"spec": map[string]any{"replicas": replicas, "selector": map[string]any{"matchLabels": map[string]string{"app": "web"}},
				"template": map[string]any{"metadata": map[string]any{"labels": map[string]string{"app": "web"}},
					"spec": map[string]any{"containers": []any{map[string]any{"name": "c", "image": "i"}}}}}})
		return string(b)
	}
	if _, err := apply(t, tr, "one", body(2), false); err != nil {
		t.Fatal(err)
	}
	_, err := apply(t, tr, "two", body(3), false)
	if !apierrors.IsConflict(err) {
		t.Fatalf("another manager changed an owned field: %v", err)
	}
	if c := err.(apierrors.APIStatus).Status().Details.Causes; len(c) != 1 || c[0].Field != ".spec.replicas" {
		t.Fatalf("causes: %+v", c)
	}
	o, err := apply(t, tr, "two", body(3), true)
	if err != nil || *o.(*appsv1.Deployment).Spec.Replicas != 3 {
		t.Fatalf("forced apply: %v", err)
	}
}

func TestGraceAndFinalizers(t *testing.T) {
	_, tr := door(t)
	ctx := t.Context()
	pods := client.Of[*corev1.Pod](tr)
	mk := func(name, node string, finalizers ...string) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Finalizers: finalizers}, Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		if _, err := pods.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	mk("free", "")
	mk("bound", "n1")
	mk("held", "", "example.com/hold")
	for _, n := range []string{"free", "bound", "held"} {
		if err := pods.Delete(ctx, "default", n, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pods.Get(ctx, "default", "free"); !apierrors.IsNotFound(err) {
		t.Fatalf("a pod without a node lingers: %v", err)
	}
	bound, err := pods.Get(ctx, "default", "bound")
	if err != nil || bound.DeletionTimestamp == nil || *bound.DeletionGracePeriodSeconds != 30 {
		t.Fatalf("a pod on a node is given its grace period: %v", err)
	}
	zero := int64(0)
	if err := pods.Delete(ctx, "default", "bound", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	if _, err := pods.Get(ctx, "default", "bound"); !apierrors.IsNotFound(err) {
		t.Fatalf("grace 0 did not end it: %v", err)
	}
	held, err := pods.Get(ctx, "default", "held")
	if err != nil || held.DeletionTimestamp == nil {
		t.Fatalf("a finalizer was ignored: %v", err)
	}
	if _, err := pods.Patch(ctx, "default", "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := pods.Get(ctx, "default", "held"); !apierrors.IsNotFound(err) {
		t.Fatalf("the last finalizer went and the pod stayed: %v", err)
	}
}

func TestWatchSelectors(t *testing.T) {
	_, tr := door(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	res := client.Of[*corev1.ConfigMap](tr)
	w, err := res.Watch(ctx, "default", metav1.ListOptions{LabelSelector: "on=yes"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := res.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		patch string
		want  watch.EventType
	}{
		{`{"metadata":{"labels":{"on":"yes"}}}`, watch.Added},
		{`{"data":{"k":"v"}}`, watch.Modified},
		{`{"metadata":{"labels":{"on":"no"}}}`, watch.Deleted},
	} {
		got, err := res.Patch(ctx, "default", "a", types.MergePatchType, []byte(step.patch))
		if err != nil {
			t.Fatal(err)
		}
		select {
		case ev := <-w.ResultChan():
			if ev.Type != step.want || ev.Object.(*corev1.ConfigMap).ResourceVersion != got.ResourceVersion {
				t.Fatalf("%s: got %s at %s, want %s at %s", step.patch, ev.Type, ev.Object.(*corev1.ConfigMap).ResourceVersion, step.want, got.ResourceVersion)
			}
		case <-ctx.Done():
			t.Fatalf("%s: no event", step.patch)
		}
	}
}

func TestListPages(t *testing.T) {
	d, tr := door(t)
	ctx := t.Context()
	res := client.Of[*corev1.ConfigMap](tr)
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		if _, err := res.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: n, Namespace: "default"}}); err != nil {
			t.Fatal(err)
		}
	}
	call := &Call{Row: api.ByResource(corev1.SchemeGroupVersion.WithResource("configmaps")), Namespace: "default"}
	first, err := d.List(ctx, call, &metav1.ListOptions{Limit: 2})
	if err != nil || len(first.Records) != 2 || first.Remaining == nil || *first.Remaining != 3 {
		t.Fatalf("first page: %v %+v", err, first)
	}
	if err := res.Delete(ctx, "default", "c", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	second, err := d.List(ctx, call, &metav1.ListOptions{Limit: 2, Continue: first.Continue})
	if err != nil || len(second.Records) != 2 || ObjectOf(second.Records[0]).GetName() != "c" || second.Revision != first.Revision {
		t.Fatalf("the second page must show the state of the first: %v %+v", err, second)
	}
	if _, err := d.List(ctx, call, &metav1.ListOptions{Continue: "nonsense"}); !apierrors.IsBadRequest(err) {
		t.Fatalf("bad token: %v", err)
	}
}

// TestReadersSeeWhatIsStored holds that nobody reads an object that would look different after a restart.
func TestReadersSeeWhatIsStored(t *testing.T) {
	d, tr := door(t)
	res := client.Of[*corev1.Node](tr)
	now := metav1.NewTime(time.Unix(1700000000, 123456789))
	got, err := res.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{}},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoExecute, TimeAdded: &now}}}})
	if err != nil {
		t.Fatal(err)
	}
	if added := got.Spec.Taints[0].TimeAdded; added.Nanosecond() != 0 || got.Annotations != nil {
		t.Fatalf("time %v, annotations %#v: parts of a second and empty maps are not stored", added, got.Annotations)
	}
	call := &Call{Row: api.ByResource(corev1.SchemeGroupVersion.WithResource("nodes")), Name: "n", DryRun: true, User: &authn.User{Name: "test"}}
	next := got.DeepCopy()
	next.Spec.Taints[0].TimeAdded = &now
	dry, err := d.Update(t.Context(), call, next)
	if err != nil {
		t.Fatal(err)
	}
	if dry.Object.(*corev1.Node).Spec.Taints[0].TimeAdded.Nanosecond() != 0 {
		t.Fatal("a dry run answers with what would not be stored")
	}
}
