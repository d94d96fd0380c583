package controller

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/controller/controllertest"
)

func TestEnabled(t *testing.T) {
	for _, c := range []struct {
		only []string
		name string
		want bool
	}{
		{nil, "a", true}, {[]string{"*"}, "a", true}, {[]string{"a"}, "a", true}, {[]string{"a"}, "b", false},
		{[]string{"*", "-a"}, "a", false}, {[]string{"*", "-a"}, "b", true}, {[]string{"-a"}, "b", false},
	} {
		if got := enabled(c.only, c.name); got != c.want {
			t.Errorf("%v %s: %v", c.only, c.name, got)
		}
	}
	if Check([]string{"*", "-job-controller"}) != nil || Check([]string{"no-such"}) == nil {
		t.Error("Check")
	}
}

// runAll runs every controller until the test ends.
func runAll(t *testing.T, s *controllertest.Server, o Options) {
	t.Helper()
	o.Transport = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func live(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}},
		Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive}}
}

func TestWholeSet(t *testing.T) {
	ctx := context.Background()
	n := int32(3)
	l := map[string]string{"app": "web"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "a"}, Spec: appsv1.DeploymentSpec{Replicas: &n,
		Selector: &metav1.LabelSelector{MatchLabels: l}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}}}}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "a"}, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.9", Selector: l,
		Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}}}
	part := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "part", Labels: map[string]string{"to": "sum"}}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}}
	sum := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "sum"}, AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: part.Labels}}}}
	s := controllertest.New(live("a"), live("b"), d, svc, part, sum, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}})
	runAll(t, s, Options{ClusterCIDR: netip.MustParsePrefix("10.42.0.0/16"), RootCA: []byte("CA"), LeaderElect: true, Identity: "me"})

	controllertest.Eventually(t, "nodes have ranges", func() bool {
		var got []string
		for _, n := range controllertest.All[*corev1.Node](s, "") {
			got = append(got, n.Spec.PodCIDR)
		}
		slices.Sort(got)
		return slices.Equal(got, []string{"10.42.0.0/24", "10.42.1.0/24"})
	})
	controllertest.Eventually(t, "namespaces have account and certificate", func() bool {
		cms := controllertest.All[*corev1.ConfigMap](s, "")
		return len(controllertest.All[*corev1.ServiceAccount](s, "")) == 2 && len(cms) == 2 && cms[0].Data["ca.crt"] == "CA"
	})
	controllertest.Eventually(t, "the role is aggregated", func() bool {
		return len(controllertest.MustGet[*rbacv1.ClusterRole](s, "", "sum").Rules) == 1
	})
	controllertest.Eventually(t, "pods", func() bool { return len(controllertest.All[*corev1.Pod](s, "a")) == 3 })
	for i, p := range controllertest.All[*corev1.Pod](s, "a") {
		controllertest.SetReady(t, s, p, netip.AddrFrom4([4]byte{10, 42, 0, byte(2 + i)}).String(), true)
	}
	ready := func() (n int) {
		for _, e := range controllertest.All[*discoveryv1.EndpointSlice](s, "a") {
			for _, x := range e.Endpoints {
				if *x.Conditions.Ready {
					n++
				}
			}
		}
		return n
	}
	controllertest.Eventually(t, "endpoints", func() bool {
		eps, err := client.Of[*corev1.Endpoints](s).Get(ctx, "a", "web")
		return err == nil && len(eps.Subsets) == 1 && len(eps.Subsets[0].Addresses) == 3 && ready() == 3
	})
	controllertest.Eventually(t, "the deployment is available", func() bool {
		return controllertest.MustGet[*appsv1.Deployment](s, "a", "web").Status.AvailableReplicas == 3
	})

	if err := client.Of[*corev1.Namespace](s).Delete(ctx, "", "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Eventually(t, "the namespace goes", func() bool {
		_, err := client.Of[*corev1.Namespace](s).Get(ctx, "", "a")
		return apierrors.IsNotFound(err)
	})
	if n := len(controllertest.All[*corev1.Pod](s, "a")) + len(controllertest.All[*appsv1.Deployment](s, "a")); n != 0 {
		t.Errorf("%d objects outlive their namespace", n)
	}
}

func TestDeploymentDeletedInBackground(t *testing.T) {
	n := int32(2)
	l := map[string]string{"app": "web"}
	s := controllertest.New(live("a"), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "a"}, Spec: appsv1.DeploymentSpec{Replicas: &n,
		Selector: &metav1.LabelSelector{MatchLabels: l}, Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}}}})
	runAll(t, s, Options{})
	controllertest.Eventually(t, "pods", func() bool { return len(controllertest.All[*corev1.Pod](s, "a")) == 2 })
	if err := client.Of[*appsv1.Deployment](s).Delete(context.Background(), "a", "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Eventually(t, "all go", func() bool {
		return len(controllertest.All[*corev1.Pod](s, "a"))+len(controllertest.All[*appsv1.ReplicaSet](s, "a")) == 0
	})
}

func TestClaim(t *testing.T) {
	now := time.Unix(1000, 0)
	lease := claim(leaseName, nil, "a", time.Time{}, now)
	if claim(leaseName, lease, "b", now, now.Add(14*time.Second)) != nil {
		t.Error("b takes a lease that is still valid")
	}
	got := claim(leaseName, lease, "b", now, now.Add(16*time.Second))
	if got == nil || *got.Spec.HolderIdentity != "b" || *got.Spec.LeaseTransitions != 1 {
		t.Errorf("b does not take over: %+v", got)
	}
	if again := claim(leaseName, lease, "a", now, now.Add(time.Second)); again == nil || *again.Spec.LeaseTransitions != 0 || !again.Spec.AcquireTime.Equal(lease.Spec.AcquireTime) {
		t.Errorf("renewal: %+v", again)
	}
	free := &coordv1.Lease{}
	if claim(leaseName, free, "b", now, now) == nil {
		t.Error("a lease without holder is not taken")
	}
}
