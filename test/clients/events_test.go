package clients

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/record"
)

// TestEventRecorder says the same thing many times with client-go's older recorder: it becomes one event that counts, and
// many things that are alike become one aggregate.
func TestEventRecorder(t *testing.T) {
	s := start(t)
	s.namespace("events")
	s.serviceAccount("events")
	cs := s.clientset()
	p, err := cs.CoreV1().Pods("events").Create(t.Context(), pod("p"), metav1.CreateOptions{})
	must(t, err)
	b := record.NewBroadcaster(record.WithContext(t.Context()))
	defer b.Shutdown()
	b.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: cs.CoreV1().Events("")})
	r := b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "tester", Host: "here"})
	const same, alike = 5, 15
	for range same {
		r.Event(p, corev1.EventTypeWarning, "Same", "again and again")
	}
	for i := range alike {
		r.Eventf(p, corev1.EventTypeNormal, "Alike", "number %d", i)
	}
	about := metav1.ListOptions{FieldSelector: fields.Set{"involvedObject.uid": string(p.UID), "reason": "Same"}.AsSelector().String()}
	eventually(t, "one event counts its repeats", func() error {
		l, err := cs.CoreV1().Events("events").List(t.Context(), about)
		if err != nil {
			return err
		}
		return when(len(l.Items) == 1 && l.Items[0].Count == same, "%d events: %s", len(l.Items), asJSON(t, l.Items))
	})
	about.FieldSelector = fields.Set{"involvedObject.name": "p", "reason": "Alike"}.AsSelector().String()
	eventually(t, "what is alike is put together", func() error {
		l, err := cs.CoreV1().Events("events").List(t.Context(), about)
		if err != nil {
			return err
		}
		count := int32(0)
		for _, e := range l.Items {
			count += e.Count
		}
		return when(len(l.Items) < alike && count == alike, "%d events that count %d", len(l.Items), count)
	})
}

// TestEventsSeries says the same thing many times with the events.k8s.io recorder: one event with a series, which the older
// API shows too.
func TestEventsSeries(t *testing.T) {
	s := start(t)
	s.namespace("series")
	s.serviceAccount("series")
	cs := s.clientset()
	p, err := cs.CoreV1().Pods("series").Create(t.Context(), pod("p"), metav1.CreateOptions{})
	must(t, err)
	b := events.NewBroadcaster(&events.EventSinkImpl{Interface: cs.EventsV1()})
	defer b.Shutdown()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	must(t, b.StartRecordingToSinkWithContext(ctx))
	r := b.NewRecorder(scheme.Scheme, "example.com/tester")
	list := func() []eventsv1.Event {
		l, err := cs.EventsV1().Events("series").List(t.Context(), metav1.ListOptions{FieldSelector: "regarding.name=p,reason=Again"})
		must(t, err)
		return l.Items
	}
	say := func() { r.Eventf(p, nil, corev1.EventTypeNormal, "Again", "Testing", "said %s", "again") }
	say()
	eventually(t, "the first event", func() error { return when(len(list()) == 1, "%d events", len(list())) })
	for range 4 {
		say()
	}
	eventually(t, "a series", func() error {
		l := list()
		return when(len(l) == 1 && l[0].Series != nil && l[0].Series.Count >= 2, "%s", asJSON(t, l))
	})
	e := list()[0]
	if e.ReportingController != "example.com/tester" || e.Note != "said again" || e.Action != "Testing" || e.Regarding.UID != p.UID || e.EventTime.IsZero() {
		t.Errorf("event %s", asJSON(t, e))
	}
	older, err := cs.CoreV1().Events("series").Get(t.Context(), e.Name, metav1.GetOptions{})
	must(t, err)
	if older.Message != "said again" || older.Series == nil || older.InvolvedObject.Name != "p" || fmt.Sprint(older.EventTime) != fmt.Sprint(e.EventTime) {
		t.Errorf("the same in the older API: %s", asJSON(t, older))
	}
}
