package validation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	labelset "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"karve/api/validation/cron"
)

const (
	maxIndexed     = 100000
	needIndexed    = "requires indexed completion mode"
	maxPolicyRules = 20
)

func addBatch(t table) {
	rule(t, "batch", "v1", "Job", true, subdomain, job, jobUpdate, onSub("status", jobStatus))
	rule(t, "batch", "v1", "CronJob", true, subdomain, cronJob, nil)
}

func job(o *batchv1.Job) errors {
	p := field.NewPath("spec")
	errs := jobIdentity(o)
	errs = append(errs, jobSelects(&o.Spec, p)...)
	errs = append(errs, jobSpec(&o.Spec, p)...)
	if o.Spec.CompletionMode != nil && *o.Spec.CompletionMode == batchv1.IndexedCompletion && deref(o.Spec.Completions, 0) > 0 {
		host := fmt.Sprintf("%s-%d", o.Name, *o.Spec.Completions-1)
		for range validation.IsDNS1123Label(host) {
			errs = append(errs, field.Invalid(field.NewPath("metadata").Child("name"), o.Name, fmt.Sprintf("will not able to create pod with invalid DNS label: %s", host)))
		}
	}
	return errs
}

// jobIdentity checks the labels that tie a Job to its pods.
func jobIdentity(o *batchv1.Job) errors {
	var errs errors
	p := field.NewPath("spec")
	s := &o.Spec
	if s.Selector == nil || s.ManualSelector != nil && *s.ManualSelector {
		return nil
	}
	at := p.Child("template", "metadata", "labels")
	want := map[string]string{"controller-uid": string(o.UID), "job-name": o.Name}
	if o.ResourceVersion == "" {
		want[batchv1.ControllerUidLabel], want[batchv1.JobNameLabel] = string(o.UID), o.Name
	}
	for _, k := range sortedKeys(want) {
		if v, ok := s.Template.Labels[k]; !ok || v != want[k] {
			errs = append(errs, field.Required(at.Key(k), fmt.Sprintf("must be '%s'", want[k])))
		}
	}
	uid := string(o.UID)
	expected := metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: uid}}
	legacy := metav1.LabelSelector{MatchLabels: map[string]string{"controller-uid": uid}}
	if !equality.Semantic.DeepEqual(*s.Selector, expected) && !equality.Semantic.DeepEqual(*s.Selector, legacy) {
		errs = append(errs, field.Invalid(p.Child("selector"), s.Selector, "`selector` not auto-generated"))
	}
	return errs
}

