package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"

	"karve/store"
)

const (
	// patience is how long events are given to come by themselves before progress is asked for, and again until it comes.
	patience      = 3 * time.Millisecond
	progressAgain = 100 * time.Millisecond
	// progressEvery asks for progress without a need: what others write beside our prefix moves the revision too.
	progressEvery = time.Minute
	// maxPause ends the growth of the pauses between attempts to follow.
	maxPause = 2 * time.Second
)

// errGap says that etcd cannot tell what happened since the last event.
var errGap = errors.New("events are lost")

// follower carries one Follow from stream to stream.
type follower struct {
	*Engine
	tell    func(store.News)
	after   uint64
	changes []store.Mutation
}

// Follow watches the prefix. When the connection or the member is lost it goes on with another at the next revision; when
// what happened in between is compacted away, it reads everything anew.
func (e *Engine) Follow(ctx context.Context, after uint64, tell func(store.News)) {
	ctx, cancel := context.WithCancel(withLeader(ctx))
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	e.told.Store(after)
	f := &follower{Engine: e, tell: tell, after: after}
	pause, healthy := retryPause, true
	for {
		began := f.after
		err := f.stream(ctx)
		if errors.Is(err, errGap) && ctx.Err() == nil {
			e.log.Warn("events of etcd are lost: reading everything anew", "after", f.after, "err", err)
			err = f.reload(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if f.after != began {
			pause, healthy = retryPause, true
		}
		if err != nil && healthy {
			healthy = false
			e.log.Warn("watch of etcd ended, trying again", "after", f.after, "err", err)
		}
		if !e.pause(ctx, pause) {
			return
		}
		pause = min(2*pause, maxPause)
	}
}

// stream follows until the stream ends, with an error always.
func (f *follower) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := f.watch.Watch(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	create := &pb.WatchCreateRequest{Key: []byte(f.prefix), RangeEnd: after(f.prefix), StartRevision: int64(f.after) + 1, ProgressNotify: true}
	if err := s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	asked := make(chan struct{})
	created := false
	defer func() {
		cancel()
		if created {
			<-asked
		}
	}()
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		switch {
		case r.Canceled && r.CompactRevision > 0:
			return fmt.Errorf("%w: etcd was compacted at %d", errGap, r.CompactRevision)
		case r.Canceled:
			return fmt.Errorf("etcd ended the watch: %s", r.CancelReason)
		case r.Created:
			if uint64(r.Header.Revision) < f.after {
				return fmt.Errorf("%w: etcd is at revision %d now, before %d: was it restored from a backup?", errGap, r.Header.Revision, f.after)
			}
			created = true
			go func() {
				defer close(asked)
				f.askProgress(ctx, s)
			}()
		case len(r.Events) > 0:
			f.events(r.Events)
		case uint64(r.Header.Revision) > f.after:
			// An answer without events: there are none up to here.
			f.advance(store.News{Revision: uint64(r.Header.Revision)})
		}
	}
}

// events tells of the events of one answer. It holds all that share the last one's revision.
func (f *follower) events(events []*mvccpb.Event) {
	f.changes = f.changes[:0]
	for _, e := range events {
		m := store.Mutation{Key: f.storeKey(e.Kv.Key), Revision: uint64(e.Kv.ModRevision)}
		if e.Type == mvccpb.PUT {
			if m.Value = e.Kv.Value; m.Value == nil {
				m.Value = []byte{}
			}
		}
		f.changes = append(f.changes, m)
	}
	f.advance(store.News{Changes: f.changes, Revision: f.changes[len(f.changes)-1].Revision})
	clear(f.changes)
}

func (f *follower) advance(n store.News) {
	f.tell(n)
	f.after = n.Revision
	f.told.Store(n.Revision)
}

// reload tells everything anew.
func (f *follower) reload(ctx context.Context) error {
	var all []store.Mutation
	revision, err := f.Load(ctx, func(key string, revision uint64, value []byte) error {
		all = append(all, store.Mutation{Key: key, Revision: revision, Value: value})
		return nil
	})
	if err != nil {
		return err
	}
	f.advance(store.News{Changes: all, Revision: revision, Anew: true})
	return nil
}

// want says that somebody waits for what happened up to the revision.
func (e *Engine) want(revision uint64) {
	for {
		now := e.wanted.Load()
		if now >= revision || e.wanted.CompareAndSwap(now, revision) {
			break
		}
	}
	if e.told.Load() >= revision {
		return
	}
	select {
	case e.poke <- struct{}{}:
	default:
	}
}

// askProgress asks etcd to say how far the stream is whenever somebody waits for more than came by itself. A member answers
// only when it has sent all there is, so the question is put again until the answer is enough.
func (f *follower) askProgress(ctx context.Context, s pb.Watch_WatchClient) {
	request := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	every := time.NewTicker(progressEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			if s.Send(request) != nil {
				return
			}
		case <-f.poke:
			for wait := patience; f.told.Load() < f.wanted.Load(); wait = progressAgain {
				if !f.pause(ctx, wait) {
					return
				}
				if f.told.Load() < f.wanted.Load() && s.Send(request) != nil {
					return
				}
			}
		}
	}
}
