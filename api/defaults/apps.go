package defaults

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func addApps(t table) {
	set(t, "apps", "v1", "Deployment", deployment)
	set(t, "apps", "v1", "ReplicaSet", func(o *appsv1.ReplicaSet) {
		unset(&o.Spec.Replicas, int32(1))
		podSpec(&o.Spec.Template.Spec)
	})
	set(t, "apps", "v1", "DaemonSet", daemonSet)
	set(t, "apps", "v1", "StatefulSet", statefulSet)
}

func deployment(o *appsv1.Deployment) {
	s := &o.Spec
	unset(&s.Replicas, int32(1))
	zero(&s.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
	if s.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		unset(&s.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		unset(&s.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		unset(&s.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	unset(&s.RevisionHistoryLimit, int32(10))
	unset(&s.ProgressDeadlineSeconds, int32(600))
	podSpec(&s.Template.Spec)
}

func daemonSet(o *appsv1.DaemonSet) {
	s := &o.Spec
	// every DaemonSet has the count of its templates, and whoever writes one owns it; the strategy does the counting
	if _, ok := o.Annotations[appsv1.DeprecatedTemplateGeneration]; !ok {
		a := maps.Clone(o.Annotations)
		if a == nil {
			a = make(map[string]string, 1)
		}
		a[appsv1.DeprecatedTemplateGeneration] = "0"
		o.Annotations = a
	}
	zero(&s.UpdateStrategy.Type, appsv1.RollingUpdateDaemonSetStrategyType)
	if s.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		unset(&s.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		unset(&s.UpdateStrategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		unset(&s.UpdateStrategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	unset(&s.RevisionHistoryLimit, int32(10))
	podSpec(&s.Template.Spec)
}

func statefulSet(o *appsv1.StatefulSet) {
	s := &o.Spec
	zero(&s.PodManagementPolicy, appsv1.OrderedReadyPodManagement)
	if s.UpdateStrategy.Type == "" {
		s.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		unset(&s.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
	}
	// a strategy that was named without its parameters keeps none
	if r := s.UpdateStrategy.RollingUpdate; r != nil && s.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType {
		unset(&r.Partition, int32(0))
	}
	unset(&s.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	zero(&s.PersistentVolumeClaimRetentionPolicy.WhenDeleted, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	zero(&s.PersistentVolumeClaimRetentionPolicy.WhenScaled, appsv1.RetainPersistentVolumeClaimRetentionPolicyType)
	unset(&s.Replicas, int32(1))
	unset(&s.RevisionHistoryLimit, int32(10))
	podSpec(&s.Template.Spec)
	for i := range s.VolumeClaimTemplates {
		c := &s.VolumeClaimTemplates[i]
		c.APIVersion, c.Kind = "v1", "PersistentVolumeClaim" // whatever was said: it can be nothing else
		claim(c)
	}
}
