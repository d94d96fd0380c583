package convert

import (
	"encoding/json"
	"maps"

	asv1 "k8s.io/api/autoscaling/v1"
	asv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What autoscaling/v1 has no field for travels in these annotations, as upstream names them.
const (
	metricsAnnotation    = "autoscaling.alpha.kubernetes.io/metrics"
	statusesAnnotation   = "autoscaling.alpha.kubernetes.io/current-metrics"
	conditionsAnnotation = "autoscaling.alpha.kubernetes.io/conditions"
	behaviorAnnotation   = "autoscaling.alpha.kubernetes.io/behavior"
)

func cpuMetric(m *asv2.MetricSpec) *int32 {
	if m.Type == asv2.ResourceMetricSourceType && m.Resource != nil && m.Resource.Name == corev1.ResourceCPU && m.Resource.Target.AverageUtilization != nil {
		return m.Resource.Target.AverageUtilization
	}
	return nil
}

func scalerToV1(in *asv2.HorizontalPodAutoscaler) *asv1.HorizontalPodAutoscaler {
	out := &asv1.HorizontalPodAutoscaler{ObjectMeta: *in.ObjectMeta.DeepCopy()}
	out.Spec = asv1.HorizontalPodAutoscalerSpec{ScaleTargetRef: asv1.CrossVersionObjectReference(in.Spec.ScaleTargetRef), MinReplicas: in.Spec.MinReplicas, MaxReplicas: in.Spec.MaxReplicas}
	var others []asv2.MetricSpec
	for i := range in.Spec.Metrics {
		if u := cpuMetric(&in.Spec.Metrics[i]); u != nil && out.Spec.TargetCPUUtilizationPercentage == nil {
			out.Spec.TargetCPUUtilizationPercentage = u
			continue
		}
		others = append(others, in.Spec.Metrics[i])
	}
	st := &in.Status
	out.Status = asv1.HorizontalPodAutoscalerStatus{ObservedGeneration: st.ObservedGeneration, LastScaleTime: st.LastScaleTime, CurrentReplicas: st.CurrentReplicas, DesiredReplicas: st.DesiredReplicas}
	for i := range st.CurrentMetrics {
		if m := &st.CurrentMetrics[i]; m.Resource != nil && m.Resource.Name == corev1.ResourceCPU {
			out.Status.CurrentCPUUtilizationPercentage = m.Resource.Current.AverageUtilization
		}
	}
	note(&out.ObjectMeta, metricsAnnotation, each(others, metricToV1), len(others) > 0)
	note(&out.ObjectMeta, statusesAnnotation, each(st.CurrentMetrics, statusToV1), len(st.CurrentMetrics) > 0)
	note(&out.ObjectMeta, conditionsAnnotation, st.Conditions, len(st.Conditions) > 0)
	if b := in.Spec.Behavior; b != nil {
		note(&out.ObjectMeta, behaviorAnnotation, behaviorNote(b), true)
	}
	return out
}

func note(m *v1.ObjectMeta, key string, value any, have bool) {
	if !have {
		return
	}
	b, err := json.Marshal(value)
	if err != nil {
		return
	}
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[key] = string(b)
}

func scalerToV2(in *asv1.HorizontalPodAutoscaler) *asv2.HorizontalPodAutoscaler {
	out := &asv2.HorizontalPodAutoscaler{ObjectMeta: *in.ObjectMeta.DeepCopy()}
	out.Spec = asv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: asv2.CrossVersionObjectReference(in.Spec.ScaleTargetRef), MinReplicas: in.Spec.MinReplicas, MaxReplicas: in.Spec.MaxReplicas}
	var metrics []asv1.MetricSpec
	var statuses []asv1.MetricStatus
	read(&out.ObjectMeta, metricsAnnotation, &metrics)
	read(&out.ObjectMeta, statusesAnnotation, &statuses)
	out.Spec.Metrics, out.Status.CurrentMetrics = each(metrics, metricToV2), each(statuses, statusToV2)
	read(&out.ObjectMeta, conditionsAnnotation, &out.Status.Conditions)
	read(&out.ObjectMeta, behaviorAnnotation, &out.Spec.Behavior)
	if u := in.Spec.TargetCPUUtilizationPercentage; u != nil {
		cpu := asv2.MetricSpec{Type: asv2.ResourceMetricSourceType, Resource: &asv2.ResourceMetricSource{Name: corev1.ResourceCPU,
			Target: asv2.MetricTarget{Type: asv2.UtilizationMetricType, AverageUtilization: u}}}
		out.Spec.Metrics = append(out.Spec.Metrics, cpu)
	}
	st := &in.Status
	out.Status.ObservedGeneration, out.Status.LastScaleTime = st.ObservedGeneration, st.LastScaleTime
	out.Status.CurrentReplicas, out.Status.DesiredReplicas = st.CurrentReplicas, st.DesiredReplicas
	if len(out.Annotations) == 0 {
		out.Annotations = nil
	} else {
		out.Annotations = maps.Clone(out.Annotations)
	}
	return out
}

// read takes a value out of its annotation; a malformed one is dropped, as it can only have been written by hand.
func read(m *v1.ObjectMeta, key string, into any) {
	s, ok := m.Annotations[key]
	if !ok {
		return
	}
	delete(m.Annotations, key)
	_ = json.Unmarshal([]byte(s), into)
}
