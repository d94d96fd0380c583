// Package warnings knows what a client is told about an object that is taken all the same: fields that do nothing any
// more, or that say something twice. The resource door asks it after an object has been found valid. It is pure, and it
// refuses nothing.
package warnings

import (
	"crypto/tls"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Deprecated returns what every request for a resource is told, "" for nothing.
func Deprecated(gvr schema.GroupVersionResource) string { return deprecated[gvr] }

var deprecated = map[schema.GroupVersionResource]string{
	corev1.SchemeGroupVersion.WithResource("endpoints"):         "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
	corev1.SchemeGroupVersion.WithResource("componentstatuses"): "v1 ComponentStatus is deprecated in v1.19+",
}

// ForDelete returns what a delete without a propagation policy of a kind that keeps its dependents is told, "" for nothing.
func ForDelete(kind schema.GroupKind) string {
	if kind == batchv1.SchemeGroupVersion.WithKind("Job").GroupKind() {
		return "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning"
	}
	return ""
}

// For returns what there is to say about an object that is written. old is the object it replaces, nil for none.
func For(obj, old runtime.Object) []string {
	template := field.NewPath("spec", "template")
	switch o := obj.(type) {
	case *corev1.Pod:
		if old == nil {
			return pod(nil, &o.ObjectMeta.Annotations, &o.Spec)
		}
	case *corev1.PodTemplate:
		return podTemplate(field.NewPath("template"), &o.Template)
	case *corev1.ReplicationController:
		if o.Spec.Template != nil {
			return podTemplate(template, o.Spec.Template)
		}
	case *appsv1.ReplicaSet:
		return podTemplate(template, &o.Spec.Template)
	case *appsv1.Deployment:
		return podTemplate(template, &o.Spec.Template)
	case *appsv1.DaemonSet:
		return podTemplate(template, &o.Spec.Template)
	case *appsv1.StatefulSet:
		out := podTemplate(template, &o.Spec.Template)
		if n := o.Spec.RevisionHistoryLimit; n != nil && *n < 0 {
			out = append(out, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
		}
		return out
	case *batchv1.Job:
		return podTemplate(template, &o.Spec.Template)
	case *batchv1.CronJob:
		return podTemplate(field.NewPath("spec", "jobTemplate", "spec", "template"), &o.Spec.JobTemplate.Spec.Template)
	case *corev1.Service:
		return service(o)
	case *corev1.ServiceAccount:
		if before, ok := old.(*corev1.ServiceAccount); ok && before.Annotations[enforceMountable] != "" {
			return nil
		}
		return annotation(o.Annotations, enforceMountable, "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets")
	case *corev1.Secret:
		return secret(o)
	case *corev1.PersistentVolumeClaim:
		return annotation(o.Annotations, corev1.BetaStorageClassAnnotation, `deprecated since v1.8; use "storageClassName" attribute instead`)
	case *discoveryv1.EndpointSlice:
		if o.AddressType == discoveryv1.AddressTypeFQDN {
			return []string{"spec.addressType: FQDN endpoints are deprecated"}
		}
	case *netv1.Ingress:
		if _, set := o.Annotations[ingressClass]; set && old == nil {
			return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", ingressClass)}
		}
	case *storagev1.CSIDriver:
		if before, ok := old.(*storagev1.CSIDriver); ok && equality.Semantic.DeepEqual(before.Spec, o.Spec) {
			return nil
		}
		if len(o.Spec.TokenRequests) > 0 && o.Spec.ServiceAccountTokenInSecrets == nil {
			return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"}
		}
	}
	return nil
}

const (
	ingressClass     = "kubernetes.io/ingress.class"
	enforceMountable = "kubernetes.io/enforce-mountable-secrets"
)

func annotation(all map[string]string, key, text string) []string {
	if _, set := all[key]; !set {
		return nil
	}
	return []string{fmt.Sprintf("metadata.annotations[%s]: %s", key, text)}
}

func service(s *corev1.Service) []string {
	var out []string
	if len(s.Spec.ExternalIPs) > 0 {
		out = append(out, "spec.externalIPs is deprecated and may no longer be implemented in some clusters")
	}
	if s.Spec.ExternalName != "" && s.Spec.Type != corev1.ServiceTypeExternalName {
		out = append(out, `spec.externalName is ignored when spec.type is not "ExternalName"`)
	}
	if d := s.Spec.TrafficDistribution; d != nil && *d == corev1.ServiceTrafficDistributionPreferClose {
		out = append(out, fmt.Sprintf("spec.trafficDistribution: %q is deprecated; use %q", *d, corev1.ServiceTrafficDistributionPreferSameZone))
	}
	return out
}

// secret tells of a TLS pair that no server could use.
func secret(s *corev1.Secret) []string {
	if s.Type != corev1.SecretTypeTLS {
		return nil
	}
	if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return []string{err.Error()}
	}
	return nil
}
