package admission

import (
	"context"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// deviceTaintTime dates the taints of devices that came without a date. Elsewhere this is a default; ours read no clock.
func deviceTaintTime(d Deps) Plugin {
	return Plugin{Name: "DeviceTaintTime", Mutate: when(writes, func(_ context.Context, a *Attributes) error {
		s, err := object[*resourcev1.ResourceSlice](a.Object, "resource slice")
		if err != nil {
			return err
		}
		now := metav1.NewTime(d.Now().Truncate(time.Second))
		for i := range s.Spec.Devices {
			for j := range s.Spec.Devices[i].Taints {
				if t := &s.Spec.Devices[i].Taints[j]; t.TimeAdded == nil {
					t.TimeAdded = &now
				}
			}
		}
		return nil
	}, "", schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceslices"})}
}
