package defaults

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestPullPolicy(t *testing.T) {
	long := "registry.example/"
	for len(long) < 300 {
		long += "a"
	}
	for image, want := range map[string]corev1.PullPolicy{
		"busybox": corev1.PullAlways, "busybox:latest": corev1.PullAlways, "busybox:1.36": corev1.PullIfNotPresent,
		"localhost:5000/app": corev1.PullAlways, "localhost:5000/app:v1": corev1.PullIfNotPresent,
		"app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef": corev1.PullIfNotPresent,
		"Not_Valid/!": corev1.PullIfNotPresent, long: corev1.PullIfNotPresent, "": corev1.PullIfNotPresent,
	} {
		if got := pullPolicy(image); got != want {
			t.Errorf("pullPolicy(%q) = %s, want %s", image, got, want)
		}
	}
}

func TestPod(t *testing.T) {
	p := &corev1.Pod{Spec: corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{Name: "c", Image: "c:1", Ports: []corev1.ContainerPort{{ContainerPort: 80}},
		Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}}}
	For(schema.GroupVersionKind{Version: "v1", Kind: "Pod"})(p)
	c := p.Spec.Containers[0]
	if q := c.Resources.Requests["cpu"]; q.String() != "1" {
		t.Errorf("request = %s, want the limit", q.String())
	}
	if c.Ports[0].HostPort != 80 || c.Ports[0].Protocol != corev1.ProtocolTCP {
		t.Errorf("port = %+v", c.Ports[0])
	}
	if p.Spec.EnableServiceLinks == nil || !*p.Spec.EnableServiceLinks || p.Spec.SecurityContext == nil || *p.Spec.TerminationGracePeriodSeconds != 30 {
		t.Errorf("pod spec = %+v", p.Spec)
	}
}

// A template must not get what only pods get: it would show as a change of the template.
func TestTemplateHasNoPodDefaults(t *testing.T) {
	d := &appsv1.Deployment{}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Image: "c", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1")}}}}
	For(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"})(d)
	s := d.Spec.Template.Spec
	if s.EnableServiceLinks != nil || s.Containers[0].Resources.Requests != nil {
		t.Errorf("template spec = %+v", s)
	}
	if *d.Spec.Replicas != 1 || d.Spec.Strategy.RollingUpdate.MaxSurge.String() != "25%" {
		t.Errorf("deployment spec = %+v", d.Spec)
	}
}

func TestService(t *testing.T) {
	s := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}, SessionAffinity: corev1.ServiceAffinityClientIP}}
	For(schema.GroupVersionKind{Version: "v1", Kind: "Service"})(s)
	if s.Spec.Ports[0].TargetPort.IntValue() != 80 || !*s.Spec.AllocateLoadBalancerNodePorts || *s.Spec.SessionAffinityConfig.ClientIP.TimeoutSeconds != 10800 ||
		s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyCluster {
		t.Errorf("spec = %+v", s.Spec)
	}
}

func TestJobAndBinding(t *testing.T) {
	j := &batchv1.Job{}
	j.Spec.BackoffLimitPerIndex = new(int32)
	For(schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"})(j)
	if *j.Spec.BackoffLimit < 1<<30 || *j.Spec.Completions != 1 {
		t.Errorf("job spec = %+v", j.Spec)
	}
	b := &rbacv1.RoleBinding{Subjects: []rbacv1.Subject{{Kind: "User"}, {Kind: "ServiceAccount"}}}
	For(schema.GroupVersionKind{Group: rbacv1.GroupName, Version: "v1", Kind: "RoleBinding"})(b)
	if b.RoleRef.APIGroup != rbacv1.GroupName || b.Subjects[0].APIGroup != rbacv1.GroupName || b.Subjects[1].APIGroup != "" {
		t.Errorf("binding = %+v", b)
	}
	if For(schema.GroupVersionKind{Kind: "Nothing"}) != nil {
		t.Error("an unknown kind has defaults")
	}
}

func TestDaemonSetsCountTemplates(t *testing.T) {
	set := For(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "DaemonSet"})
	given := map[string]string{"a": "b"}
	d := &appsv1.DaemonSet{}
	d.Annotations = given
	set(d)
	if d.Annotations[appsv1.DeprecatedTemplateGeneration] != "0" || d.Annotations["a"] != "b" || len(given) != 1 {
		t.Errorf("annotations = %v, given %v", d.Annotations, given)
	}
	d.Annotations[appsv1.DeprecatedTemplateGeneration] = "7"
	if set(d); d.Annotations[appsv1.DeprecatedTemplateGeneration] != "7" {
		t.Errorf("annotations = %v", d.Annotations)
	}
}

func TestStatefulSet(t *testing.T) {
	set := For(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "StatefulSet"})
	s := &appsv1.StatefulSet{}
	s.Spec.VolumeClaimTemplates = make([]corev1.PersistentVolumeClaim, 1)
	s.Spec.VolumeClaimTemplates[0].Kind = "Other"
	set(s)
	if s.Spec.UpdateStrategy.RollingUpdate == nil || *s.Spec.UpdateStrategy.RollingUpdate.Partition != 0 || s.Spec.VolumeClaimTemplates[0].Kind != "PersistentVolumeClaim" {
		t.Errorf("spec = %+v", s.Spec)
	}
	s = &appsv1.StatefulSet{}
	s.Spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
	if set(s); s.Spec.UpdateStrategy.RollingUpdate != nil {
		t.Errorf("strategy = %+v", s.Spec.UpdateStrategy)
	}
}
