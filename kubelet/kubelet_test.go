package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/client"
	"karve/kubelet/apitest"
	"karve/kubelet/critest"
)

// rig is a kubelet between an API and a runtime that are both in memory.
type rig struct {
	t      *testing.T
	api    *apitest.Server
	rt     *critest.Fake
	opts   Options
	events *eventLog
	stop   func()
	k      *Kubelet
}

type eventLog struct {
	mu   sync.Mutex
	list []string
}

func (e *eventLog) EventRef(ref corev1.ObjectReference, kind, reason, format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, kind+" "+reason+" "+fmt.Sprintf(format, args...))
}

func (e *eventLog) has(part string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.list {
		if strings.Contains(s, part) {
			return true
		}
	}
	return false
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, api: apitest.New(), rt: critest.New(), events: &eventLog{}}
	dir := t.TempDir()
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	r.opts = Options{Transport: r.api, Runtime: r.rt, NodeName: "n1", NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}, Root: filepath.Join(dir, "kubelet"),
		LogRoot: filepath.Join(dir, "logs"), ClusterDNS: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, CgroupMount: "none", Recorder: r.events,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), Relist: time.Hour}
	r.api.Add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-node-lease"}})
	return r
}

func (r *rig) start() {
	r.t.Helper()
	k, err := New(r.opts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.k = k
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.t.Errorf("run: %v", err)
			}
		})
	}
	r.t.Cleanup(r.stop)
}

// until waits for something that has to come.
func (r *rig) until(what string, fn func() bool) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if fn() {
			return
		}
	}
	p := r.pod("p")
	r.t.Fatalf("never came: %s\ncalls: %v\nevents: %v\npod: %+v", what, r.rt.Calls(), r.events.list, p)
}

func (r *rig) pod(name string) *corev1.Pod {
	p, err := client.Of[*corev1.Pod](r.api).Get(context.Background(), "ns", name)
	if err != nil {
		return nil
	}
	return p
}

func (r *rig) condition(name string, kind corev1.PodConditionType) corev1.ConditionStatus {
	if p := r.pod(name); p != nil {
		for _, c := range p.Status.Conditions {
			if c.Type == kind {
				return c.Status
			}
		}
	}
	return ""
}

func (r *rig) phase(name string) corev1.PodPhase {
	if p := r.pod(name); p != nil {
		return p.Status.Phase
	}
	return "gone"
}

func newPod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	grace := int64(30)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID("uid-" + name), Generation: 1},
		Spec: corev1.PodSpec{NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "main", Image: "example.org/app:1", ImagePullPolicy: corev1.PullIfNotPresent,
				TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort}}
	for _, fn := range change {
		fn(p)
	}
	return p
}

