package etcd

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"karve/store"
)

const (
	// A lease is shared by records of one lifetime that are written one after the other: for a twentieth of the lifetime,
	// but a minute at most, and by so many. Each record lives by up to that much longer.
	leaseShare   = 20
	leaseTime    = time.Minute
	leaseRecords = 1000
)

// leases hands out the lease that a record with a lifetime is written under.
type leases struct {
	client pb.LeaseClient

	mu      sync.Mutex
	id      int64
	ttl     time.Duration
	until   time.Time
	records int
}

// lease returns the lease for a mutation, 0 for none.
func (e *Engine) lease(ctx context.Context, m *store.Mutation) (int64, error) {
	if m.Value == nil || e.ttl == nil {
		return 0, nil
	}
	ttl := e.ttl(m.Key)
	if ttl <= 0 {
		return 0, nil
	}
	return e.leases.get(ctx, ttl)
}

func (l *leases) get(ctx context.Context, ttl time.Duration) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.id != 0 && l.ttl == ttl && l.records < leaseRecords && now.Before(l.until) {
		l.records++
		return l.id, nil
	}
	share := min(ttl/leaseShare, leaseTime)
	seconds := int64((ttl + share + time.Second - 1) / time.Second)
	resp, err := l.client.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: seconds}, grpc.WaitForReady(true))
	if err != nil {
		return 0, err
	}
	l.id, l.ttl, l.until, l.records = resp.ID, ttl, now.Add(share), 1
	return l.id, nil
}

// drop forgets a lease that etcd does not know anymore.
func (l *leases) drop(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == id {
		l.id = 0
	}
}
