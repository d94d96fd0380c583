package apiserver

import (
	"net/http"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// TestBootstrapAgain changes and removes what every cluster has, and starts as after an upgrade: what is missing comes back,
// what people added stays, and what they took out of the server's hands is left alone.
func TestBootstrapAgain(t *testing.T) {
	r := start(t)
	const roles, bindings = "/apis/rbac.authorization.k8s.io/v1/clusterroles/", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/"
	role := func(name string) (c rbacv1.ClusterRole) {
		t.Helper()
		r.must(http.StatusOK, &c, "GET", roles+name, "")
		return c
	}
	patch := func(path, body string) { t.Helper(); r.must(http.StatusOK, nil, "PATCH", path, body, merge) }
	drainer, scheduler := role("system:node"), role("system:kube-scheduler")
	patch(roles+"system:node", `{"rules":[{"verbs":["get"],"apiGroups":["example.com"],"resources":["gadgets"]}],"metadata":{"labels":{"kubernetes.io/bootstrapping":null}}}`)
	patch(roles+"system:kube-scheduler", `{"rules":[],"metadata":{"annotations":{"rbac.authorization.kubernetes.io/autoupdate":"false"}}}`)
	patch(roles+"admin", `{"aggregationRule":null}`)
	patch(bindings+"system:discovery", `{"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"jane"}]}`)
	r.must(http.StatusOK, nil, "DELETE", roles+"view", "")
	r.must(http.StatusOK, nil, "DELETE", "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical", "")
	if err := r.bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	node := role("system:node")
	if len(node.Rules) != len(drainer.Rules)+1 || node.Rules[0].Resources[0] != "gadgets" || node.Labels["kubernetes.io/bootstrapping"] == "" {
		t.Errorf("system:node has %d rules and labels %v, it had %d and one was added", len(node.Rules), node.Labels, len(drainer.Rules))
	}
	if got := role("system:kube-scheduler"); len(got.Rules) != 0 || len(scheduler.Rules) == 0 {
		t.Errorf("a role that is not to be updated got its rules back: %d", len(got.Rules))
	}
	if role("admin").AggregationRule == nil || role("view").AggregationRule == nil {
		t.Error("admin and view are not put together from others any more")
	}
	var b rbacv1.ClusterRoleBinding
	r.must(http.StatusOK, &b, "GET", bindings+"system:discovery", "")
	names := func() (out []string) {
		for _, s := range b.Subjects {
			out = append(out, s.Name)
		}
		return out
	}
	if !slices.Contains(names(), "jane") || !slices.Contains(names(), "system:authenticated") {
		t.Errorf("system:discovery is bound to %v", names())
	}
	r.must(http.StatusOK, nil, "GET", "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical", "")
	before := role("system:node").ResourceVersion
	if err := r.bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := role("system:node").ResourceVersion; after != before {
		t.Error("a third start wrote what had not changed")
	}
}

// TestOwnEndpoints moves the server to other addresses: the kubernetes Service leads to where it is.
func TestOwnEndpoints(t *testing.T) {
	r := start(t)
	for _, to := range []string{"10.0.0.5:6443", "10.0.0.5:6443", "10.0.0.6:443"} {
		r.opts.Advertise = netip.MustParseAddrPort(to)
		if err := r.bootstrap(t.Context()); err != nil {
			t.Fatal(err)
		}
		var ep corev1.Endpoints
		r.must(http.StatusOK, &ep, "GET", "/api/v1/namespaces/default/endpoints/kubernetes", "")
		var s discoveryv1.EndpointSlice
		r.must(http.StatusOK, &s, "GET", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes", "")
		addr, port := r.opts.Advertise.Addr().String(), int32(r.opts.Advertise.Port())
		if len(ep.Subsets) != 1 || ep.Subsets[0].Addresses[0].IP != addr || ep.Subsets[0].Ports[0].Port != port {
			t.Errorf("%s: endpoints %+v", to, ep.Subsets)
		}
		if len(s.Endpoints) != 1 || s.Endpoints[0].Addresses[0] != addr || *s.Ports[0].Port != port || s.AddressType != discoveryv1.AddressTypeIPv4 {
			t.Errorf("%s: slice %+v %+v", to, s.Endpoints, s.Ports)
		}
	}
}
