package deployment

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
)

// Plan is what to do next. Everything in it may be done in order and cut off anywhere: the next plan continues.
type Plan struct {
	// Create is a ReplicaSet to make; it is counted as one of the new state of things below.
	Create *appsv1.ReplicaSet
	// Update holds changed copies of ReplicaSets, with the size each had.
	Update []Resize
	Delete []*appsv1.ReplicaSet
	// Status and Revision are what the Deployment is to report.
	Status   appsv1.DeploymentStatus
	Revision string
	// Recheck is when to look again although nothing happened (0: no need).
	Recheck time.Duration
}

// Resize is a ReplicaSet as it should be, and the size it had.
type Resize struct {
	Set *appsv1.ReplicaSet
	Was int32
}

// state is a plan in the making. Its ReplicaSets are copies, changed as the plan goes.
type state struct {
	d       *appsv1.Deployment
	now     *appsv1.ReplicaSet
	old     []*appsv1.ReplicaSet
	before  map[string]*appsv1.ReplicaSet
	created bool
	deleted []*appsv1.ReplicaSet
	time    time.Time
}

func (s *state) all() []*appsv1.ReplicaSet {
	if s.now == nil {
		return s.old
	}
	return append(slices.Clone(s.old), s.now)
}

// plan compares the ReplicaSets that d owns with what d asks for. oldPods reports whether a pod of an old ReplicaSet still
// runs (Recreate waits for them).
func plan(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, oldPods func(old []*appsv1.ReplicaSet) bool, now time.Time) (Plan, error) {
	s := &state{d: d, time: now, before: map[string]*appsv1.ReplicaSet{}}
	for _, rs := range sets {
		s.before[rs.Name] = rs
	}
	newest, old := divide(d, sets)
	if newest != nil {
		s.now = newest.DeepCopy()
	}
	for _, rs := range old {
		s.old = append(s.old, rs.DeepCopy())
	}
	status := d.Status.DeepCopy()
	if d.DeletionTimestamp != nil {
		return s.finish(s.counted(status), false), nil
	}
	pauseConditions(status, d, now)
	recreate := d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	mayCreate := !d.Spec.Paused && !s.scaling()
	if mayCreate && recreate && s.now == nil && (len(active(s.old)) > 0 || oldPods(s.old)) {
		mayCreate = false
	}
	if err := s.syncRevision(status, mayCreate); err != nil {
		return Plan{}, err
	}
	switch {
	case d.Spec.Paused:
		s.scale()
		s.cleanup()
		return s.finish(s.counted(status), false), nil
	case !s.created && s.scaling():
		s.scale()
		return s.finish(s.counted(status), false), nil
	case recreate:
		s.recreate(oldPods)
	default:
		s.roll()
	}
	if len(s.changed()) == 0 && !s.created && complete(d, &d.Status) {
		s.cleanup()
	}
	return s.finish(s.progressed(status), true), nil
}

// scaling reports whether the Deployment's size changed since its ReplicaSets were last sized.
func (s *state) scaling() bool {
	desired := strconv.Itoa(int(*s.d.Spec.Replicas))
	for _, rs := range active(s.all()) {
		if a, ok := rs.Annotations[annDesired]; ok && a != desired {
			return true
		}
	}
	return false
}

// syncRevision finds or makes the new ReplicaSet and gives it the highest revision.
func (s *state) syncRevision(status *appsv1.DeploymentStatus, mayCreate bool) error {
	rev := int64(0)
	for _, rs := range s.old {
		rev = max(rev, revision(rs))
	}
	rev++
	hasProgressing := condition(status, appsv1.DeploymentProgressing) != nil
	if s.now != nil {
		annotate(s.now, s.d, rev)
		s.now.Spec.MinReadySeconds = s.d.Spec.MinReadySeconds
		if hasDeadline(s.d) && !hasProgressing {
			setCondition(status, progressing("True", "FoundNewReplicaSet", `Found new replica set "`+s.now.Name+`"`, s.time))
		}
		return nil
	}
	if !mayCreate {
		return nil
	}
	rs, err := newSet(s.d, rev)
	if err != nil {
		return err
	}
	s.now, s.created = rs, true
	n := s.newSize()
	rs.Spec.Replicas = &n
	sizeAnnotations(rs, s.d)
	if hasDeadline(s.d) {
		setCondition(status, progressing("True", "NewReplicaSetCreated", `Created new replica set "`+rs.Name+`"`, s.time))
	}
	return nil
}

// newSize is how large the new ReplicaSet may be now.
func (s *state) newSize() int32 {
	want := *s.d.Spec.Replicas
	if s.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return want
	}
	surge, _ := limits(s.d)
	room := want + surge
	for _, rs := range s.all() { // pods that a smaller set has not deleted yet are there all the same
		room -= max(count(rs), rs.Status.Replicas)
	}
	if room <= 0 {
		return count(s.now)
	}
	return count(s.now) + min(room, want-count(s.now))
}

func (s *state) resize(rs *appsv1.ReplicaSet, n int32) bool {
	if rs.Spec.Replicas != nil && *rs.Spec.Replicas == n {
		return false
	}
	rs.Spec.Replicas = &n
	sizeAnnotations(rs, s.d)
	return true
}

func (s *state) recreate(oldPods func([]*appsv1.ReplicaSet) bool) {
	scaled := false
	for _, rs := range active(s.old) {
		scaled = s.resize(rs, 0) || scaled
	}
	if scaled || oldPods(s.old) || s.now == nil {
		return
	}
	s.resize(s.now, *s.d.Spec.Replicas)
}

