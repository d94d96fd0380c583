// Package queue decides which requests of a priority level run, which wait, and in what order: fair queues with a virtual
// clock, shuffle sharding of flows onto them, and the division of a server's seats among its levels. apiserver/fairness
// calls it under a lock of its own and carries out what it says. It is pure: no clock, no lock, no goroutine; time is a
// parameter, as the duration since a moment the caller chose, and never runs backwards.
//
// A request occupies seats while it runs. Every queue has a virtual time at which its next request would begin if all
// queues that have something to do were served evenly, seat-second for seat-second; the request that would end first by
// that reckoning is the next to run. A flow that asks for more than the others only makes its own queues longer.
package queue

import "time"

// Config says how a level treats requests that do not fit at once.
type Config struct {
	// Exempt lets every request run; it is counted, and nothing else.
	Exempt bool
	// Queues is how many queues there are; none means that what does not fit is rejected.
	Queues int
	// Hand is how many queues a flow may be put in, Length how many requests wait in one queue.
	Hand, Length int
	// Young bounds the load of the requests that have only just begun, in a level that queues; 0 is no bound. Seats are many,
	// for a request that waits for a disk or a slow client occupies one; if as many all compute at once, whoever else wants a
	// processor waits behind them.
	Young int
}

// Work is what a request costs.
type Work struct {
	// Seats are occupied while it runs, FinalSeats for Extra after it was answered.
	Seats, FinalSeats int
	Extra             time.Duration
	// Load is what it takes of the processors while it is young.
	Load int
}

func (w Work) seats() int { return max(w.Seats, w.FinalSeats) }

// usual is how long a request is taken to run before it has.
const usual = 3 * time.Millisecond

// youth is for how long a request counts as computing. One that runs longer probably waits for something.
const youth = 100 * time.Millisecond

func (w Work) seatSeconds(running time.Duration) float64 {
	return float64(w.Seats)*running.Seconds() + float64(w.FinalSeats)*w.Extra.Seconds()
}

// State is where a request is.
type State uint8

// The states of a request, in order.
const (
	New State = iota
	Waiting
	Running
	Lingering // answered, and still occupying its final seats
	Gone
)

// Request is one request at a level. The caller fills Flow, Work and Of before Arrive, and leaves the rest to the Set.
type Request struct {
	// Flow is a hash of what the request is one of many of.
	Flow uint64
	Work Work
	// Of is what the caller knows the request by.
	Of any

	State            State
	Arrived, Started time.Duration
	// Line is the queue it was put in, -1 for none.
	Line int

	seats      int
	young      bool
	arrived    float64
	prev, next *Request
}

// list is a chain of requests in order of arrival.
type list struct{ head, tail *Request }

func (l *list) push(r *Request) {
	r.prev, r.next = l.tail, nil
	if l.tail == nil {
		l.head = r
	} else {
		l.tail.next = r
	}
	l.tail = r
}

