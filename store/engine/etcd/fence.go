package etcd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

const (
	// fencePrefix is below which the fences lie, beside upstream's keys.
	fencePrefix = "karve/fence/"
	// fenceLife is how long a fence stays in etcd: for longer than any request can be on its way.
	fenceLife = time.Hour
)

// fence keeps creations that went unanswered from happening later. An update is tied to the revision it replaces, which never
// comes again; but "there is no record" can be true again after others made and deleted one, and a late creation would bring
// it back to life. So each creation is tied to the revision of a key that only this process writes, 0 at first: writing it
// cuts off all creations sent before.
type fence struct {
	key []byte
	at  atomic.Int64
}

func newFence() fence {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // it never fails
	return fence{key: []byte(fencePrefix + hex.EncodeToString(id))}
}

// compare is the condition under which a creation may happen.
func (f *fence) compare(at int64) *pb.Compare {
	return &pb.Compare{Key: f.key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: at}}
}

// raise cuts off all creations sent so far and returns the revision after which none of them happens.
func (e *Engine) raise(ctx context.Context) (uint64, error) {
	lease, err := e.leases.client.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: int64(fenceLife / time.Second)}, grpc.WaitForReady(true))
	if err != nil {
		return 0, err
	}
	resp, err := e.kv.Put(ctx, &pb.PutRequest{Key: e.fence.key, Lease: lease.ID}, grpc.WaitForReady(true))
	if err != nil {
		return 0, err
	}
	for at := resp.Header.Revision; ; {
		now := e.fence.at.Load()
		if now >= at || e.fence.at.CompareAndSwap(now, at) {
			return uint64(at), nil
		}
	}
}
