package strategy

import (
	"reflect"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var deployments = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}

func TestDeployment(t *testing.T) {
	s := For(deployments)
	d := &appsv1.Deployment{Status: appsv1.DeploymentStatus{Replicas: 3}}
	s.PrepareCreate(d)
	if d.Generation != 1 || d.Status.Replicas != 0 {
		t.Fatalf("created: generation %d, status %+v", d.Generation, d.Status)
	}
	for name, c := range map[string]struct {
		change func(*appsv1.Deployment)
		want   int64
	}{
		"labels":      {func(d *appsv1.Deployment) { d.Labels = map[string]string{"a": "b"} }, 1},
		"annotations": {func(d *appsv1.Deployment) { d.Annotations = map[string]string{"a": "b"} }, 2},
		"spec":        {func(d *appsv1.Deployment) { d.Spec.Paused = true }, 2},
		"status":      {func(d *appsv1.Deployment) { d.Status.Replicas = 7 }, 1},
	} {
		n := d.DeepCopy()
		c.change(n)
		s.PrepareUpdate(n, d)
		if n.Generation != c.want || n.Status.Replicas != 0 {
			t.Errorf("%s: generation %d, want %d; status %+v", name, n.Generation, c.want, n.Status)
		}
	}
	n := d.DeepCopy()
	n.Labels, n.Spec.Paused, n.Status.Replicas = map[string]string{"a": "b"}, true, 7
	s.Sub["status"](n, d)
	if n.Labels != nil || n.Spec.Paused || n.Status.Replicas != 7 || n.Generation != 1 {
		t.Errorf("status write = %+v", n)
	}
}

func TestPod(t *testing.T) {
	s := For(schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	p := &corev1.Pod{Spec: corev1.PodSpec{ServiceAccountName: "x", SchedulingGates: []corev1.PodSchedulingGate{{Name: "g"}}}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	s.PrepareCreate(p)
	if p.Status.Phase != corev1.PodPending || len(p.Status.Conditions) != 1 || p.Spec.DeprecatedServiceAccount != "x" || p.Status.QOSClass != corev1.PodQOSBestEffort {
		t.Errorf("created = %+v", p)
	}
	n := p.DeepCopy()
	n.OwnerReferences = []metav1.OwnerReference{{Name: "thief"}}
	n.Spec.NodeName, n.Status.PodIP = "elsewhere", "10.1.1.1"
	s.Sub["status"](n, p)
	if n.OwnerReferences != nil || n.Spec.NodeName != "" || len(n.Status.PodIPs) != 1 || n.Status.QOSClass == "" {
		t.Errorf("status write = %+v", n)
	}
}

func TestQOS(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		l := corev1.ResourceList{}
		if cpu != "" {
			l["cpu"] = resource.MustParse(cpu)
		}
		if memory != "" {
			l["memory"] = resource.MustParse(memory)
		}
		return l
	}
	for _, c := range []struct {
		limits, requests corev1.ResourceList
		want             corev1.PodQOSClass
	}{
		{nil, nil, corev1.PodQOSBestEffort},
		{list("1", "1Gi"), nil, corev1.PodQOSGuaranteed},
		{list("1", "1Gi"), list("1", "1Gi"), corev1.PodQOSGuaranteed},
		{list("1", "1Gi"), list("500m", "1Gi"), corev1.PodQOSBurstable},
		{list("1", ""), list("1", ""), corev1.PodQOSBurstable},
	} {
		s := &corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Limits: c.limits, Requests: c.requests}}}}
		if got := QOS(s); got != c.want {
			t.Errorf("QOS(%v, %v) = %s, want %s", c.limits, c.requests, got, c.want)
		}
	}
}

