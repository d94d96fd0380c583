// Package history keeps the former pod templates of DaemonSets and StatefulSets as ControllerRevisions, so that an update can
// be told from what runs and be rolled back. Both controllers use it. It is pure: they do the writing.
package history

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"

	"karve/client"
)

// Snapshot is a template as a patch of its owner, the form in which kubectl rolls back to it.
func Snapshot(template *corev1.PodTemplateSpec) ([]byte, error) {
	doc, err := json.Marshal(template)
	if err != nil {
		return nil, fmt.Errorf("encode pod template: %w", err)
	}
	var tpl map[string]any
	if err := json.Unmarshal(doc, &tpl); err != nil {
		return nil, fmt.Errorf("decode pod template: %w", err)
	}
	tpl["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": tpl}})
}

// Of is whose history it is.
type Of struct {
	Owner      client.Object
	Kind       schema.GroupVersionKind
	Template   *corev1.PodTemplateSpec
	Collisions *int32 // status.collisionCount: another count gives another name
	Limit      *int32 // revisionHistoryLimit; nil means 10
}

// Result is the revision of the present template, as it should be, and what is to go.
type Result struct {
	Now *appsv1.ControllerRevision
	// Fresh: Now has to be created. Changed: it has to be updated.
	Fresh, Changed bool
	Drop           []*appsv1.ControllerRevision
}

// Plan finds the present template among the revisions its owner has, and gives it the highest number. used reports revisions
// that something still runs.
func Plan(of Of, have []*appsv1.ControllerRevision, used func(*appsv1.ControllerRevision) bool) (out Result, err error) {
	data, err := Snapshot(of.Template)
	if err != nil {
		return out, err
	}
	var old []*appsv1.ControllerRevision
	have = slices.Clone(have)
	slices.SortFunc(have, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Name, b.Name))
	})
	top := int64(0)
	for _, r := range have {
		if Same(r.Data.Raw, data) {
			out.Now = r
			continue
		}
		top = max(top, r.Revision)
		old = append(old, r)
	}
	if out.Now != nil && out.Now.Revision <= top {
		out.Now = out.Now.DeepCopy()
		out.Now.Revision, out.Changed = top+1, true
	}
	if out.Now == nil {
		h := fnv.New32a()
		h.Write(data)
		if c := of.Collisions; c != nil {
			fmt.Fprintf(h, "/%d", *c)
		}
		hash := rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
		labels := maps.Clone(of.Template.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		labels[appsv1.ControllerRevisionHashLabelKey] = hash
		o := of.Owner
		out.Now = &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: o.GetName() + "-" + hash, Namespace: o.GetNamespace(), Labels: labels,
			Annotations: o.GetAnnotations(), OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(o, of.Kind)}},
			Data: runtime.RawExtension{Raw: data}, Revision: top + 1}
		out.Fresh = true
	}
	limit := 10
	if l := of.Limit; l != nil {
		limit = int(*l)
	}
	idle := slices.DeleteFunc(slices.Clone(old), used)
	out.Drop = idle[:max(0, min(len(idle), len(old)-limit))]
	return out, nil
}

// Same reports whether two snapshots say the same.
func Same(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && apiequality.Semantic.DeepEqual(x, y)
}
