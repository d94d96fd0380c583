package loop

import (
	"context"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
)

// seeFor bounds how long a worker waits for a cache to show its own write; past it the key is simply tried again.
const seeFor = 10 * time.Second

// See waits until cache shows the write that answered with obj, so that the next plan of the key starts from it.
func See[T client.Object](ctx context.Context, cache *client.Cache[T], obj T) error {
	ctx, cancel := context.WithTimeout(ctx, seeFor)
	defer cancel()
	return cache.WaitAtLeast(ctx, obj.GetResourceVersion())
}

// Gone waits until cache shows obj deleted, being deleted, or replaced by another of its name. A delete answers with no
// revision, so it has to be looked for.
func Gone[T client.Object](ctx context.Context, cache *client.Cache[T], obj T) error {
	ctx, cancel := context.WithTimeout(ctx, seeFor)
	defer cancel()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		now, ok := cache.GetKey(client.Key(obj))
		if !ok || now.GetUID() != obj.GetUID() || now.GetDeletionTimestamp() != nil {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Parallel calls fn(0) … fn(n-1), at most limit at a time, and returns the errors in order (nil for success).
func Parallel(n, limit int, fn func(i int) error) []error {
	errs := make([]error, n)
	if n == 1 {
		errs[0] = fn(0)
		return errs
	}
	var wg sync.WaitGroup
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	for range min(limit, n) {
		wg.Go(func() {
			for i := range next {
				errs[i] = fn(i)
			}
		})
	}
	wg.Wait()
	return errs
}

// OfUID returns delete options that hit only the object of obj's uid.
func OfUID(obj metav1.Object) metav1.DeleteOptions {
	uid := obj.GetUID()
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}
}
