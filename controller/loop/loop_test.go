package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/client"
)

// drain takes and ends everything that is ready, in order.
func drain(t *testing.T, q *Queue) string {
	t.Helper()
	var keys []string
	for q.Len() > 0 {
		k, ok := q.Get(t.Context())
		if !ok {
			t.Fatal("Get ended")
		}
		keys = append(keys, k)
		q.Done(k)
	}
	return strings.Join(keys, " ")
}

func TestQueueHasEachKeyOnce(t *testing.T) {
	q := NewQueue()
	for _, k := range []string{"a", "b", "a", "c", "b"} {
		q.Add(k)
	}
	k, _ := q.Get(t.Context())
	if k != "a" || q.Idle() {
		t.Errorf("took %s, idle %t", k, q.Idle())
	}
	q.Add("a") // while it is worked on: not to anybody else
	q.Add("a")
	if got := drain(t, q); got != "b c" {
		t.Errorf("others got %q", got)
	}
	q.Done("a")
	if got := drain(t, q); got != "a" || !q.Idle() {
		t.Errorf("after the work: %q, idle %t", got, q.Idle())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := q.Get(ctx); ok {
		t.Error("Get gave a key after its context")
	}
}

func TestQueueDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue()
		after := func(d time.Duration, want string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := drain(t, q); got != want {
				t.Errorf("%q is ready, want %q", got, want)
			}
		}
		q.AddAfter("a", 10*time.Second)
		q.AddAfter("a", 2*time.Second) // the earliest counts
		q.AddAfter("a", 5*time.Second)
		q.AddAfter("now", 0)
		after(0, "now")
		after(1900*time.Millisecond, "")
		after(200*time.Millisecond, "a")
		after(time.Minute, "")
		// Pauses double, up to half a minute, and begin anew after success.
		for i := range 14 {
			want := min(10*time.Millisecond<<i, 30*time.Second)
			q.Retry("r")
			after(want-time.Millisecond, "")
			after(time.Millisecond, "r")
		}
		q.Forget("r")
		q.Retry("r")
		after(10*time.Millisecond, "r")
		q.AddAfter("late", time.Second)
		q.Close()
		q.Add("closed")
		after(time.Minute, "")
	})
}

// A key whose Sync fails comes back until it succeeds, and no key is in two hands at once.
func TestRun(t *testing.T) {
	env := NewEnv(nil, slog.New(slog.DiscardHandler))
	q := NewQueue()
	var mu sync.Mutex
	hands, tries := map[string]int{}, map[string]int{}
	ctx, stop := context.WithCancel(t.Context())
	var ticks atomic.Int32
	c := &Controller{Name: "test", Queue: q, Workers: 8, Every: time.Hour, Tick: func(context.Context) { ticks.Add(1) }, Sync: func(_ context.Context, key string) error {
		mu.Lock()
		hands[key]++
		if hands[key] > 1 {
			t.Errorf("%s is in two hands", key)
		}
		tries[key]++
		n := tries[key]
		mu.Unlock()
		q.Add(key) // what happens meanwhile
		defer func() { mu.Lock(); hands[key]--; mu.Unlock() }()
		switch n {
		case 1, 2, 3:
			return errors.New("not yet")
		case 20:
			stop()
		}
		return nil
	}}
	q.Add("a")
	env.Run(ctx, []*Controller{c})
	if tries["a"] < 20 || ticks.Load() != 1 {
		t.Errorf("%d tries of a, %d ticks, want 20 and 1", tries["a"], ticks.Load())
	}
}

func TestParallel(t *testing.T) {
	var now, most atomic.Int32
	errs := Parallel(20, 3, func(i int) error {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		if i%7 == 0 {
			return fmt.Errorf("%d", i)
		}
		return nil
	})
	var failed []string
	for _, err := range errs {
		if err != nil {
			failed = append(failed, err.Error())
		}
	}
	if !slices.Equal(failed, []string{"0", "7", "14"}) || most.Load() > 3 || len(errs) != 20 {
		t.Errorf("failed %v, %d at once", failed, most.Load())
	}
}

type counted map[types.UID]int

func (c counted) Event(obj client.Object, _, _, _ string, _ ...any) { c[obj.GetUID()]++ }

func TestEventsAreLimited(t *testing.T) {
	to, now := counted{}, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := &limited{to: to, now: func() time.Time { return now }, buckets: map[types.UID]bucket{}}
	a, b := &corev1.Pod{}, &corev1.Pod{}
	a.UID, b.UID = "a", "b"
	for range 100 {
		l.Event(a, "", "", "")
	}
	l.Event(b, "", "", "")
	now = now.Add(eventRefill + time.Second)
	for range 5 {
		l.Event(a, "", "", "")
	}
	if to["a"] != eventBurst+1 || to["b"] != 1 {
		t.Errorf("%v events, want %d of a and one of b", to, eventBurst+1)
	}
}
