package printcolumns

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	asv1 "k8s.io/api/autoscaling/v1"
	asv2 "k8s.io/api/autoscaling/v2"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func addScaling(t table) {
	hpaColumns := func() columns {
		s := asv2.HorizontalPodAutoscalerSpec{}
		return columns{nameColumn(), text("Reference", doc(s, "scaleTargetRef")), text("Targets", doc(s, "metrics")), text("MinPods", doc(s, "minReplicas")), text("MaxPods", doc(s, "maxReplicas")),
			text("Replicas", doc(asv2.HorizontalPodAutoscalerStatus{}, "currentReplicas")), ageColumn()}
	}
	add(t, "autoscaling", "v2", "HorizontalPodAutoscaler", func(o *asv2.HorizontalPodAutoscaler, now time.Time) []any {
		return []any{o.Name, o.Spec.ScaleTargetRef.Kind + "/" + o.Spec.ScaleTargetRef.Name, targets(o.Spec.Metrics, o.Status.CurrentMetrics), minPods(o.Spec.MinReplicas),
			int64(o.Spec.MaxReplicas), int64(o.Status.CurrentReplicas), age(o.CreationTimestamp, now)}
	}, hpaColumns)
	add(t, "autoscaling", "v1", "HorizontalPodAutoscaler", func(o *asv1.HorizontalPodAutoscaler, now time.Time) []any {
		target := "<none>"
		if p := o.Spec.TargetCPUUtilizationPercentage; p != nil {
			current := "<unknown>"
			if c := o.Status.CurrentCPUUtilizationPercentage; c != nil {
				current = fmt.Sprintf("%d%%", *c)
			}
			target = fmt.Sprintf("cpu: %s/%d%%", current, *p)
		}
		return []any{o.Name, o.Spec.ScaleTargetRef.Kind + "/" + o.Spec.ScaleTargetRef.Name, target, minPods(o.Spec.MinReplicas),
			int64(o.Spec.MaxReplicas), int64(o.Status.CurrentReplicas), age(o.CreationTimestamp, now)}
	}, hpaColumns)
	add(t, "autoscaling", "v1", "Scale", func(o *asv1.Scale, now time.Time) []any {
		return []any{o.Name, int64(o.Spec.Replicas), int64(o.Status.Replicas), age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{text("Name", doc(metav1.ObjectMeta{}, "name")), number("Desired", doc(asv1.ScaleSpec{}, "replicas")), number("Available", doc(asv1.ScaleStatus{}, "replicas")), ageColumn()}
	})
	add(t, "policy", "v1", "PodDisruptionBudget", func(o *policyv1.PodDisruptionBudget, now time.Time) []any {
		least, most := "N/A", "N/A"
		if o.Spec.MinAvailable != nil {
			least = o.Spec.MinAvailable.String()
		} else if o.Spec.MaxUnavailable != nil {
			most = o.Spec.MaxUnavailable.String()
		}
		return []any{o.Name, least, most, int64(o.Status.DisruptionsAllowed), age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("Min Available", "The minimum number of pods that must be available."), text("Max Unavailable", "The maximum number of pods that may be unavailable."),
			number("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."), ageColumn()}
	})
}

func minPods(n *int32) string {
	if n == nil {
		return "<unset>"
	}
	return strconv.Itoa(int(*n))
}

// targets shows what each metric is and what it should be, the first two of them.
func targets(specs []asv2.MetricSpec, statuses []asv2.MetricStatus) string {
	if len(specs) == 0 {
		return "<none>"
	}
	const limit = 2
	var list []string
	for i := range specs {
		if len(list) == limit {
			break
		}
		var current *asv2.MetricValueStatus
		if i < len(statuses) {
			current = currentOf(&statuses[i])
		}
		if s := target(&specs[i], current); s != "" {
			list = append(list, s)
		}
	}
	out := strings.Join(list, ", ")
	if len(specs) > limit {
		out = fmt.Sprintf("%s + %d more...", out, len(specs)-limit)
	}
	return out
}

func currentOf(s *asv2.MetricStatus) *asv2.MetricValueStatus {
	switch {
	case s.External != nil:
		return &s.External.Current
	case s.Pods != nil:
		return &s.Pods.Current
	case s.Object != nil:
		return &s.Object.Current
	case s.Resource != nil:
		return &s.Resource.Current
	case s.ContainerResource != nil:
		return &s.ContainerResource.Current
	}
	return nil
}

func target(m *asv2.MetricSpec, current *asv2.MetricValueStatus) string {
	switch m.Type {
	case asv2.ExternalMetricSourceType:
		if m.External == nil {
			return ""
		}
		return value("", &m.External.Target, current)
	case asv2.PodsMetricSourceType:
		if m.Pods == nil {
			return ""
		}
		return value("", &m.Pods.Target, current)
	case asv2.ObjectMetricSourceType:
		if m.Object == nil {
			return ""
		}
		return value("", &m.Object.Target, current)
	case asv2.ResourceMetricSourceType:
		if m.Resource == nil {
			return ""
		}
		return value(string(m.Resource.Name)+": ", &m.Resource.Target, current)
	case asv2.ContainerResourceMetricSourceType:
		if m.ContainerResource == nil {
			return ""
		}
		return value(string(m.ContainerResource.Name)+": ", &m.ContainerResource.Target, current)
	}
	return "<unknown type>"
}

func value(prefix string, want *asv2.MetricTarget, have *asv2.MetricValueStatus) string {
	now := "<unknown>"
	switch {
	case want.AverageValue != nil:
		if have != nil && have.AverageValue != nil {
			now = have.AverageValue.String()
		}
		suffix := " (avg)"
		if prefix != "" {
			suffix = ""
		}
		return prefix + now + "/" + want.AverageValue.String() + suffix
	case want.Value != nil:
		if have != nil && have.Value != nil {
			now = have.Value.String()
		}
		return prefix + now + "/" + want.Value.String()
	case want.AverageUtilization != nil:
		if have != nil && have.AverageUtilization != nil {
			now = fmt.Sprintf("%d%%", *have.AverageUtilization)
		}
		return fmt.Sprintf("%s%s/%d%%", prefix, now, *want.AverageUtilization)
	}
	return prefix + now + "/<auto>"
}
