package job

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/controller/pods"
)

const (
	burst       = 500              // most pods made, and most endings counted, in one pass
	backoffBase = 10 * time.Second // pause after a first failure; it doubles with each
	backoffLast = 10 * time.Minute
)

// Make is one pod to create.
type Make struct{ Index, Failures int }

// Plan is what to do next, in this order: write Status if it differs, then let go of the Release pods (their ending is on
// record then), delete, create.
type Plan struct {
	Status  batchv1.JobStatus
	Release []*corev1.Pod
	Delete  []*corev1.Pod
	Create  []Make
	Recheck time.Duration
}

// state is a plan in the making.
type state struct {
	job       *batchv1.Job
	now       time.Time
	out       Plan
	indexed   bool
	limit     int // number of indexes
	done      indexes
	failedIdx indexes
	active    []*corev1.Pod
	failures  []*corev1.Pod // endings that count against the backoff, as far as pods are left
	uncounted struct{ succeeded, failed map[types.UID]bool }
	succeeded int32 // including what is not yet in the counters
	failed    int32
	failWhy   *batchv1.JobCondition
	// terminating counts pods on their way out, and lastGood is when the latest success ended.
	terminating int32
	lastGood    time.Time
}

func tracked(p *corev1.Pod) bool { return slices.Contains(p.Finalizers, batchv1.JobTrackingFinalizer) }

func condition(s *batchv1.JobStatus, t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t && s.Conditions[i].Status == corev1.ConditionTrue {
			return &s.Conditions[i]
		}
	}
	return nil
}

func finished(s *batchv1.JobStatus) *batchv1.JobCondition {
	if c := condition(s, batchv1.JobComplete); c != nil {
		return c
	}
	return condition(s, batchv1.JobFailed)
}

func deref(p *int32, otherwise int32) int32 {
	if p == nil {
		return otherwise
	}
	return *p
}

// hasFailed reports whether p counts as a failure. One that is being deleted does at once, unless the Job waits for its end;
// nobody will ever end one that was never bound.
func hasFailed(j *batchv1.Job, p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodFailed {
		return true
	}
	wait := j.Spec.PodReplacementPolicy != nil && *j.Spec.PodReplacementPolicy == batchv1.Failed || j.Spec.PodFailurePolicy != nil
	return p.DeletionTimestamp != nil && p.Status.Phase != corev1.PodSucceeded && (!wait || p.Spec.NodeName == "")
}

