// Package etcd holds tests of API servers that share an etcd: with each other, and with what upstream's wrote.
package etcd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"karve/apiserver"
	"karve/apiserver/resource"
	"karve/pki"
	"karve/store/engine/etcd"
	"karve/store/engine/etcd/etcdtest"
)

// server is a running API server with an administrator's connection to it.
type server struct {
	t    testing.TB
	url  string
	http *http.Client
}

// serve runs an API server on an etcd until the test ends.
func serve(t testing.TB, c *etcdtest.Cluster, ca *pki.Authority) *server {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	engine, err := etcd.Open(ctx, etcd.Options{Endpoints: c.Endpoints(), Prefix: "/registry", Root: resource.Root, TTL: func(key string) time.Duration {
		if strings.HasPrefix(key, "/registry/events/") {
			return time.Hour
		}
		return 0
	}})
	if err != nil {
		t.Fatal(err)
	}
	local := netip.MustParseAddr("127.0.0.1")
	s, err := apiserver.New(ctx, apiserver.Options{Engine: engine, PKI: ca, Listen: "127.0.0.1:0", Advertise: netip.AddrPortFrom(local, 6443),
		Addresses: []netip.Addr{local}, ServiceCIDR: netip.MustParsePrefix("10.96.0.0/24"), NodePorts: [2]int32{30000, 30100}, Version: "test",
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("run ended early: %v", err)
	}
	cert, key, err := ca.Client("test-admin", []string{"system:masters"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}
	t.Cleanup(tr.CloseIdleConnections)
	return &server{t: t, url: "https://" + s.Addr().String(), http: &http.Client{Transport: tr}}
}

func authority(t testing.TB) *pki.Authority {
	t.Helper()
	ca, err := pki.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// object is what tests look at of an answer.
type object struct {
	APIVersion string
	Kind       string
	Metadata   struct {
		Name, Namespace, UID, ResourceVersion, Continue string
		Labels                                          map[string]string
	}
	Data   map[string]string
	Type   string
	Object json.RawMessage
	Spec   map[string]any
	Items  []object
}

// do sends a request and returns the status and what it was answered with.
func (s *server) do(method, path, body, contentType string) (int, object, string) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	res, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var o object
	_ = json.Unmarshal(b, &o)
	return res.StatusCode, o, string(b)
}

// must is do with a status that is known.
func (s *server) must(status int, method, path, body string) object {
	s.t.Helper()
	contentType := "application/json"
	if method == "PATCH" {
		contentType = "application/merge-patch+json"
	}
	got, o, text := s.do(method, path, body, contentType)
	if got != status {
		s.t.Fatalf("%s %s: %d, want %d: %s", method, path, got, status, text)
	}
	return o
}

const maps = "/api/v1/namespaces/default/configmaps"

func configMap(name, resourceVersion, value string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q,"resourceVersion":%q},"data":{"k":%q}}`, name, resourceVersion, value)
}

// TestTwoServers writes through one server and reads at once through the other, in every way there is.
func TestTwoServers(t *testing.T) {
	c, ca := etcdtest.Start(t, 1), authority(t)
	servers := []*server{serve(t, c, ca), serve(t, c, ca)}
	for i := range 40 {
		a, b := servers[i%2], servers[(i+1)%2]
		name := fmt.Sprintf("m%d", i%3)
		path := maps + "/" + name
		made := a.must(201, "POST", maps, configMap(name, "", "0"))
		if got := b.must(200, "GET", path, ""); got.Metadata.ResourceVersion != made.Metadata.ResourceVersion {
			t.Fatalf("made at %s, read at %s", made.Metadata.ResourceVersion, got.Metadata.ResourceVersion)
		}
		b.must(409, "POST", maps, configMap(name, "", "0"))
		updated := a.must(200, "PUT", path, configMap(name, made.Metadata.ResourceVersion, "1"))
		// The other may not have heard of the revision that the client names.
		again := b.must(200, "PUT", path, configMap(name, updated.Metadata.ResourceVersion, "2"))
		a.must(409, "PUT", path, configMap(name, updated.Metadata.ResourceVersion, "3"))
		list := a.must(200, "GET", maps, "")
		found := slices.IndexFunc(list.Items, func(o object) bool { return o.Metadata.Name == name })
		if found < 0 || list.Items[found].Data["k"] != "2" {
			t.Fatalf("list shows %+v, want %+v", list.Items, again)
		}
		patched := a.must(200, "PATCH", path, `{"data":{"k":"4"}}`)
		// A patch to what the other believes to be there already is no change only if it is there.
		b.must(200, "PATCH", path, `{"data":{"k":"5"}}`)
		a.must(200, "PATCH", path, `{"data":{"k":"4"}}`)
		if got := b.must(200, "GET", path, ""); got.Data["k"] != "4" || got.Metadata.ResourceVersion == patched.Metadata.ResourceVersion {
			t.Fatalf("after three patches there is %+v", got)
		}
		a.must(200, "DELETE", path, "")
		b.must(404, "PATCH", path, `{"data":{"k":"6"}}`)
		b.must(404, "GET", path, "")
		b.must(404, "DELETE", path, "")
		b.must(201, "POST", maps, configMap(name, "", "7"))
		a.must(200, "DELETE", path, "")
	}
}

// TestPages: a list begun at one server goes on at the other, as of the same moment, until etcd has forgotten it.
func TestPages(t *testing.T) {
	c, ca := etcdtest.Start(t, 1), authority(t)
	servers := []*server{serve(t, c, ca), serve(t, c, ca)}
	for i := range 9 {
		servers[i%2].must(201, "POST", maps, configMap(fmt.Sprintf("p%d", i), "", "0"))
	}
	first := servers[0].must(200, "GET", maps+"?limit=4", "")
	servers[1].must(200, "DELETE", maps+"/p8", "")
	servers[1].must(200, "PATCH", maps+"/p7", `{"data":{"k":"changed"}}`)
	servers[0].must(201, "POST", maps, configMap("p9", "", "0"))
	var names []string
	page := first
	for i := 1; ; i++ {
		for _, o := range page.Items {
			names = append(names, o.Metadata.Name+"="+o.Data["k"])
		}
		if page.Metadata.Continue == "" {
			break
		}
		page = servers[i%2].must(200, "GET", maps+"?limit=4&continue="+page.Metadata.Continue, "")
		if page.Metadata.ResourceVersion != first.Metadata.ResourceVersion {
			t.Errorf("a page is of %s, the first of %s", page.Metadata.ResourceVersion, first.Metadata.ResourceVersion)
		}
	}
	if want := "[p0=0 p1=0 p2=0 p3=0 p4=0 p5=0 p6=0 p7=0 p8=0]"; fmt.Sprint(names) != want {
		t.Errorf("got %v, want %s", names, want)
	}
	// A moment of which no server kept anything.
	exact := maps + "?resourceVersionMatch=Exact&resourceVersion=" + first.Items[2].Metadata.ResourceVersion
	if got := servers[1].must(200, "GET", exact, ""); len(got.Items) != 3 || got.Metadata.ResourceVersion != first.Items[2].Metadata.ResourceVersion {
		t.Errorf("when p2 was made there were %d at %s", len(got.Items), got.Metadata.ResourceVersion)
	}
	c.Raw(t).Compact(servers[0].must(200, "GET", maps, "").Metadata.ResourceVersion)
	servers[1].must(410, "GET", exact, "")
	// What began before that can still be finished where it is kept.
	servers[0].must(200, "GET", maps+"?limit=4&continue="+first.Metadata.Continue, "")
	late := serve(t, c, ca)
	late.must(410, "GET", maps+"?limit=4&continue="+first.Metadata.Continue, "")
}

// TestOneOrder: watches on both servers show the same events in the same order, whoever wrote.
func TestOneOrder(t *testing.T) {
	c, ca := etcdtest.Start(t, 1), authority(t)
	servers := []*server{serve(t, c, ca), serve(t, c, ca)}
	start := servers[0].must(200, "GET", maps, "").Metadata.ResourceVersion
	var seen [2][]string
	var wg sync.WaitGroup
	for i, s := range servers {
		res, err := s.http.Get(s.url + maps + "?watch=true&resourceVersion=" + start)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		wg.Go(func() {
			lines := bufio.NewScanner(res.Body)
			lines.Buffer(nil, 1<<20)
			for lines.Scan() {
				var e, o object
				if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
					t.Error(err)
					return
				}
				if err := json.Unmarshal(e.Object, &o); err != nil {
					t.Error(err)
					return
				}
				seen[i] = append(seen[i], fmt.Sprint(e.Type, " ", o.Metadata.Name, " ", o.Metadata.ResourceVersion, " ", o.Data["k"]))
				if o.Metadata.Name == "last" {
					return
				}
			}
			t.Errorf("watch %d ended: %v", i, lines.Err())
		})
	}
	var writers sync.WaitGroup
	for w := range 6 {
		s := servers[w%2]
		writers.Go(func() {
			name := fmt.Sprintf("w%d", w)
			s.must(201, "POST", maps, configMap(name, "", "0"))
			for n := range 30 {
				s.must(200, "PATCH", maps+"/"+name, fmt.Sprintf(`{"data":{"k":"%d"}}`, n+1))
			}
			s.must(200, "DELETE", maps+"/"+name, "")
		})
	}
	writers.Wait()
	servers[1].must(201, "POST", maps, configMap("last", "", ""))
	wg.Wait()
	if len(seen[0]) != 6*32+1 || !slices.Equal(seen[0], seen[1]) {
		t.Errorf("one watch shows %d events, the other %d, want %d:\n%q\n%q", len(seen[0]), len(seen[1]), 6*32+1, seen[0], seen[1])
	}
	if len(seen[0]) > 0 && !bytes.HasPrefix([]byte(seen[0][len(seen[0])-1]), []byte("ADDED last")) {
		t.Errorf("the last event is %s", seen[0][len(seen[0])-1])
	}
}
