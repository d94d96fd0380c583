package apiserver

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/apiserver/resource"
	"karve/store"
)

func TestExpireRounds(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	var e expiry
	var got []uint64
	for i := range 8 { // a round a minute, ten writes in each, a life of three minutes
		now := start.Add(time.Duration(i) * time.Minute)
		got = append(got, e.round(uint64(10*i+5), now, now.Add(-3*time.Minute)))
	}
	if want := "[0 0 0 5 15 25 35 45]"; fmt.Sprint(got) != want || len(e.marks) > 4 {
		t.Errorf("got %v, want %s; %d marks", got, want, len(e.marks))
	}
}

func TestEventsExpire(t *testing.T) {
	s := start(t)
	event := func(name string) {
		s.must(201, nil, "POST", "/api/v1/namespaces/default/events", fmt.Sprintf(`{"apiVersion":"v1","kind":"Event","metadata":{"name":%q},`+
			`"involvedObject":{"kind":"Pod","namespace":"default","name":"p"},"reason":"Because","type":"Normal"}`, name))
	}
	event("old")
	event("again")
	e := expiry{before: s.store.Revision()}
	now := time.Now()
	round := func(after time.Duration) {
		s.expireRound(t.Context(), &e, now.Add(after), time.Hour)
	}
	there := func() (names []string) {
		s.store.View().Scan(eventKeys, "", func(r *store.Record) bool {
			names = append(names, resource.ObjectOf(r).GetName())
			return true
		})
		return names
	}
	round(0)
	event("new")
	s.must(200, nil, "PATCH", "/api/v1/namespaces/default/events/again", `{"count":2}`, "Content-Type: application/merge-patch+json")
	round(30 * time.Minute)
	if got := fmt.Sprint(there()); got != "[again new old]" {
		t.Fatalf("after half of their life: %s", got)
	}
	round(61 * time.Minute)
	if got := fmt.Sprint(there()); got != "[again new]" {
		t.Fatalf("after the life of one: %s", got)
	}
	round(91 * time.Minute)
	if got := fmt.Sprint(there()); got != "[]" {
		t.Fatalf("after the life of all: %s", got)
	}
}

func TestLastWritten(t *testing.T) {
	at := func(s int64) metav1.Time { return metav1.NewTime(time.Unix(s, 0)) }
	micro := func(s int64) metav1.MicroTime { return metav1.NewMicroTime(time.Unix(s, 0)) }
	managed := at(5)
	for _, ev := range []corev1.Event{
		{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(5)}},
		{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(1)}, LastTimestamp: at(5)},
		{EventTime: micro(5), LastTimestamp: at(4)},
		{EventTime: micro(2), Series: &corev1.EventSeries{LastObservedTime: micro(5)}},
		{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(1), ManagedFields: []metav1.ManagedFieldsEntry{{Time: &managed}, {}}}},
	} {
		if got := lastWritten(&ev).Unix(); got != 5 {
			t.Errorf("%+v: %d", ev, got)
		}
	}
}
