package defaults

import (
	asv1 "k8s.io/api/autoscaling/v1"
	asv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

const metricsAnnotation = "autoscaling.alpha.kubernetes.io/metrics"

func addAutoscaling(t table) {
	set(t, "autoscaling", "v1", "HorizontalPodAutoscaler", func(o *asv1.HorizontalPodAutoscaler) {
		unset(&o.Spec.MinReplicas, int32(1))
		// other metrics than CPU travel in an annotation of this version
		if o.Annotations[metricsAnnotation] == "" {
			unset(&o.Spec.TargetCPUUtilizationPercentage, int32(80))
		}
	})
	set(t, "autoscaling", "v2", "HorizontalPodAutoscaler", hpa)
}

func hpa(o *asv2.HorizontalPodAutoscaler) {
	unset(&o.Spec.MinReplicas, int32(1))
	if len(o.Spec.Metrics) == 0 {
		percent := int32(80)
		o.Spec.Metrics = []asv2.MetricSpec{{Type: asv2.ResourceMetricSourceType, Resource: &asv2.ResourceMetricSource{
			Name: corev1.ResourceCPU, Target: asv2.MetricTarget{Type: asv2.UtilizationMetricType, AverageUtilization: &percent}}}}
	}
	b := o.Spec.Behavior
	if b == nil {
		return
	}
	none := int32(0)
	b.ScaleUp = scalingRules(b.ScaleUp, &none, asv2.HPAScalingPolicy{Type: asv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
		asv2.HPAScalingPolicy{Type: asv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15})
	b.ScaleDown = scalingRules(b.ScaleDown, nil, asv2.HPAScalingPolicy{Type: asv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15})
}

// scalingRules completes one direction of a behavior.
func scalingRules(r *asv2.HPAScalingRules, window *int32, policies ...asv2.HPAScalingPolicy) *asv2.HPAScalingRules {
	if r == nil {
		r = &asv2.HPAScalingRules{}
	}
	if r.StabilizationWindowSeconds == nil {
		r.StabilizationWindowSeconds = window
	}
	unset(&r.SelectPolicy, asv2.MaxChangePolicySelect)
	if r.Policies == nil {
		r.Policies = policies
	}
	return r
}
