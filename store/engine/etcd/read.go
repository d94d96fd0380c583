package etcd

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"karve/store"
)

// pageRecords is how many records one answer of a scan may hold: a few MiB.
const pageRecords = 500

// storeKey and etcdKey translate between the two sides. ok is false for a key that has no place in etcd.
func (e *Engine) storeKey(key []byte) string {
	if e.prefix == e.root {
		return string(key)
	}
	return e.root + string(key[len(e.prefix):])
}

func (e *Engine) etcdKey(key string) (k []byte, ok bool) {
	if len(key) <= len(e.root) || key[:len(e.root)] != e.root {
		return nil, false
	}
	k = make([]byte, 0, len(e.prefix)+len(key)-len(e.root))
	return append(append(k, e.prefix...), key[len(e.root):]...), true
}

// after returns the first key behind all with the prefix, which ends with a slash.
func after(prefix string) []byte {
	end := []byte(prefix)
	end[len(end)-1]++
	return end
}

// Load calls fn for every record, in key order, all as of one revision, and returns that.
func (e *Engine) Load(ctx context.Context, fn func(key string, revision uint64, value []byte) error) (uint64, error) {
	return e.scan(ctx, e.prefix, 0, fn)
}

// Past calls fn for the records with the prefix as they were at a revision. Once that is compacted it is store.ErrExpired.
func (e *Engine) Past(ctx context.Context, prefix string, revision uint64, fn func(key string, revision uint64, value []byte) error) error {
	key, ok := e.etcdKey(prefix)
	if !ok {
		key = []byte(e.prefix)
	}
	_, err := e.scan(ctx, string(key), int64(revision), fn)
	if status.Code(err) == codes.OutOfRange { // compacted, or still to come
		return fmt.Errorf("%w: %w", store.ErrExpired, err)
	}
	return err
}

// scan reads all records with the prefix at a revision, 0 for the newest, which it returns.
func (e *Engine) scan(ctx context.Context, prefix string, revision int64, fn func(key string, revision uint64, value []byte) error) (uint64, error) {
	req := &pb.RangeRequest{Key: []byte(prefix), RangeEnd: after(prefix), Limit: pageRecords, Revision: revision}
	for {
		resp, err := e.ask(ctx, req)
		if err != nil {
			return 0, fmt.Errorf("read records from etcd: %w", explain(err))
		}
		if req.Revision == 0 {
			req.Revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			value := kv.Value
			if value == nil {
				value = []byte{}
			}
			if err := fn(e.storeKey(kv.Key), uint64(kv.ModRevision), value); err != nil {
				return 0, err
			}
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return uint64(req.Revision), nil
		}
		req.Key = append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
	}
}

// Current returns the revision a majority of the members has come to, and has Follow ask for what is missing up to it.
func (e *Engine) Current(ctx context.Context) (uint64, error) {
	// Nothing lies at the prefix itself: the answer is its header.
	resp, err := e.ask(ctx, &pb.RangeRequest{Key: []byte(e.prefix), Limit: 1, KeysOnly: true})
	if err != nil {
		return 0, explain(err)
	}
	e.want(uint64(resp.Header.Revision))
	return uint64(resp.Header.Revision), nil
}

// ask puts a question to one member after the other until one answers it or the time is over.
func (e *Engine) ask(ctx context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	ctx, cancel := context.WithTimeout(withLeader(ctx), callTime)
	defer cancel()
	var last error
	for {
		attempt, done := context.WithTimeout(ctx, readTime)
		resp, err := e.kv.Range(attempt, req, grpc.WaitForReady(true))
		done()
		if err == nil || refused(err) {
			return resp, err
		}
		if last == nil || ctx.Err() == nil {
			last = err // the time being over says less than what went before
		}
		if !e.pause(ctx, retryPause) {
			return nil, last
		}
	}
}

// pause waits, and returns false if ctx or the engine ends before.
func (e *Engine) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-e.ctx.Done():
	}
	return false
}
