package job

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
	"karve/controller/controllertest"
	"karve/controller/loop"
)

func TestIndexes(t *testing.T) {
	for in, want := range map[string]string{"": "", "3": "3", "1,2": "1,2", "1,2,3": "1-3", "0-1,5-7,9": "0,1,5-7,9", "8-20": "8,9", "x,2": "2"} {
		if got := parseIndexes(in, 10).String(); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func newJob(change func(*batchv1.Job)) *batchv1.Job {
	two, three, six := int32(2), int32(3), int32(6)
	l := map[string]string{"job-name": "j", batchv1.JobNameLabel: "j"}
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Namespace: "a"}, Spec: batchv1.JobSpec{Parallelism: &two, Completions: &three, BackoffLimit: &six,
		Selector: &metav1.LabelSelector{MatchLabels: l}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l},
			Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c"}}}}}}
	if change != nil {
		change(j)
	}
	return j
}

// play runs the Job's controllers; end decides how each pod ends ("" to let it run).
func play(t *testing.T, j *batchv1.Job, end func(p *corev1.Pod) (corev1.PodPhase, int32)) (*controllertest.Server, *controllertest.Events) {
	t.Helper()
	s := controllertest.New(j)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
			for _, p := range controllertest.All[*corev1.Pod](s, "a") {
				phase, code := end(p)
				if phase == "" || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || p.DeletionTimestamp != nil {
					continue
				}
				c := p.DeepCopy()
				c.Status.Phase = phase
				c.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code,
					FinishedAt: metav1.NewTime(time.Now().Add(-time.Hour))}}}}
				_, _ = client.Of[*corev1.Pod](s).UpdateStatus(ctx, c)
			}
		}
	}()
	events := controllertest.Run(t, s, func(e *loop.Env) []*loop.Controller { return []*loop.Controller{New(e), NewTTL(e)} })
	t.Cleanup(func() { cancel(); <-done })
	return s, events
}

func ended(s *controllertest.Server, t batchv1.JobConditionType) func() bool {
	return func() bool {
		j := controllertest.MustGet[*batchv1.Job](s, "a", "j")
		return condition(&j.Status, t) != nil
	}
}

func succeed(*corev1.Pod) (corev1.PodPhase, int32) { return corev1.PodSucceeded, 0 }
func fails(*corev1.Pod) (corev1.PodPhase, int32)   { return corev1.PodFailed, 3 }

func check(t *testing.T, s *controllertest.Server, reason string, succeeded, failed int32) {
	t.Helper()
	j := controllertest.MustGet[*batchv1.Job](s, "a", "j")
	c := finished(&j.Status)
	if c == nil || c.Reason != reason || j.Status.Succeeded != succeeded || j.Status.Failed != failed || j.Status.Active != 0 {
		t.Errorf("status %+v", j.Status)
	}
	controllertest.Eventually(t, "no pod is held", func() bool {
		for _, p := range controllertest.All[*corev1.Pod](s, "a") {
			if tracked(p) {
				return false
			}
		}
		return true
	})
}

func TestCompletes(t *testing.T) {
	s, events := play(t, newJob(nil), succeed)
	controllertest.Eventually(t, "the job completes", ended(s, batchv1.JobComplete))
	check(t, s, "CompletionsReached", 3, 0)
	if n := s.Calls("create pods"); n != 3 {
		t.Errorf("%d pods for 3 completions", n)
	}
	j := controllertest.MustGet[*batchv1.Job](s, "a", "j")
	if j.Status.CompletionTime == nil || j.Status.StartTime == nil || !events.Has("job-controller Completed Job completed") {
		t.Errorf("status %+v, events %q", j.Status, events.List())
	}
}

func TestBackoffLimit(t *testing.T) {
	s, events := play(t, newJob(func(j *batchv1.Job) { *j.Spec.BackoffLimit, *j.Spec.Parallelism = 2, 1 }), fails)
	controllertest.Eventually(t, "the job fails", ended(s, batchv1.JobFailed))
	check(t, s, "BackoffLimitExceeded", 0, 3)
	if !events.Has("job-controller BackoffLimitExceeded Job has reached the specified backoff limit") {
		t.Errorf("events %q", events.List())
	}
}

