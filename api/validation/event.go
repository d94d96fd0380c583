package validation

import (
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addEvents(t table) {
	rule(t, "", "v1", "Event", true, subdomain, func(o *corev1.Event) errors {
		if o.EventTime.IsZero() {
			return involved(o.Namespace, o.InvolvedObject.Namespace)
		}
		return append(placed(o.Namespace, o.InvolvedObject.Namespace), newStyle(o.ReportingController, o.ReportingInstance, o.Action, o.Reason, o.Message, "reportingComponent")...)
	}, nil)
	rule(t, "events.k8s.io", "v1", "Event", true, subdomain, newEvent, nil, ownUpdate(newEventUpdate))
}

// involved checks that an event lives beside the object it is about; that of a cluster-wide object lives in default.
func involved(eventNS, objectNS string) errors {
	p := field.NewPath("involvedObject", "namespace")
	if objectNS == "" {
		if eventNS != "" && eventNS != "default" {
			return errors{field.Invalid(p, objectNS, "does not match event.namespace")}
		}
		return nil
	}
	if eventNS != objectNS {
		return errors{field.Invalid(p, objectNS, "does not match event.namespace")}
	}
	return nil
}

// placed is the rule for events that carry their time: those of cluster-wide objects may live in kube-system, too.
func placed(eventNS, objectNS string) errors {
	if objectNS == "" && eventNS != "default" && eventNS != "kube-system" {
		return errors{field.Invalid(field.NewPath("involvedObject", "namespace"), objectNS, "does not match event.namespace")}
	}
	return nil
}

// newStyle is not asked of an event without a time, which is one of the old kind.
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
	errs := reported(o)
	if o.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if o.Type != corev1.EventTypeNormal && o.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", "has invalid value: "+o.Type))
	}
	return append(errs, eventSeries(o)...)
}

// reported checks where an event lives and who reports it.
func reported(o *eventsv1.Event) errors {
	if o.EventTime.IsZero() {
		return involved(o.Namespace, o.Regarding.Namespace)
	}
	return append(placed(o.Namespace, o.Regarding.Namespace), newStyle(o.ReportingController, o.ReportingInstance, o.Action, o.Reason, o.Note, "reportingController")...)
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
	errs := reported(o)
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
	return append(errs, eventSeries(o)...)
}
