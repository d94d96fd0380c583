package fairness

import (
	"math"
	"slices"
	"strings"
	"sync"

	flowv1 "k8s.io/api/flowcontrol/v1"

	"karve/apiserver/fairness/match"
	"karve/apiserver/fairness/queue"
)

// config is what requests are admitted by. It is never changed, only replaced.
type config struct {
	matcher *match.Matcher
	routes  []*route // by the matcher's index
	last    *route   // of the schema for everything
	levels  []*level // by name
}

// route is where the requests of a flow schema go.
type route struct {
	schema              *flowv1.FlowSchema
	flow                *flow
	level               *level
	schemaUID, levelUID []string
	exempt              bool
	maxSeats            int
}

func (c *config) route(a *match.Attributes) *route {
	if i := c.matcher.Match(a); i >= 0 {
		return c.routes[i]
	}
	return c.last
}

// level is a priority level. It lives on without its object until its last request has gone.
type level struct {
	name string

	mu    sync.Mutex
	set   queue.Set
	flows map[string]*flow // by schema
	done  [4]uint64        // dispatched, rejected, timed out, cancelled
	// looking says that somebody will look when time alone may have let a request fit.
	looking bool

	// The rest belongs to who holds Fairness.mu.
	object   *flowv1.PriorityLevelConfiguration // nil once it is gone
	share    queue.Share
	bounds   queue.Bounds
	maxSeats int
	reading  queue.Reading
	smooth   float64
	limit    int
}

// digest makes a configuration out of the objects of the cluster.
func (f *Fairness) digest(plcs []*flowv1.PriorityLevelConfiguration, fss []*flowv1.FlowSchema) {
	f.mu.Lock()
	defer f.mu.Unlock()
	plcs = withMandatory(plcs, levels())
	fss = withMandatory(fss, schemas())
	for _, l := range f.levels {
		l.object = nil
	}
	for _, o := range plcs {
		l := f.levels[o.Name]
		if l == nil {
			l = &level{name: o.Name, flows: map[string]*flow{}}
			f.levels[o.Name] = l
		}
		l.object, l.share = o, shareOf(o)
	}
	f.reap()
	f.divide()
	fss = slices.DeleteFunc(fss, func(s *flowv1.FlowSchema) bool { return f.object(s.Spec.PriorityLevelConfiguration.Name) == nil })
	c := &config{matcher: match.Compile(fss), levels: f.sorted()}
	live := map[*flow]bool{}
	for _, s := range c.matcher.Schemas {
		l := f.levels[s.Spec.PriorityLevelConfiguration.Name]
		r := &route{schema: s, level: l, flow: l.flow(s.Name), exempt: l.share.Exempt, maxSeats: l.maxSeats,
			schemaUID: []string{string(s.UID)}, levelUID: []string{string(l.object.UID)}}
		live[r.flow] = true
		c.routes = append(c.routes, r)
		if s.Name == catchAll {
			c.last = r
		}
	}
	for _, l := range c.levels {
		l.forget(live)
	}
	f.config.Store(c)
}

// named is an object of this API.
type named interface{ GetName() string }

// withMandatory adds the mandatory objects that are missing, for no configuration works without them.
func withMandatory[T named](have, want []T) []T {
	have = slices.Clone(have)
	for _, w := range want {
		if mandatory(w.GetName()) && !slices.ContainsFunc(have, func(h T) bool { return h.GetName() == w.GetName() }) {
			have = append(have, w)
		}
	}
	return have
}

func (f *Fairness) object(name string) *flowv1.PriorityLevelConfiguration {
	if l := f.levels[name]; l != nil {
		return l.object
	}
	return nil
}

// reap drops the levels without an object that have nothing to do any more, and reports whether there were any.
func (f *Fairness) reap() bool {
	before := len(f.levels)
	for name, l := range f.levels {
		l.mu.Lock()
		if l.object == nil && l.set.Idle() {
			delete(f.levels, name)
		}
		l.mu.Unlock()
	}
	return len(f.levels) < before
}

