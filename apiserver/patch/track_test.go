package patch

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"karve/api"
)

// edits are ways to change a pod, each with a choice n.
var edits = []func(p *corev1.Pod, n int){
	func(p *corev1.Pod, n int) { set(&p.Labels, n) },
	func(p *corev1.Pod, n int) { set(&p.Annotations, n) },
	func(p *corev1.Pod, n int) { p.Labels = nil },
	func(p *corev1.Pod, n int) { p.Labels = map[string]string{} },
	func(p *corev1.Pod, n int) { p.Finalizers = append(p.Finalizers, fmt.Sprint("f/", n)) },
	func(p *corev1.Pod, n int) { p.Finalizers = nil },
	func(p *corev1.Pod, n int) { p.Spec.NodeName = fmt.Sprint(n) },
	func(p *corev1.Pod, n int) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprint("c", n), Image: "i"})
	},
	func(p *corev1.Pod, n int) { p.Spec.Containers = p.Spec.Containers[:len(p.Spec.Containers)/2] },
	func(p *corev1.Pod, n int) {
		for i := range p.Spec.Containers {
			p.Spec.Containers[i].Env = append(p.Spec.Containers[i].Env, corev1.EnvVar{Name: fmt.Sprint("E", n%2), Value: fmt.Sprint(n)})
		}
	},
	func(p *corev1.Pod, n int) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroups: []int64{int64(n)}}
	},
	func(p *corev1.Pod, n int) { p.Spec.SecurityContext = nil },
	func(p *corev1.Pod, n int) { set(&p.Spec.NodeSelector, n) },
	func(p *corev1.Pod, n int) {
		p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: fmt.Sprint(n)})
	},
	func(p *corev1.Pod, n int) { p.Status.Message = fmt.Sprint(n) },
	func(p *corev1.Pod, n int) {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodConditionType(fmt.Sprint("T", n%3)), Status: corev1.ConditionTrue})
	},
	func(p *corev1.Pod, n int) { p.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprint(n)}} },
	func(p *corev1.Pod, n int) { p.ManagedFields = nil },
	func(p *corev1.Pod, n int) { p.ManagedFields = []metav1.ManagedFieldsEntry{} },
	func(p *corev1.Pod, n int) { p.ManagedFields = p.ManagedFields[:len(p.ManagedFields)/2] },
	func(p *corev1.Pod, n int) {
		for i := range p.ManagedFields {
			p.ManagedFields[i].Operation = metav1.ManagedFieldsOperationApply
		}
	},
	func(p *corev1.Pod, n int) {
		for i := range p.ManagedFields {
			p.ManagedFields[i].FieldsV1 = metav1.NewFieldsV1(`{"f:spec":{"f:nodeName":{},"f:tolerations":{".":{}}},"f:nonsense":{}}`)
		}
	},
	func(p *corev1.Pod, n int) {
		for i := range p.ManagedFields {
			p.ManagedFields[i].FieldsType = ""
		}
	},
}

func set(m *map[string]string, n int) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[fmt.Sprint("k", n%4)] = fmt.Sprint(n)
}

// timeless renders managed fields without their times, which are the clock's.
func timeless(p *corev1.Pod) string {
	m := slices.Clone(p.ManagedFields)
	for i := range m {
		m[i].Time = nil
	}
	slices.SortStableFunc(m, earlier)
	b, err := json.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestTrackDoesWhatTheLibraryDoes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	row := api.ByKind(schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	resets := map[string][]string{"": {"status"}, "status": {"spec", "metadata"}}
	m := NewManagers()
	own, all := 0, 0
	for range 60 {
		var live *corev1.Pod
		for step := range 30 {
			obj := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "i"}}}}
			base := &corev1.Pod{}
			if live != nil {
				obj, base = live.DeepCopy(), live
			}
			obj.SetGroupVersionKind(row.GVK())
			base.SetGroupVersionKind(row.GVK())
			for range 1 + r.IntN(3) {
				edits[r.IntN(len(edits))](obj, r.IntN(9))
			}
			sub := [...]string{"", "status"}[r.IntN(2)]
			manager := fmt.Sprint("m", r.IntN(4))
			fm, err := m.of(row, sub, resets[sub])
			if err != nil {
				t.Fatal(err)
			}
			untouched := base.DeepCopy()
			want := obj.DeepCopy()
			out, wantErr := fm.Update(shallow(base), want, manager)
			if wantErr == nil {
				want = out.(*corev1.Pod)
			}
			got := obj.DeepCopy()
			done, err := m.track(row, sub, fm.filter, base, got, manager, time.Now())
			all++
			if done {
				own++
			}
			if (err != nil) != (wantErr != nil) {
				t.Fatalf("step %d: error %v, the library's %v", step, err, wantErr)
			}
			if done && timeless(got) != timeless(want) {
				t.Fatalf("step %d, %s of %q:\n got %s\nwant %s", step, manager, sub, timeless(got), timeless(want))
			}
			if fmt.Sprint(base) != fmt.Sprint(untouched) {
				t.Fatal("the live object was changed")
			}
			if wantErr == nil {
				live = want
				live.UID = types.UID("u")
			}
		}
	}
	if own*10 < all*9 {
		t.Errorf("only %d of %d updates were not left to the library", own, all)
	}
}

func TestManyManagersAreMerged(t *testing.T) {
	row := api.ByKind(schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	m := NewManagers()
	live := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}}
	live.SetGroupVersionKind(row.GVK())
	for i := range 15 {
		obj := live.DeepCopy()
		set2 := map[string]string{}
		for j := range i + 1 {
			set2[fmt.Sprint(j)] = "x"
		}
		obj.Labels = set2
		var from *corev1.Pod
		if i > 0 {
			from = live
		}
		if from == nil {
			live = m.Update(row, "", nil, nil, obj, fmt.Sprint("m", i), time.Now()).(*corev1.Pod)
			continue
		}
		live = m.Update(row, "", nil, from, obj, fmt.Sprint("m", i), time.Now()).(*corev1.Pod)
	}
	if n := len(live.ManagedFields); n != maxUpdaters {
		t.Errorf("%d managers, want %d", n, maxUpdaters)
	}
	if !slices.ContainsFunc(live.ManagedFields, func(e metav1.ManagedFieldsEntry) bool { return e.Manager == "ancient-changes" }) {
		t.Errorf("the oldest were not merged: %s", timeless(live))
	}
}

// measured is the pod of the benchmarks.
func measured(row *api.Row) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{
		{Name: "a", Image: "i", Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}}, Ports: []corev1.ContainerPort{{ContainerPort: 80, Protocol: "TCP"}}},
		{Name: "b", Image: "i", Args: []string{"x", "y"}}}}}
	pod.SetGroupVersionKind(row.GVK())
	return pod
}

// BenchmarkUpdate is the record of a status patch: a whole pod, of which two fields change.
func BenchmarkUpdate(b *testing.B) {
	row := api.ByKind(schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	m := NewManagers()
	pod := measured(row)
	pod = m.Update(row, "", []string{"status"}, nil, pod, "creator", time.Now()).(*corev1.Pod)
	pod.UID = "u"
	b.ReportAllocs()
	for i := range b.N {
		next := pod.DeepCopy()
		next.Status.Message, next.Status.PodIP = fmt.Sprint(i), "10.0.0.1"
		pod = m.Update(row, "status", []string{"spec", "metadata"}, pod, next, "kubelet", time.Now()).(*corev1.Pod)
	}
}
