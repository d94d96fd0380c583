package deployment

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/rand"

	"karve/controller/owner"
)

// Annotations by which clients and this controller follow a rollout.
const (
	annRevision = "deployment.kubernetes.io/revision"
	annHistory  = "deployment.kubernetes.io/revision-history"
	annDesired  = "deployment.kubernetes.io/desired-replicas"
	annMax      = "deployment.kubernetes.io/max-replicas"
	annRollback = "deprecated.deployment.rollback.to"

	// maxHistory bounds annHistory, in bytes.
	maxHistory = 2000
)

// ownAnnotations are not copied from a Deployment to its ReplicaSets.
var ownAnnotations = []string{corev1.LastAppliedConfigAnnotation, annRevision, annHistory, annDesired, annMax, annRollback}

func count(rs *appsv1.ReplicaSet) int32 {
	if rs == nil || rs.Spec.Replicas == nil {
		return 0
	}
	return *rs.Spec.Replicas
}

func specCount(sets []*appsv1.ReplicaSet) (n int32) {
	for _, rs := range sets {
		n += count(rs)
	}
	return n
}

// available counts pods that may be relied on: those beyond a set's size are about to go, although its status may not show
// it yet.
func available(sets []*appsv1.ReplicaSet) (n int32) {
	for _, rs := range sets {
		n += min(rs.Status.AvailableReplicas, count(rs))
	}
	return n
}

func active(sets []*appsv1.ReplicaSet) (out []*appsv1.ReplicaSet) {
	for _, rs := range sets {
		if count(rs) > 0 {
			out = append(out, rs)
		}
	}
	return out
}

func revision(o metav1.Object) int64 {
	n, err := strconv.ParseInt(o.GetAnnotations()[annRevision], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// sameTemplate compares templates but for the hash label.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	la, lb := maps.Clone(a.Labels), maps.Clone(b.Labels)
	delete(la, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(lb, appsv1.DefaultDeploymentUniqueLabelKey)
	x, y := *a, *b
	x.Labels, y.Labels = la, lb
	return apiequality.Semantic.DeepEqual(&x, &y)
}

// divide finds the ReplicaSet of the Deployment's present template (the oldest, if there are several) and the others,
// oldest first.
func divide(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) (now *appsv1.ReplicaSet, old []*appsv1.ReplicaSet) {
	sets = slices.Clone(sets)
	owner.ByAge(sets)
	for _, rs := range sets {
		if now == nil && sameTemplate(&rs.Spec.Template, &d.Spec.Template) {
			now = rs
			continue
		}
		old = append(old, rs)
	}
	return now, old
}

// limits resolves maxSurge and maxUnavailable to pods. Both being 0 would stand still, so then one pod may be unavailable.
func limits(d *appsv1.Deployment) (surge, unavailable int32) {
	r := d.Spec.Strategy.RollingUpdate
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || r == nil {
		return 0, 0
	}
	n := int(*d.Spec.Replicas)
	zero := intstr.FromInt32(0)
	s, _ := intstr.GetScaledValueFromIntOrPercent(orZero(r.MaxSurge, &zero), n, true)
	u, _ := intstr.GetScaledValueFromIntOrPercent(orZero(r.MaxUnavailable, &zero), n, false)
	if s == 0 && u == 0 {
		u = 1
	}
	return int32(s), int32(min(u, n))
}

func orZero(v, zero *intstr.IntOrString) *intstr.IntOrString {
	if v == nil {
		return zero
	}
	return v
}

// templateHash names a template: stable, and different for every collision count.
func templateHash(tpl *corev1.PodTemplateSpec, collisions *int32) (string, error) {
	doc, err := json.Marshal(tpl)
	if err != nil {
		return "", fmt.Errorf("encode pod template: %w", err)
	}
	h := fnv.New32a()
	h.Write(doc)
	if collisions != nil {
		fmt.Fprintf(h, "/%d", *collisions)
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10)), nil
}

func withLabel(labels map[string]string, key, value string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	out[key] = value
	return out
}

// newSet returns the ReplicaSet for the Deployment's present template, without replicas.
func newSet(d *appsv1.Deployment, rev int64) (*appsv1.ReplicaSet, error) {
	hash, err := templateHash(&d.Spec.Template, d.Status.CollisionCount)
	if err != nil {
		return nil, err
	}
	tpl := *d.Spec.Template.DeepCopy()
	tpl.Labels = withLabel(tpl.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = withLabel(selector.MatchLabels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: d.Name + "-" + hash, Namespace: d.Namespace, Labels: tpl.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, kind)}},
		Spec: appsv1.ReplicaSetSpec{Replicas: new(int32), MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: tpl},
	}
	annotate(rs, d, rev)
	return rs, nil
}

// annotate brings the annotations of the new ReplicaSet, a copy, up to date with d and revision rev.
func annotate(rs *appsv1.ReplicaSet, d *appsv1.Deployment, rev int64) {
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	for k, v := range d.Annotations {
		if !slices.Contains(ownAnnotations, k) {
			rs.Annotations[k] = v
		}
	}
	was, had := rs.Annotations[annRevision]
	if revision(rs) >= rev {
		return
	}
	rs.Annotations[annRevision] = strconv.FormatInt(rev, 10)
	if !had {
		return
	}
	var history []string
	if h := rs.Annotations[annHistory]; h != "" {
		history = strings.Split(h, ",")
	}
	history = append(history, was)
	for len(history) > 1 && len(strings.Join(history, ",")) > maxHistory {
		history = history[1:]
	}
	rs.Annotations[annHistory] = strings.Join(history, ",")
}

// sizeAnnotations reports whether rs, a copy, needed its desired and max annotations changed, and changes them.
func sizeAnnotations(rs *appsv1.ReplicaSet, d *appsv1.Deployment) bool {
	surge, _ := limits(d)
	desired := strconv.Itoa(int(*d.Spec.Replicas))
	most := strconv.Itoa(int(*d.Spec.Replicas + surge))
	if rs.Annotations[annDesired] == desired && rs.Annotations[annMax] == most {
		return false
	}
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	rs.Annotations[annDesired], rs.Annotations[annMax] = desired, most
	return true
}
