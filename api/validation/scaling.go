package validation

import (
	"fmt"
	"strings"

	asv1 "k8s.io/api/autoscaling/v1"
	asv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addScaling(t table) {
	rule(t, "autoscaling", "v2", "HorizontalPodAutoscaler", true, subdomain, func(o *asv2.HorizontalPodAutoscaler) errors { return hpaSpec(&o.Spec, field.NewPath("spec")) }, nil,
		onSub("status", func(o, _ *asv2.HorizontalPodAutoscaler) errors {
			return counts(field.NewPath("status"), map[string]int64{"currentReplicas": int64(o.Status.CurrentReplicas), "desiredReplicas": int64(o.Status.DesiredReplicas)})
		}))
	rule(t, "autoscaling", "v1", "HorizontalPodAutoscaler", true, subdomain, func(o *asv1.HorizontalPodAutoscaler) errors {
		// judged, and reported, as what it means in v2
		s := asv2.HorizontalPodAutoscalerSpec{MinReplicas: o.Spec.MinReplicas, MaxReplicas: o.Spec.MaxReplicas,
			ScaleTargetRef: asv2.CrossVersionObjectReference{Kind: o.Spec.ScaleTargetRef.Kind, Name: o.Spec.ScaleTargetRef.Name, APIVersion: o.Spec.ScaleTargetRef.APIVersion}}
		if p := o.Spec.TargetCPUUtilizationPercentage; p != nil {
			s.Metrics = []asv2.MetricSpec{{Type: asv2.ResourceMetricSourceType, Resource: &asv2.ResourceMetricSource{Name: corev1.ResourceCPU,
				Target: asv2.MetricTarget{Type: asv2.UtilizationMetricType, AverageUtilization: p}}}}
		}
		return hpaSpec(&s, field.NewPath("spec"))
	}, nil)
	rule(t, "policy", "v1", "PodDisruptionBudget", true, subdomain, disruptionBudget, nil, onSub("status", func(o, _ *policyv1.PodDisruptionBudget) errors {
		s, p := o.Status, field.NewPath("status")
		return append(metavalidation.ValidateConditions(s.Conditions, p.Child("conditions")), counts(p, map[string]int64{"disruptionsAllowed": int64(s.DisruptionsAllowed), "currentHealthy": int64(s.CurrentHealthy), "desiredHealthy": int64(s.DesiredHealthy), "expectedPods": int64(s.ExpectedPods)})...)
	}))
	rule(t, "autoscaling", "v1", "Scale", true, subdomain, func(o *asv1.Scale) errors {
		return nonNegative(field.NewPath("spec", "replicas"), o.Spec.Replicas)
	}, nil)
}

func disruptionBudget(o *policyv1.PodDisruptionBudget) errors {
	p, s := field.NewPath("spec"), &o.Spec
	var errs errors
	if s.MinAvailable != nil && s.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(p, s, "minAvailable and maxUnavailable cannot be both set"))
	}
	for _, f := range []struct {
		name string
		v    *intstr.IntOrString
	}{{"minAvailable", s.MinAvailable}, {"maxUnavailable", s.MaxUnavailable}} {
		if f.v != nil {
			errs = append(errs, percentOrCount(p.Child(f.name), *f.v)...)
			errs = append(errs, atMostHundred(p.Child(f.name), *f.v)...)
		}
	}
	errs = append(errs, labelSelector(p.Child("selector"), s.Selector)...)
	if u := s.UnhealthyPodEvictionPolicy; u != nil {
		errs = append(errs, oneOf(p.Child("unhealthyPodEvictionPolicy"), *u, policyv1.AlwaysAllow, policyv1.IfHealthyBudget)...)
	}
	return errs
}