// roll does one step of a rolling update: first what grows the new ReplicaSet, else what shrinks the old ones.
func (s *state) roll() {
	if s.created {
		return
	}
	want := *s.d.Spec.Replicas
	size := want
	if count(s.now) < want {
		size = s.newSize()
	}
	if s.resize(s.now, size) {
		return
	}
	if specCount(s.old) == 0 {
		return
	}
	_, unavailable := limits(s.d)
	least := want - unavailable
	spare := specCount(s.all()) - least - (count(s.now) - s.now.Status.AvailableReplicas)
	if spare <= 0 {
		return
	}
	// Pods that are not available cost nothing to remove, so they go first.
	for _, rs := range s.old {
		if n := min(spare, count(rs)-rs.Status.AvailableReplicas); n > 0 {
			s.resize(rs, count(rs)-n)
			spare -= n
		}
	}
	spare = available(s.all()) - least
	for _, rs := range s.old {
		if n := min(spare, count(rs)); n > 0 {
			s.resize(rs, count(rs)-n)
			spare -= n
		}
	}
}

// scale spreads the Deployment's size over its ReplicaSets when no rollout decides it.
func (s *state) scale() {
	want := *s.d.Spec.Replicas
	if rs, ok := s.single(); ok {
		if rs != nil && !s.resize(rs, want) {
			sizeAnnotations(rs, s.d)
		}
		return
	}
	if s.saturated() {
		for _, rs := range active(s.old) {
			s.resize(rs, 0)
		}
		return
	}
	if s.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return
	}
	s.proportionally()
}

// single returns the one ReplicaSet to size when at most one is active: that one, or else the latest.
func (s *state) single() (*appsv1.ReplicaSet, bool) {
	act := active(s.all())
	switch {
	case len(act) == 1:
		return act[0], true
	case len(act) > 1:
		return nil, false
	case s.now != nil:
		return s.now, true
	case len(s.old) > 0:
		return s.old[len(s.old)-1], true
	}
	return nil, true
}

func (s *state) saturated() bool {
	if s.now == nil {
		return false
	}
	want := *s.d.Spec.Replicas
	return count(s.now) == want && s.now.Annotations[annDesired] == strconv.Itoa(int(want)) && s.now.Status.AvailableReplicas == want
}

func (s *state) proportionally() {
	want := *s.d.Spec.Replicas
	surge, _ := limits(s.d)
	sets := active(s.all())
	allowed := int32(0)
	if want > 0 {
		allowed = want + surge
	}
	add := allowed - specCount(sets)
	slices.SortStableFunc(sets, func(a, b *appsv1.ReplicaSet) int {
		age := a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
		if add > 0 {
			age = -age // grow newer ones first, shrink older ones first
		}
		return cmp.Or(cmp.Compare(count(b), count(a)), age)
	})
	sizes, added := make([]int32, len(sets)), int32(0)
	for i, rs := range sets {
		share := int32(0)
		if add != 0 && add != added {
			share = s.share(rs, want+surge)
			if add > 0 {
				share = min(share, add-added)
			} else {
				share = max(share, add-added)
			}
		}
		sizes[i] = count(rs) + share
		added += share
	}
	if len(sizes) > 0 && add != 0 {
		sizes[0] = max(sizes[0]+add-added, 0)
	}
	for i, rs := range sets {
		if !s.resize(rs, sizes[i]) {
			sizeAnnotations(rs, s.d)
		}
	}
}

// share is by how much rs should change so that it keeps its part of the whole, whose size becomes most.
func (s *state) share(rs *appsv1.ReplicaSet, most int32) int32 {
	if *s.d.Spec.Replicas == 0 {
		return -count(rs)
	}
	before, err := strconv.ParseInt(rs.Annotations[annMax], 10, 32)
	if err != nil || before == 0 {
		before = int64(s.d.Status.Replicas)
	}
	if before == 0 {
		return 0
	}
	exact := float64(count(rs)) * float64(most) / float64(before)
	return int32(exact+0.5) - count(rs)
}

// cleanup deletes the oldest idle ReplicaSets beyond the history limit.
func (s *state) cleanup() {
	if s.d.Spec.RevisionHistoryLimit == nil {
		return
	}
	var idle []*appsv1.ReplicaSet
	for _, rs := range s.old {
		if rs.DeletionTimestamp == nil {
			idle = append(idle, rs)
		}
	}
	n := len(idle) - int(*s.d.Spec.RevisionHistoryLimit)
	if n <= 0 {
		return
	}
	slices.SortStableFunc(idle, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revision(a), revision(b)) })
	for _, rs := range idle[:n] {
		if rs.Status.Replicas == 0 && count(rs) == 0 && rs.Generation <= rs.Status.ObservedGeneration {
			s.deleted = append(s.deleted, s.before[rs.Name])
		}
	}
}

func (s *state) changed() (out []Resize) {
	for _, rs := range s.all() {
		was := s.before[rs.Name]
		if was != nil && (count(was) != count(rs) || was.Spec.MinReadySeconds != rs.Spec.MinReadySeconds || !maps.Equal(was.Annotations, rs.Annotations)) {
			out = append(out, Resize{Set: rs, Was: count(was)})
		}
	}
	return out
}

func (s *state) finish(status *appsv1.DeploymentStatus, rollout bool) Plan {
	p := Plan{Update: s.changed(), Delete: s.deleted, Status: *status, Revision: s.d.Annotations[annRevision]}
	if s.created {
		p.Create = s.now
	}
	if s.now != nil && s.now.Annotations[annRevision] != "" {
		p.Revision = s.now.Annotations[annRevision]
	}
	if rollout && apiequality.Semantic.DeepEqual(p.Status, s.d.Status) {
		p.Recheck = untilDeadline(s.d, status, s.time)
	}
	return p
}