func (f *Fairness) sorted() []*level {
	out := make([]*level, 0, len(f.levels))
	for _, l := range f.levels {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *level) int { return strings.Compare(a.name, b.name) })
	return out
}

// youngPerProcessor is the load of requests that have just begun for each processor: enough to keep it busy.
const youngPerProcessor = 8

// maxSeats is how wide a request can be: no more than lets a flow have one in each queue of its hand.
const maxSeats = 10

// divide gives every level its part of the seats. One whose part has changed begins with what it has nominally.
func (f *Fairness) divide() {
	all := f.sorted()
	shares := make([]queue.Share, len(all))
	for i, l := range all {
		shares[i] = l.share
	}
	for i, b := range queue.Divide(f.opts.Seats, shares) {
		l, now := all[i], f.now()
		if l.bounds != b {
			l.bounds, l.limit = b, b.Nominal
		}
		l.maxSeats = maxSeats
		l.mu.Lock()
		if l.object != nil {
			c := queueConfig(l.object)
			c.Young = f.opts.Processors * youngPerProcessor
			if c.Queues > 0 {
				l.maxSeats = min(maxSeats, max(1, int(math.Ceil(float64(b.Nominal)/float64(max(1, c.Hand))))))
			}
			f.tell(l, l.set.Configure(c, now))
		}
		f.tell(l, l.set.Limit(l.limit, now))
		l.mu.Unlock()
	}
}

// adjust lets levels lend seats they do not need, by what they needed since the last time.
func (f *Fairness) adjust() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reap() {
		f.divide()
		c := *f.config.Load()
		c.levels = f.sorted()
		f.config.Store(&c)
	}
	all := f.sorted()
	claims := make([]queue.Claim, len(all))
	for i, l := range all {
		l.mu.Lock()
		l.reading = l.set.Demand.Reset(f.now())
		l.mu.Unlock()
		l.smooth = queue.Smooth(l.smooth, l.reading)
		claims[i] = queue.Claim{Bounds: l.bounds, Exempt: l.share.Exempt, Peak: l.reading.Peak, Smooth: l.smooth}
	}
	for i, n := range queue.Adjust(claims) {
		l := all[i]
		l.limit = n
		l.mu.Lock()
		f.tell(l, l.set.Limit(n, f.now()))
		l.mu.Unlock()
	}
}

func shareOf(o *flowv1.PriorityLevelConfiguration) queue.Share {
	value := func(p *int32, otherwise int) int {
		if p == nil {
			return otherwise
		}
		return int(*p)
	}
	switch {
	case o.Spec.Type == flowv1.PriorityLevelEnablementExempt:
		s := queue.Share{Exempt: true}
		if e := o.Spec.Exempt; e != nil {
			s.Shares, s.Lendable = value(e.NominalConcurrencyShares, 0), value(e.LendablePercent, 0)
		}
		return s
	case o.Spec.Limited != nil:
		l := o.Spec.Limited
		s := queue.Share{Shares: value(l.NominalConcurrencyShares, 30), Lendable: value(l.LendablePercent, 0)}
		if l.BorrowingLimitPercent != nil {
			n := int(*l.BorrowingLimitPercent)
			s.Borrow = &n
		}
		return s
	}
	return queue.Share{}
}

func queueConfig(o *flowv1.PriorityLevelConfiguration) queue.Config {
	if o.Spec.Type == flowv1.PriorityLevelEnablementExempt {
		return queue.Config{Exempt: true}
	}
	if l := o.Spec.Limited; l != nil && l.LimitResponse.Type == flowv1.LimitResponseTypeQueue && l.LimitResponse.Queuing != nil {
		q := l.LimitResponse.Queuing
		return queue.Config{Queues: int(q.Queues), Hand: int(q.HandSize), Length: int(q.QueueLengthLimit)}
	}
	return queue.Config{}
}