func TestPodRunsAndEndsGracefully(t *testing.T) {
	r := newRig(t)
	r.api.Add(newPod("p"))
	r.start()
	r.until("ready", func() bool { return r.condition("p", corev1.PodReady) == corev1.ConditionTrue })
	p := r.pod("p")
	if p.Status.Phase != corev1.PodRunning || p.Status.PodIP != "10.1.0.5" || p.Status.HostIP != "192.0.2.7" || p.Status.StartTime == nil || p.Status.ObservedGeneration != 1 {
		t.Errorf("status: %+v", p.Status)
	}
	if id := p.Status.ContainerStatuses[0].ContainerID; !strings.HasPrefix(id, "fake://container-") {
		t.Errorf("container id %q", id)
	}
	for _, e := range []string{"Normal Pulling Pulling image", "Normal Pulled Successfully pulled image", "Normal Created Container created", "Normal Started Container started"} {
		if !r.events.has(e) {
			t.Errorf("no event %q in %v", e, r.events.list)
		}
	}
	c := r.rt.Config("main")
	if c.LogPath != "main/0.log" || c.Labels["io.kubernetes.pod.uid"] != "uid-p" || c.Annotations["io.kubernetes.container.restartCount"] != "0" {
		t.Errorf("container config: %+v", c)
	}
	hosts, err := os.ReadFile(filepath.Join(r.opts.Root, "pods/uid-p/etc-hosts"))
	if err != nil || !strings.Contains(string(hosts), "10.1.0.5\tp\n") {
		t.Errorf("hosts: %s %v", hosts, err)
	}
	if err := client.Of[*corev1.Pod](r.api).Delete(context.Background(), "ns", "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("gone", func() bool { return r.pod("p") == nil })
	r.until("nothing left", func() bool { s, c := r.rt.Left(); return s == 0 && c == 0 })
	if r.rt.Count("stop main 30") != 1 {
		t.Errorf("calls: %v", r.rt.Calls())
	}
	r.until("directories removed", func() bool {
		_, a := os.Stat(filepath.Join(r.opts.Root, "pods/uid-p"))
		_, b := os.Stat(filepath.Join(r.opts.LogRoot, "ns_p_uid-p"))
		return errors.Is(a, os.ErrNotExist) && errors.Is(b, os.ErrNotExist)
	})
}

func TestNodeIsReadyAtOnce(t *testing.T) {
	r := newRig(t)
	var got []netip.Prefix
	var mu sync.Mutex
	r.opts.OnPodCIDR = func(p netip.Prefix) { mu.Lock(); got = append(got, p); mu.Unlock() }
	r.opts.Labels = map[string]string{"zone": "a"}
	r.start()
	r.until("node ready", func() bool {
		n, err := client.Of[*corev1.Node](r.api).Get(context.Background(), "", "n1")
		if err != nil {
			return false
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && c.Reason == "KubeletReady" {
				return n.Labels["zone"] == "a" && n.Labels["kubernetes.io/hostname"] == "n1" && n.Status.Allocatable.Pods().Value() == 110
			}
		}
		return false
	})
	r.until("lease", func() bool {
		l, err := client.Of[*coordv1.Lease](r.api).Get(context.Background(), "kube-node-lease", "n1")
		return err == nil && *l.Spec.HolderIdentity == "n1" && *l.Spec.LeaseDurationSeconds == 40
	})
	n, err := client.Of[*corev1.Node](r.api).Get(context.Background(), "", "n1")
	if err != nil {
		t.Fatal(err)
	}
	n = n.DeepCopy()
	n.Spec.PodCIDR, n.Spec.PodCIDRs = "10.1.0.0/24", []string{"10.1.0.0/24"}
	if _, err := client.Of[*corev1.Node](r.api).Update(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	r.until("range", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 1 && got[0].String() == "10.1.0.0/24" })
}

func TestRestartAndBackOff(t *testing.T) {
	r := newRig(t)
	r.rt.OnStart = func(*runtimeapi.ContainerConfig) (int32, bool) { return 3, true }
	r.api.Add(newPod("p"))
	r.start()
	r.until("back-off", func() bool {
		p := r.pod("p")
		if p == nil || len(p.Status.ContainerStatuses) == 0 {
			return false
		}
		st := p.Status.ContainerStatuses[0]
		return st.State.Waiting != nil && st.State.Waiting.Reason == "CrashLoopBackOff" && st.RestartCount == 1 &&
			st.LastTerminationState.Terminated != nil && st.LastTerminationState.Terminated.ExitCode == 3 && st.LastTerminationState.Terminated.Reason == "Error"
	})
	if got := r.pod("p").Status.ContainerStatuses[0].State.Waiting.Message; got != "back-off 10s restarting failed container=main pod=p_ns(uid-p)" {
		t.Errorf("message %q", got)
	}
	if r.phase("p") != corev1.PodRunning || !r.events.has("Warning BackOff Back-off restarting failed container main in pod p_ns(uid-p)") {
		t.Errorf("phase %s events %v", r.phase("p"), r.events.list)
	}
}

func TestJobPodEnds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		policy corev1.RestartPolicy
		code   int32
		want   corev1.PodPhase
		reason string
	}{
		{"completed", corev1.RestartPolicyNever, 0, corev1.PodSucceeded, "Completed"},
		{"failed", corev1.RestartPolicyNever, 2, corev1.PodFailed, "Error"},
		{"completed on failure", corev1.RestartPolicyOnFailure, 0, corev1.PodSucceeded, "Completed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			r.rt.OnStart = func(*runtimeapi.ContainerConfig) (int32, bool) { return tc.code, true }
			r.api.Add(newPod("p", func(p *corev1.Pod) { p.Spec.RestartPolicy = tc.policy }))
			r.start()
			r.until("end", func() bool { return r.phase("p") == tc.want })
			if st := r.pod("p").Status.ContainerStatuses[0].State.Terminated; st == nil || st.Reason != tc.reason || st.ExitCode != tc.code {
				t.Errorf("state %+v", st)
			}
			r.until("sandbox stopped", func() bool { return r.rt.Count("stop-sandbox p") == 1 })
			if n := r.rt.Count("start main"); n != 1 {
				t.Errorf("started %d times", n)
			}
		})
	}
}

