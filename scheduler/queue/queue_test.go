package queue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/scheduler/snapshot"
)

func waiting(name string, priority int32) *snapshot.Pod {
	return snapshot.NewPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Priority: &priority}})
}

func next(t *testing.T, q *Queue, want string) (*Item, uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	it, moves, err := q.Next(ctx)
	if err != nil || it.Pod.Name != want {
		t.Fatalf("next: %v %v, want %s", it, err, want)
	}
	return it, moves
}

func TestOrderAndRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(time.Now)
		q.Set(waiting("low", 0))
		time.Sleep(time.Millisecond)
		q.Set(waiting("later", 0))
		q.Set(waiting("high", 10))
		it, moves := next(t, q, "high")
		q.Retry(it, moves)
		next(t, q, "low")
		q.Done("low")
		next(t, q, "later")
		q.Done("later")
		began := time.Now()
		time.AfterFunc(100*time.Millisecond, q.Move)
		it, moves = next(t, q, "high")
		if d := time.Since(began); d < 900*time.Millisecond || d > 2*time.Second {
			t.Fatalf("a pod that failed once was tried after %v, want its pause of a second", d)
		}
		q.Move() // while the attempt is under way
		q.Retry(it, moves)
		began = time.Now()
		it, _ = next(t, q, "high")
		if d := time.Since(began); d > 3*time.Second {
			t.Fatalf("an event during the attempt was lost: tried after %v", d)
		}
		q.Done(it.Pod.UID)
		if q.Len() != 0 {
			t.Fatal("pods left over")
		}
	})
}

func TestParkedForLongIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(time.Now)
		q.Set(waiting("p", 0))
		it, moves := next(t, q, "p")
		q.Retry(it, moves)
		began := time.Now()
		next(t, q, "p")
		if d := time.Since(began); d < 4*time.Minute || d > 7*time.Minute {
			t.Fatalf("tried after %v, want about five minutes", d)
		}
	})
}

func TestRemovedWhileTried(t *testing.T) {
	q := New(time.Now)
	q.Set(waiting("p", 0))
	it, moves := next(t, q, "p")
	q.Remove("p")
	q.Retry(it, moves)
	if q.Len() != 0 {
		t.Fatal("a removed pod came back")
	}
}
