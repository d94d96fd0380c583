package etcd

import (
	"context"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// compactKey is where all API servers on an etcd, upstream's too, agree on who compacts: its version (how often it was
// written) is the number of the round, its value the revision the round compacts to.
const compactKey = "compact_rev_key"

// compactor is one server's part in that. Each waits a round's time; who is first to write the key carries the round out.
// The others learn the new number and revision from their failure, so that every round forgets what was the present at
// the round before.
type compactor struct {
	engine   *Engine
	round    int64
	revision int64
}

func (e *Engine) compactEvery(every time.Duration) {
	c := compactor{engine: e}
	for e.pause(e.ctx, every) {
		if err := c.turn(e.ctx); err != nil && e.ctx.Err() == nil {
			e.log.Warn("history of etcd not compacted", "err", explain(err))
		}
	}
}

// turn takes part in one round.
func (c *compactor) turn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*attemptTime)
	defer cancel()
	key := []byte(compactKey)
	resp, err := c.engine.kv.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: key, Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_Version{Version: c.round}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: key, Value: strconv.AppendInt(nil, c.revision, 10)}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
	}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	target := c.revision
	c.revision = resp.Header.Revision
	if !resp.Succeeded {
		c.round = 0
		if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) == 1 {
			c.round = kvs[0].Version
		}
		return nil
	}
	c.round++
	if target == 0 { // the first round of all only says that there is one
		return nil
	}
	_, err = c.engine.kv.Compact(ctx, &pb.CompactionRequest{Revision: target}, grpc.WaitForReady(true))
	return err
}
