package rest

import (
	"fmt"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// rollbackKey is the annotation that stands for a field Deployments once had.
const rollbackKey = "deprecated.deployment.rollback.revision"

// standsIn returns the annotation of a kind that stands for a number an older version of the kind has a field for, "" for
// none. Upstream takes it for the field, so that it must be a number, and is no metadata.
func standsIn(o runtime.Object) string {
	switch o.(type) {
	case *appsv1.DaemonSet:
		return appsv1.DeprecatedTemplateGeneration
	case *appsv1.Deployment:
		return rollbackKey
	}
	return ""
}

// withoutStandIn returns annotations as metadata alone shows them.
func withoutStandIn(o runtime.Object, a map[string]string) map[string]string {
	key := standsIn(o)
	if _, ok := a[key]; key == "" || !ok {
		return a
	}
	rest := maps.Clone(a)
	delete(rest, key)
	return rest
}

// initKeys are annotations that said what initContainers say now. Nobody reads them, and they are not kept.
var initKeys = []string{"pod.beta.kubernetes.io/init-containers", "pod.alpha.kubernetes.io/init-containers",
	"pod.beta.kubernetes.io/init-container-statuses", "pod.alpha.kubernetes.io/init-container-statuses"}

// modernize brings an object that was just decoded to its present form, in place.
func modernize(o runtime.Object, kind schema.GroupVersionKind) error {
	if key := standsIn(o); key != "" {
		a := annotationsOf(o)
		if v, ok := a[key]; ok && v == "" && key == rollbackKey {
			delete(a, key) // says nothing
		} else if ok {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", kind.Kind, kind.Version, kind.Kind, err))
			}
			a[key] = strconv.FormatInt(n, 10)
		}
	}
	a := podAnnotations(o)
	for _, k := range initKeys {
		delete(a, k)
	}
	return nil
}

func annotationsOf(o runtime.Object) map[string]string {
	switch t := o.(type) {
	case *appsv1.DaemonSet:
		return t.Annotations
	case *appsv1.Deployment:
		return t.Annotations
	}
	return nil
}

// podAnnotations returns the annotations of the pod, or of the template of pods, that an object is.
func podAnnotations(o runtime.Object) map[string]string {
	switch t := o.(type) {
	case *corev1.Pod:
		return t.Annotations
	case *corev1.PodTemplate:
		return t.Template.Annotations
	case *corev1.ReplicationController:
		if t.Spec.Template != nil {
			return t.Spec.Template.Annotations
		}
	case *appsv1.Deployment:
		return t.Spec.Template.Annotations
	case *appsv1.ReplicaSet:
		return t.Spec.Template.Annotations
	case *appsv1.StatefulSet:
		return t.Spec.Template.Annotations
	case *appsv1.DaemonSet:
		return t.Spec.Template.Annotations
	case *batchv1.Job:
		return t.Spec.Template.Annotations
	case *batchv1.CronJob:
		return t.Spec.JobTemplate.Spec.Template.Annotations
	}
	return nil
}
