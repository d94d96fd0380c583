package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"karve/store"
)

// Apply makes the one mutation of the batch if its key is at Expect; many calls may run at once. An update or a delete that
// goes unanswered is tried again: as it is tied to Expect it happens once at most, whatever becomes of the earlier attempts.
// Should the new attempt meet a conflict, the error says that an earlier one may have been the cause (store.ErrUnanswered). A
// creation is cut off instead (see fence), and the error says the same.
func (e *Engine) Apply(batch []store.Mutation) error {
	if len(batch) != 1 {
		return fmt.Errorf("%w: %d mutations at a time", store.ErrNotApplied, len(batch))
	}
	m := &batch[0]
	key, ok := e.etcdKey(m.Key)
	if !ok {
		return fmt.Errorf("%w: key %q does not begin with %q", store.ErrNotApplied, m.Key, e.root)
	}
	ctx, cancel := context.WithTimeout(e.ctx, callTime)
	defer cancel()
	w := write{engine: e, m: m, key: key}
	for {
		done, err := w.attempt(ctx)
		if done {
			return err
		}
		w.last = err
		if !e.pause(ctx, retryPause) {
			return w.giveUp(err)
		}
		if w.doubt && m.Expect == 0 {
			return w.cutOff(ctx)
		}
	}
}

// write is one mutation on its way.
type write struct {
	engine *Engine
	m      *store.Mutation
	key    []byte
	// doubt says that an attempt went unanswered.
	doubt bool
	last  error
}

// attempt tries once. done says that err is the final answer; else another attempt makes sense.
func (w *write) attempt(ctx context.Context) (done bool, err error) {
	e := w.engine
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	lease, err := e.lease(ctx, w.m)
	if err != nil {
		return refused(err), w.giveUp(err)
	}
	fence := e.fence.at.Load()
	resp, err := e.kv.Txn(ctx, w.request(lease, fence), grpc.WaitForReady(true))
	switch {
	case err == nil && !resp.Succeeded && w.m.Expect == 0 && found(resp) == nil:
		// Cut off together with another's creation, or the fence is so old that it is gone.
		if e.fence.at.Load() == fence {
			_, err = e.raise(ctx)
		}
		return false, err
	case err == nil:
		return true, w.answered(resp)
	case lease != 0 && status.Code(err) == codes.NotFound:
		e.leases.drop(lease)
		return false, err
	case refused(err):
		return true, w.giveUp(err)
	case status.Code(err) == codes.ResourceExhausted:
		return false, err // too many requests: refused as it came
	}
	w.doubt = true
	return false, err
}

// cutOff is the end of a creation without an answer: from now on it does not happen anymore.
func (w *write) cutOff(ctx context.Context) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTime)
		at, err := w.engine.raise(attempt)
		cancel()
		if err == nil {
			w.m.Revision = at
			w.engine.want(at)
			return fmt.Errorf("%w: cut off after an attempt that failed: %w: %w", store.ErrConflict, w.last, store.ErrUnanswered)
		}
		if refused(err) || !w.engine.pause(ctx, retryPause) {
			return w.giveUp(err)
		}
	}
}

func (w *write) request(lease, fence int64) *pb.TxnRequest {
	var then pb.RequestOp
	if w.m.Value == nil {
		then.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: w.key}}
	} else {
		then.Request = &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: w.key, Value: w.m.Value, Lease: lease}}
	}
	compare := []*pb.Compare{{Key: w.key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_ModRevision{ModRevision: int64(w.m.Expect)}}}
	if w.m.Expect == 0 {
		compare = append(compare, w.engine.fence.compare(fence))
	}
	return &pb.TxnRequest{
		Compare: compare,
		Success: []*pb.RequestOp{&then},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: w.key, KeysOnly: true}}}},
	}
}

// answered takes the answer of a transaction that was carried out.
func (w *write) answered(resp *pb.TxnResponse) error {
	w.m.Revision = uint64(resp.Header.Revision)
	if resp.Succeeded {
		return nil
	}
	// What the conflict is with shows at the revision of the record, which comes by itself, or if there is none anymore at
	// that of the answer.
	if kv := found(resp); kv != nil {
		w.m.Revision = uint64(kv.ModRevision)
	}
	w.engine.want(w.m.Revision)
	if w.doubt {
		return fmt.Errorf("%w after an attempt that failed: %w: %w", store.ErrConflict, w.last, store.ErrUnanswered)
	}
	return store.ErrConflict
}

// found is the record that a failed transaction found at its key, nil for none.
func found(resp *pb.TxnResponse) *mvccpb.KeyValue {
	if len(resp.Responses) == 1 {
		if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) == 1 {
			return kvs[0]
		}
	}
	return nil
}

// giveUp is the error of a write that will not be tried again.
func (w *write) giveUp(err error) error {
	if w.doubt {
		return fmt.Errorf("%w: %w", store.ErrUnanswered, explain(err))
	}
	return fmt.Errorf("%w: %w", store.ErrNotApplied, explain(err))
}

// final are the codes of answers that asking again will not change. Those that are no final answers are told by their text.
var final = []codes.Code{codes.InvalidArgument, codes.NotFound, codes.PermissionDenied, codes.Unauthenticated,
	codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented, codes.ResourceExhausted, codes.DataLoss}

// refused tells whether the error is etcd's final answer. What it refuses it has surely not done.
func refused(err error) bool {
	s, _ := status.FromError(err)
	text := s.Message()
	return slices.Contains(final, s.Code()) && !strings.HasSuffix(text, "too many requests") && !strings.HasSuffix(text, "not leader")
}

// explain adds what can be done.
func explain(err error) error {
	s, _ := status.FromError(err)
	text := s.Message()
	switch {
	case strings.HasSuffix(text, "database space exceeded"):
		return fmt.Errorf("etcd has used up its space (--quota-backend-bytes); compact and defragment it, then disarm its alarm: %w", err)
	case strings.HasSuffix(text, "request is too large"):
		return fmt.Errorf("etcd takes no record of this size (--max-request-bytes): %w", err)
	case s.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("no member of etcd answers: %w", err)
	case errors.Is(err, context.Canceled) || s.Code() == codes.Canceled:
		return fmt.Errorf("%w: %w", store.ErrClosed, err)
	}
	return err
}
