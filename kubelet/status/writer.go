// Package status writes the status of pods to the API: one patch per change, never two of a pod at a time, holding only
// what differs. kubelet/podrun hands it what podworker built. It decides nothing about a pod.
package status

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
)

// Writer writes pod statuses. It is safe for concurrent use.
type Writer struct {
	ctx  context.Context
	t    client.Transport
	log  *slog.Logger
	done func(types.UID, *corev1.Pod)

	mu    sync.Mutex
	slots map[types.UID]*slot
	sem   chan struct{}
}

type slot struct {
	busy  bool
	fails int
	// ignored is a patch that the API took without changing anything: it will not say that, so it is not asked again.
	ignored string
}

// New returns a writer that lives as long as ctx. done is told of each write, with the pod as the server then had it, or
// nil when the pod is gone; it must return quickly.
func New(ctx context.Context, t client.Transport, log *slog.Logger, done func(types.UID, *corev1.Pod)) *Writer {
	return &Writer{ctx: ctx, t: t, log: log, done: done, slots: map[types.UID]*slot{}, sem: make(chan struct{}, 8)}
}

// Put makes the API say want of pod, whose own status is what the API is known to say. It reports whether that is so
// already. While a write of the pod is under way nothing is kept: call again when done was told.
func (w *Writer) Put(pod *corev1.Pod, want *corev1.PodStatus) (settled bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.slots[pod.UID]
	if s == nil {
		s = &slot{}
		w.slots[pod.UID] = s
	}
	if s.busy {
		return false
	}
	patch, err := Patch(pod, want)
	if err != nil {
		w.log.Error("pod status not written", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		return true
	}
	if patch == nil || string(patch) == s.ignored {
		return true
	}
	s.busy = true
	go w.write(pod, patch, s)
	return false
}

// Forget drops what is known of a pod.
func (w *Writer) Forget(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.slots, uid)
}

func (w *Writer) write(pod *corev1.Pod, patch []byte, s *slot) {
	w.sem <- struct{}{}
	got, err := client.Of[*corev1.Pod](w.t).Patch(w.ctx, pod.Namespace, pod.Name, types.StrategicMergePatchType, patch, "status")
	<-w.sem
	gone := apierrors.IsNotFound(err) || apierrors.IsConflict(err)
	if err != nil && !gone && w.ctx.Err() == nil {
		w.log.Warn("pod status not written", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		s.fails++
		select {
		case <-time.After(min(time.Duration(s.fails)*500*time.Millisecond, 10*time.Second)):
		case <-w.ctx.Done():
		}
		got = pod
	} else {
		s.fails = 0
	}
	w.mu.Lock()
	s.busy, s.ignored = false, ""
	if err == nil && got.ResourceVersion == pod.ResourceVersion {
		s.ignored = string(patch)
	}
	w.mu.Unlock()
	if gone {
		got = nil
	}
	w.done(pod.UID, got)
}

// Patch returns the strategic merge patch that turns the status of pod into want, or nil when there is none. Conditions are
// compared by type, and those want does not have are left alone.
func Patch(pod *corev1.Pod, want *corev1.PodStatus) ([]byte, error) {
	old, err := fields(&pod.Status)
	if err != nil {
		return nil, err
	}
	now, err := fields(want)
	if err != nil {
		return nil, err
	}
	diff := map[string]any{}
	for k, v := range now {
		if k != "conditions" && !reflect.DeepEqual(old[k], v) {
			diff[k] = v
		}
	}
	for k := range old {
		if _, still := now[k]; !still && k != "conditions" {
			diff[k] = nil
		}
	}
	for _, k := range []string{"podIPs", "hostIPs"} { // merged by key otherwise, which would keep the old ones
		if list, ok := diff[k].([]any); ok && old[k] != nil {
			diff[k] = append([]any{map[string]any{"$patch": "replace"}}, list...)
		}
	}
	conditions(diff, &pod.Status, want)
	if len(diff) == 0 {
		return nil, nil
	}
	return json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": diff})
}

func conditions(diff map[string]any, old, want *corev1.PodStatus) {
	var changed, order []any
	for i := range want.Conditions {
		c := &want.Conditions[i]
		order = append(order, map[string]any{"type": c.Type})
		same := false
		for j := range old.Conditions {
			o := &old.Conditions[j]
			if o.Type == c.Type {
				same = o.Status == c.Status && o.Reason == c.Reason && o.Message == c.Message && o.ObservedGeneration == c.ObservedGeneration &&
					o.LastTransitionTime.Time.Equal(c.LastTransitionTime.Time)
			}
		}
		if !same {
			entry := map[string]any{"type": c.Type, "status": c.Status, "lastTransitionTime": c.LastTransitionTime, "lastProbeTime": nil,
				"reason": nil, "message": nil}
			if c.ObservedGeneration != 0 {
				entry["observedGeneration"] = c.ObservedGeneration
			}
			if c.Reason != "" {
				entry["reason"] = c.Reason
			}
			if c.Message != "" {
				entry["message"] = c.Message
			}
			changed = append(changed, entry)
		}
	}
	if len(changed) > 0 {
		diff["conditions"] = changed
		diff["$setElementOrder/conditions"] = order
	}
}

func fields(st *corev1.PodStatus) (map[string]any, error) {
	b, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	return out, nil
}
