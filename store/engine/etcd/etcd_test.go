package etcd

import (
	"context"
	"math/rand/v2"
	"testing"

	"karve/store"
	"karve/store/engine/etcd/etcdtest"
	"karve/store/storetest"
)

var ctx = context.Background()

// open opens an engine on a cluster, for keys without a root of their own.
func open(t testing.TB, endpoints ...string) *Engine {
	t.Helper()
	e, err := Open(ctx, Options{Endpoints: endpoints, Prefix: "/registry"})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// place is an etcd of one member that nobody else writes to.
type place struct {
	cluster *etcdtest.Cluster
	engine  *Engine
}

func (p *place) Open(t *testing.T) store.Engine {
	p.engine = open(t, p.cluster.Endpoints()...)
	return fromZero{p.engine}
}

// Crash leaves the open engine without its etcd: the copy of its directory at this moment is started elsewhere. The engine
// does not have to find that out by waiting.
func (p *place) Crash(*testing.T, *rand.Rand) {
	m := p.cluster.Members[0]
	m.Move()
	p.engine.stop()
	m.Restart()
}

// fromZero counts revisions as the suite does: an empty etcd is at revision 1, an empty store at 0.
type fromZero struct{ *Engine }

func (e fromZero) Load(ctx context.Context, fn func(string, uint64, []byte) error) (uint64, error) {
	last, err := e.Engine.Load(ctx, func(key string, revision uint64, value []byte) error { return fn(key, revision-1, value) })
	return last - 1, err
}

func (e fromZero) Apply(batch []store.Mutation) error {
	for i := range batch {
		if batch[i].Expect > 0 {
			batch[i].Expect++
		}
	}
	err := e.Engine.Apply(batch)
	for i := range batch {
		batch[i].Revision--
	}
	return err
}

func (e fromZero) Follow(ctx context.Context, after uint64, tell func(store.News)) {
	e.Engine.Follow(ctx, after+1, func(n store.News) {
		n.Revision--
		for i := range n.Changes {
			n.Changes[i].Revision--
		}
		tell(n)
	})
}

func (e fromZero) Current(ctx context.Context) (uint64, error) {
	revision, err := e.Engine.Current(ctx)
	return revision - 1, err
}

func (e fromZero) Past(ctx context.Context, prefix string, revision uint64, fn func(string, uint64, []byte) error) error {
	return e.Engine.Past(ctx, prefix, revision+1, func(key string, revision uint64, value []byte) error { return fn(key, revision-1, value) })
}

func TestEngine(t *testing.T) {
	storetest.RunShared(t, func(t *testing.T) storetest.Backend { return &place{cluster: etcdtest.Start(t, 1)} })
}
