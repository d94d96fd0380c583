package resource

import (
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	asv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"karve/api"
	"karve/apiserver/authn"
	"karve/client"
)

func somePod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": "a"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
}

func podCall(name string) *Call {
	return &Call{Row: podRow, Namespace: "default", Name: name, User: &authn.User{Name: "test"}, Manager: "test"}
}

// TestBind assigns pods to a node, and refuses what cannot be assigned.
func TestBind(t *testing.T) {
	d, tr := door(t)
	pods := client.Of[*corev1.Pod](tr)
	make := func(name string, change func(*corev1.Pod)) *corev1.Pod {
		t.Helper()
		p := somePod(name)
		change(p)
		made, err := pods.Create(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	plain := func(*corev1.Pod) {}
	free := make("free", plain)
	make("there", func(p *corev1.Pod) { p.Spec.NodeName = "other" })
	make("gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}} })
	to := func(name string, change func(*corev1.Binding)) error {
		b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name}, Target: corev1.ObjectReference{Kind: "Node", Name: "n1"}}
		change(b)
		_, err := d.Bind(t.Context(), podCall(name), b)
		return err
	}
	same := func(*corev1.Binding) {}
	fault := func(err error) bool { return apierrors.ReasonForError(err) == "" && StatusOf(err).Code == 500 }
	for _, c := range []struct {
		name   string
		err    error
		refuse func(error) bool
	}{
		{"no such pod", to("none", same), apierrors.IsNotFound},
		{"another name", to("free", func(b *corev1.Binding) { b.Name = "there" }), apierrors.IsBadRequest},
		{"no node", to("free", func(b *corev1.Binding) { b.Target.Name = "" }), fault},
		{"not to a node", to("free", func(b *corev1.Binding) { b.Target.Kind = "Pod" }), fault},
		{"another pod of that name", to("free", func(b *corev1.Binding) { b.UID = "x" }), apierrors.IsConflict},
		{"an older pod", to("free", func(b *corev1.Binding) { b.ResourceVersion = "999" }), apierrors.IsConflict},
		{"assigned", to("there", same), apierrors.IsConflict},
		{"gated", to("gated", same), apierrors.IsConflict},
	} {
		if !c.refuse(c.err) {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
	if err := to("free", func(b *corev1.Binding) {
		b.UID, b.Annotations, b.Labels = free.UID, map[string]string{"a": "b"}, map[string]string{"app": "x", "zone": "z"}
	}); err != nil {
		t.Fatal(err)
	}
	got, err := pods.Get(t.Context(), "default", "free")
	if err != nil {
		t.Fatal(err)
	}
	if got.Spec.NodeName != "n1" || got.Annotations["a"] != "b" || fmt.Sprint(got.Labels) != "map[app:a zone:z]" {
		t.Errorf("bound: %+v", got.ObjectMeta)
	}
	if n := len(got.Status.Conditions); n != 1 || got.Status.Conditions[0].Type != corev1.PodScheduled || got.Status.Conditions[0].Status != corev1.ConditionTrue {
		t.Errorf("conditions %+v", got.Status.Conditions)
	}
}

// TestEvict evicts pods against a budget that allows one disruption, and pods to which it does not matter.
func TestEvict(t *testing.T) {
	d, tr := door(t)
	pods, budgets := client.Of[*corev1.Pod](tr), client.Of[*policyv1.PodDisruptionBudget](tr)
	make := func(name, app string, phase corev1.PodPhase, ready corev1.ConditionStatus) {
		t.Helper()
		p := somePod(name)
		p.Labels["app"] = app
		p, err := pods.Create(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		p = p.DeepCopy()
		p.Status.Phase, p.Status.Conditions = phase, []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
		if _, err := pods.UpdateStatus(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	evict := func(name string, change func(*policyv1.Eviction)) error {
		t.Helper()
		e := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
		change(e)
		st, err := d.Evict(t.Context(), podCall(name), e)
		if err == nil && st.Status != metav1.StatusSuccess {
			return &apierrors.StatusError{ErrStatus: *st}
		}
		return err
	}
	same := func(*policyv1.Eviction) {}
	gone := func(name string, want bool) {
		t.Helper()
		if _, err := pods.Get(t.Context(), "default", name); apierrors.IsNotFound(err) != want {
			t.Errorf("pod %s: %v", name, err)
		}
	}
	one := intstr.FromInt32(1)
	pdb, err := budgets.Create(t.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "default"},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a1", "a2", "a3"} {
		make(n, "a", corev1.PodRunning, corev1.ConditionTrue)
	}
	make("done", "a", corev1.PodSucceeded, corev1.ConditionFalse)
	make("waiting", "a", corev1.PodPending, corev1.ConditionFalse)
	make("other", "b", corev1.PodRunning, corev1.ConditionTrue)
	make("broken", "a", corev1.PodRunning, corev1.ConditionFalse)

	if err := evict("a1", same); !apierrors.IsTooManyRequests(err) { // its controller has not looked yet
		t.Errorf("before the budget is counted: %v", err)
	}
	status := func(allowed int32) {
		t.Helper()
		now, err := budgets.Get(t.Context(), "default", "b")
		if err != nil {
			t.Fatal(err)
		}
		pdb = now.DeepCopy()
		pdb.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: pdb.Generation, DisruptionsAllowed: allowed, CurrentHealthy: 3, DesiredHealthy: 1, ExpectedPods: 4}
		if _, err := budgets.UpdateStatus(t.Context(), pdb); err != nil {
			t.Fatal(err)
		}
	}
	status(1)
	if err := evict("a1", func(e *policyv1.Eviction) { e.Name = "a2" }); !apierrors.IsBadRequest(err) {
		t.Errorf("another name: %v", err)
	}
	if err := evict("none", same); !apierrors.IsNotFound(err) {
		t.Errorf("no such pod: %v", err)
	}
	if err := evict("a1", func(e *policyv1.Eviction) { e.DeleteOptions = &metav1.DeleteOptions{DryRun: []string{"All"}} }); err != nil {
		t.Errorf("tried only: %v", err)
	}
	gone("a1", false)
	if err := evict("a1", same); err != nil {
		t.Errorf("the one that is allowed: %v", err)
	}
	gone("a1", true)
	after, err := budgets.Get(t.Context(), "default", "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, noted := after.Status.DisruptedPods["a1"]; !noted || after.Status.DisruptionsAllowed != 0 {
		t.Errorf("the budget afterwards: %+v", after.Status)
	}
	err = evict("a2", same)
	if !apierrors.IsTooManyRequests(err) || !apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause) {
		t.Errorf("one too many: %v", err)
	}
	gone("a2", false)
	for _, n := range []string{"done", "waiting", "other", "broken"} { // nothing that serves is lost with them
		if err := evict(n, same); err != nil {
			t.Errorf("%s: %v", n, err)
		}
		gone(n, true)
	}
	status(1)
	if _, err := budgets.Create(t.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "second", Namespace: "default"},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}}); err != nil {
		t.Fatal(err)
	}
	if err := evict("a2", same); err == nil {
		t.Error("evicted with two budgets")
	}
	gone("a2", false)
}

