package convert

import (
	asv1 "k8s.io/api/autoscaling/v1"
	asv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
)

// The metrics of autoscaling/v2 in the words of v1, which travel in annotations.

func metricToV1(m *asv2.MetricSpec) asv1.MetricSpec {
	out := asv1.MetricSpec{Type: asv1.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		out.Object = &asv1.ObjectMetricSource{Target: asv1.CrossVersionObjectReference(s.DescribedObject), MetricName: s.Metric.Name, Selector: s.Metric.Selector,
			TargetValue: value(s.Target.Value), AverageValue: s.Target.AverageValue}
	}
	if s := m.Pods; s != nil {
		out.Pods = &asv1.PodsMetricSource{MetricName: s.Metric.Name, Selector: s.Metric.Selector, TargetAverageValue: value(s.Target.AverageValue)}
	}
	if s := m.Resource; s != nil {
		out.Resource = &asv1.ResourceMetricSource{Name: s.Name, TargetAverageUtilization: s.Target.AverageUtilization, TargetAverageValue: s.Target.AverageValue}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &asv1.ContainerResourceMetricSource{Name: s.Name, Container: s.Container, TargetAverageUtilization: s.Target.AverageUtilization, TargetAverageValue: s.Target.AverageValue}
	}
	if s := m.External; s != nil {
		out.External = &asv1.ExternalMetricSource{MetricName: s.Metric.Name, MetricSelector: s.Metric.Selector, TargetValue: s.Target.Value, TargetAverageValue: s.Target.AverageValue}
	}
	return out
}

func metricToV2(m *asv1.MetricSpec) asv2.MetricSpec {
	out := asv2.MetricSpec{Type: asv2.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		out.Object = &asv2.ObjectMetricSource{DescribedObject: asv2.CrossVersionObjectReference(s.Target), Metric: asv2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector},
			Target: target(&s.TargetValue, s.AverageValue, nil)}
	}
	if s := m.Pods; s != nil {
		out.Pods = &asv2.PodsMetricSource{Metric: asv2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector}, Target: target(nil, &s.TargetAverageValue, nil)}
	}
	if s := m.Resource; s != nil {
		out.Resource = &asv2.ResourceMetricSource{Name: s.Name, Target: target(nil, s.TargetAverageValue, s.TargetAverageUtilization)}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &asv2.ContainerResourceMetricSource{Name: s.Name, Container: s.Container, Target: target(nil, s.TargetAverageValue, s.TargetAverageUtilization)}
	}
	if s := m.External; s != nil {
		out.External = &asv2.ExternalMetricSource{Metric: asv2.MetricIdentifier{Name: s.MetricName, Selector: s.MetricSelector}, Target: target(s.TargetValue, s.TargetAverageValue, nil)}
	}
	return out
}

func statusToV1(m *asv2.MetricStatus) asv1.MetricStatus {
	out := asv1.MetricStatus{Type: asv1.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		out.Object = &asv1.ObjectMetricStatus{Target: asv1.CrossVersionObjectReference(s.DescribedObject), MetricName: s.Metric.Name, Selector: s.Metric.Selector,
			CurrentValue: value(s.Current.Value), AverageValue: s.Current.AverageValue}
	}
	if s := m.Pods; s != nil {
		out.Pods = &asv1.PodsMetricStatus{MetricName: s.Metric.Name, Selector: s.Metric.Selector, CurrentAverageValue: value(s.Current.AverageValue)}
	}
	if s := m.Resource; s != nil {
		out.Resource = &asv1.ResourceMetricStatus{Name: s.Name, CurrentAverageUtilization: s.Current.AverageUtilization, CurrentAverageValue: value(s.Current.AverageValue)}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &asv1.ContainerResourceMetricStatus{Name: s.Name, Container: s.Container, CurrentAverageUtilization: s.Current.AverageUtilization, CurrentAverageValue: value(s.Current.AverageValue)}
	}
	if s := m.External; s != nil {
		out.External = &asv1.ExternalMetricStatus{MetricName: s.Metric.Name, MetricSelector: s.Metric.Selector, CurrentValue: value(s.Current.Value), CurrentAverageValue: s.Current.AverageValue}
	}
	return out
}

