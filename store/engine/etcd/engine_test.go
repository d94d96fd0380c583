package etcd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"karve/store"
	"karve/store/engine/etcd/etcdtest"
)

func TestUsable(t *testing.T) {
	for version, ok := range map[string]bool{"3.6.16": true, "3.5.8": true, "3.5.35": true, "3.7.0-rc.0": true, "4.0.0": true,
		"3.5.7": false, "3.4.40": false, "2.3.8": false, "": false, "x": false} {
		if err := usable(version); (err == nil) != ok {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestEndpoint(t *testing.T) {
	for text, want := range map[string]string{
		"http://a:2379": "a:2379 a false", "https://a.b:1": "a.b:1 a.b true", "a:2": "a:2 a false", "https://[fd00::1]:2379": "[fd00::1]:2379 fd00::1 true",
		"https://a": "a:2379 a true", "unix:///run/etcd.sock": "unix:/run/etcd.sock localhost false",
		"ftp://a:1": "", "http://a:1/path": "", "http://": "", "unix://": "", "http://a:b": "",
	} {
		a, secure, err := endpoint(text)
		if got := fmt.Sprint(a.Addr, " ", a.ServerName, " ", secure); err == nil && got != want || (err != nil) != (want == "") {
			t.Errorf("%s: got %s, %v, want %q", text, got, err, want)
		}
	}
	for want, o := range map[string]Options{
		"no endpoints":        {},
		"are mixed":           {Endpoints: []string{"https://a:1", "http://b:1"}},
		"begin with https://": {Endpoints: []string{"http://b:1"}, CAFile: "x"},
		"read authority":      {Endpoints: []string{"https://b:1"}, CAFile: "/nowhere"},
		"together or not":     {Endpoints: []string{"https://b:1"}, CertFile: "x"},
	} {
		if _, err := Open(ctx, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// raw reads a key of etcd as it is.
func raw(t *testing.T, e *Engine, key string) *pb.RangeResponse {
	t.Helper()
	r, err := e.kv.Range(ctx, &pb.RangeRequest{Key: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestLayout: keys and values are what the store says, below the prefix, and nothing is seen of what lies beside it; yet
// what others write there does not keep a reader waiting.
func TestLayout(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s, e := openStore(t, Options{Endpoints: c.Endpoints(), Prefix: "/elsewhere", Root: "/registry/"})
	value := append([]byte("k8s\x00"), 0, 255, 1)
	r, err := s.Commit(ctx, store.Write{Key: "/registry/pods/ns/a", Value: value})
	if err != nil {
		t.Fatal(err)
	}
	kvs := raw(t, e, "/elsewhere/pods/ns/a").Kvs
	if len(kvs) != 1 || !bytes.Equal(kvs[0].Value, value) || uint64(kvs[0].ModRevision) != r.Revision || kvs[0].Lease != 0 {
		t.Fatalf("etcd holds %v", kvs)
	}
	if _, err := s.Commit(ctx, store.Write{Key: "/other/a", Value: value}); err == nil || !strings.Contains(err.Error(), "does not begin with") {
		t.Errorf("a key without the root: %v", err)
	}
	for _, key := range []string{"/elsewhere", "/elsewhere0", "/registry/pods/x", "zzz"} {
		if _, err := e.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	limit, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := s.Sync(limit); err != nil {
		t.Fatalf("sync behind others' writes: %v", err)
	}
	if n := s.View().Count(""); n != 1 || s.Revision() != r.Revision+4 {
		t.Errorf("%d records at %d, want 1 at %d", n, s.Revision(), r.Revision+4)
	}
	again, _ := openStore(t, Options{Endpoints: c.Endpoints(), Prefix: "/elsewhere/", Root: "/registry/"})
	if got := again.Get("/registry/pods/ns/a"); got == nil || got.Revision != r.Revision || !bytes.Equal(got.Value, value) || again.View().Count("") != 1 {
		t.Errorf("read back: %+v", got)
	}
}

// TestLoadPages reads more records than fit one page.
func TestLoadPages(t *testing.T) {
	c := etcdtest.Start(t, 1, "--unsafe-no-fsync")
	s, _ := openStore(t, Options{Endpoints: c.Endpoints()})
	const n = 2*pageRecords + 7
	var wg sync.WaitGroup
	for w := range 20 {
		wg.Go(func() {
			for i := w; i < n; i += 20 {
				if _, err := s.Commit(ctx, store.Write{Key: fmt.Sprintf("pods/%04d", i), Value: fmt.Append(nil, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	again, _ := openStore(t, Options{Endpoints: c.Endpoints()})
	i := 0
	again.View().Scan("", "", func(r *store.Record) bool {
		if r.Key != fmt.Sprintf("pods/%04d", i) || string(r.Value) != fmt.Sprint(i) || r.Revision != s.Get(r.Key).Revision {
			t.Errorf("record %d is %s=%s", i, r.Key, r.Value)
		}
		i++
		return true
	})
	if i != n {
		t.Errorf("%d records, want %d", i, n)
	}
}

// TestCompaction: of two servers one compacts each round, to where the round before began.
func TestCompaction(t *testing.T) {
	c := etcdtest.Start(t, 1)
	_, e := openStore(t, Options{Endpoints: c.Endpoints()})
	a, b := compactor{engine: e}, compactor{engine: e}
	turn := func(c *compactor) {
		t.Helper()
		if err := c.turn(ctx); err != nil {
			t.Fatal(err)
		}
	}
	write := func() int64 {
		t.Helper()
		r, err := e.kv.Put(ctx, &pb.PutRequest{Key: []byte("/registry/x"), Value: []byte("v")})
		if err != nil {
			t.Fatal(err)
		}
		return r.Header.Revision
	}
	// compacted is the oldest revision that can still be read.
	compacted := func() int64 {
		t.Helper()
		for revision := int64(1); ; revision++ {
			_, err := e.kv.Range(ctx, &pb.RangeRequest{Key: []byte("x"), Revision: revision})
			if err == nil {
				return revision
			}
			if !strings.Contains(err.Error(), "compacted") {
				t.Fatal(err)
			}
		}
	}
	write()
	turn(&a) // round 1: says that there are rounds
	turn(&b) // loses, and learns
	if got := compacted(); got != 1 {
		t.Fatalf("compacted at %d in the first round", got)
	}
	if a.round != 1 || b.round != 1 || a.revision == 0 || b.revision < a.revision {
		t.Fatalf("after the first round: %+v, %+v", a, b)
	}
	first := b.revision
	write()
	write()
	turn(&b) // round 2
	if got := compacted(); got != first {
		t.Fatalf("compacted at %d, want %d", got, first)
	}
	kvs := raw(t, e, compactKey).Kvs
	if len(kvs) != 1 || string(kvs[0].Value) != fmt.Sprint(first) || kvs[0].Version != 2 {
		t.Fatalf("etcd holds %v", kvs)
	}
	turn(&a) // loses
	if got := compacted(); got != first || a.round != 2 {
		t.Fatalf("compacted twice in a round: at %d, %+v", got, a)
	}
	second := a.revision
	turn(&a) // round 3
	if got := compacted(); got != second {
		t.Fatalf("compacted at %d, want %d", got, second)
	}
	// A server that starts late finds the round.
	late := compactor{engine: e}
	turn(&late)
	if late.round != 3 || late.revision == 0 {
		t.Errorf("a late server: %+v", late)
	}
}

// TestCompactEvery: history goes by itself.
func TestCompactEvery(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s, e := openStore(t, Options{Endpoints: c.Endpoints(), CompactEvery: 50 * time.Millisecond})
	first := put(t, s, "pods/a", "1")
	put(t, s, "pods/a", "2")
	eventually(t, "a compaction", func() bool {
		_, err := e.kv.Range(ctx, &pb.RangeRequest{Key: []byte("/registry/pods/a"), Revision: int64(first.Revision)})
		return err != nil && strings.Contains(err.Error(), "compacted")
	})
	if r := put(t, s, "pods/a", "3"); s.Get("pods/a") != r {
		t.Error("a write after a compaction does not show")
	}
}

// TestExpiry: records with a lifetime share a lease, and their end is an event.
func TestExpiry(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s, e := openStore(t, Options{Endpoints: c.Endpoints(), TTL: func(key string) time.Duration {
		if strings.HasPrefix(key, "events/") {
			return time.Second
		}
		return 0
	}})
	cursor, err := s.Watch("events", s.Revision())
	if err != nil {
		t.Fatal(err)
	}
	e.leases.mu.Lock()
	e.leases.until = time.Now()
	e.leases.mu.Unlock()
	a := put(t, s, "events/a", "1")
	b := put(t, s, "events/b", "1")
	put(t, s, "pods/a", "1")
	lease := func(key string) int64 { return raw(t, e, "/registry/"+key).Kvs[0].Lease }
	if lease("events/a") == 0 || lease("pods/a") != 0 {
		t.Error("leases are on the wrong records")
	}
	gone := map[string]uint64{}
	for len(gone) < 2 {
		events, _, err := cursor.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range events {
			if ev.Deleted {
				gone[ev.Record.Key] = ev.Prev.Revision
			}
		}
	}
	if gone["events/a"] != a.Revision || gone["events/b"] != b.Revision || s.Get("events/a") != nil || s.Get("pods/a") == nil {
		t.Errorf("expired: %v", gone)
	}
	// The lease is gone with them: the next record gets a new one, even if we believe the old one to be there.
	e.leases.mu.Lock()
	e.leases.until, e.leases.ttl = time.Now().Add(time.Hour), time.Second
	e.leases.mu.Unlock()
	put(t, s, "events/c", "1")
	// Sharing ends with the number of records.
	l := leases{client: e.leases.client}
	ids := map[int64]int{}
	for range leaseRecords + 1 {
		id, err := l.get(ctx, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		ids[id]++
	}
	if len(ids) != 2 {
		t.Errorf("%d leases for %d records", len(ids), leaseRecords+1)
	}
	granted, err := pb.NewLeaseClient(e.conn).LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: l.id})
	if err != nil || granted.GrantedTTL != int64((time.Hour+time.Minute)/time.Second) {
		t.Errorf("lease of an hour: %v, %v", granted, err)
	}
}

// TestTLS: https endpoints, whose certificate is judged by their host, and who judge ours.
func TestTLS(t *testing.T) {
	c := etcdtest.Start(t, 1)
	dir := t.TempDir()
	ca, cert, key := certificates(t, dir)
	pool := x509.NewCertPool()
	authority, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(authority)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				member, err := net.Dial("tcp", c.Members[0].Address)
				if err != nil {
					return
				}
				defer member.Close()
				go func() {
					_, _ = io.Copy(member, conn)
					member.Close()
				}()
				_, _ = io.Copy(conn, member)
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	s, _ := openStore(t, Options{Endpoints: []string{"https://127.0.0.1:" + port}, CAFile: ca, CertFile: cert, KeyFile: key})
	if r := put(t, s, "pods/a", "1"); s.Get("pods/a") != r {
		t.Error("a write does not show")
	}
	for name, o := range map[string]Options{
		"no certificate of ours": {Endpoints: []string{"https://127.0.0.1:" + port}, CAFile: ca},
		"no authority":           {Endpoints: []string{"https://127.0.0.1:" + port}, CertFile: cert, KeyFile: key},
		"another host's":         {Endpoints: []string{"https://localhost:" + port}, CAFile: ca, CertFile: cert, KeyFile: key},
	} {
		limit, cancel := context.WithTimeout(ctx, 2*time.Second)
		o.Prefix = "/registry"
		if e, err := Open(limit, o); err == nil {
			e.Close()
			t.Errorf("%s: connected", name)
		} else if !strings.Contains(err.Error(), "127.0.0.1:"+port) && !strings.Contains(err.Error(), "localhost:"+port) {
			t.Errorf("%s: the error names no endpoint: %v", name, err)
		}
		cancel()
	}
}

// certificates makes an authority and a certificate for 127.0.0.1 that is good for both sides.
func certificates(t *testing.T, dir string) (ca, cert, key string) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	ownKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "etcd"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	ownDER, err := x509.CreateCertificate(rand.Reader, own, root, &ownKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(ownKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("ca.pem", "CERTIFICATE", rootDER), write("cert.pem", "CERTIFICATE", ownDER), write("key.pem", "PRIVATE KEY", keyDER)
}
