package client

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"karve/api"
)

// Recorder writes core/v1 Events in the background. An event equal to an earlier one (same object, reason, message, type)
// raises that one's count instead of making another, as clients expect. It never blocks its caller: with more than 1,000
// events waiting, further ones are dropped and counted in a log line.
type Recorder struct {
	t         Transport
	log       *slog.Logger
	component string
	host      string
	queue     chan *corev1.Event

	mu   sync.Mutex
	seen map[string]seenEvent
}

type seenEvent struct {
	namespace, name string
	count           int32
	last            time.Time
}

// NewRecorder returns a recorder that reports as component on host (host may be empty). Run it.
func NewRecorder(t Transport, log *slog.Logger, component, host string) *Recorder {
	return &Recorder{t: t, log: log, component: component, host: host, queue: make(chan *corev1.Event, 1000), seen: map[string]seenEvent{}}
}

// Event records that something happened to obj. eventType is corev1.EventTypeNormal or corev1.EventTypeWarning.
func (r *Recorder) Event(obj Object, eventType, reason, format string, args ...any) {
	r.EventRef(Reference(obj), eventType, reason, format, args...)
}

// EventRef is Event for an object known only by reference; a FieldPath narrows it to a part (a container).
func (r *Recorder) EventRef(ref corev1.ObjectReference, eventType, reason, format string, args ...any) {
	ns := ref.Namespace
	if ns == "" {
		ns = metav1.NamespaceDefault
	}
	now := time.Now()
	ev := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", ref.Name, now.UnixNano()), Namespace: ns},
		InvolvedObject: ref, Reason: reason, Message: fmt.Sprintf(format, args...), Type: eventType,
		Source:         corev1.EventSource{Component: r.component, Host: r.host},
		FirstTimestamp: metav1.NewTime(now), LastTimestamp: metav1.NewTime(now), Count: 1,
		ReportingController: r.component, ReportingInstance: r.host,
	}
	select {
	case r.queue <- ev:
	default:
		r.log.Warn("event dropped: too many are waiting", "object", ref.Namespace+"/"+ref.Name, "reason", reason)
	}
}

// Reference returns the reference that events and owner records use for obj.
func Reference(obj Object) corev1.ObjectReference {
	gvk := obj.GetObjectKind().GroupVersionKind()
	if row := api.Of(runtime.Object(obj)); row != nil {
		gvk = row.GVK()
	}
	return corev1.ObjectReference{Kind: gvk.Kind, APIVersion: gvk.GroupVersion().String(), Namespace: obj.GetNamespace(),
		Name: obj.GetName(), UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion()}
}

// Run writes events until ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-r.queue:
			if err := r.write(ctx, ev); err != nil && ctx.Err() == nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) && !apierrors.IsNotFound(err) {
				r.log.Warn("event not written", "object", ev.InvolvedObject.Namespace+"/"+ev.InvolvedObject.Name, "reason", ev.Reason, "err", err)
			}
		}
	}
}

func (r *Recorder) write(ctx context.Context, ev *corev1.Event) error {
	ref := &ev.InvolvedObject
	key := strings.Join([]string{ref.Kind, ref.Namespace, ref.Name, string(ref.UID), ref.FieldPath, ev.Type, ev.Reason, ev.Message}, "\x00")
	r.mu.Lock()
	prev, again := r.seen[key]
	r.mu.Unlock()
	res := Of[*corev1.Event](r.t)
	if again && ev.LastTimestamp.Sub(prev.last) < time.Hour {
		prev.count, prev.last = prev.count+1, ev.LastTimestamp.Time
		patch := fmt.Sprintf(`{"count":%d,"lastTimestamp":%q}`, prev.count, prev.last.UTC().Format(time.RFC3339))
		_, err := res.Patch(ctx, prev.namespace, prev.name, types.MergePatchType, []byte(patch))
		if err == nil {
			r.remember(key, prev)
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	got, err := res.Create(ctx, ev)
	if err != nil {
		return err
	}
	r.remember(key, seenEvent{namespace: got.Namespace, name: got.Name, count: 1, last: ev.LastTimestamp.Time})
	return nil
}

// remember keeps at most 4,096 events, forgetting arbitrary ones beyond: a forgotten one is merely written anew.
func (r *Recorder) remember(key string, e seenEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) >= 4096 {
		for k := range r.seen {
			delete(r.seen, k)
			break
		}
	}
	r.seen[key] = e
}
