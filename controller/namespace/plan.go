package namespace

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Content is what one pass of deletion found left in a namespace.
type Content struct {
	// Left counts objects by resource, and Finalizers objects by finalizer.
	Left       map[schema.GroupVersionResource]int
	Finalizers map[string]int
	// Errors are those met while deleting or listing.
	Errors []string
}

func (c *Content) empty() bool { return len(c.Left) == 0 && len(c.Errors) == 0 }

func joined[K comparable](m map[K]int, text func(K, int) string) string {
	var parts []string
	for k, n := range m {
		parts = append(parts, text(k, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// conditions returns what the namespace should report about its deletion.
func conditions(have []corev1.NamespaceCondition, c Content, now time.Time) []corev1.NamespaceCondition {
	out := slices.Clone(have)
	set := func(t corev1.NamespaceConditionType, bad bool, okReason, okMessage, badReason, badMessage string) {
		n := corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: okReason, Message: okMessage, LastTransitionTime: metav1.NewTime(now)}
		if bad {
			n.Status, n.Reason, n.Message = corev1.ConditionTrue, badReason, badMessage
		}
		i := slices.IndexFunc(out, func(x corev1.NamespaceCondition) bool { return x.Type == t })
		switch {
		case i < 0:
			out = append(out, n)
		case out[i].Status != n.Status || out[i].Reason != n.Reason || out[i].Message != n.Message:
			if out[i].Status == n.Status {
				n.LastTransitionTime = out[i].LastTransitionTime
			}
			out[i] = n
		}
	}
	set(corev1.NamespaceDeletionDiscoveryFailure, false, "ResourcesDiscovered", "All resources successfully discovered", "", "")
	set(corev1.NamespaceDeletionGVParsingFailure, false, "ParsedGroupVersions", "All legacy kube types successfully parsed", "", "")
	set(corev1.NamespaceDeletionContentFailure, len(c.Errors) > 0, "ContentDeleted", "All content successfully deleted, may be waiting on finalization",
		"ContentDeletionFailed", "Failed to delete all resource types, "+fmt.Sprintf("%d remaining: %s", len(c.Errors), strings.Join(slices.Sorted(slices.Values(c.Errors)), ", ")))
	set(corev1.NamespaceContentRemaining, len(c.Left) > 0, "ContentRemoved", "All content successfully removed", "SomeResourcesRemain",
		"Some resources are remaining: "+joined(c.Left, func(r schema.GroupVersionResource, n int) string {
			return fmt.Sprintf("%s.%s has %d resource instances", r.Resource, r.Group, n)
		}))
	set(corev1.NamespaceFinalizersRemaining, len(c.Finalizers) > 0, "ContentHasNoFinalizers", "All content-preserving finalizers finished", "SomeFinalizersRemain",
		"Some content in the namespace has finalizers remaining: "+joined(c.Finalizers, func(f string, n int) string {
			return fmt.Sprintf("%s in %d resource instances", f, n)
		}))
	return out
}

// merge adds what another resource has left.
func (c *Content) merge(o Content) {
	if c.Left == nil {
		c.Left, c.Finalizers = map[schema.GroupVersionResource]int{}, map[string]int{}
	}
	maps.Copy(c.Left, o.Left)
	for f, n := range o.Finalizers {
		c.Finalizers[f] += n
	}
	c.Errors = append(c.Errors, o.Errors...)
}