func TestServiceKeepsAllocated(t *testing.T) {
	s := For(schema.GroupVersionKind{Version: "v1", Kind: "Service"})
	old := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: "10.0.0.5", ClusterIPs: []string{"10.0.0.5"}, Ports: []corev1.ServicePort{{Port: 80, Protocol: "TCP", NodePort: 30080}}}}
	n := old.DeepCopy()
	n.Spec.ClusterIP, n.Spec.ClusterIPs, n.Spec.Ports[0].NodePort = "", nil, 0
	s.PrepareUpdate(n, old)
	if n.Spec.ClusterIP != "10.0.0.5" || n.Spec.Ports[0].NodePort != 30080 {
		t.Errorf("put back = %+v", n.Spec)
	}
	n = old.DeepCopy()
	n.Spec.Type = corev1.ServiceTypeClusterIP
	s.PrepareUpdate(n, old)
	if n.Spec.Ports[0].NodePort != 0 {
		t.Errorf("to ClusterIP = %+v", n.Spec)
	}
}

func TestJobLabels(t *testing.T) {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", UID: "u"}}
	For(schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"}).PrepareCreate(j)
	if j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] != "u" || j.Spec.Template.Labels["job-name"] != "j" {
		t.Errorf("job = %+v", j.Spec)
	}
}

func TestUnknownKindKeepsEverything(t *testing.T) {
	s := For(schema.GroupVersionKind{Kind: "Nothing"})
	c := &corev1.ConfigMap{Data: map[string]string{"a": "b"}}
	s.PrepareCreate(c)
	s.PrepareUpdate(c, c)
	s.Canonicalize(c)
	if c.Data["a"] != "b" || s.GenerationOf || !s.AllowUnconditionalUpdate {
		t.Errorf("strategy = %+v, object = %+v", s, c)
	}
}

func TestSliceGenerations(t *testing.T) {
	s := For(schema.GroupVersionKind{Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice"})
	old := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Generation: 1}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}}}
	for name, c := range map[string]struct {
		change func(*discoveryv1.EndpointSlice)
		want   int64
	}{
		"nothing":    {func(*discoveryv1.EndpointSlice) {}, 1},
		"annotation": {func(e *discoveryv1.EndpointSlice) { e.Annotations = map[string]string{"a": "b"} }, 1},
		"label":      {func(e *discoveryv1.EndpointSlice) { e.Labels = map[string]string{"a": "b"} }, 2},
		"endpoint":   {func(e *discoveryv1.EndpointSlice) { e.Endpoints = nil }, 2},
		"topology":   {func(e *discoveryv1.EndpointSlice) { e.Endpoints[0].DeprecatedTopology = map[string]string{"a": "b"} }, 2},
	} {
		n := old.DeepCopy()
		c.change(n)
		s.PrepareUpdate(n, old)
		if n.Generation != c.want || len(n.Endpoints) > 0 && n.Endpoints[0].DeprecatedTopology != nil {
			t.Errorf("%s: generation %d, want %d; %+v", name, n.Generation, c.want, n.Endpoints)
		}
	}
}

func TestRequestsKeepDecisions(t *testing.T) {
	s := For(schema.GroupVersionKind{Group: "certificates.k8s.io", Version: "v1", Kind: "CertificateSigningRequest"})
	at := metav1.NewTime(time.Unix(1, 0))
	c := func(t certv1.RequestConditionType, reason string) certv1.CertificateSigningRequestCondition {
		return certv1.CertificateSigningRequestCondition{Type: t, Reason: reason, LastUpdateTime: at, LastTransitionTime: at}
	}
	old := &certv1.CertificateSigningRequest{}
	old.Status.Conditions = []certv1.CertificateSigningRequestCondition{c(certv1.CertificateApproved, "old")}
	for _, x := range []struct {
		sent, want []certv1.CertificateSigningRequestCondition
	}{
		{[]certv1.CertificateSigningRequestCondition{c("Failed", "x"), c(certv1.CertificateApproved, "new")}, []certv1.CertificateSigningRequestCondition{c("Failed", "x"), c(certv1.CertificateApproved, "old")}},
		// gone: it is validation that refuses
		{[]certv1.CertificateSigningRequestCondition{c("Failed", "x")}, []certv1.CertificateSigningRequestCondition{c("Failed", "x")}},
	} {
		n := old.DeepCopy()
		n.Status.Conditions = x.sent
		n.Status.Certificate = []byte("c")
		s.Sub["status"](n, old)
		if !reflect.DeepEqual(n.Status.Conditions, x.want) || string(n.Status.Certificate) != "c" {
			t.Errorf("sent %+v: kept %+v", x.sent, n.Status)
		}
	}
}
