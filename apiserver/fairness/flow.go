package fairness

import (
	"hash/maphash"
	"time"
)

// reason is why a request is turned away.
type reason int

const (
	queueFull reason = iota
	overLimit
	timedOut
	cancelled
)

// reasons are the words for that.
var reasons = [...]string{queueFull: "queue-full", overLimit: "concurrency-limit", timedOut: "time-out", cancelled: "cancelled"}

// flow is what is counted of the requests of one schema at one level. The level's lock guards it.
type flow struct {
	schema string
	level  *level
	seed   maphash.Seed // of the hashes by which flows are put in queues: nobody can choose a name that shares them with another

	waiting, running, seats int
	dispatched              uint64
	rejected                [len(reasons)]uint64
	waited                  [2]histogram // those that gave up, those that ran
	ran                     [2]histogram // other requests, watches
	length, width           histogram
}

var (
	secondsBounds = []float64{0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30}
	lengthBounds  = []float64{0, 10, 25, 50, 100, 250, 500, 1000}
	widthBounds   = []float64{1, 2, 4, 10}
)

// flow returns the counters of a schema at this level.
func (l *level) flow(schema string) *flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.flows[schema]
	if f == nil {
		f = &flow{schema: schema, level: l, seed: maphash.MakeSeed(), length: histogram{bounds: lengthBounds}, width: histogram{bounds: widthBounds}}
		for i := range f.waited {
			f.waited[i].bounds, f.ran[i].bounds = secondsBounds, secondsBounds
		}
		l.flows[schema] = f
	}
	return f
}

// forget drops the counters of schemas that are gone from here.
func (l *level) forget(live map[*flow]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, f := range l.flows {
		if !live[f] && f.waiting == 0 && f.running == 0 {
			delete(l.flows, name)
		}
	}
}

func (f *flow) start(t *Ticket) {
	f.running++
	f.seats += t.seats()
	f.dispatched++
	f.level.done[0]++
}

func (f *flow) end(t *Ticket, now time.Duration, lingers bool) {
	f.running--
	f.seats -= t.seats()
	if lingers {
		f.seats += t.request.Work.FinalSeats
	}
	kind := 0
	if t.info.IsResource && t.info.Verb == "watch" {
		kind = 1
	}
	f.ran[kind].add((now - t.request.Started).Seconds())
}

func (t *Ticket) seats() int { return max(t.request.Work.Seats, t.request.Work.FinalSeats) }

func (f *flow) reject(why reason) error {
	f.rejected[why]++
	switch why {
	case timedOut:
		f.level.done[2]++
	case cancelled:
		f.level.done[3]++
	default:
		f.level.done[1]++
	}
	return tooMany()
}

// histogram counts values by upper bounds.
type histogram struct {
	bounds []float64
	counts [14]uint64 // one more than the longest bounds
	sum    float64
	total  uint64
}

func (h *histogram) add(v float64) {
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.counts[i]++
	h.sum += v
	h.total++
}
