package rest

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestStandIns(t *testing.T) {
	meta := func(key, value string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Annotations: map[string]string{key: value, "a": "b"}}
	}
	for _, c := range []struct {
		name   string
		o      runtime.Object
		ok     bool
		hidden string
	}{
		{"DaemonSet", &appsv1.DaemonSet{ObjectMeta: meta(appsv1.DeprecatedTemplateGeneration, "7")}, true, appsv1.DeprecatedTemplateGeneration},
		{"DaemonSet", &appsv1.DaemonSet{ObjectMeta: meta(appsv1.DeprecatedTemplateGeneration, "seven")}, false, appsv1.DeprecatedTemplateGeneration},
		{"Deployment", &appsv1.Deployment{ObjectMeta: meta(rollbackKey, "7")}, true, rollbackKey},
		{"Deployment", &appsv1.Deployment{ObjectMeta: meta(rollbackKey, "x")}, false, rollbackKey},
		{"Deployment", &appsv1.Deployment{ObjectMeta: meta(appsv1.DeprecatedTemplateGeneration, "x")}, true, ""},
		{"ReplicaSet", &appsv1.ReplicaSet{ObjectMeta: meta(rollbackKey, "x")}, true, ""},
	} {
		if err := modernize(c.o, schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: c.name}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		m, _ := c.o.(metav1.Object)
		shown := withoutStandIn(c.o, m.GetAnnotations())
		if _, there := shown[c.hidden]; there || shown["a"] != "b" || len(m.GetAnnotations()) != 2 {
			t.Errorf("%s shows %v of %v", c.name, shown, m.GetAnnotations())
		}
	}
}

func TestStandInsAreNumbers(t *testing.T) {
	for _, c := range []struct{ sent, want string }{{"007", "7"}, {"+7", "7"}, {"-1", "-1"}, {"", ""}} {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{rollbackKey: c.sent}}}
		if err := modernize(d, schema.GroupVersionKind{}); err != nil || d.Annotations[rollbackKey] != c.want || (c.want == "") != (len(d.Annotations) == 0) {
			t.Errorf("%q: %v, %v", c.sent, d.Annotations, err)
		}
	}
}

func TestOldInitContainersAreForgotten(t *testing.T) {
	for _, key := range initKeys {
		with := func() metav1.ObjectMeta {
			return metav1.ObjectMeta{Annotations: map[string]string{key: "[]", "a": "b"}}
		}
		tmpl := corev1.PodTemplateSpec{ObjectMeta: with()}
		cron := &batchv1.CronJob{}
		cron.Spec.JobTemplate.Spec.Template = *tmpl.DeepCopy()
		for _, o := range []runtime.Object{&corev1.Pod{ObjectMeta: with()}, &corev1.PodTemplate{Template: *tmpl.DeepCopy()},
			&corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{Template: tmpl.DeepCopy()}},
			&appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: *tmpl.DeepCopy()}}, &appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Template: *tmpl.DeepCopy()}},
			&appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Template: *tmpl.DeepCopy()}}, &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: *tmpl.DeepCopy()}},
			&batchv1.Job{Spec: batchv1.JobSpec{Template: *tmpl.DeepCopy()}}, cron} {
			if err := modernize(o, schema.GroupVersionKind{}); err != nil {
				t.Errorf("%T: %v", o, err)
			}
			if a := podAnnotations(o); len(a) != 1 || a["a"] != "b" {
				t.Errorf("%T keeps %v", o, a)
			}
		}
	}
	if err := modernize(&corev1.ReplicationController{}, schema.GroupVersionKind{}); err != nil {
		t.Error(err)
	}
}
