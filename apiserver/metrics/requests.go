// Package metrics counts what the API server does, under the names and labels that dashboards know from upstream, and
// writes the page that /metrics answers with. The API server tells it of every request, the admission chain of every
// plugin. It keeps a few numbers per kind of request and nothing of any one request; counting neither allocates nor waits
// for a page being written.
package metrics

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"karve/api"
	"karve/apiserver/request"
	"karve/apiserver/resource/warnings"
)

// Requests counts the requests of one server. Safe for concurrent use.
type Requests struct {
	// start is what times are told from: reading the monotonic clock alone is cheaper than reading both.
	start  time.Time
	mu     sync.RWMutex
	series map[key]*series
	lists  map[listKey]*histogram
	// inflight are the requests that only read and those that write; watches and other streams are not among them.
	inflight [2]peak
}

// NewRequests returns counters that are all zero.
func NewRequests() *Requests {
	return &Requests{start: time.Now(), series: map[key]*series{}, lists: map[listKey]*histogram{}}
}

// key is what requests are told apart by, but for the code they end with.
type key struct {
	group, version, resource, subresource string
	verb, scope, dryRun                   string
}

func (k key) compare(o key) int {
	return before(k.group, o.group, k.resource, o.resource, k.version, o.version, k.subresource, o.subresource, k.scope, o.scope, k.verb, o.verb, k.dryRun, o.dryRun)
}

type series struct {
	codes   atomic.Pointer[[]*code]
	latency histogram
	own     histogram // latency without what the request waited for
	size    histogram
	running atomic.Int64 // streams that are open
	// deprecated says that the resource is on its way out.
	deprecated bool
}

type code struct {
	status int
	count  atomic.Uint64
}

type listKey struct{ group, version, resource, scope string }

// Track follows one request. It is the http.ResponseWriter that the request is to be answered on, and is not to be used
// after End.
type Track struct {
	http.ResponseWriter
	all     *Requests
	of      *series // nil if requests for the path are not counted
	key     key
	began   time.Duration
	waiting time.Duration // since when, and then for how long
	status  int
	written int64
	stream  bool
	counted int // the index in inflight
}

var tracks = sync.Pool{New: func() any { return new(Track) }}

// Begin starts to follow a request that is to be answered on w. stream says that it runs for as long as the client likes.
func (m *Requests) Begin(w http.ResponseWriter, r *http.Request, i *request.Info, stream bool) *Track {
	t := tracks.Get().(*Track)
	*t = Track{ResponseWriter: w, all: m, began: time.Since(m.start), stream: stream}
	if k, row, ok := keyOf(r, i); ok {
		t.key = k
		t.of = m.find(k, row)
	}
	if stream {
		if t.of != nil {
			t.of.running.Add(1)
		}
		return t
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions {
		t.counted = 1
	}
	m.inflight[t.counted].add(int64(t.began / time.Second))
	return t
}

// End counts the request. The response must be complete.
func (t *Track) End() {
	m := t.all
	now := time.Since(m.start)
	if !t.stream {
		m.inflight[t.counted].now.Add(-1)
	}
	if s := t.of; s != nil {
		if t.stream {
			s.running.Add(-1)
		}
		if t.status == 0 {
			t.status = http.StatusOK
		}
		s.count(t.status)
		s.latency.observe(latencies, int64(now-t.began))
		if t.key.dryRun == "" {
			s.own.observe(promised, int64(now-t.began-t.waiting))
		}
		if t.key.verb == "GET" || t.key.verb == "LIST" {
			s.size.observe(sizes, t.written)
		}
	}
	*t = Track{}
	tracks.Put(t)
}

// Waiting and Waited tell when a request begins and ceases to wait for its turn, once.
func (t *Track) Waiting() { t.waiting = time.Since(t.all.start) }

// Waited ends what Waiting began.
func (t *Track) Waited() { t.waiting = time.Since(t.all.start) - t.waiting }

// Unwrap is for http.ResponseController.
func (t *Track) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (t *Track) WriteHeader(status int) {
	if t.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		t.status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *Track) Write(b []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	n, err := t.ResponseWriter.Write(b)
	t.written += int64(n)
	return n, err
}

// Hijack implements http.Hijacker: what follows on the connection is not seen here.
func (t *Track) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err == nil && t.status == 0 {
		t.status = http.StatusSwitchingProtocols
	}
	return c, rw, err
}

// find returns the series of a key, made when it is first needed.
func (m *Requests) find(k key, row *api.Row) *series {
	m.mu.RLock()
	s := m.series[k]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.series[k]; s != nil {
		return s
	}
	s = &series{deprecated: row != nil && warnings.Deprecated(row.GVR()) != ""}
	s.latency.init(latencies)
	if k.dryRun == "" {
		s.own.init(promised)
	}
	if k.verb == "GET" || k.verb == "LIST" {
		s.size.init(sizes)
	}
	s.codes.Store(new([]*code))
	// A key must not hold on to the text of a request.
	for _, p := range []*string{&k.group, &k.version, &k.resource, &k.subresource} {
		*p = strings.Clone(*p)
	}
	m.series[k] = s
	return s
}

func (s *series) count(status int) {
	for {
		list := s.codes.Load()
		for _, c := range *list {
			if c.status == status {
				c.count.Add(1)
				return
			}
		}
		more := append((*list)[:len(*list):len(*list)], &code{status: status})
		s.codes.CompareAndSwap(list, &more)
	}
}

// Listed counts how long a watch took to send what was there when it began.
func (m *Requests) Listed(i *request.Info, took time.Duration) {
	k := listKey{i.Group, i.Version, i.Resource, scopeOf(i)}
	m.mu.Lock()
	h := m.lists[k]
	if h == nil {
		h = &histogram{}
		h.init(listTimes)
		k = listKey{strings.Clone(k.group), strings.Clone(k.version), strings.Clone(k.resource), k.scope}
		m.lists[k] = h
	}
	m.mu.Unlock()
	h.observe(listTimes, int64(took))
}

// peak is a number with the most it was in the present second and in the one before.
type peak struct {
	now  atomic.Int64
	most atomic.Uint64 // the second in the upper half, the number in the lower
}

func (p *peak) add(second int64) {
	n := uint64(uint32(p.now.Add(1)))
	for {
		old := p.most.Load()
		if old>>32 == uint64(second) && uint32(old) >= uint32(n) {
			return
		}
		if p.most.CompareAndSwap(old, uint64(second)<<32|n) {
			return
		}
	}
}

func (p *peak) read(second int64) float64 {
	if most := p.most.Load(); second-int64(most>>32) <= 1 {
		return float64(uint32(most))
	}
	return float64(max(p.now.Load(), 0))
}