// plan compares a Job's pods with what it asks for.
func plan(j *batchv1.Job, owned []*corev1.Pod, now time.Time) Plan {
	s := &state{job: j, now: now, indexed: j.Spec.CompletionMode != nil && *j.Spec.CompletionMode == batchv1.IndexedCompletion}
	s.out.Status = *j.Status.DeepCopy()
	if j.DeletionTimestamp != nil || finished(&j.Status) != nil {
		for _, p := range owned {
			if tracked(p) {
				s.out.Release = append(s.out.Release, p)
			}
			if finished(&j.Status) != nil && pods.Active(p) && j.DeletionTimestamp == nil {
				s.out.Delete = append(s.out.Delete, p)
			}
		}
		return s.out
	}
	s.limit = int(deref(j.Spec.Completions, 0))
	owned = slices.Clone(owned)
	slices.SortFunc(owned, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	suspended := j.Spec.Suspend != nil && *j.Spec.Suspend
	s.suspend(suspended)
	s.count(owned)
	s.decide()
	ending := condition(&s.out.Status, batchv1.JobFailureTarget) != nil || condition(&s.out.Status, batchv1.JobSuccessCriteriaMet) != nil
	switch {
	case ending || suspended:
		s.out.Delete = append(s.out.Delete, s.active...)
	default:
		s.size()
	}
	s.report(ending)
	return s.out
}

func (s *state) add(t batchv1.JobConditionType, status corev1.ConditionStatus, reason, message string) {
	st := metav1.NewTime(s.now)
	c := batchv1.JobCondition{Type: t, Status: status, Reason: reason, Message: message, LastProbeTime: st, LastTransitionTime: st}
	list := s.out.Status.Conditions
	if i := slices.IndexFunc(list, func(x batchv1.JobCondition) bool { return x.Type == t }); i >= 0 {
		list[i] = c
		return
	}
	s.out.Status.Conditions = append(list, c)
}

func (s *state) suspend(on bool) {
	was := condition(&s.out.Status, batchv1.JobSuspended) != nil
	stamp := metav1.NewTime(s.now)
	switch {
	case on && !was:
		s.add(batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended")
		s.out.Status.StartTime = nil
	case !on && was:
		s.add(batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed")
		s.out.Status.StartTime = &stamp
	}
	if !on && s.out.Status.StartTime == nil {
		s.out.Status.StartTime = &stamp
	}
}

// count moves the endings of pods into the status. An ending is first listed by uid, which makes it safe to let go of the pod,
// and added to the counter once the pod's finalizer is gone: so none is lost or counted twice wherever this is cut off.
func (s *state) count(owned []*corev1.Pod) {
	st := &s.out.Status
	s.done, s.failedIdx = parseIndexes(st.CompletedIndexes, s.limit), indexes{}
	if st.FailedIndexes != nil {
		s.failedIdx = parseIndexes(*st.FailedIndexes, s.limit)
	}
	held := map[types.UID]bool{}
	for _, p := range owned {
		held[p.UID] = tracked(p)
	}
	s.uncounted.succeeded, s.uncounted.failed = map[types.UID]bool{}, map[types.UID]bool{}
	if u := st.UncountedTerminatedPods; u != nil {
		for _, uid := range u.Succeeded {
			if held[uid] {
				s.uncounted.succeeded[uid] = true
			} else {
				st.Succeeded++
			}
		}
		for _, uid := range u.Failed {
			if held[uid] {
				s.uncounted.failed[uid] = true
			} else {
				st.Failed++
			}
		}
	}
	newest := map[int]bool{} // indexes with a pod that has not failed
	for _, p := range owned {
		if p.DeletionTimestamp != nil && !pods.Finished(p) {
			s.terminating++
		}
		if p.Status.Phase == corev1.PodSucceeded {
			s.lastGood = later(s.lastGood, endTime(p))
		}
		if !hasFailed(s.job, p) {
			newest[indexOf(p)] = true
		}
	}
	listed := 0
	extra := int32(0)
	for _, p := range owned {
		switch {
		case p.Status.Phase == corev1.PodSucceeded:
			if s.indexed {
				if i := indexOf(p); i >= 0 && i < s.limit {
					s.done[i] = true
				}
			} else if tracked(p) && !s.uncounted.succeeded[p.UID] {
				if listed++; listed > burst {
					continue
				}
				s.uncounted.succeeded[p.UID] = true
			}
			if tracked(p) {
				s.out.Release = append(s.out.Release, p)
			}
		case hasFailed(s.job, p):
			extra += s.countFailure(p, newest, &listed)
		default:
			if p.DeletionTimestamp == nil {
				s.active = append(s.active, p)
			}
		}
	}
	s.failed = st.Failed + int32(len(s.uncounted.failed)) + extra
	if s.indexed {
		st.Succeeded = int32(len(s.done))
		s.succeeded = st.Succeeded
	} else {
		s.succeeded = st.Succeeded + int32(len(s.uncounted.succeeded))
	}
}

// countFailure returns 1 when the failure counts but cannot be listed yet, because its pod still carries the failure count of
// its index.
func (s *state) countFailure(p *corev1.Pod, newest map[int]bool, listed *int) (extra int32) {
	if !tracked(p) {
		s.failures = append(s.failures, p)
		return 0
	}
	v := judge(s.job.Spec.PodFailurePolicy, p)
	i := indexOf(p)
	switch v.action {
	case batchv1.PodFailurePolicyActionIgnore:
		if !s.uncounted.failed[p.UID] {
			s.out.Release = append(s.out.Release, p)
			return 0
		}
	case batchv1.PodFailurePolicyActionFailJob:
		if s.failWhy == nil {
			s.failWhy = &batchv1.JobCondition{Reason: batchv1.JobReasonPodFailurePolicy, Message: v.message}
		}
	case batchv1.PodFailurePolicyActionFailIndex:
		s.failedIdx[i] = true
	}
	s.failures = append(s.failures, p)
	if per := s.job.Spec.BackoffLimitPerIndex; per != nil && i >= 0 {
		if failureCount(p)+1 > int(*per) {
			s.failedIdx[i] = true
		}
		if !s.failedIdx[i] && !newest[i] && !s.uncounted.failed[p.UID] {
			return 1
		}
	}
	if !s.uncounted.failed[p.UID] {
		if *listed++; *listed > burst {
			return 1
		}
		s.uncounted.failed[p.UID] = true
	}
	s.out.Release = append(s.out.Release, p)
	return 0
}

// decide sets FailureTarget or SuccessCriteriaMet when it is time.
func (s *state) decide() {
	j, st := s.job, &s.out.Status
	if condition(st, batchv1.JobFailureTarget) != nil || condition(st, batchv1.JobSuccessCriteriaMet) != nil {
		return
	}
	fail := func(reason, message string) { s.add(batchv1.JobFailureTarget, corev1.ConditionTrue, reason, message) }
	suspended := condition(st, batchv1.JobSuspended) != nil
	limit := deref(j.Spec.BackoffLimit, 6)
	switch {
	case s.failWhy != nil:
		fail(s.failWhy.Reason, s.failWhy.Message)
		return
	case s.failed > limit || s.restarts() > 0 && s.restarts() >= limit && j.Spec.Template.Spec.RestartPolicy == corev1.RestartPolicyOnFailure:
		fail(batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit")
		return
	}
	if d := j.Spec.ActiveDeadlineSeconds; d != nil && !suspended && st.StartTime != nil {
		left := st.StartTime.Add(time.Duration(*d) * time.Second).Sub(s.now)
		if left <= 0 {
			fail(batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline")
			return
		}
		s.out.Recheck = left
	}
	if m := j.Spec.MaxFailedIndexes; m != nil && len(s.failedIdx) > int(*m) {
		fail(batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes")
		return
	}
	if r := successRule(j.Spec.SuccessPolicy, s.done, s.limit); r >= 0 {
		s.add(batchv1.JobSuccessCriteriaMet, corev1.ConditionTrue, batchv1.JobReasonSuccessPolicy, fmt.Sprintf("Matched rules at index %d", r))
		return
	}
	if s.indexed && len(s.failedIdx) > 0 && len(s.failedIdx)+len(s.done) >= s.limit {
		fail(batchv1.JobReasonFailedIndexes, "Job has failed indexes")
		return
	}
	complete := s.succeeded > 0 && len(s.active) == 0
	if c := j.Spec.Completions; c != nil {
		complete = s.succeeded >= *c
	}
	if complete && !suspended {
		s.add(batchv1.JobSuccessCriteriaMet, corev1.ConditionTrue, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods")
	}
}

func (s *state) restarts() (n int32) {
	for _, p := range s.active {
		for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
			for i := range list {
				n += list[i].RestartCount
			}
		}
	}
	return n
}

// size brings the number of active pods to what is wanted.
func (s *state) size() {
	j := s.job
	parallel := int(deref(j.Spec.Parallelism, 1))
	want := parallel
	switch c := j.Spec.Completions; {
	case c == nil && s.succeeded > 0:
		want = min(parallel, len(s.active))
	case c != nil:
		want = max(0, min(parallel, int(*c-s.succeeded)-len(s.failedIdx)))
	}
	active := s.active
	if s.indexed { // pods of finished indexes, and second pods of one, are in the way
		used := indexes{}
		active = nil
		for _, p := range s.active {
			i := indexOf(p)
			if i < 0 || i >= s.limit || s.done[i] || s.failedIdx[i] || used[i] {
				s.out.Delete = append(s.out.Delete, p)
				continue
			}
			used[i] = true
			active = append(active, p)
		}
	}
	if extra := len(active) - want; extra > 0 {
		active = slices.Clone(active)
		pods.Rank(active, nil, s.now)
		s.out.Delete = append(s.out.Delete, active[:extra]...)
		return
	}
	n := min(want-len(active)-s.ending(), burst)
	if n <= 0 {
		return
	}
	perIndex := s.indexed && j.Spec.BackoffLimitPerIndex != nil
	if wait := s.backoff(); wait > 0 && !perIndex {
		s.recheck(wait)
		return
	}
	if !s.indexed {
		for range n {
			s.out.Create = append(s.out.Create, Make{Index: -1})
		}
		return
	}
	used := indexes{}
	for _, p := range active {
		used[indexOf(p)] = true
	}
	for i := 0; i < s.limit && n > 0; i++ {
		if used[i] || s.done[i] || s.failedIdx[i] {
			continue
		}
		m := Make{Index: i}
		if perIndex {
			var last time.Time
			for _, p := range s.failures {
				if indexOf(p) == i {
					m.Failures = max(m.Failures, failureCount(p)+1)
					last = later(last, endTime(p))
				}
			}
			if wait := pause(m.Failures, last, s.now); wait > 0 {
				s.recheck(wait)
				continue
			}
		}
		s.out.Create = append(s.out.Create, m)
		n--
	}
}

// ending counts pods that are being deleted and that the Job wants to see end before it replaces them.
func (s *state) ending() int {
	if p := s.job.Spec.PodReplacementPolicy; p == nil || *p != batchv1.Failed {
		return 0
	}
	return int(s.terminating)
}

func (s *state) recheck(d time.Duration) {
	if s.out.Recheck == 0 || d < s.out.Recheck {
		s.out.Recheck = d
	}
}

// backoff is how long new pods still have to wait after the failures since the latest success.
func (s *state) backoff() time.Duration {
	var last time.Time
	n := 0
	for _, p := range s.failures {
		if end := endTime(p); !end.Before(s.lastGood) {
			n++
			last = later(last, end)
		}
	}
	return pause(n, last, s.now)
}

func pause(failures int, last, now time.Time) time.Duration {
	if failures == 0 {
		return 0
	}
	d := backoffLast
	if failures < 8 {
		d = min(backoffBase<<(failures-1), backoffLast)
	}
	return max(last.Add(d).Sub(now), 0)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// endTime is when a failed pod ended, as well as it can be told.
func endTime(p *corev1.Pod) (t time.Time) {
	for _, c := range p.Status.ContainerStatuses {
		if x := c.State.Terminated; x != nil {
			t = later(t, x.FinishedAt.Time)
		}
	}
	if t.IsZero() && p.DeletionTimestamp != nil {
		t = p.DeletionTimestamp.Time
		if g := p.DeletionGracePeriodSeconds; g != nil {
			t = t.Add(-time.Duration(*g) * time.Second)
		}
	}
	if c := pods.Condition(p, corev1.PodReady); t.IsZero() && c != nil {
		t = c.LastTransitionTime.Time
	}
	return t
}

// report completes the status.
func (s *state) report(ending bool) {
	st := &s.out.Status
	ready, terminating := int32(0), s.terminating
	for _, p := range s.active {
		if pods.Ready(p) {
			ready++
		}
	}
	running := len(s.active)
	st.Active, st.Ready, st.Terminating = int32(running), &ready, &terminating
	u := &batchv1.UncountedTerminatedPods{}
	for uid := range s.uncounted.succeeded {
		u.Succeeded = append(u.Succeeded, uid)
	}
	for uid := range s.uncounted.failed {
		u.Failed = append(u.Failed, uid)
	}
	slices.Sort(u.Succeeded)
	slices.Sort(u.Failed)
	st.UncountedTerminatedPods = u
	if s.indexed {
		st.CompletedIndexes = s.done.String()
		if s.job.Spec.BackoffLimitPerIndex != nil {
			f := s.failedIdx.String()
			st.FailedIndexes = &f
		}
	}
	if !ending || running > 0 || terminating > 0 || len(u.Succeeded)+len(u.Failed) > 0 {
		return
	}
	if c := condition(st, batchv1.JobSuccessCriteriaMet); c != nil {
		stamp := metav1.NewTime(s.now)
		s.add(batchv1.JobComplete, corev1.ConditionTrue, c.Reason, c.Message)
		st.CompletionTime = &stamp
	} else if c := condition(st, batchv1.JobFailureTarget); c != nil {
		s.add(batchv1.JobFailed, corev1.ConditionTrue, c.Reason, c.Message)
	}
}
