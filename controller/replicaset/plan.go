package replicaset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"karve/controller/pods"
)

// burst is the most pods that one pass creates or deletes.
const burst = 500

// Desired is what the plan needs of a ReplicaSet or ReplicationController.
type Desired struct {
	Replicas        int32
	MinReadySeconds int32
	Labels          labels.Set // of the pod template
	Generation      int64
	Deleting        bool
	Status          appsv1.ReplicaSetStatus
	// Terminating is whether the kind has status.terminatingReplicas.
	Terminating bool
}

// Plan is what to do next.
type Plan struct {
	Create int
	Delete []*corev1.Pod
	// Status is what to report, and Recheck when to look again although nothing happened (0: no need).
	Status  appsv1.ReplicaSetStatus
	Recheck time.Duration
}

// plan compares the owned pods with what is desired. perNode counts the pods of the same workload on each node.
func plan(d Desired, owned []*corev1.Pod, perNode map[string]int, now time.Time) Plan {
	var out Plan
	var active []*corev1.Pod
	status := appsv1.ReplicaSetStatus{ObservedGeneration: d.Generation, Conditions: d.Status.Conditions}
	terminating := int32(0)
	for _, p := range owned {
		if pods.Active(p) {
			active = append(active, p)
		} else if p.DeletionTimestamp != nil && !pods.Finished(p) {
			terminating++
		}
	}
	if d.Terminating {
		status.TerminatingReplicas = &terminating
	}
	full := labels.SelectorFromSet(d.Labels)
	for _, p := range active {
		status.Replicas++
		if full.Matches(labels.Set(p.Labels)) {
			status.FullyLabeledReplicas++
		}
		if pods.Ready(p) {
			status.ReadyReplicas++
			ok, wait := pods.Available(p, d.MinReadySeconds, now)
			if ok {
				status.AvailableReplicas++
			} else if wait > 0 && (out.Recheck == 0 || wait < out.Recheck) {
				out.Recheck = wait
			}
		}
	}
	out.Status = status
	if d.Deleting {
		return out
	}
	switch diff := len(active) - int(d.Replicas); {
	case diff < 0:
		out.Create = min(-diff, burst)
	case diff > 0:
		n := min(diff, burst)
		if n < len(active) {
			pods.Rank(active, perNode, now)
		}
		out.Delete = active[:n]
	}
	return out
}

// withFailure returns conditions with ReplicaFailure set to say why pods could not be made or deleted, or without it when
// reason is empty.
func withFailure(conditions []appsv1.ReplicaSetCondition, reason, message string, now time.Time) []appsv1.ReplicaSetCondition {
	i := slices.IndexFunc(conditions, func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure })
	if reason == "" {
		if i < 0 {
			return conditions
		}
		return slices.Delete(slices.Clone(conditions), i, i+1)
	}
	if i >= 0 {
		return conditions // the first failure stands until it is over
	}
	return append(slices.Clone(conditions), appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
		LastTransitionTime: metav1.NewTime(now), Reason: reason, Message: message})
}

func sameStatus(a, b appsv1.ReplicaSetStatus) bool { return apiequality.Semantic.DeepEqual(a, b) }
