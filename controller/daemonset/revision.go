package daemonset

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
)

// snapshot is the template of ds as a patch, the form in which kubectl rolls back to it.
func snapshot(ds *appsv1.DaemonSet) ([]byte, error) {
	doc, err := json.Marshal(&ds.Spec.Template)
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

// revisionPlan finds the revision of the present template among those that ds owns. It returns it as it should be (changed or
// new when that differs from what exists) and what to delete of the history.
func revisionPlan(ds *appsv1.DaemonSet, have []*appsv1.ControllerRevision, used map[string]bool) (now *appsv1.ControllerRevision, changed, fresh bool, old []*appsv1.ControllerRevision, err error) {
	data, err := snapshot(ds)
	if err != nil {
		return nil, false, false, nil, err
	}
	have = slices.Clone(have)
	slices.SortFunc(have, func(a, b *appsv1.ControllerRevision) int { return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Name, b.Name)) })
	top := int64(0)
	for _, r := range have {
		if same(r.Data.Raw, data) {
			now = r
			continue
		}
		top = max(top, r.Revision)
		old = append(old, r)
	}
	if now != nil && now.Revision <= top {
		now = now.DeepCopy()
		now.Revision, changed = top+1, true
	}
	if now == nil {
		h := fnv.New32a()
		h.Write(data)
		if c := ds.Status.CollisionCount; c != nil {
			fmt.Fprintf(h, "/%d", *c)
		}
		hash := rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
		labels := maps.Clone(ds.Spec.Template.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		labels[hashLabel] = hash
		now = &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: ds.Name + "-" + hash, Namespace: ds.Namespace, Labels: labels, Annotations: ds.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(ds, kind)}}, Data: runtime.RawExtension{Raw: data}, Revision: top + 1}
		fresh = true
	}
	limit := 10
	if l := ds.Spec.RevisionHistoryLimit; l != nil {
		limit = int(*l)
	}
	idle := slices.DeleteFunc(slices.Clone(old), func(r *appsv1.ControllerRevision) bool { return used[r.Labels[hashLabel]] })
	return now, changed, fresh, idle[:max(0, min(len(idle), len(old)-limit))], nil
}

func same(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && apiequality.Semantic.DeepEqual(x, y)
}
