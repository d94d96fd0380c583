package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// long skips a test that takes minutes unless KARVE_LONG is set, as `make long` does.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("KARVE_LONG") == "" {
		t.Skip("SKIPPED: it takes minutes (KARVE_LONG=1 runs it)")
	}
}

// number is a setting of a test.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// held is what the server's process holds, in bytes.
type held struct{ rss, heap, stacks int64 }

func (m held) sub(o held) held {
	return held{m.rss - o.rss, m.heap - o.heap, m.stacks - o.stacks}
}

func (m held) String() string {
	return fmt.Sprintf("RSS %.1f MiB, heap in use %.1f MiB, stacks %.1f MiB", mib(m.rss), mib(m.heap), mib(m.stacks))
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// memory measures the server after a collection.
func (s *server) memory() held {
	s.t.Helper()
	text := string(s.get("/debug/pprof/heap?debug=1&gc=1"))
	field := func(name string) int64 {
		m := regexp.MustCompile(`(?m)^# ` + name + ` = (\d+)`).FindStringSubmatch(text)
		if m == nil {
			s.t.Fatalf("no %s in the heap profile", name)
		}
		n, _ := strconv.ParseInt(m[1], 10, 64)
		return n
	}
	return held{s.status("VmRSS"), field("HeapInuse"), field("Stack")}
}

// status reads a field of the process's status, in bytes.
func (s *server) status(field string) int64 {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	must(s.t, err)
	m := regexp.MustCompile(field + `:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		s.t.Fatalf("no %s in the status of the process", field)
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10
}

func (s *server) get(path string) []byte {
	s.t.Helper()
	c, err := rest.HTTPClientFor(s.config())
	must(s.t, err)
	defer c.CloseIdleConnections()
	res, err := c.Get(s.config().Host + path)
	must(s.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(s.t, err)
	return b
}

// cpu is the processor time that the server has used.
func (s *server) cpu() time.Duration {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process.Process.Pid))
	must(s.t, err)
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100) // the kernel counts in hundredths, whatever its own clock
}

// profile keeps a heap profile of the server where KARVE_PROFILES says.
func (s *server) profile(name string) {
	s.t.Helper()
	if dir := os.Getenv("KARVE_PROFILES"); dir != "" {
		must(s.t, os.WriteFile(dir+"/"+name+".pb.gz", s.get("/debug/pprof/heap?gc=1"), 0o600))
	}
}

// cpuProfile keeps a profile of the next seconds where KARVE_PROFILES says; the function returned waits for it.
func (s *server) cpuProfile(name string, seconds int) func() {
	dir := os.Getenv("KARVE_PROFILES")
	if dir == "" {
		return func() {}
	}
	var done sync.WaitGroup
	done.Go(func() {
		if err := os.WriteFile(dir+"/"+name+".pb.gz", s.get(fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds)), 0o600); err != nil {
			s.t.Error(err)
		}
	})
	return done.Wait
}

// connection is one HTTP/2 connection to the server, whose streams take few bytes before they wait for their reader.
func (s *server) connection() *http.Client {
	s.t.Helper()
	config := s.config()
	tc, err := config.TransportConfig()
	must(s.t, err)
	tls, err := transport.TLSConfigFor(tc)
	must(s.t, err)
	tr := &http.Transport{TLSClientConfig: tls, ForceAttemptHTTP2: true, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// open starts a watch of the ConfigMaps of a namespace; it returns once the server has answered.
func (s *server) open(ctx context.Context, c *http.Client, ns, from string) (io.ReadCloser, error) {
	q, err := http.NewRequestWithContext(ctx, "GET", s.host+"/api/v1/namespaces/"+ns+"/configmaps?watch=1&allowWatchBookmarks=true&resourceVersion="+from, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(q)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
		res.Body.Close()
		return nil, fmt.Errorf("%s %s", res.Proto, res.Status)
	}
	return res.Body, nil
}

// crowd is many watches that are all read.
type crowd struct {
	got  []atomic.Int64 // changes that each has been told
	done sync.WaitGroup
}

func (s *server) crowd(ctx context.Context, n, perConnection int, ns, from string) *crowd {
	s.t.Helper()
	c := &crowd{got: make([]atomic.Int64, n)}
	var opened sync.WaitGroup
	var failed atomic.Pointer[error]
	for first := 0; first < n; first += perConnection {
		conn := s.connection()
		opened.Go(func() {
			for i := first; i < min(first+perConnection, n); i++ {
				body, err := s.open(ctx, conn, ns, from)
				if err != nil {
					failed.Store(&err)
					return
				}
				c.done.Go(func() { count(body, &c.got[i]) })
			}
		})
	}
	opened.Wait()
	if err := failed.Load(); err != nil {
		s.t.Fatal(*err)
	}
	return c
}

// count counts the changes in a stream, which are lines; bookmarks do not count.
func count(body io.ReadCloser, n *atomic.Int64) {
	defer body.Close()
	r := bufio.NewReaderSize(body, 4096)
	begin := true
	for {
		line, err := r.ReadSlice('\n')
		if begin && len(line) > 0 && !bytes.HasPrefix(line, []byte(`{"type":"BOOKMARK"`)) {
			n.Add(1)
		}
		begin = err == nil
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

// told waits until every watch of the crowd has been told n changes.
func (c *crowd) told(t *testing.T, n int64) {
	t.Helper()
	eventually(t, fmt.Sprintf("every watcher is told %d changes", n), func() error {
		behind, least := 0, n
		for i := range c.got {
			if got := c.got[i].Load(); got < n {
				behind++
				least = min(least, got)
			}
		}
		return when(behind == 0, "%d of %d are behind, one at %d", behind, len(c.got), least)
	})
	for i := range c.got {
		if got := c.got[i].Load(); got != n {
			t.Fatalf("a watcher was told %d changes, of %d", got, n)
		}
	}
}

// TestManyWatchers opens 10,000 watches of one resource, and measures what each costs the server; then some of them stop
// reading, and the others must be told everything as before, while what waits for those is not kept for each of them.
func TestManyWatchers(t *testing.T) {
	n, perConnection := number(t, "KARVE_WATCHERS", 1000), 200
	if os.Getenv("KARVE_LONG") != "" {
		n = number(t, "KARVE_WATCHERS", 10000)
	}
	const most = 16 << 10
	s := start(t)
	s.namespace("many")
	api := s.clientset().CoreV1().ConfigMaps("many")
	_, err := api.Create(t.Context(), configMap("o", "0"), metav1.CreateOptions{})
	must(t, err)
	l, err := api.List(t.Context(), metav1.ListOptions{})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.crowdWarm(ctx, l.ResourceVersion)
	before := s.memory()
	c := s.crowd(ctx, n, perConnection, "many", l.ResourceVersion)
	grown := s.memory().sub(before)
	s.profile("watchers")
	each := (grown.heap + grown.stacks) / int64(n)
	t.Logf("%d watchers on %d connections: %v; heap and stacks %d bytes each, RSS %d bytes each", n, (n+perConnection-1)/perConnection, grown, each, grown.rss/int64(n))
	if each > most {
		t.Errorf("a watcher costs %d bytes, at most %d are allowed", each, most)
	}

	const changes, size = 40, 4 << 10
	change := func() {
		t.Helper()
		now := time.Now().UnixNano() // so that no change is what is there already
		for i := range changes {
			value := strings.Repeat(string(rune('a'+i%26)), size)
			_, err := api.Patch(t.Context(), "o", types.MergePatchType, []byte(`{"data":{"value":"`+fmt.Sprint(now)+value+`"}}`), metav1.PatchOptions{})
			must(t, err)
		}
	}
	began, used := time.Now(), s.cpu()
	profiled := s.cpuProfile("watchers-cpu", 10)
	change()
	c.told(t, changes)
	alone := time.Since(began)
	t.Logf("%d changes of %d KiB to %d watchers: %v of the server's processor time for each", changes, size>>10, n, (s.cpu()-used)/time.Duration(changes*n))
	profiled()

	// Watches that nobody reads, on the connections that others use too, and on some of their own.
	const stalled = 100
	shared := s.connection()
	beside := s.crowdOn(ctx, shared, 50, "many", s.revision("many"))
	var stuck []io.ReadCloser
	for i := range stalled {
		conn := shared
		if i%2 == 0 {
			conn = s.connection()
		}
		body, err := s.open(ctx, conn, "many", s.revision("many"))
		must(t, err)
		stuck = append(stuck, body)
	}
	then := s.memory()
	began = time.Now()
	change()
	c.told(t, 2*changes)
	beside.told(t, changes)
	with := time.Since(began)
	kept := s.memory().sub(then)
	s.profile("stalled")
	t.Logf("%d changes of %d KiB to %d watchers: %v alone, %v with %d that do not read; memory then: %v", changes, size>>10, n, alone, with, stalled, kept)
	// What a stalled watch makes the server hold is a few frames, not all that it has not read.
	if perStalled := (kept.heap + kept.stacks) / stalled; perStalled > changes*size {
		t.Errorf("%d bytes are held for each watch that does not read", perStalled)
	}
	// One that reads again is told what it missed, without a gap.
	catchUp(t, stuck[0], changes)
	cancel()
	c.done.Wait()
}

// crowdWarm opens and ends a few watches, so that what is made once is not counted as theirs.
func (s *server) crowdWarm(ctx context.Context, from string) {
	s.t.Helper()
	warm, end := context.WithCancel(ctx)
	c := s.crowd(warm, 50, 25, "many", from)
	end()
	c.done.Wait()
}

func (s *server) crowdOn(ctx context.Context, conn *http.Client, n int, ns, from string) *crowd {
	s.t.Helper()
	c := &crowd{got: make([]atomic.Int64, n)}
	for i := range n {
		body, err := s.open(ctx, conn, ns, from)
		must(s.t, err)
		c.done.Go(func() { count(body, &c.got[i]) })
	}
	return c
}

func (s *server) revision(ns string) string {
	s.t.Helper()
	l, err := s.clientset().CoreV1().ConfigMaps(ns).List(s.t.Context(), metav1.ListOptions{Limit: 1})
	must(s.t, err)
	return l.ResourceVersion
}

// catchUp reads n changes, whose revisions must rise.
func catchUp(t *testing.T, body io.Reader, n int) {
	t.Helper()
	d := json.NewDecoder(body)
	last := uint64(0)
	for i := 0; i < n; {
		var e struct {
			Type   string
			Object metav1.PartialObjectMetadata
		}
		must(t, d.Decode(&e))
		if e.Type == "BOOKMARK" {
			continue
		}
		v, _ := strconv.ParseUint(e.Object.ResourceVersion, 10, 64)
		if e.Type != "MODIFIED" || v <= last {
			t.Fatalf("change %d is %s at %d, after %d", i, e.Type, v, last)
		}
		last = v
		i++
	}
}

// TestLargeList lists 100,000 objects in one answer, in each form, and as pages, and measures how much more the server needs
// while it does.
func TestLargeList(t *testing.T) {
	long(t)
	n := number(t, "KARVE_OBJECTS", 100000)
	s := start(t)
	s.namespace("large")
	began := time.Now()
	var all sync.WaitGroup
	var made atomic.Int64
	for range 32 {
		api := s.clientset().CoreV1().ConfigMaps("large")
		all.Go(func() {
			for i := made.Add(1); i <= int64(n); i = made.Add(1) {
				if _, err := api.Create(t.Context(), configMap(fmt.Sprintf("object-%06d", i), strings.Repeat("x", 500)), metav1.CreateOptions{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d objects made in %v; the server holds %v", n, time.Since(began).Round(time.Second), s.memory())
	// What is sent as it is stored is sent piece by piece: two pages of 500 objects, and what a connection buffers.
	const bound = 2 << 20
	for _, c := range []struct {
		name, accept, query string
		half, most          int64 // where to look in the middle, and how much the server may hold there; 0 for not to look
	}{
		{"pages of 500, JSON", "application/json", "?limit=500", 0, 0},
		{"pages of 500, protobuf", "application/vnd.kubernetes.protobuf", "?limit=500", 0, 0},
		{"whole, protobuf", "application/vnd.kubernetes.protobuf", "", int64(n) * 300, bound},
		{"whole, protobuf, again", "application/vnd.kubernetes.protobuf", "", 0, 0},
		{"whole, JSON", "application/json", "", int64(n) * 400, bound},
		{"whole, JSON, again", "application/json", "", 0, 0},
		{"whole, Table", "application/json;as=Table;g=meta.k8s.io;v=v1", "", int64(n) * 200, 0},
		{"whole, metadata", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "", int64(n) * 80, 0},
	} {
		before := s.memory()
		must(t, os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.process.Process.Pid), []byte("5"), 0)) // the peak begins anew
		size, took, live := s.read("/api/v1/namespaces/large/configmaps"+c.query, c.accept, c.half, before)
		peak := s.status("VmHWM") - before.rss
		after := s.memory()
		s.profile("list-" + strings.NewReplacer(" ", "-", ",", "").Replace(c.name))
		t.Logf("%s: %.1f MiB in %v; in the middle %.1f MiB more in use, at its peak %.1f MiB more resident, afterwards %v more", c.name, mib(size), took.Round(time.Millisecond), mib(live), mib(peak), after.sub(before))
		live -= max(0, after.sub(before).heap) // what is kept afterwards is a cache, not the answer
		if c.most > 0 && live > c.most {
			t.Errorf("%s: in the middle of %.1f MiB the server holds %.1f MiB of it, at most %.1f are allowed", c.name, mib(size), mib(live), mib(c.most))
		}
	}
}

// read reads an answer, and returns its size and the time it took. After half of its bytes, unless that is 0, it stops to
// measure what the server holds more than before.
func (s *server) read(path, accept string, half int64, before held) (size int64, took time.Duration, live int64) {
	s.t.Helper()
	q, err := http.NewRequestWithContext(s.t.Context(), "GET", s.host+path, nil)
	must(s.t, err)
	q.Header.Set("Accept", accept)
	q.Header.Set("Accept-Encoding", "identity")
	began := time.Now()
	res, err := s.connection().Do(q)
	must(s.t, err)
	defer res.Body.Close()
	if half > 0 {
		size, err = io.CopyN(io.Discard, res.Body, half)
		must(s.t, err)
		took = time.Since(began)
		more := s.memory().sub(before)
		live = more.heap + more.stacks
		began = time.Now()
	}
	rest, err := io.Copy(io.Discard, res.Body)
	must(s.t, err)
	if res.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s", path, res.Status)
	}
	return size + rest, took + time.Since(began), live
}