func (l *list) remove(r *Request) {
	if r.prev == nil {
		l.head = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		l.tail = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.prev, r.next = nil, nil
}

// line is one queue: what waits in it, and what came out of it and still runs.
type line struct {
	list
	waiting, waitingSeats int
	running, seats        int
	// next is the virtual time at which its next request begins.
	next float64
}

func (l *line) active() bool { return l.waiting > 0 || l.running > 0 }

// Verdict is what becomes of a request that arrives.
type Verdict uint8

// The verdicts.
const (
	Run  Verdict = iota // it runs now
	Wait                // it is in a queue and among the woken of a later call
	Full                // its queue is full
	Over                // it does not fit, and nothing waits here
)

// Set is the requests of one level. One goroutine at a time may use it. The requests that its methods return are to be told
// that they run now; the slice is good until the next call.
type Set struct {
	Demand Demand

	config    Config
	limit     int
	lines     []line
	turn      int
	virtual   float64
	last      time.Duration
	seats     int
	waiting   int
	waitSeats int
	active    int
	running   list     // in order of start
	first     *Request // no running request before it is young
	load      int      // of those that are young
	runs      int
	woken     []*Request
}

// Configure changes how the level treats what comes. What waits goes on waiting where it is.
func (s *Set) Configure(c Config, now time.Duration) []*Request {
	s.advance(now)
	s.config = c
	for len(s.lines) < c.Queues {
		s.lines = append(s.lines, make([]line, c.Queues-len(s.lines))...)
	}
	s.trim()
	return s.dispatch(now)
}

// Limit sets how many seats may be occupied. At zero nothing runs: it waits.
func (s *Set) Limit(seats int, now time.Duration) []*Request {
	s.advance(now)
	s.limit = seats
	return s.dispatch(now)
}

// trim drops the queues beyond those configured, once they are empty.
func (s *Set) trim() {
	n := len(s.lines)
	for n > s.config.Queues && !s.lines[n-1].active() {
		n--
	}
	s.lines = s.lines[:n]
}

// fits reports whether a request can run beside those that do. One wider than the level runs when it is alone.
func (s *Set) fits(r *Request) bool {
	switch {
	case s.config.Exempt:
		return true
	case s.limit <= 0 || s.bounded() && s.load > 0 && s.load+r.Work.Load > s.config.Young:
		return false
	case r.seats > s.limit:
		return s.seats == 0
	}
	return s.seats+r.seats <= s.limit
}

func (s *Set) bounded() bool { return s.config.Young > 0 && s.config.Queues > 0 }

// age counts out the requests that are young no more.
func (s *Set) age(now time.Duration) {
	for s.first != nil && (!s.first.young || now-s.first.Started >= youth) {
		s.grown(s.first)
		s.first = s.first.next
	}
}

func (s *Set) grown(r *Request) {
	if r.young {
		r.young = false
		s.load -= r.Work.Load
	}
}

// Again returns when to call Look, 0 for no need: requests wait, and those that run will not be young for ever.
func (s *Set) Again(now time.Duration) time.Duration {
	if s.waiting == 0 || s.first == nil || !s.bounded() {
		return 0
	}
	return max(s.first.Started+youth-now, 1)
}

// Look lets run what fits by the passing of time alone.
func (s *Set) Look(now time.Duration) []*Request {
	s.advance(now)
	return s.dispatch(now)
}

// Arrive takes a new request. The others it returns may run now too.
func (s *Set) Arrive(r *Request, now time.Duration) (Verdict, []*Request) {
	s.advance(now)
	r.Arrived, r.arrived, r.seats, r.Line = now, s.virtual, r.Work.seats(), -1
	if s.config.Exempt || s.config.Queues == 0 {
		if !s.fits(r) {
			return Over, nil
		}
		s.start(r, now)
		s.note(now)
		return Run, nil
	}
	r.Line = s.choose(r.Flow)
	l := &s.lines[r.Line]
	if s.waiting > 0 || !s.fits(r) {
		if l.waiting >= s.config.Length {
			return Full, nil
		}
		s.enqueue(r, l)
		woken := s.dispatch(now)
		if r.State == Running {
			return Run, woken
		}
		return Wait, woken
	}
	s.wake(l)
	l.next = max(l.next, s.virtual) + r.Work.seatSeconds(usual)
	s.turn = r.Line + 1
	s.start(r, now)
	s.note(now)
	return Run, nil
}

// choose returns the queue of the flow's hand with the least in it.
func (s *Set) choose(flow uint64) int {
	var cards [maxHand]int
	best, least := 0, -1
	for _, i := range deal(flow, s.config.Queues, s.config.Hand, cards[:0]) {
		if n := s.lines[i].waitingSeats + s.lines[i].seats; least < 0 || n < least {
			best, least = i, n
		}
	}
	return best
}

// wake begins a queue that had nothing to do at the present, so that rest earns nothing.
func (s *Set) wake(l *line) {
	if !l.active() {
		l.next = s.virtual
		s.active++
	}
}

func (s *Set) enqueue(r *Request, l *line) {
	s.wake(l)
	r.State = Waiting
	l.push(r)
	s.bound(l)
	l.waiting++
	l.waitingSeats += r.seats
	s.waiting++
	s.waitSeats += r.seats
}

func (s *Set) dequeue(r *Request, l *line) {
	l.remove(r)
	l.waiting--
	l.waitingSeats -= r.seats
	s.waiting--
	s.waitSeats -= r.seats
}

func (s *Set) start(r *Request, now time.Duration) {
	r.State, r.Started = Running, now
	s.running.push(r)
	if r.Work.Load > 0 {
		r.young = true
		s.load += r.Work.Load
		if s.first == nil {
			s.first = r
		}
	}
	s.runs++
	s.seats += r.seats
	if r.Line >= 0 {
		s.lines[r.Line].running++
		s.lines[r.Line].seats += r.seats
	}
}

// dispatch lets run what now fits, in order of virtual end. When the first in that order does not fit, the rest waits
// with it: otherwise wide requests would never run beside narrow ones.
func (s *Set) dispatch(now time.Duration) []*Request {
	s.woken = s.woken[:0]
	for s.waiting > 0 {
		i := s.pick()
		l := &s.lines[i]
		r := l.head
		if !s.fits(r) {
			break
		}
		s.dequeue(r, l)
		l.next += r.Work.seatSeconds(usual)
		s.bound(l)
		s.start(r, now)
		s.turn = i + 1
		s.woken = append(s.woken, r)
	}
	s.note(now)
	return s.woken
}

// pick returns the queue whose oldest request would end first. Of equals it is the one after the queue served last.
func (s *Set) pick() int {
	best, end := -1, 0.0
	n := len(s.lines)
	for k := range n {
		i := s.turn + k
		if i >= n {
			i %= n
		}
		l := &s.lines[i]
		if l.waiting == 0 {
			continue
		}
		if e := l.next + l.head.Work.seatSeconds(usual); best < 0 || e < end {
			best, end = i, e
		}
	}
	return best
}

// bound keeps a queue from a start before its oldest request was there.
func (s *Set) bound(l *line) {
	if l.head != nil && l.next < l.head.arrived {
		l.next = l.head.arrived
	}
}

// Abandon takes a request out of its queue. It returns false if the request does not wait: it runs, or is gone.
func (s *Set) Abandon(r *Request, now time.Duration) (bool, []*Request) {
	if r.State != Waiting {
		return false, nil
	}
	s.advance(now)
	l := &s.lines[r.Line]
	s.dequeue(r, l)
	r.State = Gone
	s.bound(l)
	s.rest(l)
	return true, s.dispatch(now)
}

// Finish ends a running request. If it returns a duration, the request occupies its final seats for that long: call Release
// then.
func (s *Set) Finish(r *Request, now time.Duration) (time.Duration, []*Request) {
	if r.State != Running {
		return 0, nil
	}
	s.advance(now)
	if r.Line >= 0 {
		l := &s.lines[r.Line]
		l.next += float64(r.Work.Seats) * (now - r.Started - usual).Seconds()
		s.bound(l)
	}
	if r.Work.FinalSeats > 0 && r.Work.Extra > 0 && !s.config.Exempt {
		s.drop(r, r.seats-r.Work.FinalSeats)
		s.grown(r)
		r.State = Lingering
		return r.Work.Extra, s.dispatch(now)
	}
	return 0, s.end(r, now)
}

// Release ends a request that lingers.
func (s *Set) Release(r *Request, now time.Duration) []*Request {
	if r.State != Lingering {
		return nil
	}
	s.advance(now)
	return s.end(r, now)
}

// drop gives up seats of a request.
func (s *Set) drop(r *Request, seats int) {
	r.seats -= seats
	s.seats -= seats
	if r.Line >= 0 {
		s.lines[r.Line].seats -= seats
	}
}

func (s *Set) end(r *Request, now time.Duration) []*Request {
	s.drop(r, r.seats)
	s.grown(r)
	if s.first == r {
		s.first = r.next
	}
	s.running.remove(r)
	s.runs--
	r.State = Gone
	if r.Line >= 0 {
		l := &s.lines[r.Line]
		l.running--
		s.rest(l)
	}
	return s.dispatch(now)
}

// rest counts a queue out that has nothing to do any more. When none has, the virtual clock begins anew.
func (s *Set) rest(l *line) {
	if l.active() {
		return
	}
	s.active--
	if s.active == 0 {
		s.virtual = 0
	}
	if len(s.lines) > s.config.Queues {
		s.trim()
	}
}

// advance moves the virtual clock: it shows the seat-seconds that each busy queue would have had of those that were used.
// Seats kept free for a wide request do not count, or every queue would seem to be behind.
func (s *Set) advance(now time.Duration) {
	if s.active > 0 && now > s.last {
		s.virtual += (now - s.last).Seconds() * float64(s.seats) / float64(s.active)
	}
	s.last = max(s.last, now)
	s.age(now)
}

func (s *Set) note(now time.Duration) { s.Demand.Set(s.seats+s.waitSeats, now) }

// Idle reports whether nothing runs and nothing waits.
func (s *Set) Idle() bool { return s.runs == 0 && s.waiting == 0 }
