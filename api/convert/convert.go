// Package convert turns the few kinds that are served in two versions into each other. Every other kind has one Go type
// that is wire and storage form alike.
package convert

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	asv1 "k8s.io/api/autoscaling/v1"
	asv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
)

// To returns o as gvk; o itself when it is that already or there is no other form. o is not changed, but the result may
// share parts with it.
func To(o runtime.Object, gvk schema.GroupVersionKind) runtime.Object {
	var out runtime.Object
	switch in := o.(type) {
	case *corev1.Event:
		if gvk.Group == eventsv1.GroupName {
			out = eventToNew(in)
		}
	case *eventsv1.Event:
		if gvk.Group == corev1.GroupName {
			out = eventToCore(in)
		}
	case *asv1.HorizontalPodAutoscaler:
		if gvk.Version == "v2" {
			out = scalerToV2(in)
		}
	case *asv2.HorizontalPodAutoscaler:
		if gvk.Version == "v1" {
			out = scalerToV1(in)
		}
	}
	if out == nil {
		return o
	}
	out.GetObjectKind().SetGroupVersionKind(gvk)
	return out
}

func eventToNew(e *corev1.Event) *eventsv1.Event {
	out := &eventsv1.Event{
		ObjectMeta: e.ObjectMeta, EventTime: e.EventTime, ReportingController: e.ReportingController, ReportingInstance: e.ReportingInstance,
		Action: e.Action, Reason: e.Reason, Regarding: e.InvolvedObject, Related: e.Related, Note: e.Message, Type: e.Type,
		DeprecatedSource: e.Source, DeprecatedFirstTimestamp: e.FirstTimestamp, DeprecatedLastTimestamp: e.LastTimestamp, DeprecatedCount: e.Count,
	}
	if e.Series != nil {
		out.Series = &eventsv1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return out
}

func eventToCore(e *eventsv1.Event) *corev1.Event {
	out := &corev1.Event{
		ObjectMeta: e.ObjectMeta, EventTime: e.EventTime, ReportingController: e.ReportingController, ReportingInstance: e.ReportingInstance,
		Action: e.Action, Reason: e.Reason, InvolvedObject: e.Regarding, Related: e.Related, Message: e.Note, Type: e.Type,
		Source: e.DeprecatedSource, FirstTimestamp: e.DeprecatedFirstTimestamp, LastTimestamp: e.DeprecatedLastTimestamp, Count: e.DeprecatedCount,
	}
	if e.Series != nil {
		out.Series = &corev1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	return out
}
