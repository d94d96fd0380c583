package controllertest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/controller/loop"
)

// Events collects what recorders were told, as "component reason message".
type Events struct {
	mu   sync.Mutex
	list []string
}

type sink struct {
	to        *Events
	component string
}

func (s sink) Event(_ client.Object, _, reason, format string, args ...any) {
	s.to.mu.Lock()
	defer s.to.mu.Unlock()
	s.to.list = append(s.to.list, s.component+" "+reason+" "+fmt.Sprintf(format, args...))
}

// Has reports whether that event was recorded.
func (e *Events) Has(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Contains(e.list, text)
}

// List returns everything recorded so far.
func (e *Events) List() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.list)
}

// Run runs the controllers that build returns against s until the test ends.
func Run(t *testing.T, s *Server, build func(e *loop.Env) []*loop.Controller) *Events {
	t.Helper()
	events := &Events{}
	env := loop.NewEnv(s, slog.New(slog.DiscardHandler))
	env.NewEvents = func(component string) loop.Events { return sink{events, component} }
	controllers := build(env)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		env.Run(ctx, controllers)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return events
}

// Eventually waits until ok holds. The limit is generous: reaching it means that it never would.
func Eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

// SetReady plays the kubelet: pod runs on node with address ip and readiness ready.
func SetReady(t *testing.T, s *Server, p *corev1.Pod, ip string, ready bool) {
	t.Helper()
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	p = p.DeepCopy()
	p.ResourceVersion = ""
	p.Status.Phase = corev1.PodRunning
	p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.Now()}}
	if _, err := client.Of[*corev1.Pod](s).UpdateStatus(context.Background(), p); err != nil {
		t.Fatalf("set pod ready: %v", err)
	}
}