// jobSelects checks the selector, and that it finds the Job's own pods.
func jobSelects(s *batchv1.JobSpec, p *field.Path) errors {
	var errs errors
	if s.Selector == nil {
		errs = append(errs, field.Required(p.Child("selector"), ""))
	} else {
		errs = append(errs, labelSelector(p.Child("selector"), s.Selector)...)
	}
	if sel, err := metav1.LabelSelectorAsSelector(s.Selector); err == nil && !sel.Matches(labelset.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(p.Child("template", "metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	return errs
}

// jobSpec checks a Job's spec, or the template of one.
func jobSpec(s *batchv1.JobSpec, p *field.Path) errors {
	var errs errors
	errs = append(errs, nonNegativePtr(p.Child("parallelism"), s.Parallelism)...)
	errs = append(errs, nonNegativePtr(p.Child("completions"), s.Completions)...)
	errs = append(errs, nonNegativePtr(p.Child("activeDeadlineSeconds"), s.ActiveDeadlineSeconds)...)
	errs = append(errs, nonNegativePtr(p.Child("backoffLimit"), s.BackoffLimit)...)
	errs = append(errs, nonNegativePtr(p.Child("ttlSecondsAfterFinished"), s.TTLSecondsAfterFinished)...)
	errs = append(errs, nonNegativePtr(p.Child("backoffLimitPerIndex"), s.BackoffLimitPerIndex)...)
	errs = append(errs, nonNegativePtr(p.Child("maxFailedIndexes"), s.MaxFailedIndexes)...)
	if m := s.ManagedBy; m != nil {
		errs = append(errs, validation.IsDomainPrefixedPath(p.Child("managedBy"), *m)...)
		if len(*m) > 63 {
			errs = append(errs, field.TooLong(p.Child("managedBy"), *m, 63))
		}
	}
	errs = append(errs, completion(s, p)...)
	if s.PodFailurePolicy != nil {
		errs = append(errs, failurePolicy(s, p.Child("podFailurePolicy"))...)
	}
	if s.SuccessPolicy != nil {
		if indexed(s) {
			errs = append(errs, successPolicy(s, p.Child("successPolicy"))...)
		} else {
			errs = append(errs, field.Invalid(p.Child("successPolicy"), s.SuccessPolicy, needIndexed))
		}
	}
	errs = append(errs, replacement(s, p)...)
	t := p.Child("template")
	errs = append(errs, podTemplate(&s.Template, t)...)
	switch r := s.Template.Spec.RestartPolicy; {
	case r != "" && r != corev1.RestartPolicyAlways && r != corev1.RestartPolicyOnFailure && r != corev1.RestartPolicyNever:
		errs = append(errs, field.NotSupported(t.Child("spec", "restartPolicy"), r, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}))
	case r == "" || r == corev1.RestartPolicyAlways:
		errs = append(errs, field.Required(t.Child("spec", "restartPolicy"), `valid values: "OnFailure", "Never"`))
	case s.PodFailurePolicy != nil && r != corev1.RestartPolicyNever:
		errs = append(errs, field.Invalid(t.Child("spec", "restartPolicy"), r, "only \"Never\" is supported when podFailurePolicy is specified"))
	}
	return errs
}

func indexed(s *batchv1.JobSpec) bool {
	return s.CompletionMode != nil && *s.CompletionMode == batchv1.IndexedCompletion
}

func completion(s *batchv1.JobSpec, p *field.Path) errors {
	var errs errors
	if s.CompletionMode != nil {
		errs = append(errs, oneOf(p.Child("completionMode"), *s.CompletionMode, batchv1.NonIndexedCompletion, batchv1.IndexedCompletion)...)
	}
	if indexed(s) {
		if s.Completions == nil {
			errs = append(errs, field.Required(p.Child("completions"), fmt.Sprintf("when completion mode is %s", batchv1.IndexedCompletion)))
		}
		if n := deref(s.Parallelism, 0); n > maxIndexed {
			errs = append(errs, field.Invalid(p.Child("parallelism"), n, fmt.Sprintf("must be less than or equal to %d when completion mode is %s", maxIndexed, batchv1.IndexedCompletion)))
		}
		if c, m := s.Completions, s.MaxFailedIndexes; m != nil && c != nil && *m > *c {
			errs = append(errs, field.Invalid(p.Child("maxFailedIndexes"), *m, "must be less than or equal to completions"))
		}
	}
	if s.CompletionMode == nil || *s.CompletionMode == batchv1.NonIndexedCompletion {
		if s.BackoffLimitPerIndex != nil {
			errs = append(errs, field.Invalid(p.Child("backoffLimitPerIndex"), *s.BackoffLimitPerIndex, needIndexed))
		}
		if s.MaxFailedIndexes != nil {
			errs = append(errs, field.Invalid(p.Child("maxFailedIndexes"), *s.MaxFailedIndexes, needIndexed))
		}
	}
	if s.MaxFailedIndexes != nil && s.BackoffLimitPerIndex == nil {
		errs = append(errs, field.Required(p.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
	}
	return errs
}

func replacement(s *batchv1.JobSpec, p *field.Path) errors {
	if s.PodReplacementPolicy == nil {
		return nil
	}
	if s.PodFailurePolicy != nil {
		return oneOf(p.Child("podReplacementPolicy"), *s.PodReplacementPolicy, batchv1.Failed)
	}
	return oneOf(p.Child("podReplacementPolicy"), *s.PodReplacementPolicy, batchv1.Failed, batchv1.TerminatingOrFailed)
}

func failurePolicy(s *batchv1.JobSpec, p *field.Path) errors {
	var errs errors
	rules := p.Child("rules")
	if len(s.PodFailurePolicy.Rules) > maxPolicyRules {
		errs = append(errs, field.TooMany(rules, len(s.PodFailurePolicy.Rules), maxPolicyRules))
	}
	names := sets.New[string]()
	for _, list := range [][]corev1.Container{s.Template.Spec.Containers, s.Template.Spec.InitContainers} {
		for i := range list {
			names.Insert(list[i].Name)
		}
	}
	for i := range s.PodFailurePolicy.Rules {
		r, at := &s.PodFailurePolicy.Rules[i], rules.Index(i)
		if r.Action == "" {
			errs = append(errs, field.Required(at.Child("action"), `valid values: ["Count" "FailIndex" "FailJob" "Ignore"]`))
		} else {
			if r.Action == batchv1.PodFailurePolicyActionFailIndex && s.BackoffLimitPerIndex == nil {
				errs = append(errs, field.Invalid(at.Child("action"), r.Action, "requires the backoffLimitPerIndex to be set"))
			}
			errs = append(errs, oneOf(at.Child("action"), r.Action, batchv1.PodFailurePolicyActionCount, batchv1.PodFailurePolicyActionFailIndex, batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore)...)
		}
		if r.OnExitCodes != nil {
			errs = append(errs, exitCodes(r.OnExitCodes, names, at.Child("onExitCodes"))...)
		}
		if len(r.OnPodConditions) > 0 {
			errs = append(errs, podConditions(r.OnPodConditions, at.Child("onPodConditions"))...)
		}
		switch {
		case r.OnExitCodes != nil && len(r.OnPodConditions) > 0:
			errs = append(errs, field.Invalid(at, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
		case r.OnExitCodes == nil && len(r.OnPodConditions) == 0:
			errs = append(errs, field.Invalid(at, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
		}
	}
	return errs
}

func exitCodes(r *batchv1.PodFailurePolicyOnExitCodesRequirement, names sets.Set[string], p *field.Path) errors {
	var errs errors
	at := p.Child("values")
	if r.Operator == "" {
		errs = append(errs, field.Required(p.Child("operator"), `valid values: ["In" "NotIn"]`))
	} else {
		errs = append(errs, oneOf(p.Child("operator"), r.Operator, batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn)...)
	}
	if r.ContainerName != nil && !names.Has(*r.ContainerName) {
		errs = append(errs, field.Invalid(p.Child("containerName"), *r.ContainerName, "must be one of the container or initContainer names in the pod template"))
	}
	if len(r.Values) == 0 {
		return append(errs, field.Invalid(at, r.Values, "at least one value is required"))
	}
	if len(r.Values) > 255 {
		errs = append(errs, field.TooMany(at, len(r.Values), 255))
	}
	ordered := true
	seen := sets.New[int32]()
	for i, v := range r.Values {
		if seen.Has(v) {
			errs = append(errs, field.Duplicate(at.Index(i), v))
		}
		seen.Insert(v)
		if v == 0 && r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn {
			errs = append(errs, field.Invalid(at.Index(i), v, "must not be 0 for the In operator"))
		}
		if i > 0 && r.Values[i-1] > v {
			ordered = false
		}
	}
	if !ordered {
		errs = append(errs, field.Invalid(at, r.Values, "must be ordered"))
	}
	return errs
}

func podConditions(list []batchv1.PodFailurePolicyOnPodConditionsPattern, p *field.Path) errors {
	var errs errors
	if len(list) > maxPolicyRules {
		errs = append(errs, field.TooMany(p, len(list), maxPolicyRules))
	}
	for i, c := range list {
		at := p.Index(i)
		errs = append(errs, qualifiedName(at.Child("type"), string(c.Type))...)
		if c.Status == "" {
			errs = append(errs, field.Required(at.Child("status"), `valid values: ["False" "True" "Unknown"]`))
		} else {
			errs = append(errs, oneOf(at.Child("status"), c.Status, corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
		}
	}
	return errs
}

func successPolicy(s *batchv1.JobSpec, p *field.Path) errors {
	rules := p.Child("rules")
	if len(s.SuccessPolicy.Rules) == 0 {
		return errors{field.Required(rules, "at least one rules must be specified when the successPolicy is specified")}
	}
	var errs errors
	if len(s.SuccessPolicy.Rules) > maxPolicyRules {
		errs = append(errs, field.TooMany(rules, len(s.SuccessPolicy.Rules), maxPolicyRules))
	}
	for i, r := range s.SuccessPolicy.Rules {
		at := rules.Index(i)
		if r.SucceededCount == nil && r.SucceededIndexes == nil {
			errs = append(errs, field.Required(at, "at least one of succeededCount or succeededIndexes must be specified"))
		}
		total := int32(0)
		if r.SucceededIndexes != nil {
			n, err := indexes(*r.SucceededIndexes, deref(s.Completions, 0))
			if err != nil {
				errs = append(errs, field.Invalid(at.Child("succeededIndexes"), *r.SucceededIndexes, fmt.Sprintf("error parsing succeededIndexes: %s", err)))
			} else {
				total = n
			}
		}
		if c := r.SucceededCount; c != nil {
			q := at.Child("succeededCount")
			errs = append(errs, nonNegative(q, *c)...)
			if s.Completions != nil && *c > *s.Completions {
				errs = append(errs, field.Invalid(q, *c, fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", *s.Completions)))
			}
			if r.SucceededIndexes != nil && *c > total {
				errs = append(errs, field.Invalid(q, *c, fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total)))
			}
		}
	}
	return errs
}

// indexes counts a list like 1,3-5; numbers must grow and stay below completions.
func indexes(list string, completions int32) (int32, error) {
	total, last := int32(0), int32(-1)
	if list == "" {
		return 0, nil
	}
	for _, part := range strings.Split(list, ",") {
		limits := strings.Split(part, "-")
		if len(limits) > 2 {
			return 0, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts separated by '-'", part)
		}
		var pair [2]int32
		for i, text := range limits {
			n, err := strconv.Atoi(text)
			if err != nil {
				return 0, fmt.Errorf("cannot convert string to integer for index: %q", text)
			}
			if int32(n) >= completions {
				return 0, fmt.Errorf("too large index: %q", text)
			}
			pair[i] = int32(n)
		}
		if len(limits) == 1 {
			pair[1] = pair[0]
		}
		if pair[0] <= last {
			return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", last, pair[0])
		}
		if len(limits) == 2 && pair[0] >= pair[1] {
			return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", pair[0], pair[1])
		}
		total += pair[1] - pair[0] + 1
		last = pair[1]
	}
	return total, nil
}

func jobUpdate(o, old *batchv1.Job) errors {
	p, a, b := field.NewPath("spec"), &o.Spec, &old.Spec
	// upstream judges the spec once as a Job's and once as a change, and reports what it finds twice
	errs := append(jobSelects(a, p), jobSpec(a, p)...)
	errs = append(errs, completionsChange(a, b, p)...)
	errs = append(errs, immutable(p.Child("selector"), a.Selector, b.Selector)...)
	errs = append(errs, jobTemplateChange(o, old, p)...)
	errs = append(errs, immutable(p.Child("completionMode"), a.CompletionMode, b.CompletionMode)...)
	errs = append(errs, immutable(p.Child("podFailurePolicy"), a.PodFailurePolicy, b.PodFailurePolicy)...)
	errs = append(errs, immutable(p.Child("backoffLimitPerIndex"), a.BackoffLimitPerIndex, b.BackoffLimitPerIndex)...)
	errs = append(errs, immutable(p.Child("managedBy"), a.ManagedBy, b.ManagedBy)...)
	return append(errs, immutable(p.Child("successPolicy"), a.SuccessPolicy, b.SuccessPolicy)...)
}

// completionsChange lets an indexed Job grow and shrink, together with its parallelism.
func completionsChange(a, b *batchv1.JobSpec, p *field.Path) errors {
	at := p.Child("completions")
	if equality.Semantic.DeepEqual(a.Completions, b.Completions) {
		return nil
	}
	if !indexed(a) {
		return immutable(at, a.Completions, b.Completions)
	}
	if a.Completions == nil {
		return immutable(at, a.Completions, b.Completions)
	}
	if b.Completions != nil && !equality.Semantic.DeepEqual(a.Completions, a.Parallelism) {
		return errors{field.Invalid(at, a.Completions, "can only be modified in tandem with spec.parallelism")}
	}
	return nil
}

// jobTemplateChange lets a suspended Job that never started have its scheduling directives changed.
func jobTemplateChange(o, old *batchv1.Job, p *field.Path) errors {
	t := old.Spec.Template.DeepCopy()
	if old.Spec.Suspend != nil && *old.Spec.Suspend && old.Status.StartTime == nil {
		n := &o.Spec.Template
		t.Annotations, t.Labels = n.Annotations, n.Labels
		t.Spec.NodeSelector, t.Spec.Tolerations, t.Spec.SchedulingGates = n.Spec.NodeSelector, n.Spec.Tolerations, n.Spec.SchedulingGates
		switch {
		case n.Spec.Affinity == nil && t.Spec.Affinity != nil:
			t.Spec.Affinity.NodeAffinity = nil
			if t.Spec.Affinity.PodAffinity == nil && t.Spec.Affinity.PodAntiAffinity == nil {
				t.Spec.Affinity = nil
			}
		case n.Spec.Affinity != nil:
			if t.Spec.Affinity == nil {
				t.Spec.Affinity = &corev1.Affinity{}
			}
			t.Spec.Affinity.NodeAffinity = n.Spec.Affinity.NodeAffinity
		}
		mutableResources(t.Spec.Containers, n.Spec.Containers)
		mutableResources(t.Spec.InitContainers, n.Spec.InitContainers)
		return immutable(p.Child("template", "spec"), o.Spec.Template.Spec, t.Spec)
	}
	return immutable(p.Child("template"), o.Spec.Template, *t)
}

func mutableResources(to, from []corev1.Container) {
	if len(to) != len(from) {
		return
	}
	for i := range to {
		if to[i].Name == from[i].Name {
			to[i].Resources = from[i].Resources
		}
	}
}

func cronJob(o *batchv1.CronJob) errors {
	p, s := field.NewPath("spec"), &o.Spec
	var errs errors
	// the jobs' names are the CronJob's and eleven characters more
	if len(o.Name) > 52 {
		errs = append(errs, field.Invalid(field.NewPath("metadata").Child("name"), o.Name, "must be no more than 52 characters"))
	}
	if s.Schedule == "" {
		errs = append(errs, field.Required(p.Child("schedule"), ""))
	} else {
		if err := cron.Check(s.Schedule); err != nil {
			errs = append(errs, field.Invalid(p.Child("schedule"), s.Schedule, err.Error()))
		}
		if strings.Contains(s.Schedule, "TZ") {
			errs = append(errs, field.Invalid(p.Child("schedule"), s.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
		}
	}
	errs = append(errs, nonNegativePtr(p.Child("startingDeadlineSeconds"), s.StartingDeadlineSeconds)...)
	if s.ConcurrencyPolicy == "" {
		errs = append(errs, field.Required(p.Child("concurrencyPolicy"), ""))
	} else {
		errs = append(errs, oneOf(p.Child("concurrencyPolicy"), s.ConcurrencyPolicy, batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)...)
	}
	errs = append(errs, jobTemplateSpec(&s.JobTemplate, p.Child("jobTemplate"))...)
	errs = append(errs, nonNegativePtr(p.Child("successfulJobsHistoryLimit"), s.SuccessfulJobsHistoryLimit)...)
	errs = append(errs, nonNegativePtr(p.Child("failedJobsHistoryLimit"), s.FailedJobsHistoryLimit)...)
	return append(errs, timeZone(s.TimeZone, p.Child("timeZone"))...)
}

func jobTemplateSpec(t *batchv1.JobTemplateSpec, p *field.Path) errors {
	errs := jobSpec(&t.Spec, p.Child("spec"))
	if t.Spec.ManualSelector != nil && *t.Spec.ManualSelector {
		errs = append(errs, oneOf(p.Child("spec", "manualSelector"), "true", "nil", "false")...)
	}
	return errs
}

func timeZone(z *string, p *field.Path) errors {
	if z == nil {
		return nil
	}
	if *z == "" {
		return errors{field.Invalid(p, *z, "timeZone must be nil or non-empty string")}
	}
	if strings.EqualFold(*z, "Local") {
		return errors{field.Invalid(p, *z, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")}
	}
	if _, err := time.LoadLocation(*z); err != nil {
		return errors{field.Invalid(p, *z, err.Error())}
	}
	return nil
}

// jobStatus judges what the controller of a Job reports: that the numbers, times and conditions of it go together, and that
// nothing is taken back. What the old status said already is not held against the new one.
func jobStatus(o, old *batchv1.Job) errors {
	now, before := jobState(o), jobState(old)
	known := map[string]bool{}
	for _, e := range before {
		known[e.Field+e.Detail] = true
	}
	var errs errors
	for _, e := range now {
		if !known[e.Field+e.Detail] {
			errs = append(errs, e)
		}
	}
	return append(errs, jobProgress(o, old)...)
}

func jobHas(o *batchv1.Job, t batchv1.JobConditionType) bool {
	return slices.ContainsFunc(o.Status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == t && c.Status == corev1.ConditionTrue })
}

// jobState judges a status by itself.
func jobState(o *batchv1.Job) errors {
	s, p := &o.Status, field.NewPath("status")
	errs := counts(p, map[string]int64{"active": int64(s.Active), "succeeded": int64(s.Succeeded), "failed": int64(s.Failed), "ready": int64(deref(s.Ready, 0)), "terminating": int64(deref(s.Terminating, 0))})
	errs = append(errs, uncounted(s.UncountedTerminatedPods, p.Child("uncountedTerminatedPods"))...)
	complete, failed, target, met := jobHas(o, batchv1.JobComplete), jobHas(o, batchv1.JobFailed), jobHas(o, batchv1.JobFailureTarget), jobHas(o, batchv1.JobSuccessCriteriaMet)
	finished := complete || failed
	conditions := p.Child("conditions")
	for _, c := range []struct {
		wrong  bool
		at     *field.Path
		value  any
		detail string
	}{
		{complete && failed, conditions, field.OmitValueType{}, "cannot set Complete=True and Failed=true conditions"},
		{complete && target, conditions, field.OmitValueType{}, "cannot set Complete=True and FailureTarget=true conditions"},
		{failed && !target, conditions, field.OmitValueType{}, "cannot set Failed=True condition without the FailureTarget=true condition"},
		{complete && !met, conditions, field.OmitValueType{}, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition"},
		{met && failed, conditions, field.OmitValueType{}, "cannot set Failed=True and SuccessCriteriaMet=true conditions"},
		{met && target, conditions, field.OmitValueType{}, "cannot set FailureTarget=True and SuccessCriteriaMet=true conditions"},
		{s.CompletionTime != nil && !complete, p.Child("completionTime"), s.CompletionTime, "cannot set completionTime when there is no Complete=True condition"},
		{s.CompletionTime != nil && s.StartTime != nil && s.CompletionTime.Before(s.StartTime), p.Child("completionTime"), s.CompletionTime, "completionTime cannot be set before startTime"},
		{finished && s.Active > 0, p.Child("active"), s.Active, "active>0 is invalid for finished job"},
		{finished && deref(s.Terminating, 0) > 0, p.Child("terminating"), s.Terminating, "terminating>0 is invalid for finished job"},
		{finished && pending(s.UncountedTerminatedPods), p.Child("uncountedTerminatedPods"), s.UncountedTerminatedPods, "uncountedTerminatedPods needs to be empty for finished job"},
		{s.CompletedIndexes != "" && !indexed(&o.Spec), p.Child("completedIndexes"), s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode"},
		{s.FailedIndexes != nil && o.Spec.BackoffLimitPerIndex == nil, p.Child("failedIndexes"), s.FailedIndexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"},
		{deref(s.Ready, 0) > s.Active, p.Child("ready"), s.Ready, "cannot set more ready pods than active"},
	} {
		if c.wrong {
			errs = append(errs, field.Invalid(c.at, c.value, c.detail))
		}
	}
	if complete && s.CompletionTime == nil {
		errs = append(errs, field.Required(p.Child("completionTime"), "completionTime is required for Complete jobs"))
	}
	if finished && s.StartTime == nil {
		errs = append(errs, field.Required(p.Child("startTime"), "startTime is required for finished job"))
	}
	if n := o.Spec.Completions; n != nil && indexed(&o.Spec) {
		if _, err := indexes(s.CompletedIndexes, *n); err != nil {
			errs = append(errs, field.Invalid(p.Child("completedIndexes"), s.CompletedIndexes, fmt.Sprintf("error parsing completedIndexes: %s", err)))
		}
		if _, err := indexes(deref(s.FailedIndexes, ""), *n); err != nil {
			errs = append(errs, field.Invalid(p.Child("failedIndexes"), s.FailedIndexes, fmt.Sprintf("error parsing failedIndexes: %s", err)))
		}
	}
	return errs
}

func pending(u *batchv1.UncountedTerminatedPods) bool {
	return u != nil && len(u.Succeeded)+len(u.Failed) > 0
}

func uncounted(u *batchv1.UncountedTerminatedPods, p *field.Path) errors {
	if u == nil {
		return nil
	}
	var errs errors
	known := sets.New[types.UID]()
	for _, l := range []struct {
		name string
		uids []types.UID
	}{{"succeeded", u.Succeeded}, {"failed", u.Failed}} {
		for i, id := range l.uids {
			at := p.Child(l.name).Index(i)
			switch {
			case id == "":
				errs = append(errs, field.Invalid(at, id, "must not be empty"))
			case known.Has(id):
				errs = append(errs, field.Duplicate(at, id))
			}
			known.Insert(id)
		}
	}
	return errs
}

// jobProgress refuses to take back what was reported.
func jobProgress(o, old *batchv1.Job) errors {
	var errs errors
	p, s, b := field.NewPath("status"), &o.Status, &old.Status
	for _, t := range []batchv1.JobConditionType{batchv1.JobFailed, batchv1.JobComplete, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet} {
		if jobHas(old, t) && !jobHas(o, t) {
			errs = append(errs, field.Invalid(p.Child("conditions"), field.OmitValueType{}, fmt.Sprintf("cannot disable the terminal %s=True condition", t)))
		}
	}
	if s.Failed < b.Failed {
		errs = append(errs, field.Invalid(p.Child("failed"), s.Failed, "cannot decrease the failed counter"))
	}
	if s.Succeeded < b.Succeeded && !indexed(&o.Spec) { // an elastic Job may be made smaller
		errs = append(errs, field.Invalid(p.Child("succeeded"), s.Succeeded, "cannot decrease the succeeded counter"))
	}
	if s.CompletionTime != nil && b.CompletionTime != nil && !s.CompletionTime.Equal(b.CompletionTime) {
		errs = append(errs, field.Invalid(p.Child("completionTime"), s.CompletionTime, "completionTime cannot be mutated"))
	}
	if b.StartTime != nil && !b.StartTime.Equal(s.StartTime) && !deref(o.Spec.Suspend, false) {
		errs = append(errs, field.Invalid(p.Child("startTime"), s.StartTime, "cannot change startTime for unsuspended job"))
	}
	return errs
}
