package queue

// Counts are the totals of a Set.
type Counts struct {
	// Seats are occupied and WaitingSeats waited for; Limit is how many there may be.
	Seats, WaitingSeats, Limit int
	Running, Waiting, Active   int
}

// Counts returns the totals.
func (s *Set) Counts() Counts {
	return Counts{s.seats, s.waitSeats, s.limit, s.runs, s.waiting, s.active}
}

// Line is one queue as people are shown it.
type Line struct {
	Waiting, Running, Seats int
	// Next is the virtual time of the next dispatch, in seat-seconds.
	Next float64
	// InitialSeats, MaxSeats and Work (in seat-seconds) are the sums over what waits.
	InitialSeats, MaxSeats int
	Work                   float64
}

// Lines returns every queue.
func (s *Set) Lines() []Line {
	out := make([]Line, len(s.lines))
	for i := range s.lines {
		l := &s.lines[i]
		o := &out[i]
		*o = Line{Waiting: l.waiting, Running: l.running, Seats: l.seats, Next: l.next, MaxSeats: l.waitingSeats}
		for r := l.head; r != nil; r = r.next {
			o.InitialSeats += r.Work.Seats
			o.Work += r.Work.seatSeconds(usual)
		}
	}
	return out
}

// Each calls fn with every running request and then with every waiting one; at is its place in its queue, -1 if it runs.
func (s *Set) Each(fn func(r *Request, at int)) {
	for r := s.running.head; r != nil; r = r.next {
		fn(r, -1)
	}
	for i := range s.lines {
		at := 0
		for r := s.lines[i].head; r != nil; r = r.next {
			fn(r, at)
			at++
		}
	}
}

// Queued returns how many requests wait in the queue of a request, itself included.
func (s *Set) Queued(r *Request) int {
	if r.Line < 0 {
		return 0
	}
	return s.lines[r.Line].waiting
}
