package validation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	labelset "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addApps(t table) {
	const g = "apps"
	rule(t, g, "v1", "Deployment", true, subdomain, deployment, func(o, old *appsv1.Deployment) errors {
		return immutable(field.NewPath("spec", "selector"), o.Spec.Selector, old.Spec.Selector)
	}, onSub("status", deploymentStatus))
	rule(t, g, "v1", "ReplicaSet", true, subdomain, replicaSet, func(o, old *appsv1.ReplicaSet) errors {
		return immutable(field.NewPath("spec", "selector"), o.Spec.Selector, old.Spec.Selector)
	}, onSub("status", replicaSetStatus))
	rule(t, g, "v1", "DaemonSet", true, subdomain, daemonSet, nil, ownUpdate(func(o, old *appsv1.DaemonSet) errors {
		return append(immutable(field.NewPath("spec", "selector"), o.Spec.Selector, old.Spec.Selector), daemonSet(o)...)
	}), onSub("status", daemonSetStatus))
	rule(t, g, "v1", "StatefulSet", true, statefulSetName, statefulSet, statefulSetUpdate, onSub("status", statefulSetStatus))
	rule(t, g, "v1", "ControllerRevision", true, subdomain, func(o *appsv1.ControllerRevision) errors {
		errs := nonNegative(field.NewPath("revision"), o.Revision)
		if o.Data.Raw == nil && o.Data.Object == nil {
			errs = append(errs, field.Required(field.NewPath("data"), "data is mandatory"))
		}
		return errs
	}, nil, ownUpdate(func(o, old *appsv1.ControllerRevision) errors {
		return append(sameData(o, old), nonNegative(field.NewPath("revision"), o.Revision)...)
	}))
	rule(t, "", "v1", "ReplicationController", true, subdomain, replicationController, nil, onSub("status", func(o, old *corev1.ReplicationController) errors {
		s := o.Status
		return replicaCounts(field.NewPath("status"), s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas, s.ObservedGeneration)
	}))
}

// sameData refuses a change of what a revision holds. Two spellings of the same JSON are no change: a patch may reorder it.
func sameData(o, old *appsv1.ControllerRevision) errors {
	if bytes.Equal(o.Data.Raw, old.Data.Raw) {
		return nil
	}
	var a, b any
	if json.Unmarshal(o.Data.Raw, &a) == nil && json.Unmarshal(old.Data.Raw, &b) == nil && reflect.DeepEqual(a, b) {
		return nil
	}
	return immutable(field.NewPath("data"), o.Data, old.Data)
}

// mustSelect refuses a selector that misses the template's own pods.
func mustSelect(s *metav1.LabelSelector, labels map[string]string, p *field.Path) errors {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil
	}
	if !sel.Matches(labelset.Set(labels)) {
		return errors{field.Invalid(p.Child("metadata", "labels"), labels, "`selector` does not match template `labels`")}
	}
	return nil
}

// selectorOf checks the selector of a workload of the named kind.
func selectorOf(s *metav1.LabelSelector, kind string, p *field.Path) errors {
	if s == nil {
		return errors{field.Required(p, "")}
	}
	errs := labelSelector(p, s)
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(p, s, "empty selector is invalid for "+kind))
	}
	return errs
}

