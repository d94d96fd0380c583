package deployment

import (
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	reasonAvailable = "NewReplicaSetAvailable"
	reasonTimedOut  = "ProgressDeadlineExceeded"
	reasonPaused    = "DeploymentPaused"
)

func condition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

func newCondition(t appsv1.DeploymentConditionType, status, reason, message string, now time.Time) appsv1.DeploymentCondition {
	return appsv1.DeploymentCondition{Type: t, Status: corev1.ConditionStatus(status), Reason: reason, Message: message,
		LastUpdateTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now)}
}

func progressing(status, reason, message string, now time.Time) appsv1.DeploymentCondition {
	return newCondition(appsv1.DeploymentProgressing, status, reason, message, now)
}

func dropCondition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

// setCondition puts c last unless status and reason are as they were.
func setCondition(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition) {
	prev := condition(s, c.Type)
	if prev != nil && prev.Status == c.Status && prev.Reason == c.Reason {
		return
	}
	if prev != nil && prev.Status == c.Status {
		c.LastTransitionTime = prev.LastTransitionTime
	}
	dropCondition(s, c.Type)
	s.Conditions = append(s.Conditions, c)
}

func hasDeadline(d *appsv1.Deployment) bool {
	return d.Spec.ProgressDeadlineSeconds != nil && *d.Spec.ProgressDeadlineSeconds != math.MaxInt32
}

// pauseConditions notes that progress stopped being, or is again, expected.
func pauseConditions(s *appsv1.DeploymentStatus, d *appsv1.Deployment, now time.Time) {
	if !hasDeadline(d) {
		return
	}
	c := condition(s, appsv1.DeploymentProgressing)
	if c != nil && c.Reason == reasonTimedOut {
		return
	}
	paused := c != nil && c.Reason == reasonPaused
	switch {
	case d.Spec.Paused && !paused:
		setCondition(s, progressing("Unknown", reasonPaused, "Deployment is paused", now))
	case !d.Spec.Paused && paused:
		setCondition(s, progressing("Unknown", "DeploymentResumed", "Deployment is resumed", now))
	}
}

// counted fills in the numbers and the Available condition.
func (s *state) counted(status *appsv1.DeploymentStatus) *appsv1.DeploymentStatus {
	all := s.all()
	status.ObservedGeneration = s.d.Generation
	status.Replicas, status.ReadyReplicas, status.UpdatedReplicas, status.AvailableReplicas = 0, 0, 0, 0
	status.TerminatingReplicas = nil
	for _, rs := range all {
		status.Replicas += rs.Status.Replicas
		status.ReadyReplicas += rs.Status.ReadyReplicas
		status.AvailableReplicas += rs.Status.AvailableReplicas
		if t := rs.Status.TerminatingReplicas; t != nil {
			if status.TerminatingReplicas == nil {
				status.TerminatingReplicas = new(int32)
			}
			*status.TerminatingReplicas += *t
		}
	}
	if s.now != nil {
		status.UpdatedReplicas = s.now.Status.Replicas
	}
	status.UnavailableReplicas = max(specCount(all)-status.AvailableReplicas, 0)
	_, unavailable := limits(s.d)
	if status.AvailableReplicas >= *s.d.Spec.Replicas-unavailable {
		setCondition(status, newCondition(appsv1.DeploymentAvailable, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", s.time))
	} else {
		setCondition(status, newCondition(appsv1.DeploymentAvailable, "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.", s.time))
	}
	return status
}

func complete(d *appsv1.Deployment, s *appsv1.DeploymentStatus) bool {
	want := *d.Spec.Replicas
	return s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want && s.ObservedGeneration >= d.Generation
}

// progressed is counted plus the conditions Progressing and ReplicaFailure.
func (s *state) progressed(status *appsv1.DeploymentStatus) *appsv1.DeploymentStatus {
	s.counted(status)
	if !hasDeadline(s.d) {
		dropCondition(status, appsv1.DeploymentProgressing)
	}
	prev := condition(status, appsv1.DeploymentProgressing)
	settled := status.Replicas == status.UpdatedReplicas && prev != nil && prev.Reason == reasonAvailable
	if hasDeadline(s.d) && !settled {
		subject := `Deployment "` + s.d.Name + `"`
		if s.now != nil {
			subject = `ReplicaSet "` + s.now.Name + `"`
		}
		was := &s.d.Status
		switch {
		case complete(s.d, status):
			setCondition(status, progressing("True", reasonAvailable, subject+" has successfully progressed.", s.time))
		case status.UpdatedReplicas > was.UpdatedReplicas || status.Replicas-status.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
			status.ReadyReplicas > was.ReadyReplicas || status.AvailableReplicas > was.AvailableReplicas:
			c := progressing("True", "ReplicaSetUpdated", subject+" is progressing.", s.time)
			if prev != nil && prev.Status == corev1.ConditionTrue {
				c.LastTransitionTime = prev.LastTransitionTime
			}
			dropCondition(status, appsv1.DeploymentProgressing) // the update time counts even if nothing else changed
			setCondition(status, c)
		case timedOut(s.d, status, s.time):
			setCondition(status, progressing("False", reasonTimedOut, subject+" has timed out progressing.", s.time))
		}
	}
	if c := s.failure(); c != nil {
		setCondition(status, *c)
	} else {
		dropCondition(status, appsv1.DeploymentReplicaFailure)
	}
	return status
}

// failure returns the first ReplicaFailure of the new ReplicaSet, or else of any.
func (s *state) failure() *appsv1.DeploymentCondition {
	sets := s.old
	if s.now != nil {
		sets = append([]*appsv1.ReplicaSet{s.now}, sets...)
	}
	for _, rs := range sets {
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				return &appsv1.DeploymentCondition{Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
					LastUpdateTime: c.LastTransitionTime, LastTransitionTime: c.LastTransitionTime}
			}
		}
	}
	return nil
}

func deadline(d *appsv1.Deployment, c *appsv1.DeploymentCondition) time.Time {
	return c.LastUpdateTime.Add(time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second)
}

func timedOut(d *appsv1.Deployment, s *appsv1.DeploymentStatus, now time.Time) bool {
	c := condition(s, appsv1.DeploymentProgressing)
	switch {
	case c == nil || c.Reason == reasonAvailable:
		return false
	case c.Reason == reasonTimedOut:
		return true
	}
	return deadline(d, c).Before(now)
}

// untilDeadline is how long a rollout that does not move may still take before it counts as failed.
func untilDeadline(d *appsv1.Deployment, s *appsv1.DeploymentStatus, now time.Time) time.Duration {
	c := condition(s, appsv1.DeploymentProgressing)
	if !hasDeadline(d) || c == nil || c.Reason == reasonAvailable || c.Reason == reasonTimedOut || complete(d, s) {
		return 0
	}
	return max(deadline(d, c).Sub(now), 0) + time.Second
}
