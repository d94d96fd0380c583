package printcolumns

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"
)

func wideTemplate(selector string) columns {
	return columns{wide(text("Containers", containersDoc)), wide(text("Images", imagesDoc)), wide(text("Selector", selector))}
}

func addApps(t table) {
	const readyDoc = "Number of the pod with ready state"
	add(t, "apps", "v1", "Deployment", func(o *appsv1.Deployment, now time.Time) []any {
		names, images := containers(o.Spec.Template.Spec.Containers)
		s := ""
		if sel, err := metav1.LabelSelectorAsSelector(o.Spec.Selector); err == nil {
			s = sel.String()
		}
		return []any{o.Name, fmt.Sprintf("%d/%d", o.Status.ReadyReplicas, deref(o.Spec.Replicas)), int64(o.Status.UpdatedReplicas), int64(o.Status.AvailableReplicas), age(o.CreationTimestamp, now), names, images, s}
	}, func() columns {
		st := appsv1.DeploymentStatus{}
		return append(columns{nameColumn(), text("Ready", readyDoc), text("Up-to-date", doc(st, "updatedReplicas")), text("Available", doc(st, "availableReplicas")), ageColumn()},
			wideTemplate(doc(appsv1.DeploymentSpec{}, "selector"))...)
	})
	add(t, "apps", "v1", "ReplicaSet", func(o *appsv1.ReplicaSet, now time.Time) []any {
		names, images := containers(o.Spec.Template.Spec.Containers)
		return []any{o.Name, int64(deref(o.Spec.Replicas)), int64(o.Status.Replicas), int64(o.Status.ReadyReplicas), age(o.CreationTimestamp, now), names, images, selector(o.Spec.Selector)}
	}, func() columns {
		st := appsv1.ReplicaSetStatus{}
		return append(columns{nameColumn(), number("Desired", doc(appsv1.ReplicaSetSpec{}, "replicas")), number("Current", doc(st, "replicas")), number("Ready", doc(st, "readyReplicas")), ageColumn()},
			wideTemplate(doc(appsv1.ReplicaSetSpec{}, "selector"))...)
	})
	add(t, "apps", "v1", "DaemonSet", func(o *appsv1.DaemonSet, now time.Time) []any {
		names, images := containers(o.Spec.Template.Spec.Containers)
		st := &o.Status
		return []any{o.Name, int64(st.DesiredNumberScheduled), int64(st.CurrentNumberScheduled), int64(st.NumberReady), int64(st.UpdatedNumberScheduled), int64(st.NumberAvailable),
			labels.FormatLabels(o.Spec.Template.Spec.NodeSelector), age(o.CreationTimestamp, now), names, images, selector(o.Spec.Selector)}
	}, func() columns {
		st := appsv1.DaemonSetStatus{}
		return append(columns{nameColumn(), number("Desired", doc(st, "desiredNumberScheduled")), number("Current", doc(st, "currentNumberScheduled")), number("Ready", doc(st, "numberReady")),
			number("Up-to-date", doc(st, "updatedNumberScheduled")), number("Available", doc(st, "numberAvailable")), text("Node Selector", doc(corev1.PodSpec{}, "nodeSelector")), ageColumn()},
			wideTemplate(doc(appsv1.DaemonSetSpec{}, "selector"))...)
	})
	add(t, "apps", "v1", "StatefulSet", func(o *appsv1.StatefulSet, now time.Time) []any {
		names, images := containers(o.Spec.Template.Spec.Containers)
		return []any{o.Name, fmt.Sprintf("%d/%d", o.Status.ReadyReplicas, deref(o.Spec.Replicas)), age(o.CreationTimestamp, now), names, images}
	}, func() columns {
		return columns{nameColumn(), text("Ready", readyDoc), ageColumn(), wide(text("Containers", containersDoc)), wide(text("Images", imagesDoc))}
	})
	add(t, "apps", "v1", "ControllerRevision", func(o *appsv1.ControllerRevision, now time.Time) []any {
		owner := "<none>"
		if r := metav1.GetControllerOf(o); r != nil {
			owner = reference(r.APIVersion, r.Kind, r.Name)
		}
		return []any{o.Name, owner, o.Revision, age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("Controller", "Controller of the object"), text("Revision", doc(appsv1.ControllerRevision{}, "revision")), ageColumn()}
	})
}

