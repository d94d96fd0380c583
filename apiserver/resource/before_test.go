package resource

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"

	"karve/api"
	"karve/client"
)

// TestBefore reads an object as it was at each of its revisions, and after the log has forgotten them.
func TestBefore(t *testing.T) {
	d, tr := door(t)
	ctx := t.Context()
	res := client.Of[*appsv1.Deployment](tr)
	first, err := res.Create(ctx, deployment("web", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := res.Create(ctx, deployment("other", 1)); err != nil {
		t.Fatal(err)
	}
	second := first.DeepCopy()
	*second.Spec.Replicas = 2
	if second, err = res.Update(ctx, second); err != nil {
		t.Fatal(err)
	}
	third := second.DeepCopy()
	*third.Spec.Replicas = 3
	if third, err = res.Update(ctx, third); err != nil {
		t.Fatal(err)
	}
	c := &Call{Row: api.ByKind(appsv1.SchemeGroupVersion.WithKind("Deployment")), Namespace: "default", Name: "web"}
	for version, want := range map[string]int32{first.ResourceVersion: 1, second.ResourceVersion: 2, third.ResourceVersion: 0, "1000000": 0, "": 0, "x": 0} {
		o, _ := d.Before(ctx, c, version).(*appsv1.Deployment)
		if want == 0 && o != nil || want > 0 && (o == nil || *o.Spec.Replicas != want) {
			t.Errorf("at %q: %v, want %d replicas", version, o, want)
		}
	}
	d.Store().Compact(d.Store().Revision())
	if o := d.Before(ctx, c, first.ResourceVersion); o != nil {
		t.Errorf("after compaction: %v", o)
	}
}
