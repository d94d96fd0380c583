package warnings

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestFor(t *testing.T) {
	negative, near := int64(-1), corev1.ServiceTrafficDistributionPreferClose
	busy := corev1.PodSpec{TerminationGracePeriodSeconds: &negative,
		HostAliases:               []corev1.HostAlias{{IP: "10.0.0.1"}, {IP: "10.0.0.1"}},
		ImagePullSecrets:          []corev1.LocalObjectReference{{Name: "a"}, {Name: "a"}, {}},
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{}},
		Volumes: []corev1.Volume{{Name: "r", VolumeSource: corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{}}}, {Name: "p", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}, Items: []corev1.KeyToPath{{Path: "d"}, {Path: "d/e"}, {Path: "de"}}}}}},
		Containers: []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "$(A)2"}, {Name: "A", Value: "3"}},
			Ports: []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 80}}}}}
	said := []string{
		"spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
		`spec.hostAliases[1].ip: duplicate ip "10.0.0.1"`,
		"spec.volumes[0].rbd: deprecated in v1.28, non-functional in v1.31+",
		`volume "p" (Projected) has no sources provided`,
		`volume "c" (ConfigMap "m"): overlapping paths: "d/e" with "d"`,
		`spec.imagePullSecrets[1].name: duplicate name "a"`,
		`spec.imagePullSecrets[2].name: invalid empty name ""`,
		`spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply`,
		"spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
		"spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
	}
	for _, c := range []struct {
		name     string
		obj, old runtime.Object
		want     []string
	}{
		{"quiet pod", &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}, nil, nil},
		{"busy pod", &corev1.Pod{Spec: busy}, nil, said},
		{"busy pod, again", &corev1.Pod{Spec: busy}, &corev1.Pod{Spec: busy}, nil},
		{"template", &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &negative}}}}, nil,
			[]string{"spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"}},
		{"service", &corev1.Service{Spec: corev1.ServiceSpec{ExternalIPs: []string{"192.0.2.1"}, ExternalName: "x", TrafficDistribution: &near}}, nil, []string{
			"spec.externalIPs is deprecated and may no longer be implemented in some clusters", `spec.externalName is ignored when spec.type is not "ExternalName"`,
			`spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"`}},
		{"secret", &corev1.Secret{Type: corev1.SecretTypeTLS}, nil, []string{"tls: failed to find any PEM data in certificate input"}},
		{"slice", &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeFQDN}, nil, []string{"spec.addressType: FQDN endpoints are deprecated"}},
		{"account", &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{enforceMountable: "true"}}}, &corev1.ServiceAccount{},
			[]string{"metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}},
	} {
		if got := For(c.obj, c.old); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q\nwant %q", c.name, got, c.want)
		}
	}
	if Deprecated(corev1.SchemeGroupVersion.WithResource("endpoints")) == "" || Deprecated(corev1.SchemeGroupVersion.WithResource("pods")) != "" {
		t.Error("endpoints are deprecated, pods are not")
	}
	if ForDelete(batchv1.SchemeGroupVersion.WithKind("Job").GroupKind()) == "" || ForDelete(corev1.SchemeGroupVersion.WithKind("Pod").GroupKind()) != "" {
		t.Error("jobs keep their pods, pods keep nothing")
	}
}