func TestInitThenSidecarThenMain(t *testing.T) {
	r := newRig(t)
	always := corev1.ContainerRestartPolicyAlways
	r.rt.OnStart = func(c *runtimeapi.ContainerConfig) (int32, bool) { return 0, c.Metadata.Name == "init" }
	r.api.Add(newPod("p", func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "i"}, {Name: "side", Image: "s", RestartPolicy: &always}}
	}))
	r.start()
	r.until("ready", func() bool { return r.condition("p", corev1.PodReady) == corev1.ConditionTrue })
	var order []string
	for _, c := range r.rt.Calls() {
		if strings.HasPrefix(c, "start ") {
			order = append(order, strings.TrimPrefix(c, "start "))
		}
	}
	if strings.Join(order, " ") != "init side main" {
		t.Errorf("order %v", order)
	}
	if err := client.Of[*corev1.Pod](r.api).Delete(context.Background(), "ns", "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.until("gone", func() bool { return r.pod("p") == nil })
	var stops []string
	for _, c := range r.rt.Calls() {
		if strings.HasPrefix(c, "stop ") {
			stops = append(stops, strings.Fields(c)[1])
		}
	}
	if strings.Join(stops, " ") != "main side" {
		t.Errorf("stops %v", stops)
	}
}

func TestAdoption(t *testing.T) {
	r := newRig(t)
	r.api.Add(newPod("p"), newPod("q"))
	r.start()
	for _, n := range []string{"p", "q"} {
		r.until(n, func() bool { return r.condition(n, corev1.PodReady) == corev1.ConditionTrue })
	}
	r.rt.Exit(r.rt.Running("main")[0], 1, "")
	r.until("restart", func() bool { return len(r.rt.Running("main")) == 2 && r.rt.Count("start main") == 3 })
	r.stop()
	zero := int64(0)
	if err := client.Of[*corev1.Pod](r.api).Delete(context.Background(), "ns", "q", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.until("orphan ended", func() bool { s, _ := r.rt.Left(); return s == 1 })
	r.until("still ready", func() bool { return r.condition("p", corev1.PodReady) == corev1.ConditionTrue })
	if n := r.rt.Count("start main"); n != 3 {
		t.Errorf("containers were started anew: %d starts", n)
	}
	total := r.pod("p").Status.ContainerStatuses[0].RestartCount
	if total > 1 {
		t.Errorf("restart count %d", total)
	}
}

func TestImageTroubles(t *testing.T) {
	r := newRig(t)
	r.rt.OnPull = func(image string, _ *runtimeapi.AuthConfig) error { return errors.New("no such image") }
	r.api.Add(newPod("p"), newPod("never", func(p *corev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = corev1.PullNever }),
		newPod("bad", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "UPPER//x" }))
	r.start()
	waits := func(pod string, reasons ...string) {
		r.until(pod+" "+reasons[0], func() bool {
			p := r.pod(pod)
			if p == nil || len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
				return false
			}
			for _, x := range reasons {
				if p.Status.ContainerStatuses[0].State.Waiting.Reason == x {
					return true
				}
			}
			return false
		})
	}
	waits("p", "ErrImagePull")
	waits("p", "ImagePullBackOff")
	waits("never", "ErrImageNeverPull")
	waits("bad", "InvalidImageName")
	if r.phase("p") != corev1.PodPending {
		t.Errorf("phase %s", r.phase("p"))
	}
}

