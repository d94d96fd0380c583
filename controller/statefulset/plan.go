package statefulset

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"karve/controller/pods"
)

// Make is a pod to create at an ordinal, from the present template or from the one before.
type Make struct {
	Ordinal int
	Updated bool
}

// Plan is what to do next. Claims lists pods whose claims have to be there (again).
type Plan struct {
	Create  []Make
	Delete  []*corev1.Pod
	Claims  []int
	Status  appsv1.StatefulSetStatus
	Recheck time.Duration
}

// ordinal returns the number at the end of a pod's name, or -1 when it is not one of set's.
func ordinal(set, pod string) int {
	rest, ok := strings.CutPrefix(pod, set+"-")
	if !ok {
		return -1
	}
	n, err := strconv.Atoi(rest)
	if err != nil || strconv.Itoa(n) != rest {
		return -1
	}
	return n
}

func first(s *appsv1.StatefulSet) int {
	if s.Spec.Ordinals == nil {
		return 0
	}
	return int(s.Spec.Ordinals.Start)
}

func size(s *appsv1.StatefulSet) int {
	if s.Spec.Replicas == nil {
		return 1
	}
	return int(*s.Spec.Replicas)
}

func revisionOf(p *corev1.Pod) string { return p.Labels[appsv1.ControllerRevisionHashLabelKey] }

type state struct {
	set             *appsv1.StatefulSet
	current, update string
	now             time.Time
	ordered         bool
	out             Plan
	replicas        []*corev1.Pod // by ordinal from first; nil where there is none
	condemned       []*corev1.Pod // highest ordinal first
}

// plan compares the pods that set owns with what it asks for. current and update name the revisions that pods have before and
// after the update in progress; they are equal when there is none.
func plan(set *appsv1.StatefulSet, owned []*corev1.Pod, current, update string, now time.Time) Plan {
	s := &state{set: set, current: current, update: update, now: now, ordered: set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement}
	s.replicas = make([]*corev1.Pod, size(set))
	for _, p := range owned {
		switch i := ordinal(set.Name, p.Name) - first(set); {
		case ordinal(set.Name, p.Name) < 0:
		case i >= 0 && i < len(s.replicas):
			s.replicas[i] = p
		default:
			s.condemned = append(s.condemned, p)
		}
	}
	slices.SortFunc(s.condemned, func(a, b *corev1.Pod) int { return cmp.Compare(ordinal(set.Name, b.Name), ordinal(set.Name, a.Name)) })
	s.status(owned)
	if set.DeletionTimestamp == nil && s.fill() && s.shrink() {
		s.roll()
	}
	return s.out
}

func (s *state) status(owned []*corev1.Pod) {
	st := appsv1.StatefulSetStatus{ObservedGeneration: s.set.Generation, CurrentRevision: s.current, UpdateRevision: s.update,
		CollisionCount: s.set.Status.CollisionCount, Conditions: s.set.Status.Conditions}
	if st.CollisionCount == nil {
		st.CollisionCount = new(int32)
	}
	for _, p := range owned {
		if p.Status.Phase == "" || ordinal(s.set.Name, p.Name) < 0 {
			continue
		}
		st.Replicas++
		if p.Status.Phase == corev1.PodRunning && pods.Ready(p) {
			st.ReadyReplicas++
			ok, wait := pods.Available(p, s.set.Spec.MinReadySeconds, s.now)
			if ok {
				st.AvailableReplicas++
			} else if wait > 0 && (s.out.Recheck == 0 || wait < s.out.Recheck) {
				s.out.Recheck = wait
			}
		}
		if p.DeletionTimestamp == nil {
			if revisionOf(p) == s.current {
				st.CurrentReplicas++
			}
			if revisionOf(p) == s.update {
				st.UpdatedReplicas++
			}
		}
	}
	if s.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && int(st.UpdatedReplicas) == size(s.set) &&
		st.UpdatedReplicas == st.Replicas && st.ReadyReplicas == st.Replicas {
		st.CurrentReplicas, st.CurrentRevision = st.UpdatedReplicas, s.update
	}
	s.out.Status = st
}

func (s *state) healthy(p *corev1.Pod) bool {
	if p == nil || p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning {
		return false
	}
	ok, _ := pods.Available(p, s.set.Spec.MinReadySeconds, s.now)
	return ok
}

func (s *state) partition() int {
	if r := s.set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		return int(*r.Partition)
	}
	return 0
}

// source says from which revision the pod at position i is made.
func (s *state) source(i int) Make {
	m := Make{Ordinal: first(s.set) + i, Updated: true}
	if s.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && s.current != s.update {
		r := s.set.Spec.UpdateStrategy.RollingUpdate
		if r == nil || r.Partition == nil {
			// The update goes from the top down: below a pod that still waits for it, so does this one.
			m.Updated = !slices.ContainsFunc(s.replicas[i+1:], func(p *corev1.Pod) bool { return p != nil && revisionOf(p) == s.current })
		} else {
			m.Updated = i >= s.partition()
		}
	}
	return m
}

// fill makes missing pods, lowest ordinal first; it reports whether the next step may begin.
func (s *state) fill() bool {
	complete := true
	for i, p := range s.replicas {
		switch {
		case p == nil:
			s.out.Create = append(s.out.Create, s.source(i))
			complete = false
		case p.DeletionTimestamp != nil:
			complete = false
		case pods.Finished(p):
			s.out.Delete = append(s.out.Delete, p) // made anew when it is gone
			complete = false
		default:
			if p.Status.Phase == "" || p.Status.Phase == corev1.PodPending {
				s.out.Claims = append(s.out.Claims, first(s.set)+i)
			}
			if s.ordered && !s.healthy(p) {
				return false
			}
			continue
		}
		if s.ordered {
			return false
		}
	}
	return complete || !s.ordered
}

// shrink deletes surplus pods, highest ordinal first.
func (s *state) shrink() bool {
	unhealthy := s.firstUnhealthy()
	done := true
	for _, p := range s.condemned {
		done = false
		if p.DeletionTimestamp != nil {
			if s.ordered {
				return false
			}
			continue
		}
		if s.ordered && !s.healthy(p) && p != unhealthy {
			return false // wait for the lower one that is unwell
		}
		s.out.Delete = append(s.out.Delete, p)
		if s.ordered {
			return false
		}
	}
	return done || !s.ordered
}

func (s *state) firstUnhealthy() *corev1.Pod {
	for _, p := range s.replicas {
		if p != nil && !s.healthy(p) {
			return p
		}
	}
	for _, p := range slices.Backward(s.condemned) {
		if !s.healthy(p) {
			return p
		}
	}
	return nil
}

// roll deletes one pod of a former revision, highest ordinal first, while all above it are well.
func (s *state) roll() {
	if s.set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return
	}
	for i := len(s.replicas) - 1; i >= s.partition(); i-- {
		p := s.replicas[i]
		if p == nil {
			return
		}
		if revisionOf(p) != s.update && p.DeletionTimestamp == nil {
			if !slices.Contains(s.out.Delete, p) {
				s.out.Delete = append(s.out.Delete, p)
			}
			return
		}
		if !s.healthy(p) {
			return
		}
	}
}