func hpaSpec(s *asv2.HorizontalPodAutoscalerSpec, p *field.Path) errors {
	var errs errors
	least := int32(1)
	if s.MinReplicas != nil && *s.MinReplicas < least {
		errs = append(errs, field.Invalid(p.Child("minReplicas"), *s.MinReplicas, fmt.Sprintf("must be greater than or equal to %d", least)))
	}
	if s.MaxReplicas == 0 {
		errs = append(errs, field.Required(p.Child("maxReplicas"), "must be set and greater than 0"))
	} else if s.MaxReplicas < 0 {
		errs = append(errs, field.Invalid(p.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to 1"))
	}
	if s.MinReplicas != nil && s.MaxReplicas < *s.MinReplicas {
		errs = append(errs, field.Invalid(p.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	errs = append(errs, scaleTarget(&s.ScaleTargetRef, p.Child("scaleTargetRef"))...)
	errs = append(errs, metrics(s, p.Child("metrics"))...)
	if b := s.Behavior; b != nil {
		errs = append(errs, scalingRules(b.ScaleUp, p.Child("behavior", "scaleUp"))...)
		errs = append(errs, scalingRules(b.ScaleDown, p.Child("behavior", "scaleDown"))...)
	}
	return errs
}

// plainSegment checks a name that becomes a part of a path.
func plainSegment(p *field.Path, v, missing string) errors {
	if v == "" {
		return errors{field.Required(p, missing)}
	}
	return invalid(p, v, segment(v, false))
}

func objectRef(kind, name string, p *field.Path) errors {
	return append(plainSegment(p.Child("kind"), kind, ""), plainSegment(p.Child("name"), name, "")...)
}

// scaleTarget judges what is scaled. Of the core group, which has no name, only one kind can be.
func scaleTarget(r *asv2.CrossVersionObjectReference, p *field.Path) errors {
	errs := append(objectRef(r.Kind, r.Name, p), groupVersion(r.APIVersion, p.Child("apiVersion"))...)
	if gv, err := schema.ParseGroupVersion(r.APIVersion); err == nil && gv.Group == "" && r.Kind != "ReplicationController" {
		errs = append(errs, field.Invalid(p.Child("apiVersion"), r.APIVersion, "apiVersion must specify API group"))
	}
	return errs
}

func groupVersion(v string, p *field.Path) errors {
	if _, err := schema.ParseGroupVersion(v); err != nil {
		return errors{field.Invalid(p, v, err.Error())}
	}
	return nil
}

func metrics(s *asv2.HorizontalPodAutoscalerSpec, p *field.Path) errors {
	var errs errors
	scalable := false
	for i := range s.Metrics {
		m := &s.Metrics[i]
		errs = append(errs, metric(m, p.Index(i))...)
		scalable = scalable || m.Type == asv2.ObjectMetricSourceType || m.Type == asv2.ExternalMetricSourceType
	}
	if s.MinReplicas != nil && *s.MinReplicas == 0 && !scalable {
		errs = append(errs, field.Forbidden(p, "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	return errs
}

func metric(m *asv2.MetricSpec, p *field.Path) errors {
	var errs errors
	if m.Type == "" {
		errs = append(errs, field.Required(p.Child("type"), "must specify a metric source type"))
	}
	// an unknown type is found twice: once by itself, once for want of a source to expect
	for range 2 {
		errs = append(errs, oneOf(p.Child("type"), m.Type, asv2.ContainerResourceMetricSourceType, asv2.ExternalMetricSourceType, asv2.ObjectMetricSourceType, asv2.PodsMetricSourceType, asv2.ResourceMetricSourceType)...)
	}
	sources := []struct {
		set   bool
		kind  asv2.MetricSourceType
		name  string
		check func(p *field.Path) errors
	}{
		{m.Object != nil, asv2.ObjectMetricSourceType, "object", func(p *field.Path) errors { return objectMetric(m.Object, p) }},
		{m.External != nil, asv2.ExternalMetricSourceType, "external", func(p *field.Path) errors { return externalMetric(m.External, p) }},
		{m.Pods != nil, asv2.PodsMetricSourceType, "pods", func(p *field.Path) errors { return podsMetric(m.Pods, p) }},
		{m.Resource != nil, asv2.ResourceMetricSourceType, "resource", func(p *field.Path) errors {
			errs := need(p.Child("name"), string(m.Resource.Name), "must specify a resource name")
			return append(errs, resourceTarget(&m.Resource.Target, p.Child("target"))...)
		}},
		{m.ContainerResource != nil, asv2.ContainerResourceMetricSourceType, "containerResource", func(p *field.Path) errors {
			c := m.ContainerResource
			var errs errors
			if c.Name == "" {
				errs = append(errs, field.Required(p.Child("name"), "must specify a resource name"))
			} else {
				errs = append(errs, containerMetricName(c.Name, p.Child("name"))...)
			}
			if c.Container == "" {
				errs = append(errs, field.Required(p.Child("container"), "must specify a container"))
			} else {
				errs = append(errs, dnsLabel(p.Child("container"), c.Container)...)
			}
			return append(errs, resourceTarget(&c.Target, p.Child("target"))...)
		}},
	}
	found := []string{}
	expected := ""
	for _, s := range sources {
		if s.kind == m.Type {
			expected = s.name
		}
		if !s.set {
			continue
		}
		if found = append(found, s.name); len(found) == 1 {
			errs = append(errs, s.check(p.Child(s.name))...)
		}
	}
	if expected != "" && !contains(found, expected) {
		errs = append(errs, field.Required(p.Child(expected), "must populate information for the given metric source"))
	}
	if len(found) > 1 {
		for _, name := range found {
			if name != expected {
				errs = append(errs, field.Forbidden(p.Child(name), "must populate the given metric source only"))
			}
		}
	}
	return errs
}

// containerMetricName is both a resource's name and one a container can have.
func containerMetricName(n corev1.ResourceName, p *field.Path) errors {
	errs := resourceName(n, p)
	if !strings.Contains(string(n), "/") && !containerStandard(n) {
		errs = append(errs, field.Invalid(p, n, "must be a standard resource for containers"))
	}
	return errs
}

func identifier(m *asv2.MetricIdentifier, p *field.Path) errors {
	return plainSegment(p.Child("name"), m.Name, "must specify a metric name")
}

func objectMetric(m *asv2.ObjectMetricSource, p *field.Path) errors {
	at := p.Child("describedObject")
	errs := append(objectRef(m.DescribedObject.Kind, m.DescribedObject.Name, at), groupVersion(m.DescribedObject.APIVersion, at.Child("apiVersion"))...)
	errs = append(errs, identifier(&m.Metric, p.Child("metric"))...)
	errs = append(errs, metricTarget(&m.Target, p.Child("target"))...)
	if m.Target.Value == nil && m.Target.AverageValue == nil {
		errs = append(errs, field.Required(p.Child("target", "averageValue"), "must set either a target value or averageValue"))
	}
	return errs
}

func podsMetric(m *asv2.PodsMetricSource, p *field.Path) errors {
	errs := identifier(&m.Metric, p.Child("metric"))
	errs = append(errs, metricTarget(&m.Target, p.Child("target"))...)
	if v := m.Target.AverageValue; v == nil || v.Sign() != 1 {
		errs = append(errs, field.Required(p.Child("target", "averageValue"), "must specify a positive target averageValue"))
	}
	return errs
}

func externalMetric(m *asv2.ExternalMetricSource, p *field.Path) errors {
	errs := identifier(&m.Metric, p.Child("metric"))
	errs = append(errs, metricTarget(&m.Target, p.Child("target"))...)
	if m.Target.Value == nil && m.Target.AverageValue == nil {
		errs = append(errs, field.Required(p.Child("target", "averageValue"), "must set either a target value for metric or a per-pod target"))
	}
	if m.Target.Value != nil && m.Target.AverageValue != nil {
		errs = append(errs, field.Forbidden(p.Child("target", "value"), "may not set both a target value for metric and a per-pod target"))
	}
	return errs
}

func resourceTarget(t *asv2.MetricTarget, p *field.Path) errors {
	errs := metricTarget(t, p)
	if t.AverageUtilization == nil && t.AverageValue == nil {
		errs = append(errs, field.Required(p.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	}
	if t.AverageUtilization != nil && t.AverageValue != nil {
		errs = append(errs, field.Forbidden(p.Child("averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func metricTarget(t *asv2.MetricTarget, p *field.Path) errors {
	var errs errors
	if t.Type == "" {
		errs = append(errs, field.Required(p.Child("type"), "must specify a metric target type"))
	}
	switch t.Type {
	case asv2.UtilizationMetricType, asv2.ValueMetricType, asv2.AverageValueMetricType:
	default:
		errs = append(errs, field.Invalid(p.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
	}
	positive := func(name string, q *resource.Quantity) {
		if q != nil && q.Sign() != 1 {
			errs = append(errs, field.Invalid(p.Child(name), q, "must be positive"))
		}
	}
	positive("value", t.Value)
	if u := t.AverageUtilization; u != nil && *u < 1 {
		errs = append(errs, field.Invalid(p.Child("averageUtilization"), *u, "must be greater than 0"))
	}
	positive("averageValue", t.AverageValue)
	return errs
}

func scalingRules(r *asv2.HPAScalingRules, p *field.Path) errors {
	if r == nil {
		return nil
	}
	var errs errors
	if w := r.StabilizationWindowSeconds; w != nil {
		if *w < 0 {
			errs = append(errs, field.Invalid(p.Child("stabilizationWindowSeconds"), *w, "must be greater than or equal to zero"))
		}
		if *w > 3600 {
			errs = append(errs, field.Invalid(p.Child("stabilizationWindowSeconds"), *w, "must be less than or equal to 3600"))
		}
	}
	if s := r.SelectPolicy; s != nil {
		errs = append(errs, oneOf(p.Child("selectPolicy"), *s, asv2.DisabledPolicySelect, asv2.MaxChangePolicySelect, asv2.MinChangePolicySelect)...)
	}
	at := p.Child("policies")
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(at, "must specify at least one Policy"))
	}
	for i, c := range r.Policies {
		q := at.Index(i)
		errs = append(errs, oneOf(q.Child("type"), c.Type, asv2.PercentScalingPolicy, asv2.PodsScalingPolicy)...)
		if c.Value <= 0 {
			errs = append(errs, field.Invalid(q.Child("value"), c.Value, "must be greater than zero"))
		}
		if c.PeriodSeconds <= 0 {
			errs = append(errs, field.Invalid(q.Child("periodSeconds"), c.PeriodSeconds, "must be greater than zero"))
		}
		if c.PeriodSeconds > 1800 {
			errs = append(errs, field.Invalid(q.Child("periodSeconds"), c.PeriodSeconds, "must be less than or equal to 1800"))
		}
	}
	if t := r.Tolerance; t != nil && t.Sign() < 0 {
		errs = append(errs, field.Invalid(p.Child("tolerance"), t.String(), "must be greater than or equal to 0"))
	}
	return errs
}
