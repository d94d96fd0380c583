package defaults

import (
	"math"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

func addBatch(t table) {
	set(t, "batch", "v1", "Job", job)
	set(t, "batch", "v1", "CronJob", cronJob)
}

func job(o *batchv1.Job) {
	s := &o.Spec
	if s.Completions == nil && s.Parallelism == nil {
		unset(&s.Completions, int32(1))
	}
	unset(&s.Parallelism, int32(1))
	if s.BackoffLimit == nil {
		if s.BackoffLimitPerIndex != nil {
			unset(&s.BackoffLimit, int32(math.MaxInt32))
		} else {
			unset(&s.BackoffLimit, int32(6))
		}
	}
	if len(o.Labels) == 0 {
		// the same map, not a copy: labels that are generated into the template show on the Job as well
		o.Labels = s.Template.Labels
	}
	unset(&s.CompletionMode, batchv1.NonIndexedCompletion)
	unset(&s.Suspend, false)
	unset(&s.ManualSelector, false)
	failurePolicy(s.PodFailurePolicy)
	if s.PodReplacementPolicy == nil {
		if s.PodFailurePolicy != nil {
			unset(&s.PodReplacementPolicy, batchv1.Failed)
		} else {
			unset(&s.PodReplacementPolicy, batchv1.TerminatingOrFailed)
		}
	}
	podSpec(&s.Template.Spec)
}

func failurePolicy(p *batchv1.PodFailurePolicy) {
	if p == nil {
		return
	}
	for i := range p.Rules {
		for j := range p.Rules[i].OnPodConditions {
			zero(&p.Rules[i].OnPodConditions[j].Status, corev1.ConditionTrue)
		}
	}
}

func cronJob(o *batchv1.CronJob) {
	s := &o.Spec
	zero(&s.ConcurrencyPolicy, batchv1.AllowConcurrent)
	unset(&s.Suspend, false)
	unset(&s.SuccessfulJobsHistoryLimit, int32(3))
	unset(&s.FailedJobsHistoryLimit, int32(1))
	failurePolicy(s.JobTemplate.Spec.PodFailurePolicy)
	podSpec(&s.JobTemplate.Spec.Template.Spec)
}
