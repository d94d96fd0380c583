package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// adminAccess lets devices be claimed beside those who use them only in namespaces that are marked for it.
func adminAccess(d Deps) Plugin {
	namespaces := from[*corev1.Namespace](d.Caches)
	return Plugin{Name: "DeviceAdminAccess", Validate: when(creates, func(ctx context.Context, a *Attributes) error {
		var requests []resourcev1.DeviceRequest
		kind := "ResourceClaim"
		switch o := a.Object.(type) {
		case *resourcev1.ResourceClaim:
			requests = o.Spec.Devices.Requests
		case *resourcev1.ResourceClaimTemplate:
			requests, kind = o.Spec.Spec.Devices.Requests, "ResourceClaimTemplate"
		}
		var errs field.ErrorList
		for i, r := range requests {
			if r.Exactly != nil && r.Exactly.AdminAccess != nil && *r.Exactly.AdminAccess {
				errs = append(errs, field.Forbidden(field.NewPath("spec", "devices", "requests").Index(i).Child("adminAccess"),
					"admin access to devices requires the `"+resourcev1.DRAAdminNamespaceLabelKey+": true` label on the containing namespace"))
			}
		}
		if len(errs) == 0 {
			return nil
		}
		ns, err := namespaces.get(ctx, "", a.Namespace)
		if err == nil && ns.Labels[resourcev1.DRAAdminNamespaceLabelKey] == "true" {
			return nil
		}
		return apierrors.NewInvalid(schema.GroupKind{Group: resourcev1.GroupName, Kind: kind}, a.Name, errs)
	}, "", schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceclaims"}, schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceclaimtemplates"})}
}