func TestConfigErrorHealsWhenTheObjectComes(t *testing.T) {
	r := newRig(t)
	r.api.Add(newPod("p", func(p *corev1.Pod) {
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "k"}}}, {Name: "B", Value: "<$(A)> $$(A)"}}
	}))
	r.start()
	r.until("error", func() bool {
		p := r.pod("p")
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == "CreateContainerConfigError" && p.Status.ContainerStatuses[0].State.Waiting.Message == `configmap "cm" not found`
	})
	r.api.Add(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cm", Namespace: "ns"}, Data: map[string]string{"k": "v"}})
	r.until("ready", func() bool { return r.condition("p", corev1.PodReady) == corev1.ConditionTrue })
	env := map[string]string{}
	for _, e := range r.rt.Config("main").Envs {
		env[e.Key] = string(e.Value)
	}
	if env["A"] != "v" || env["B"] != "<v> $(A)" {
		t.Errorf("env %v", env)
	}
}

func TestProbes(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	healthy := true
	r.rt.OnExec = func(_ string, cmd []string) (string, int32) {
		mu.Lock()
		defer mu.Unlock()
		if cmd[0] == "live" && !healthy {
			return "sick", 1
		}
		return "", 0
	}
	handler := func(cmd string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{cmd}}}, PeriodSeconds: 1, FailureThreshold: 1, SuccessThreshold: 1, TimeoutSeconds: 1}
	}
	r.api.Add(newPod("p", func(p *corev1.Pod) {
		p.Spec.Containers[0].StartupProbe, p.Spec.Containers[0].ReadinessProbe, p.Spec.Containers[0].LivenessProbe = handler("start"), handler("ready"), handler("live")
	}))
	r.start()
	r.until("ready", func() bool { return r.condition("p", corev1.PodReady) == corev1.ConditionTrue })
	mu.Lock()
	healthy = false
	mu.Unlock()
	r.until("killed", func() bool { return r.rt.Count("stop main 30") >= 1 })
	mu.Lock()
	healthy = true
	mu.Unlock()
	r.until("restarted", func() bool {
		p := r.pod("p")
		return p.Status.ContainerStatuses[0].RestartCount >= 1 && r.condition("p", corev1.PodReady) == corev1.ConditionTrue
	})
	for _, e := range []string{"Warning Unhealthy Liveness probe failed: sick", "Normal Killing Container main failed liveness probe, will be restarted"} {
		if !r.events.has(e) {
			t.Errorf("no event %q in %v", e, r.events.list)
		}
	}
}

func TestDeadline(t *testing.T) {
	r := newRig(t)
	one := int64(1)
	r.api.Add(newPod("p", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &one }))
	r.start()
	r.until("failed", func() bool { return r.phase("p") == corev1.PodFailed })
	p := r.pod("p")
	r.until("containers ended", func() bool { return len(r.rt.Running("main")) == 0 })
	if p.Status.Reason != "DeadlineExceeded" || p.Status.Message != "Pod was active on the node longer than the specified deadline" {
		t.Errorf("%s %s", p.Status.Reason, p.Status.Message)
	}
}

func TestShorterGraceCutsTheWait(t *testing.T) {
	r := newRig(t)
	waiting := make(chan struct{})
	var once sync.Once
	r.rt.OnStop = func(ctx context.Context, _ string, grace int64) error {
		if grace < 5 {
			return nil
		}
		once.Do(func() { close(waiting) })
		<-ctx.Done()
		return ctx.Err()
	}
	r.api.Add(newPod("p"))
	r.start()
	r.until("ready", func() bool { return r.condition("p", corev1.PodReady) == corev1.ConditionTrue })
	pods := client.Of[*corev1.Pod](r.api)
	if err := pods.Delete(context.Background(), "ns", "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	<-waiting
	one := int64(1)
	if err := pods.Delete(context.Background(), "ns", "p", metav1.DeleteOptions{GracePeriodSeconds: &one}); err != nil {
		t.Fatal(err)
	}
	r.until("gone", func() bool { return r.pod("p") == nil })
}
