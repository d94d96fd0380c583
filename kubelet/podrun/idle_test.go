package podrun

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/kubelet/apitest"
	"karve/kubelet/criconfig"
	"karve/kubelet/critest"
	"karve/kubelet/image"
	"karve/kubelet/podworker"
	"karve/kubelet/volume"
)

type noFacts struct{}

func (noFacts) HostIPs() []string                                               { return []string{"192.0.2.1"} }
func (noFacts) Allocatable() corev1.ResourceList                                { return nil }
func (noFacts) Services(string) []*corev1.Service                               { return nil }
func (noFacts) Network() error                                                  { return nil }
func (noFacts) Admit(*corev1.Pod) *podworker.Verdict                            { return nil }
func (noFacts) EventRef(corev1.ObjectReference, string, string, string, ...any) {}

// A pod that runs, and one that was purged, are left alone: nothing is asked of the runtime and no goroutine stays.
func TestNothingHappensWhileNothingIsDue(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	api, rt, log, dir := apitest.New(), critest.New(), slog.New(slog.DiscardHandler), t.TempDir()
	s := New(ctx, Config{Runtime: rt, Transport: api, Images: image.New(rt, log, 1), Volumes: volume.New(dir, volume.Kernel{}, time.Now), Facts: noFacts{}, Events: noFacts{},
		Log: log, Node: criconfig.Node{Name: "n", LogRoot: dir + "/logs"}})
	before := runtime.NumGoroutine()
	pod := func(name string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: "u", ResourceVersion: "1"},
			Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
		api.Add(p)
		return p
	}("p")
	s.Update(pod)
	wait := func(what string, fn func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !fn(); time.Sleep(2 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never came: %s", what)
			}
		}
	}
	idle := func() bool {
		w := s.get(pod.UID)
		if w == nil {
			return true
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.known && !w.looking && !w.acting && !w.dirty
	}
	wait("running", func() bool { return len(rt.Running("c")) == 1 && idle() })
	wait("no goroutine", func() bool { return runtime.NumGoroutine() <= before })
	s.Remove(pod)
	wait("purged", func() bool { n, c := rt.Left(); return n == 0 && c == 0 && s.get(pod.UID) == nil })
	wait("no goroutine after the end", func() bool { return runtime.NumGoroutine() <= before })
}
