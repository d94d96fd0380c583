package namespace

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestConditions(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	gvr := func(g, r string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: g, Version: "v1", Resource: r}
	}
	var full Content
	full.merge(Content{Left: map[schema.GroupVersionResource]int{gvr("", "pods"): 2}, Finalizers: map[string]int{"a/x": 1}})
	full.merge(Content{Left: map[schema.GroupVersionResource]int{gvr("apps", "deployments"): 1}, Finalizers: map[string]int{"a/x": 2, "a/b": 1}})
	full.merge(Content{Errors: []string{"z: no", "a: no"}})
	if full.empty() || !new(Content).empty() {
		t.Error("empty is not told from full")
	}
	type want map[corev1.NamespaceConditionType]string
	var have []corev1.NamespaceCondition
	for i, step := range []struct {
		content Content
		want    want
	}{
		{full, want{
			"NamespaceDeletionDiscoveryFailure":           "False ResourcesDiscovered: All resources successfully discovered @0",
			"NamespaceDeletionGroupVersionParsingFailure": "False ParsedGroupVersions: All legacy kube types successfully parsed @0",
			"NamespaceDeletionContentFailure":             "True ContentDeletionFailed: Failed to delete all resource types, 2 remaining: a: no, z: no @0",
			"NamespaceContentRemaining":                   "True SomeResourcesRemain: Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances @0",
			"NamespaceFinalizersRemaining":                "True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: a/b in 1 resource instances, a/x in 3 resource instances @0",
		}},
		{Content{Left: map[schema.GroupVersionResource]int{gvr("", "pods"): 1}}, want{ // another text is no transition
			"NamespaceContentRemaining":       "True SomeResourcesRemain: Some resources are remaining: pods. has 1 resource instances @0",
			"NamespaceDeletionContentFailure": "False ContentDeleted: All content successfully deleted, may be waiting on finalization @1",
			"NamespaceFinalizersRemaining":    "False ContentHasNoFinalizers: All content-preserving finalizers finished @1",
		}},
		{Content{}, want{"NamespaceContentRemaining": "False ContentRemoved: All content successfully removed @2", "NamespaceFinalizersRemaining": "False ContentHasNoFinalizers: All content-preserving finalizers finished @1"}},
	} {
		before := append([]corev1.NamespaceCondition(nil), have...)
		out := conditions(have, step.content, start.Add(time.Duration(i)*time.Minute))
		for j := range before {
			if before[j] != have[j] {
				t.Errorf("step %d changed what it was given", i)
			}
		}
		if len(out) != 5 {
			t.Errorf("step %d: %d conditions", i, len(out))
		}
		for _, c := range out {
			got := string(c.Status) + " " + c.Reason + ": " + c.Message + " @" + string(rune('0'+int(c.LastTransitionTime.Sub(start).Minutes())))
			if w, ok := step.want[c.Type]; ok && got != w {
				t.Errorf("step %d, %s:\n got %s\nwant %s", i, c.Type, got, w)
			}
			delete(step.want, c.Type)
		}
		for missing := range step.want {
			t.Errorf("step %d: no condition %s", i, missing)
		}
		have = out
	}
}

func TestPause(t *testing.T) {
	for since, want := range map[time.Duration]time.Duration{0: 100 * time.Millisecond, time.Second: 250 * time.Millisecond, time.Hour: again} {
		if got := pause(since); got != want {
			t.Errorf("after %v: %v, want %v", since, got, want)
		}
	}
}