func indexed(j *batchv1.Job) {
	mode := batchv1.IndexedCompletion
	j.Spec.CompletionMode = &mode
}

func TestIndexed(t *testing.T) {
	var mu sync.Mutex
	failedOnce := map[types.UID]bool{}
	s, _ := play(t, newJob(indexed), func(p *corev1.Pod) (corev1.PodPhase, int32) {
		mu.Lock()
		defer mu.Unlock()
		if indexOf(p) == 1 && (len(failedOnce) == 0 || failedOnce[p.UID]) {
			failedOnce[p.UID] = true
			return corev1.PodFailed, 1
		}
		return corev1.PodSucceeded, 0
	})
	controllertest.Eventually(t, "the job completes", ended(s, batchv1.JobComplete))
	check(t, s, "CompletionsReached", 3, 1)
	if got := controllertest.MustGet[*batchv1.Job](s, "a", "j").Status.CompletedIndexes; got != "0-2" {
		t.Errorf("completed %q", got)
	}
	for _, p := range controllertest.All[*corev1.Pod](s, "a") {
		if want := fmt.Sprintf("j-%d", indexOf(p)); p.Spec.Hostname != want || p.Spec.Containers[0].Env[0].Name != "JOB_COMPLETION_INDEX" {
			t.Errorf("pod %+v", p.Spec)
		}
	}
}

func TestBackoffLimitPerIndex(t *testing.T) {
	s, _ := play(t, newJob(func(j *batchv1.Job) {
		indexed(j)
		one, most := int32(1), int32(1<<30)
		j.Spec.BackoffLimitPerIndex, j.Spec.BackoffLimit = &one, &most
	}), func(p *corev1.Pod) (corev1.PodPhase, int32) {
		if indexOf(p) == 1 {
			return corev1.PodFailed, 1
		}
		return corev1.PodSucceeded, 0
	})
	controllertest.Eventually(t, "the job fails", ended(s, batchv1.JobFailed))
	check(t, s, "FailedIndexes", 2, 2)
	if st := controllertest.MustGet[*batchv1.Job](s, "a", "j").Status; *st.FailedIndexes != "1" || st.CompletedIndexes != "0,2" {
		t.Errorf("status %+v", st)
	}
}

func TestFailurePolicy(t *testing.T) {
	s, _ := play(t, newJob(func(j *batchv1.Job) {
		j.Spec.PodFailurePolicy = &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{Action: batchv1.PodFailurePolicyActionFailJob,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{3}}}}}
	}), fails)
	controllertest.Eventually(t, "the job fails", ended(s, batchv1.JobFailed))
	if c := finished(&controllertest.MustGet[*batchv1.Job](s, "a", "j").Status); c.Reason != "PodFailurePolicy" {
		t.Errorf("%+v", c)
	}
}

func TestSuspendDeadlineAndTTL(t *testing.T) {
	on := true
	s, events := play(t, newJob(func(j *batchv1.Job) { j.Spec.Suspend = &on }), func(*corev1.Pod) (corev1.PodPhase, int32) { return "", 0 })
	controllertest.Eventually(t, "suspended", ended(s, batchv1.JobSuspended))
	if n := len(controllertest.All[*corev1.Pod](s, "a")); n != 0 {
		t.Errorf("%d pods of a suspended job", n)
	}
	patch := func(body string) {
		t.Helper()
		if _, err := client.Of[*batchv1.Job](s).Patch(context.Background(), "a", "j", types.MergePatchType, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	patch(`{"spec":{"suspend":false}}`)
	controllertest.Eventually(t, "resumed", func() bool { return controllertest.MustGet[*batchv1.Job](s, "a", "j").Status.Active == 2 })
	if !events.Has("job-controller Resumed Job resumed") {
		t.Errorf("events %q", events.List())
	}
	patch(`{"spec":{"activeDeadlineSeconds":0}}`)
	controllertest.Eventually(t, "the deadline ends it", ended(s, batchv1.JobFailed))
	check(t, s, "DeadlineExceeded", 0, 2)
	patch(`{"spec":{"ttlSecondsAfterFinished":0}}`)
	controllertest.Eventually(t, "it is deleted", func() bool {
		j := controllertest.MustGet[*batchv1.Job](s, "a", "j")
		return j.DeletionTimestamp != nil
	})
}
