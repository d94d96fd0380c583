package admission

import (
	"testing"

	resourcev1 "k8s.io/api/resource/v1"

	"karve/client"
)

func TestAdminAccess(t *testing.T) {
	with := func(admin *bool) resourcev1.ResourceClaimSpec {
		return resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "c", AdminAccess: admin}}, {Name: "s"}}}}
	}
	marked := map[string]string{resourcev1.DRAAdminNamespaceLabelKey: "true"}
	for _, c := range []struct {
		name   string
		labels map[string]string
		admin  *bool
		ok     bool
	}{
		{"marked", marked, ptr(true), true},
		{"not marked", nil, ptr(true), false},
		{"marked otherwise", map[string]string{resourcev1.DRAAdminNamespaceLabelKey: "yes"}, ptr(true), false},
		{"not asked", nil, nil, true},
		{"said no", nil, ptr(false), true},
	} {
		ch := chain(t, nil, namespace("ns", c.labels), account("default"))
		for _, o := range []client.Object{&resourcev1.ResourceClaim{ObjectMeta: om("ns", "c"), Spec: with(c.admin)},
			&resourcev1.ResourceClaimTemplate{ObjectMeta: om("ns", "t"), Spec: resourcev1.ResourceClaimTemplateSpec{Spec: with(c.admin)}}} {
			if err := ch.Validate(t.Context(), attrs(Create, "", o, nil)); (err == nil) != c.ok {
				t.Errorf("%s, %T: %v", c.name, o, err)
			}
		}
	}
}
