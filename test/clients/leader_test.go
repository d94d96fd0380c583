package clients

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// terms remembers who led, and whether two did at once.
type terms struct {
	mu      sync.Mutex
	leading map[string]bool
	order   []string
	both    []string
}

func (x *terms) begin(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.leading) > 0 {
		x.both = append(x.both, fmt.Sprintf("%s began while %v led", id, x.leading))
	}
	x.leading[id] = true
	x.order = append(x.order, id)
}

func (x *terms) end(id string) {
	x.mu.Lock()
	delete(x.leading, id)
	x.mu.Unlock()
}

func (x *terms) led() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return append([]string(nil), x.order...)
}

// candidate runs for leader until ctx ends; release says whether it gives the lease up when it goes.
func candidate(ctx context.Context, t *testing.T, cs kubernetes.Interface, id string, release bool, x *terms) {
	t.Helper()
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, "election", "lock", cs.CoreV1(), cs.CoordinationV1(), resourcelock.ResourceLockConfig{Identity: id})
	must(t, err)
	e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{Lock: lock, LeaseDuration: 4 * time.Second, RenewDeadline: 3 * time.Second, RetryPeriod: 200 * time.Millisecond,
		ReleaseOnCancel: release, Name: "lock", Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { x.begin(id); <-ctx.Done(); x.end(id) },
			OnStoppedLeading: func() { x.end(id) },
		}})
	must(t, err)
	e.Run(ctx)
}

// TestLeaderElection lets three run for one lease, and takes the leader away twice: once it gives the lease back, once it
// falls silent and the lease runs out. There is always one leader at most, and the lease counts its changes.
func TestLeaderElection(t *testing.T) {
	s := start(t)
	s.namespace("election")
	x := &terms{leading: map[string]bool{}}
	release := map[string]bool{"a": true, "b": false, "c": true}
	stop := map[string]context.CancelFunc{}
	var all sync.WaitGroup
	run := func(id string) {
		ctx, cancel := context.WithCancel(t.Context())
		stop[id] = cancel
		cs := s.clientset()
		all.Go(func() { candidate(ctx, t, cs, id, release[id], x) })
	}
	defer func() {
		for _, cancel := range stop {
			cancel()
		}
		all.Wait()
	}()
	nth := func(n int) string {
		t.Helper()
		eventually(t, fmt.Sprintf("leader %d", n), func() error { return when(len(x.led()) >= n, "leaders so far: %v", x.led()) })
		return x.led()[n-1]
	}
	run("a")
	if got := nth(1); got != "a" {
		t.Fatalf("the first leader is %s", got)
	}
	run("b")
	eventually(t, "b waits for the lease", func() error {
		l, err := s.clientset().CoordinationV1().Leases("election").Get(t.Context(), "lock", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return when(l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity == "a", "held by %v", l.Spec.HolderIdentity)
	})
	stop["a"]()
	if got := nth(2); got != "b" {
		t.Fatalf("after a gave the lease back, %s leads", got)
	}
	run("c")
	stop["b"]() // keeps the lease in its name: the next has to wait until it runs out
	if got := nth(3); got != "c" {
		t.Fatalf("after b fell silent, %s leads", got)
	}
	l, err := s.clientset().CoordinationV1().Leases("election").Get(t.Context(), "lock", metav1.GetOptions{})
	must(t, err)
	if l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity != "c" || l.Spec.LeaseTransitions == nil || *l.Spec.LeaseTransitions < 2 {
		t.Errorf("the lease says %+v", l.Spec)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range x.both {
		t.Error(b)
	}
}
