package printcolumns

import (
	"fmt"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
)

const (
	containersDoc = "Names of each container in the template."
	imagesDoc     = "Images referenced by each container in the template."
)

func addCore(t table) {
	add(t, "", "v1", "PodTemplate", func(o *corev1.PodTemplate, _ time.Time) []any {
		names, images := containers(o.Template.Spec.Containers)
		return []any{o.Name, names, images, labels.FormatLabels(o.Template.Labels)}
	}, func() columns {
		return columns{nameColumn(), text("Containers", containersDoc), text("Images", imagesDoc), text("Pod Labels", "The labels for the pod template.")}
	})
	add(t, "", "v1", "ReplicationController", func(o *corev1.ReplicationController, now time.Time) []any {
		names, images := "", ""
		if o.Spec.Template != nil {
			names, images = containers(o.Spec.Template.Spec.Containers)
		}
		return []any{o.Name, deref(o.Spec.Replicas), o.Status.Replicas, o.Status.ReadyReplicas, age(o.CreationTimestamp, now), names, images, labels.FormatLabels(o.Spec.Selector)}
	}, func() columns {
		return columns{nameColumn(), number("Desired", doc(corev1.ReplicationControllerSpec{}, "replicas")), number("Current", doc(corev1.ReplicationControllerStatus{}, "replicas")),
			number("Ready", doc(corev1.ReplicationControllerStatus{}, "readyReplicas")), ageColumn(), wide(text("Containers", containersDoc)), wide(text("Images", imagesDoc)),
			wide(text("Selector", doc(corev1.ReplicationControllerSpec{}, "selector")))}
	})
	add(t, "", "v1", "ConfigMap", func(o *corev1.ConfigMap, now time.Time) []any {
		return []any{o.Name, int64(len(o.Data) + len(o.BinaryData)), age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("Data", doc(corev1.ConfigMap{}, "data")), ageColumn()}
	})
	add(t, "", "v1", "Secret", func(o *corev1.Secret, now time.Time) []any {
		return []any{o.Name, string(o.Type), int64(len(o.Data)), age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("Type", doc(corev1.Secret{}, "type")), text("Data", doc(corev1.Secret{}, "data")), ageColumn()}
	})
	add(t, "", "v1", "ServiceAccount", func(o *corev1.ServiceAccount, now time.Time) []any {
		return []any{o.Name, age(o.CreationTimestamp, now)}
	}, func() columns { return columns{nameColumn(), ageColumn()} })
	add(t, "", "v1", "Namespace", func(o *corev1.Namespace, now time.Time) []any {
		return []any{o.Name, string(o.Status.Phase), age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("Status", "The status of the namespace"), ageColumn()}
	})
	add(t, "", "v1", "ComponentStatus", componentRow, func() columns {
		return columns{nameColumn(), text("Status", "Status of the component conditions"), text("Message", "Message of the component conditions"), text("Error", "Error of the component conditions")}
	})
	add(t, "", "v1", "Node", nodeRow, func() columns {
		info, addresses := corev1.NodeSystemInfo{}, doc(corev1.NodeStatus{}, "addresses")
		return columns{nameColumn(), text("Status", "The status of the node"), text("Roles", "The roles of the node"), ageColumn(), text("Version", doc(info, "kubeletVersion")),
			wide(text("Internal-IP", addresses)), wide(text("External-IP", addresses)), wide(text("OS-Image", doc(info, "osImage"))),
			wide(text("Kernel-Version", doc(info, "kernelVersion"))), wide(text("Container-Runtime", doc(info, "containerRuntimeVersion")))}
	})
	add(t, "", "v1", "ResourceQuota", quotaRow, func() columns {
		return columns{nameColumn(), text("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
			text("Limit", "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."), ageColumn()}
	})
	add(t, "", "v1", "Event", func(o *corev1.Event, now time.Time) []any { return eventRow(o, now) }, eventColumns)
	add(t, "events.k8s.io", "v1", "Event", func(o *eventsv1.Event, now time.Time) []any {
		e := &corev1.Event{ObjectMeta: o.ObjectMeta, Type: o.Type, Reason: o.Reason, InvolvedObject: o.Regarding, Message: o.Note,
			Source: o.DeprecatedSource, FirstTimestamp: o.DeprecatedFirstTimestamp, LastTimestamp: o.DeprecatedLastTimestamp, Count: o.DeprecatedCount,
			EventTime: o.EventTime, ReportingController: o.ReportingController, ReportingInstance: o.ReportingInstance}
		if o.Series != nil {
			e.Series = &corev1.EventSeries{Count: o.Series.Count, LastObservedTime: o.Series.LastObservedTime}
		}
		return eventRow(e, now)
	}, eventColumns)
}

func deref(n *int32) int32 {
	if n == nil {
		return 0
	}
	return *n
}

// containers returns the names and the images of a template, comma-separated.
func containers(list []corev1.Container) (names, images string) {
	n, i := make([]string, len(list)), make([]string, len(list))
	for k := range list {
		n[k], i[k] = list[k].Name, list[k].Image
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

func componentRow(o *corev1.ComponentStatus, _ time.Time) []any {
	status, message, fault := "Unknown", "", ""
	for _, c := range o.Conditions {
		if c.Type == corev1.ComponentHealthy {
			status = "Unhealthy"
			if c.Status == corev1.ConditionTrue {
				status = "Healthy"
			}
			message, fault = c.Message, c.Error
			break
		}
	}
	return []any{o.Name, status, message, fault}
}

func nodeRow(o *corev1.Node, now time.Time) []any {
	status := "Unknown"
	for _, c := range o.Status.Conditions {
		if c.Type == corev1.NodeReady {
			status = "NotReady"
			if c.Status == corev1.ConditionTrue {
				status = "Ready"
			}
		}
	}
	if o.Spec.Unschedulable {
		status += ",SchedulingDisabled"
	}
	roles := sets.New[string]()
	for k, v := range o.Labels {
		if role, ok := strings.CutPrefix(k, "node-role.kubernetes.io/"); ok && role != "" {
			roles.Insert(role)
		} else if k == "kubernetes.io/role" && v != "" {
			roles.Insert(v)
		}
	}
	internal, external := "<none>", "<none>"
	for _, a := range o.Status.Addresses {
		if a.Type == corev1.NodeInternalIP && internal == "<none>" {
			internal = a.Address
		}
		if a.Type == corev1.NodeExternalIP && external == "<none>" {
			external = a.Address
		}
	}
	unknown := func(s string) string {
		if s == "" {
			return "<unknown>"
		}
		return s
	}
	i := &o.Status.NodeInfo
	kernel := unknown(i.KernelVersion)
	if i.KernelVersion != "" && i.Architecture != "" {
		kernel = fmt.Sprintf("%s (%s)", i.KernelVersion, i.Architecture)
	}
	return []any{o.Name, status, orNone(strings.Join(sets.List(roles), ",")), age(o.CreationTimestamp, now), i.KubeletVersion, internal, external,
		unknown(i.OSImage), kernel, unknown(i.ContainerRuntimeVersion)}
}

func quotaRow(o *corev1.ResourceQuota, now time.Time) []any {
	names := make([]string, 0, len(o.Status.Hard))
	for k := range o.Status.Hard {
		names = append(names, string(k))
	}
	sort.Strings(names)
	var requests, limits []string
	for _, k := range names {
		used, hard := o.Status.Used[corev1.ResourceName(k)], o.Status.Hard[corev1.ResourceName(k)]
		cell := fmt.Sprintf("%s: %s/%s", k, used.String(), hard.String())
		if strings.HasPrefix(k, "limits.") {
			limits = append(limits, cell)
		} else {
			requests = append(requests, cell)
		}
	}
	return []any{o.Name, strings.Join(requests, ", "), strings.Join(limits, ", "), age(o.CreationTimestamp, now)}
}

func eventColumns() columns {
	e := corev1.Event{}
	name := wide(nameColumn())
	return columns{text("Last Seen", doc(e, "lastTimestamp")), text("Type", doc(e, "type")), text("Reason", doc(e, "reason")), text("Object", doc(e, "involvedObject")),
		wide(text("Subobject", doc(corev1.ObjectReference{}, "fieldPath"))), wide(text("Source", doc(e, "source"))), text("Message", doc(e, "message")),
		wide(text("First Seen", doc(e, "firstTimestamp"))), wide(text("Count", doc(e, "count"))), name}
}

func eventRow(o *corev1.Event, now time.Time) []any {
	first := age(o.FirstTimestamp, now)
	if o.FirstTimestamp.IsZero() {
		first = microAge(o.EventTime, now)
	}
	last, count := first, o.Count
	if !o.LastTimestamp.IsZero() {
		last = age(o.LastTimestamp, now)
	}
	if o.Series != nil {
		last, count = microAge(o.Series.LastObservedTime, now), o.Series.Count
	} else if count == 0 {
		count = 1
	}
	target := strings.ToLower(o.InvolvedObject.Kind)
	if o.InvolvedObject.Name != "" {
		target += "/" + o.InvolvedObject.Name
	}
	source := o.Source.Component
	if source == "" {
		source = o.ReportingController
	}
	host := o.Source.Host
	if host == "" {
		host = o.ReportingInstance
	}
	if host != "" {
		source += ", " + host
	}
	return []any{last, o.Type, o.Reason, target, o.InvolvedObject.FieldPath, source, strings.TrimSpace(o.Message), first, int64(count), o.Name}
}

func selector(s *metav1.LabelSelector) string { return metav1.FormatLabelSelector(s) }