// TestScale changes the size of a Deployment through its scale, by update and by apply.
func TestScale(t *testing.T) {
	d, tr := door(t)
	res := client.Of[*appsv1.Deployment](tr)
	made, err := res.Create(t.Context(), deployment("web", 2))
	if err != nil {
		t.Fatal(err)
	}
	s := ScaleOf(made)
	if s.Spec.Replicas != 2 || s.Status.Selector != "app=web" || s.UID != made.UID {
		t.Errorf("scale %+v", s)
	}
	call := &Call{Row: api.Of(made), Sub: "scale", Namespace: "default", Name: "web", User: &authn.User{Name: "test"}, Manager: "scaler"}
	to := func(change func(*asv1.Scale)) (*asv1.Scale, error) {
		return d.Rescale(t.Context(), call, 1, func(live *asv1.Scale) (*asv1.Scale, error) {
			next := live.DeepCopy()
			change(next)
			return next, nil
		})
	}
	got, err := to(func(s *asv1.Scale) { s.Spec.Replicas = 5 })
	if err != nil || got.Spec.Replicas != 5 {
		t.Fatalf("%+v %v", got, err)
	}
	now, err := res.Get(t.Context(), "default", "web")
	if err != nil || *now.Spec.Replicas != 5 || now.Generation != 2 {
		t.Errorf("%v replicas, generation %d, %v", *now.Spec.Replicas, now.Generation, err)
	}
	owns := false
	for _, e := range now.ManagedFields {
		owns = owns || e.Manager == "scaler" && e.Subresource == "scale"
	}
	if !owns {
		t.Errorf("the scaler owns nothing: %+v", now.ManagedFields)
	}
	if _, err := to(func(s *asv1.Scale) { s.Spec.Replicas = -1 }); !apierrors.IsInvalid(err) {
		t.Errorf("less than nothing: %v", err)
	}
	if _, err := to(func(s *asv1.Scale) { s.ResourceVersion = made.ResourceVersion }); !apierrors.IsConflict(err) {
		t.Errorf("a stale scale: %v", err)
	}
	if _, err := to(func(s *asv1.Scale) { s.UID = "x" }); !apierrors.IsConflict(err) {
		t.Errorf("another object's scale: %v", err)
	}
	if _, err := to(func(s *asv1.Scale) { s.Name = "x" }); !apierrors.IsBadRequest(err) {
		t.Errorf("another name: %v", err)
	}
	intent, err := Intent([]byte("apiVersion: autoscaling/v1\nkind: Scale\nspec: {replicas: 7}"))
	if err != nil {
		t.Fatal(err)
	}
	other := *call
	other.Manager = "applier"
	if _, err := d.ApplyScale(t.Context(), &other, intent, false); !apierrors.IsConflict(err) {
		t.Errorf("applied against the scaler: %v", err)
	}
	if got, err = d.ApplyScale(t.Context(), &other, intent, true); err != nil || got.Spec.Replicas != 7 {
		t.Errorf("applied with force: %+v %v", got, err)
	}
}
