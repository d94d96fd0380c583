package strategy

import (
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	certv1 "k8s.io/api/certificates/v1"
	coordv1 "k8s.io/api/coordination/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// templateGeneration returns the count kept in the annotation that replaced a field of DaemonSet.
func templateGeneration(d *appsv1.DaemonSet) int64 {
	n, _ := strconv.ParseInt(d.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	return n
}

func setTemplateGeneration(d *appsv1.DaemonSet, n int64) {
	a := make(map[string]string, len(d.Annotations)+1)
	for k, v := range d.Annotations {
		a[k] = v
	}
	a[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(n, 10)
	d.Annotations = a
}

func createDaemonSet(d *appsv1.DaemonSet) { setTemplateGeneration(d, max(1, templateGeneration(d))) }

func updateDaemonSet(d, old *appsv1.DaemonSet) {
	n := templateGeneration(old)
	if !equality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
		n++
	}
	setTemplateGeneration(d, n)
}

// createJob writes the labels and the selector that tie a Job to its pods, unless the user manages them.
func createJob(j *batchv1.Job) {
	if j.Spec.ManualSelector != nil && *j.Spec.ManualSelector {
		return
	}
	uid := string(j.UID)
	t := &j.Spec.Template
	// in place: a Job that took its own labels from the template shares the map
	labels := t.Labels
	if labels == nil {
		labels = make(map[string]string, 4)
	}
	// a label the user set already is left, and refused by validation where it is wrong
	for k, v := range map[string]string{"job-name": j.Name, batchv1.JobNameLabel: j.Name, "controller-uid": uid, batchv1.ControllerUidLabel: uid} {
		if _, ok := labels[k]; !ok {
			labels[k] = v
		}
	}
	t.Labels = labels
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, ok := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !ok {
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = uid
	}
}

// canonJob lets a Job without labels have those of its pods, as its defaults do: by now they include the generated ones.
func canonJob(j *batchv1.Job) {
	if len(j.Labels) == 0 && len(j.Spec.Template.Labels) > 0 {
		j.Labels = maps.Clone(j.Spec.Template.Labels)
	}
}

func updateCSR(c, old *certv1.CertificateSigningRequest) {
	c.Spec = old.Spec
	c.Status = old.Status
}

func csrStatus(c, old *certv1.CertificateSigningRequest) {
	keepConditions(c, old, certv1.CertificateApproved)
	keepConditions(c, old, certv1.CertificateDenied)
	stamp(c.Status.Conditions, old.Status.Conditions)
}

func csrApproval(c, old *certv1.CertificateSigningRequest) {
	conditions := c.Status.Conditions
	c.Spec = old.Spec
	c.Status = old.Status
	c.Status.Conditions = conditions
	stamp(c.Status.Conditions, old.Status.Conditions)
}

// keepConditions puts the decisions that were there back in their places: they are another subresource's. Where there are
// more or fewer of them than before, validation has something to say.
func keepConditions(c, old *certv1.CertificateSigningRequest, t certv1.RequestConditionType) {
	was, is := conditionsOf(old, t), conditionsOf(c, t)
	if len(was) != len(is) {
		return
	}
	c.Status.Conditions = slices.Clone(c.Status.Conditions)
	for i, at := range is {
		c.Status.Conditions[at] = old.Status.Conditions[was[i]]
	}
}

func conditionsOf(c *certv1.CertificateSigningRequest, t certv1.RequestConditionType) []int {
	var at []int
	for i := range c.Status.Conditions {
		if c.Status.Conditions[i].Type == t {
			at = append(at, i)
		}
	}
	return at
}

// stamp fills in the times of conditions that came without.
func stamp(list, old []certv1.CertificateSigningRequestCondition) {
	now := metav1.Now().Rfc3339Copy() // whole seconds, as it is stored
	for i := range list {
		c := &list[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		at := now
		for _, o := range old {
			if o.Type == c.Type && o.Status == c.Status && !o.LastTransitionTime.IsZero() {
				at = o.LastTransitionTime
			}
		}
		c.LastTransitionTime = at
	}
}

func createCRD(c *apiextv1.CustomResourceDefinition) {
	for _, v := range c.Spec.Versions {
		if v.Storage && !slices.Contains(c.Status.StoredVersions, v.Name) {
			c.Status.StoredVersions = append(c.Status.StoredVersions, v.Name)
		}
	}
}

func updateCRD(c, old *apiextv1.CustomResourceDefinition) {
	for _, v := range c.Spec.Versions {
		if v.Storage && !slices.Contains(c.Status.StoredVersions, v.Name) {
			c.Status.StoredVersions = append(slices.Clone(c.Status.StoredVersions), v.Name)
		}
	}
}

// createLease drops the fields of coordinated leader election, which is not offered.
func createLease(l *coordv1.Lease) { l.Spec.Strategy, l.Spec.PreferredHolder = nil, nil }

func updateLease(l, old *coordv1.Lease) {
	if old.Spec.Strategy == nil && old.Spec.PreferredHolder == nil {
		createLease(l)
	}
}