// reference formats an owner as kind.group/name in lower case.
func reference(apiVersion, kind, name string) string {
	k := lower(kind)
	if g := groupOf(apiVersion); g != "" {
		k += "." + g
	}
	return k + "/" + name
}

func addBatch(t table) {
	add(t, "batch", "v1", "Job", jobRow, func() columns {
		return append(columns{nameColumn(), text("Status", "Status of the job."), text("Completions", doc(batchv1.JobStatus{}, "succeeded")), text("Duration", "Time required to complete the job."), ageColumn()},
			wideTemplate(doc(batchv1.JobSpec{}, "selector"))...)
	})
	add(t, "batch", "v1", "CronJob", func(o *batchv1.CronJob, now time.Time) []any {
		names, images := containers(o.Spec.JobTemplate.Spec.Template.Spec.Containers)
		last, zone, suspend := "<none>", "<none>", "<unset>"
		if o.Status.LastScheduleTime != nil {
			last = age(*o.Status.LastScheduleTime, now)
		}
		if o.Spec.TimeZone != nil {
			zone = *o.Spec.TimeZone
		}
		if o.Spec.Suspend != nil {
			suspend = "False"
			if *o.Spec.Suspend {
				suspend = "True"
			}
		}
		return []any{o.Name, o.Spec.Schedule, zone, suspend, int64(len(o.Status.Active)), last, age(o.CreationTimestamp, now), names, images, selector(o.Spec.JobTemplate.Spec.Selector)}
	}, func() columns {
		s, st := batchv1.CronJobSpec{}, batchv1.CronJobStatus{}
		return append(columns{nameColumn(), text("Schedule", doc(s, "schedule")), text("Timezone", doc(s, "timeZone")), boolean("Suspend", doc(s, "suspend")), number("Active", doc(st, "active")),
			text("Last Schedule", doc(st, "lastScheduleTime")), ageColumn()}, wideTemplate(doc(batchv1.JobSpec{}, "selector"))...)
	})
}

func jobRow(o *batchv1.Job, now time.Time) []any {
	names, images := containers(o.Spec.Template.Spec.Containers)
	var completions string
	if o.Spec.Completions != nil {
		completions = fmt.Sprintf("%d/%d", o.Status.Succeeded, *o.Spec.Completions)
	} else if p := deref(o.Spec.Parallelism); p > 1 {
		completions = fmt.Sprintf("%d/1 of %d", o.Status.Succeeded, p)
	} else {
		completions = fmt.Sprintf("%d/1", o.Status.Succeeded)
	}
	took := ""
	if s := o.Status.StartTime; s != nil {
		end := now
		if o.Status.CompletionTime != nil {
			end = o.Status.CompletionTime.Time
		}
		took = duration.HumanDuration(end.Sub(s.Time))
	}
	has := func(t batchv1.JobConditionType) bool {
		for _, c := range o.Status.Conditions {
			if c.Type == t && c.Status == corev1.ConditionTrue {
				return true
			}
		}
		return false
	}
	status := "Running"
	switch {
	case has(batchv1.JobComplete):
		status = "Complete"
	case has(batchv1.JobFailed):
		status = "Failed"
	case o.DeletionTimestamp != nil:
		status = "Terminating"
	case has(batchv1.JobSuspended):
		status = "Suspended"
	case has(batchv1.JobFailureTarget):
		status = "FailureTarget"
	case has(batchv1.JobSuccessCriteriaMet):
		status = "SuccessCriteriaMet"
	}
	return []any{o.Name, status, completions, took, age(o.CreationTimestamp, now), names, images, selector(o.Spec.Selector)}
}
