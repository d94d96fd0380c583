package validation

import (
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addEvents(t table) {
	rule(t, "", "v1", "Event", true, subdomain, func(o *corev1.Event) errors {
		errs := involved(o.Namespace, o.InvolvedObject.Namespace, o.InvolvedObject.APIVersion)
		if o.EventTime.IsZero() {
			return errs
		}
		return append(errs, newStyle(o.ReportingController, o.ReportingInstance, o.Action, o.Reason, o.Message, "reportingComponent")...)
	}, nil)
	rule(t, "events.k8s.io", "v1", "Event", true, subdomain, newEvent, nil, ownUpdate(newEventUpdate))
}

// involved checks that an event lives beside the object it is about; that of a cluster-wide object lives in default.
func involved(eventNS, objectNS, apiVersion string) errors {
	p := field.NewPath("involvedObject", "namespace")
	if objectNS == "" {
		if eventNS != "" && eventNS != "default" {
			return errors{field.Invalid(p, objectNS, "does not match event.namespace")}
		}
		return nil
	}
	if eventNS != objectNS && apiVersion == "v1" {
		return errors{field.Invalid(p, objectNS, "does not match event.namespace")}
	}
	return nil
}

func newStyle(controller, instance, action, reason, message, controllerName string) errors {
	var errs errors
	if controller == "" {
		errs = append(errs, field.Required(field.NewPath(controllerName), ""))
	}
	errs = append(errs, qualifiedName(field.NewPath(controllerName), controller)...)
	for _, f := range []struct {
		name, value string
		max         int
	}{{"reportingInstance", instance, 128}, {"action", action, 128}, {"reason", reason, 128}} {
		if f.value == "" {
			errs = append(errs, field.Required(field.NewPath(f.name), ""))
		}
		if len(f.value) > f.max {
			errs = append(errs, field.Invalid(field.NewPath(f.name), "", "can have at most 128 characters"))
		}
	}
	if len(message) > 1024 {
		errs = append(errs, field.Invalid(field.NewPath("message"), "", "can have at most 1024 characters"))
	}
	return errs
}

func newEvent(o *eventsv1.Event) errors {
	errs := involved(o.Namespace, o.Regarding.Namespace, o.Regarding.APIVersion)
	if o.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if o.Type != corev1.EventTypeNormal && o.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", "has invalid value: "+o.Type))
	}
	errs = append(errs, newStyle(o.ReportingController, o.ReportingInstance, o.Action, o.Reason, o.Note, "reportingController")...)
	return append(errs, eventSeries(o)...)
}

func eventSeries(o *eventsv1.Event) errors {
	if o.Series == nil {
		return nil
	}
	var errs errors
	if o.Series.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if o.Series.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}

// newEventUpdate lets only the series and what labels an event carries change.
func newEventUpdate(o, old *eventsv1.Event) errors {
	var errs errors
	for _, f := range []struct {
		name   string
		v, old any
	}{
		{"involvedObject", o.Regarding, old.Regarding}, {"reason", o.Reason, old.Reason}, {"reason", o.Reason, old.Reason}, {"message", o.Note, old.Note}, {"source", o.DeprecatedSource, old.DeprecatedSource},
		{"firstTimestamp", o.DeprecatedFirstTimestamp, old.DeprecatedFirstTimestamp}, {"lastTimestamp", o.DeprecatedLastTimestamp, old.DeprecatedLastTimestamp},
		{"count", o.DeprecatedCount, old.DeprecatedCount}, {"type", o.Type, old.Type},
	} {
		errs = append(errs, immutable(field.NewPath(f.name), f.v, f.old)...)
	}
	if !o.EventTime.Equal(&old.EventTime) {
		errs = append(errs, field.Invalid(field.NewPath("eventTime"), o.EventTime, "field is immutable").WithOrigin("immutable"))
	}
	for _, f := range []struct {
		name   string
		v, old any
	}{
		{"action", o.Action, old.Action}, {"related", o.Related, old.Related}, {"reportingController", o.ReportingController, old.ReportingController}, {"reportingInstance", o.ReportingInstance, old.ReportingInstance},
	} {
		errs = append(errs, immutable(field.NewPath(f.name), f.v, f.old)...)
	}
	if o.Regarding.Namespace == "" {
		errs = append(errs, involved(o.Namespace, "", "")...)
	}
	errs = append(errs, eventSeries(o)...)
	return append(errs, newStyle(o.ReportingController, o.ReportingInstance, o.Action, o.Reason, o.Note, "reportingController")...)
}