func statusToV2(m *asv1.MetricStatus) asv2.MetricStatus {
	out := asv2.MetricStatus{Type: asv2.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		out.Object = &asv2.ObjectMetricStatus{DescribedObject: asv2.CrossVersionObjectReference(s.Target), Metric: asv2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector},
			Current: asv2.MetricValueStatus{Value: &s.CurrentValue, AverageValue: s.AverageValue}}
	}
	if s := m.Pods; s != nil {
		out.Pods = &asv2.PodsMetricStatus{Metric: asv2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector}, Current: asv2.MetricValueStatus{AverageValue: &s.CurrentAverageValue}}
	}
	if s := m.Resource; s != nil {
		out.Resource = &asv2.ResourceMetricStatus{Name: s.Name, Current: asv2.MetricValueStatus{AverageUtilization: s.CurrentAverageUtilization, AverageValue: &s.CurrentAverageValue}}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &asv2.ContainerResourceMetricStatus{Name: s.Name, Container: s.Container,
			Current: asv2.MetricValueStatus{AverageUtilization: s.CurrentAverageUtilization, AverageValue: &s.CurrentAverageValue}}
	}
	if s := m.External; s != nil {
		out.External = &asv2.ExternalMetricStatus{Metric: asv2.MetricIdentifier{Name: s.MetricName, Selector: s.MetricSelector}, Current: asv2.MetricValueStatus{Value: &s.CurrentValue, AverageValue: s.CurrentAverageValue}}
	}
	return out
}

func value(q *resource.Quantity) resource.Quantity {
	if q == nil {
		return resource.Quantity{}
	}
	return *q
}

// target tells the kind of a goal, which v1 does not name, by what it sets. A total of zero beside an average is none.
func target(total, average *resource.Quantity, utilization *int32) asv2.MetricTarget {
	t := asv2.MetricTarget{AverageValue: average, AverageUtilization: utilization}
	switch {
	case utilization != nil:
		t.Type = asv2.UtilizationMetricType
	case average != nil:
		t.Type = asv2.AverageValueMetricType
	default:
		t.Type = asv2.ValueMetricType
	}
	if total != nil && (average == nil || !total.IsZero()) {
		t.Value = total
	}
	return t
}

// each converts a list, keeping none as none.
func each[From, To any](in []From, f func(*From) To) []To {
	if in == nil {
		return nil
	}
	out := make([]To, len(in))
	for i := range in {
		out[i] = f(&in[i])
	}
	return out
}

// behavior is a scaling behaviour as upstream writes it into its annotation: by the names of its own fields, not the API's.
type behavior struct{ ScaleUp, ScaleDown *scalingRules }

type scalingRules struct {
	StabilizationWindowSeconds *int32
	SelectPolicy               *asv2.ScalingPolicySelect
	Policies                   []scalingPolicy
	Tolerance                  *resource.Quantity
}

type scalingPolicy struct {
	Type                 asv2.HPAScalingPolicyType
	Value, PeriodSeconds int32
}

func behaviorNote(b *asv2.HorizontalPodAutoscalerBehavior) *behavior {
	return &behavior{ScaleUp: rulesNote(b.ScaleUp), ScaleDown: rulesNote(b.ScaleDown)}
}

func rulesNote(r *asv2.HPAScalingRules) *scalingRules {
	if r == nil {
		return nil
	}
	return &scalingRules{StabilizationWindowSeconds: r.StabilizationWindowSeconds, SelectPolicy: r.SelectPolicy, Tolerance: r.Tolerance,
		Policies: each(r.Policies, func(p *asv2.HPAScalingPolicy) scalingPolicy { return scalingPolicy(*p) })}
}