func restartAlways(t *corev1.PodTemplateSpec, p *field.Path) errors {
	var errs errors
	if r := t.Spec.RestartPolicy; r != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(p.Child("spec", "restartPolicy"), r, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if t.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(p.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicaSet is not Supported"))
	}
	return errs
}

// replicatedTemplate checks the template of a workload whose pods always restart.
func replicatedTemplate(t *corev1.PodTemplateSpec, s *metav1.LabelSelector, p *field.Path) errors {
	var errs errors
	if sel, err := metav1.LabelSelectorAsSelector(s); err == nil && (s == nil || !sel.Empty()) {
		errs = append(errs, mustSelect(s, t.Labels, p)...)
	}
	errs = append(errs, podTemplate(t, p)...)
	return append(errs, restartAlways(t, p)...)
}

func deployment(o *appsv1.Deployment) errors {
	p, s := field.NewPath("spec"), &o.Spec
	errs := nonNegative(p.Child("replicas"), deref(s.Replicas, 0))
	errs = append(errs, selectorOf(s.Selector, "deployment", p.Child("selector"))...)
	if _, err := metav1.LabelSelectorAsSelector(s.Selector); err != nil {
		errs = append(errs, field.Invalid(p.Child("selector"), s.Selector, "invalid label selector"))
	} else {
		errs = append(errs, replicatedTemplate(&s.Template, s.Selector, p.Child("template"))...)
	}
	errs = append(errs, deploymentStrategy(&s.Strategy, p.Child("strategy"))...)
	errs = append(errs, nonNegative(p.Child("minReadySeconds"), s.MinReadySeconds)...)
	errs = append(errs, nonNegativePtr(p.Child("revisionHistoryLimit"), s.RevisionHistoryLimit)...)
	if d := s.ProgressDeadlineSeconds; d != nil {
		errs = append(errs, nonNegative(p.Child("progressDeadlineSeconds"), *d)...)
		if *d <= s.MinReadySeconds {
			errs = append(errs, field.Invalid(p.Child("progressDeadlineSeconds"), *d, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func deploymentStrategy(s *appsv1.DeploymentStrategy, p *field.Path) errors {
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return errors{field.Forbidden(p.Child("rollingUpdate"), "may not be specified when strategy `type` is '"+string(s.Type)+"'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
	default:
		return errors{field.NotSupported(p, s.Type, []appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
	}
	at := p.Child("rollingUpdate")
	if s.RollingUpdate == nil {
		return errors{field.Required(at, "this should be defaulted and never be nil")}
	}
	unavailable, surge := deref(s.RollingUpdate.MaxUnavailable, intstr.IntOrString{}), deref(s.RollingUpdate.MaxSurge, intstr.IntOrString{})
	errs := percentOrCount(at.Child("maxUnavailable"), unavailable)
	errs = append(errs, percentOrCount(at.Child("maxSurge"), surge)...)
	if fraction(unavailable) == 0 && fraction(surge) == 0 {
		errs = append(errs, field.Invalid(at.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, atMostHundred(at.Child("maxUnavailable"), unavailable)...)
}

func replicaSet(o *appsv1.ReplicaSet) errors {
	p, s := field.NewPath("spec"), &o.Spec
	errs := nonNegative(p.Child("replicas"), deref(s.Replicas, 0))
	errs = append(errs, nonNegative(p.Child("minReadySeconds"), s.MinReadySeconds)...)
	errs = append(errs, selectorOf(s.Selector, "deployment", p.Child("selector"))...)
	if _, err := metav1.LabelSelectorAsSelector(s.Selector); err != nil {
		return append(errs, field.Invalid(p.Child("selector"), s.Selector, "invalid label selector"))
	}
	return append(errs, replicatedTemplate(&s.Template, s.Selector, p.Child("template"))...)
}

func replicationController(o *corev1.ReplicationController) errors {
	p, s := field.NewPath("spec"), &o.Spec
	errs := nonNegative(p.Child("minReadySeconds"), s.MinReadySeconds)
	if len(s.Selector) == 0 {
		errs = append(errs, field.Required(p.Child("selector"), ""))
	}
	if s.Replicas == nil {
		errs = append(errs, field.Required(p.Child("replicas"), ""))
	} else {
		errs = append(errs, nonNegative(p.Child("replicas"), *s.Replicas)...)
	}
	at := p.Child("template")
	if s.Template == nil {
		return append(errs, field.Required(at, ""))
	}
	if len(s.Selector) > 0 && !labelset.SelectorFromValidatedSet(s.Selector).Matches(labelset.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(at.Child("metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, podTemplate(s.Template, at)...)
	if r := s.Template.Spec.RestartPolicy; r != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(at.Child("spec", "restartPolicy"), r, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if s.Template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(at.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicationController is not Supported"))
	}
	return errs
}

func daemonSet(o *appsv1.DaemonSet) errors {
	p, s := field.NewPath("spec"), &o.Spec
	var errs errors
	errs = append(errs, selectorOfDaemon(s, p)...)
	errs = append(errs, podTemplate(&s.Template, p.Child("template"))...)
	if r := s.Template.Spec.RestartPolicy; r != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(p.Child("template", "spec", "restartPolicy"), r, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if s.Template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(p.Child("template", "spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in DaemonSet is not Supported"))
	}
	errs = append(errs, nonNegative(p.Child("minReadySeconds"), s.MinReadySeconds)...)
	errs = append(errs, daemonStrategy(&s.UpdateStrategy, p.Child("updateStrategy"))...)
	return append(errs, nonNegativePtr(p.Child("revisionHistoryLimit"), s.RevisionHistoryLimit)...)
}

func selectorOfDaemon(s *appsv1.DaemonSetSpec, p *field.Path) errors {
	errs := labelSelector(p.Child("selector"), s.Selector)
	sel, err := metav1.LabelSelectorAsSelector(s.Selector)
	if err == nil && !sel.Matches(labelset.Set(s.Template.Labels)) {
		errs = append(errs, field.Invalid(p.Child("template", "metadata", "labels"), s.Template.Labels, "`selector` does not match template `labels`"))
	}
	if s.Selector != nil && len(s.Selector.MatchLabels)+len(s.Selector.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(p.Child("selector"), s.Selector, "empty selector is invalid for daemonset"))
	}
	return errs
}

func daemonStrategy(s *appsv1.DaemonSetUpdateStrategy, p *field.Path) errors {
	switch s.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	case appsv1.RollingUpdateDaemonSetStrategyType:
	default:
		return errors{field.NotSupported(p, s.Type, []appsv1.DaemonSetUpdateStrategyType{appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType})}
	}
	at := p.Child("rollingUpdate")
	if s.RollingUpdate == nil {
		return errors{field.Required(at, "")}
	}
	unavailable, surge := deref(s.RollingUpdate.MaxUnavailable, intstr.IntOrString{}), deref(s.RollingUpdate.MaxSurge, intstr.IntOrString{})
	errs := percentOrCount(at.Child("maxUnavailable"), unavailable)
	errs = append(errs, percentOrCount(at.Child("maxSurge"), surge)...)
	switch u, m := fraction(unavailable) != 0, fraction(surge) != 0; {
	case u && m:
		errs = append(errs, field.Invalid(at.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case !u && !m:
		errs = append(errs, field.Required(at.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	errs = append(errs, atMostHundred(at.Child("maxUnavailable"), unavailable)...)
	return append(errs, atMostHundred(at.Child("maxSurge"), surge)...)
}

// statefulSetName leaves room for the pods' ordinals.
func statefulSetName(name string, prefix bool) []string { return label(name, prefix) }

func statefulSet(o *appsv1.StatefulSet) errors {
	p, s := field.NewPath("spec"), &o.Spec
	var errs errors
	switch s.PodManagementPolicy {
	case "":
		errs = append(errs, field.Required(p.Child("podManagementPolicy"), ""))
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	default:
		errs = append(errs, field.Invalid(p.Child("podManagementPolicy"), s.PodManagementPolicy, fmt.Sprintf("must be '%s' or '%s'", appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)))
	}
	errs = append(errs, statefulStrategy(&s.UpdateStrategy, p.Child("updateStrategy"))...)
	if r := s.PersistentVolumeClaimRetentionPolicy; r != nil {
		at := p.Child("persistentVolumeClaimRetentionPolicy")
		errs = append(errs, oneOf(at.Child("whenDeleted"), r.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType)...)
		errs = append(errs, oneOf(at.Child("whenScaled"), r.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType)...)
	}
	errs = append(errs, nonNegative(p.Child("replicas"), deref(s.Replicas, 0))...)
	errs = append(errs, nonNegative(p.Child("minReadySeconds"), s.MinReadySeconds)...)
	if s.Ordinals != nil {
		errs = append(errs, nonNegative(p.Child("ordinals", "start"), s.Ordinals.Start)...)
	}
	if s.ServiceName != "" {
		errs = append(errs, dnsLabel(p.Child("serviceName"), s.ServiceName)...)
	}
	errs = append(errs, selectorOf(s.Selector, "statefulset", p.Child("selector"))...)
	if sel, err := metav1.LabelSelectorAsSelector(s.Selector); err != nil {
		errs = append(errs, field.Invalid(p.Child("selector"), s.Selector, ""))
	} else if s.Selector == nil || !sel.Empty() {
		errs = append(errs, mustSelect(s.Selector, s.Template.Labels, p.Child("template"))...)
	}
	// what was let through once may be put back
	for i := 0; o.ResourceVersion == "" && i < len(s.VolumeClaimTemplates); i++ {
		errs = append(errs, claimSpec(&s.VolumeClaimTemplates[i].Spec, p.Child("volumeClaimTemplates").Index(i).Child("spec"))...)
	}
	// the metadata of the template is judged twice
	errs = append(errs, labels(p.Child("template", "labels"), s.Template.Labels)...)
	errs = append(errs, annotations(p.Child("template", "annotations"), s.Template.Annotations)...)
	errs = append(errs, podTemplate(withClaims(s), p.Child("template"))...)
	if r := s.Template.Spec.RestartPolicy; r != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(p.Child("template", "spec", "restartPolicy"), r, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if s.Template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(p.Child("template", "spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in StatefulSet is not Supported"))
	}
	return errs
}

// withClaims is the template with a volume for each claim template in front, as its pods will have them.
func withClaims(s *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	if len(s.VolumeClaimTemplates) == 0 {
		return &s.Template
	}
	t := s.Template
	named := map[string]bool{}
	var vols []corev1.Volume
	for i := range s.VolumeClaimTemplates {
		name := s.VolumeClaimTemplates[i].Name
		if named[name] {
			continue
		}
		named[name] = true
		vols = append(vols, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
	}
	for _, v := range s.Template.Spec.Volumes {
		if !named[v.Name] {
			vols = append(vols, v)
		}
	}
	t.Spec.Volumes = vols
	return &t
}

func statefulStrategy(s *appsv1.StatefulSetUpdateStrategy, p *field.Path) errors {
	switch s.Type {
	case "":
		return errors{field.Required(p, "")}
	case appsv1.OnDeleteStatefulSetStrategyType:
		if s.RollingUpdate != nil {
			return errors{field.Invalid(p.Child("rollingUpdate"), s.RollingUpdate, fmt.Sprintf("only allowed for updateStrategy '%s'", appsv1.RollingUpdateStatefulSetStrategyType))}
		}
	case appsv1.RollingUpdateStatefulSetStrategyType:
		if r := s.RollingUpdate; r != nil {
			at := p.Child("rollingUpdate")
			errs := nonNegative(at.Child("partition"), deref(r.Partition, 0))
			if u := r.MaxUnavailable; u != nil {
				errs = append(errs, percentOrCount(at.Child("maxUnavailable"), *u)...)
				if fraction(*u) == 0 {
					errs = append(errs, field.Invalid(at.Child("maxUnavailable"), *u, "cannot be 0"))
				}
				errs = append(errs, atMostHundred(at.Child("maxUnavailable"), *u)...)
			}
			return errs
		}
	default:
		return errors{field.Invalid(p, s, fmt.Sprintf("must be '%s' or '%s'", appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType))}
	}
	return nil
}

const statefulUpdatable = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', " +
	"'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"

func statefulSetUpdate(o, old *appsv1.StatefulSet) errors {
	c := o.Spec.DeepCopy()
	b := &old.Spec
	c.Replicas, c.Template, c.UpdateStrategy, c.MinReadySeconds = b.Replicas, b.Template, b.UpdateStrategy, b.MinReadySeconds
	c.Ordinals, c.RevisionHistoryLimit, c.PersistentVolumeClaimRetentionPolicy = b.Ordinals, b.RevisionHistoryLimit, b.PersistentVolumeClaimRetentionPolicy
	if !equality.Semantic.DeepEqual(*c, *b) {
		return errors{field.Forbidden(field.NewPath("spec"), statefulUpdatable)}
	}
	return nil
}

// counts checks numbers of a status that cannot be below zero.
func counts(p *field.Path, fields map[string]int64) errors {
	var errs errors
	for _, name := range sortedKeys(fields) {
		errs = append(errs, nonNegative(p.Child(name), fields[name])...)
	}
	return errs
}

const beyond = "cannot be greater than status.replicas"

func replicaCounts(p *field.Path, replicas, labelled, ready, available int32, observed int64) errors {
	errs := counts(p, map[string]int64{"replicas": int64(replicas), "fullyLabeledReplicas": int64(labelled), "readyReplicas": int64(ready), "availableReplicas": int64(available), "observedGeneration": observed})
	if labelled > replicas {
		errs = append(errs, field.Invalid(p.Child("fullyLabeledReplicas"), labelled, beyond))
	}
	if ready > replicas {
		errs = append(errs, field.Invalid(p.Child("readyReplicas"), ready, beyond))
	}
	if available > replicas {
		errs = append(errs, field.Invalid(p.Child("availableReplicas"), available, beyond))
	}
	if available > ready {
		errs = append(errs, field.Invalid(p.Child("availableReplicas"), available, "cannot be greater than readyReplicas"))
	}
	return errs
}

func replicaSetStatus(o, _ *appsv1.ReplicaSet) errors {
	s := o.Status
	p := field.NewPath("status")
	return append(replicaCounts(p, s.Replicas, s.FullyLabeledReplicas, s.ReadyReplicas, s.AvailableReplicas, s.ObservedGeneration), nonNegativePtr(p.Child("terminatingReplicas"), s.TerminatingReplicas)...)
}

// collisions checks a count that only grows.
func collisions(n, was *int32, p *field.Path) errors {
	errs := nonNegativePtr(p.Child("collisionCount"), n)
	if was != nil && (n == nil || *n < *was) {
		errs = append(errs, field.Invalid(p.Child("collisionCount"), deref(n, 0), "cannot be decremented"))
	}
	return errs
}

func deploymentStatus(o, old *appsv1.Deployment) errors {
	p, s := field.NewPath("status"), o.Status
	errs := counts(p, map[string]int64{"observedGeneration": s.ObservedGeneration, "replicas": int64(s.Replicas), "updatedReplicas": int64(s.UpdatedReplicas), "readyReplicas": int64(s.ReadyReplicas),
		"availableReplicas": int64(s.AvailableReplicas), "unavailableReplicas": int64(s.UnavailableReplicas)})
	for _, f := range []struct {
		name string
		n    int32
	}{{"updatedReplicas", s.UpdatedReplicas}, {"readyReplicas", s.ReadyReplicas}, {"availableReplicas", s.AvailableReplicas}} {
		if f.n > s.Replicas {
			errs = append(errs, field.Invalid(p.Child(f.name), f.n, beyond))
		}
	}
	if s.AvailableReplicas > s.ReadyReplicas {
		errs = append(errs, field.Invalid(p.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	errs = append(errs, nonNegativePtr(p.Child("terminatingReplicas"), s.TerminatingReplicas)...)
	return append(errs, collisions(s.CollisionCount, old.Status.CollisionCount, p)...)
}

func daemonSetStatus(o, old *appsv1.DaemonSet) errors {
	p, s := field.NewPath("status"), o.Status
	errs := counts(p, map[string]int64{"currentNumberScheduled": int64(s.CurrentNumberScheduled), "numberMisscheduled": int64(s.NumberMisscheduled),
		"desiredNumberScheduled": int64(s.DesiredNumberScheduled), "numberReady": int64(s.NumberReady), "observedGeneration": s.ObservedGeneration,
		"updatedNumberScheduled": int64(s.UpdatedNumberScheduled), "numberAvailable": int64(s.NumberAvailable), "numberUnavailable": int64(s.NumberUnavailable)})
	return append(errs, collisions(s.CollisionCount, old.Status.CollisionCount, p)...)
}

func statefulSetStatus(o, old *appsv1.StatefulSet) errors {
	p, s := field.NewPath("status"), o.Status
	errs := counts(p, map[string]int64{"replicas": int64(s.Replicas), "readyReplicas": int64(s.ReadyReplicas), "currentReplicas": int64(s.CurrentReplicas), "updatedReplicas": int64(s.UpdatedReplicas),
		"availableReplicas": int64(s.AvailableReplicas), "observedGeneration": s.ObservedGeneration})
	errs = append(errs, collisions(s.CollisionCount, old.Status.CollisionCount, p)...)
	for _, f := range []struct {
		name string
		n    int32
	}{{"readyReplicas", s.ReadyReplicas}, {"currentReplicas", s.CurrentReplicas}, {"updatedReplicas", s.UpdatedReplicas}, {"availableReplicas", s.AvailableReplicas}} {
		if f.n > s.Replicas {
			errs = append(errs, field.Invalid(p.Child(f.name), f.n, beyond))
		}
	}
	if s.AvailableReplicas > s.ReadyReplicas {
		errs = append(errs, field.Invalid(p.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	return errs
}
