// Package fields says which fields of each kind a field selector may name, and reads them. The API server asks it when it
// parses a selector and when it commits an object; metadata.name and metadata.namespace are selectable everywhere.
package fields

import (
	"fmt"
	"slices"
	"strconv"
	"sync"

	batchv1 "k8s.io/api/batch/v1"
	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	nameKey      = "metadata.name"
	namespaceKey = "metadata.namespace"
)

// column reads the selectable fields of a kind beyond name and namespace. values returns them in the order of names.
type column struct {
	names []string
	// aliases are older labels that mean one of names.
	aliases map[string]string
	values  func(obj runtime.Object) []string
	// clusterWide kinds that have more to select by do not take a namespace. (Those that have not take it, and match none.)
	clusterWide bool
}

func (c column) everywhere() column { c.clusterWide = true; return c }

func kind[T runtime.Object](values func(T) []string, names ...string) column {
	return column{names: names, values: func(o runtime.Object) []string { return values(o.(T)) }}
}

var table = sync.OnceValue(func() map[schema.GroupVersionKind]column {
	t := map[schema.GroupVersionKind]column{}
	add := func(group, kind string, c column) {
		t[schema.GroupVersionKind{Group: group, Version: "v1", Kind: kind}] = c
	}
	pods := kind(pod, "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
		"status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName")
	pods.aliases = map[string]string{"spec.host": "spec.nodeName"}
	add("", "Pod", pods)
	add("", "Node", kind(func(o *corev1.Node) []string { return []string{strconv.FormatBool(o.Spec.Unschedulable)} }, "spec.unschedulable").everywhere())
	add("", "Namespace", kind(func(o *corev1.Namespace) []string { return []string{string(o.Status.Phase)} }, "status.phase").everywhere())
	add("", "Secret", kind(func(o *corev1.Secret) []string { return []string{string(o.Type)} }, "type"))
	add("", "Service", kind(func(o *corev1.Service) []string { return []string{o.Spec.ClusterIP, string(o.Spec.Type)} }, "spec.clusterIP", "spec.type"))
	add("", "ReplicationController", kind(func(o *corev1.ReplicationController) []string {
		return []string{strconv.Itoa(int(o.Status.Replicas))}
	}, "status.replicas"))
	add("", "Event", kind(event, "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
		"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"))
	add("events.k8s.io", "Event", kind(newEvent, "regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid",
		"regarding.apiVersion", "regarding.resourceVersion", "regarding.fieldPath", "reason", "reportingController", "source", "type"))
	add("batch", "Job", kind(func(o *batchv1.Job) []string { return []string{strconv.Itoa(int(o.Status.Succeeded))} }, "status.successful"))
	add("certificates.k8s.io", "CertificateSigningRequest", kind(func(o *certv1.CertificateSigningRequest) []string {
		return []string{o.Spec.SignerName}
	}, "spec.signerName").everywhere())
	add("resource.k8s.io", "ResourceSlice", kind(func(o *resourcev1.ResourceSlice) []string {
		node := ""
		if o.Spec.NodeName != nil {
			node = *o.Spec.NodeName
		}
		return []string{node, o.Spec.Driver}
	}, "spec.nodeName", "spec.driver").everywhere())
	return t
})

func pod(o *corev1.Pod) []string {
	ip, ips := o.Status.PodIP, ""
	if ip == "" && len(o.Status.PodIPs) > 0 {
		ip = o.Status.PodIPs[0].IP
	}
	if len(o.Status.PodIPs) > 0 {
		ips = o.Status.PodIPs[0].IP
	}
	return []string{o.Spec.NodeName, string(o.Spec.RestartPolicy), o.Spec.SchedulerName, o.Spec.ServiceAccountName,
		strconv.FormatBool(o.Spec.HostNetwork), string(o.Status.Phase), ip, ips, o.Status.NominatedNodeName}
}

func event(o *corev1.Event) []string {
	source := o.Source.Component
	if source == "" {
		source = o.ReportingController
	}
	r := &o.InvolvedObject
	return []string{r.Kind, r.Namespace, r.Name, string(r.UID), r.APIVersion, r.ResourceVersion, r.FieldPath, o.Reason, o.ReportingController, source, o.Type}
}

func newEvent(o *eventsv1.Event) []string {
	source := o.DeprecatedSource.Component
	if source == "" {
		source = o.ReportingController
	}
	r := &o.Regarding
	return []string{r.Kind, r.Namespace, r.Name, string(r.UID), r.APIVersion, r.ResourceVersion, r.FieldPath, o.Reason, o.ReportingController, source, o.Type}
}

// For returns the function that reads the selectable fields of gvk's objects. It is never nil.
func For(gvk schema.GroupVersionKind) func(obj runtime.Object) fields.Set {
	c := table()[gvk]
	return func(obj runtime.Object) fields.Set {
		set := make(fields.Set, len(c.names)+2)
		if m, ok := obj.(metav1.Object); ok {
			set[nameKey] = m.GetName()
			if ns := m.GetNamespace(); ns != "" {
				set[namespaceKey] = ns
			}
		}
		if c.values != nil {
			for i, v := range c.values(obj) {
				set[c.names[i]] = v
			}
		}
		return set
	}
}

// Supported returns the labels a selector on gvk may name, sorted.
func Supported(gvk schema.GroupVersionKind) []string {
	c := table()[gvk]
	list := append([]string{nameKey}, c.names...)
	if !c.clusterWide {
		list = append(list, namespaceKey)
	}
	for alias := range c.aliases {
		list = append(list, alias)
	}
	slices.Sort(list)
	return list
}

// Convert translates one term of a selector to the label For uses, or says that the kind has no such label.
func Convert(gvk schema.GroupVersionKind, label, value string) (string, string, error) {
	c, known := table()[gvk]
	if label == nameKey || label == namespaceKey && !c.clusterWide || slices.Contains(c.names, label) {
		return label, value, nil
	}
	if to, ok := c.aliases[label]; ok {
		return to, value, nil
	}
	if !known || len(c.names) == 0 {
		return "", "", fmt.Errorf("%q is not a known field selector: only %q, %q", label, nameKey, namespaceKey)
	}
	if wording, ok := wordings[gvk]; ok {
		return "", "", fmt.Errorf(wording, label)
	}
	return "", "", fmt.Errorf("field label not supported: %s", label)
}

// wordings are the kinds that say it in other words.
var wordings = map[schema.GroupVersionKind]string{
	{Group: "batch", Version: "v1", Kind: "Job"}:                     "field label %q not supported for Job",
	{Group: "resource.k8s.io", Version: "v1", Kind: "ResourceSlice"}: "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: %s",
}
