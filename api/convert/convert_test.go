package convert

import (
	"strings"
	"testing"

	asv1 "k8s.io/api/autoscaling/v1"
	asv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestScalerThereAndBack(t *testing.T) {
	n, q := int32(70), resource.MustParse("100Mi")
	policy := asv2.MaxChangePolicySelect
	in := &asv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "h"}, Spec: asv2.HorizontalPodAutoscalerSpec{MaxReplicas: 3,
		ScaleTargetRef: asv2.CrossVersionObjectReference{Kind: "Deployment", Name: "d", APIVersion: "apps/v1"},
		Metrics: []asv2.MetricSpec{
			{Type: asv2.ResourceMetricSourceType, Resource: &asv2.ResourceMetricSource{Name: "memory", Target: asv2.MetricTarget{Type: asv2.AverageValueMetricType, AverageValue: &q}}},
			{Type: asv2.ObjectMetricSourceType, Object: &asv2.ObjectMetricSource{DescribedObject: asv2.CrossVersionObjectReference{Kind: "Service", Name: "s"}, Metric: asv2.MetricIdentifier{Name: "hits"},
				Target: asv2.MetricTarget{Type: asv2.ValueMetricType, Value: &q}}},
			{Type: asv2.PodsMetricSourceType, Pods: &asv2.PodsMetricSource{Metric: asv2.MetricIdentifier{Name: "m"}, Target: asv2.MetricTarget{Type: asv2.AverageValueMetricType, AverageValue: &q}}},
			{Type: asv2.ExternalMetricSourceType, External: &asv2.ExternalMetricSource{Metric: asv2.MetricIdentifier{Name: "x"}, Target: asv2.MetricTarget{Type: asv2.AverageValueMetricType, AverageValue: &q}}},
			{Type: asv2.ContainerResourceMetricSourceType, ContainerResource: &asv2.ContainerResourceMetricSource{Name: "cpu", Container: "c", Target: asv2.MetricTarget{Type: asv2.UtilizationMetricType, AverageUtilization: &n}}},
			{Type: asv2.ResourceMetricSourceType, Resource: &asv2.ResourceMetricSource{Name: "cpu", Target: asv2.MetricTarget{Type: asv2.UtilizationMetricType, AverageUtilization: &n}}},
		},
		Behavior: &asv2.HorizontalPodAutoscalerBehavior{ScaleUp: &asv2.HPAScalingRules{SelectPolicy: &policy, Policies: []asv2.HPAScalingPolicy{{Type: asv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15}}}},
	}, Status: asv2.HorizontalPodAutoscalerStatus{CurrentReplicas: 2, CurrentMetrics: []asv2.MetricStatus{
		{Type: asv2.ResourceMetricSourceType, Resource: &asv2.ResourceMetricStatus{Name: "cpu", Current: asv2.MetricValueStatus{AverageValue: &q, AverageUtilization: &n}}}},
		Conditions: []asv2.HorizontalPodAutoscalerCondition{{Type: asv2.AbleToScale, Status: corev1.ConditionTrue}}}}
	before := in.DeepCopy()
	old := To(in, asv1.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler")).(*asv1.HorizontalPodAutoscaler)
	if *old.Spec.TargetCPUUtilizationPercentage != 70 || *old.Status.CurrentCPUUtilizationPercentage != 70 {
		t.Errorf("v1 %+v", old)
	}
	if m := old.Annotations[metricsAnnotation]; !strings.Contains(m, `"targetAverageValue":"100Mi"`) {
		t.Errorf("metrics %s", m)
	}
	if b := old.Annotations[behaviorAnnotation]; !strings.HasPrefix(b, `{"ScaleUp":{"StabilizationWindowSeconds":null,`) {
		t.Errorf("behaviour %s", b)
	}
	back := To(old, asv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler")).(*asv2.HorizontalPodAutoscaler)
	back.TypeMeta = metav1.TypeMeta{}
	if !equality.Semantic.DeepEqual(back, before) {
		t.Errorf("there and back:\n%+v\nwant\n%+v", back, before)
	}
	if !equality.Semantic.DeepEqual(in, before) {
		t.Error("the argument was changed")
	}
}

func TestEventThereAndBack(t *testing.T) {
	in := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "e"}, Reason: "R", Message: "m", Count: 3, InvolvedObject: corev1.ObjectReference{Name: "p"},
		Source: corev1.EventSource{Component: "c"}, ReportingController: "rc", Series: &corev1.EventSeries{Count: 2}}
	mid := To(in, eventsv1.SchemeGroupVersion.WithKind("Event")).(*eventsv1.Event)
	if mid.Note != "m" || mid.Regarding.Name != "p" || mid.DeprecatedCount != 3 {
		t.Errorf("new form %+v", mid)
	}
	back := To(mid, corev1.SchemeGroupVersion.WithKind("Event")).(*corev1.Event)
	if back.TypeMeta = (metav1.TypeMeta{}); !equality.Semantic.DeepEqual(back, in) {
		t.Errorf("there and back %+v", back)
	}
	if o := To(in, corev1.SchemeGroupVersion.WithKind("Event")); o != in {
		t.Error("what has that form already is not copied")
	}
}
