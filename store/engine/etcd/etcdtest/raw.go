package etcdtest

import (
	"context"
	"strconv"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Raw is plain access to an etcd, as another program would have it.
type Raw struct {
	t  testing.TB
	kv pb.KVClient
}

// Raw connects to the first member.
func (c *Cluster) Raw(t testing.TB) *Raw {
	conn, err := grpc.NewClient("passthrough:///"+c.Members[0].Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &Raw{t, pb.NewKVClient(conn)}
}

// Put writes a key and returns its revision.
func (r *Raw) Put(key string, value []byte) int64 {
	r.t.Helper()
	resp, err := r.kv.Put(context.Background(), &pb.PutRequest{Key: []byte(key), Value: value}, grpc.WaitForReady(true))
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Header.Revision
}

// Get reads a key, nil for none.
func (r *Raw) Get(key string) *mvccpb.KeyValue {
	r.t.Helper()
	resp, err := r.kv.Range(context.Background(), &pb.RangeRequest{Key: []byte(key)}, grpc.WaitForReady(true))
	if err != nil {
		r.t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return nil
	}
	return resp.Kvs[0]
}

// Compact makes etcd forget what was before a revision.
func (r *Raw) Compact(revision string) {
	r.t.Helper()
	n, err := strconv.ParseInt(revision, 10, 64)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.kv.Compact(context.Background(), &pb.CompactionRequest{Revision: n, Physical: true}, grpc.WaitForReady(true)); err != nil {
		r.t.Fatal(err)
	}
}
