package queue

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// level returns a set of a hand of one: a flow's number decides its queue.
func level(limit, queues, length int) *Set {
	s := &Set{}
	s.Configure(Config{Queues: queues, Hand: 1, Length: length}, 0)
	s.Limit(limit, 0)
	return s
}

func one(flow uint64, seats int) *Request { return &Request{Flow: flow, Work: Work{Seats: seats}} }

func arrive(t *testing.T, s *Set, r *Request, now time.Duration, want Verdict) {
	t.Helper()
	if got, _ := s.Arrive(r, now); got != want {
		t.Fatalf("verdict %d, want %d", got, want)
	}
}

func TestFillsSeatsThenQueuesThenRejects(t *testing.T) {
	s := level(2, 4, 3)
	first := one(0, 1)
	arrive(t, s, first, 0, Run)
	arrive(t, s, one(0, 1), 0, Run)
	waits := []*Request{one(0, 1), one(0, 1), one(0, 1)}
	for _, r := range waits {
		arrive(t, s, r, ms, Wait)
	}
	arrive(t, s, one(0, 1), ms, Full)
	arrive(t, s, one(1, 1), ms, Wait) // another queue has room
	if c := s.Counts(); c != (Counts{Seats: 2, WaitingSeats: 4, Limit: 2, Running: 2, Waiting: 4, Active: 2}) {
		t.Errorf("counts %+v", c)
	}
	_, woken := s.Finish(first, 2*ms)
	if len(woken) != 1 {
		t.Fatalf("woken %v", woken)
	}
	if _, again := s.Finish(first, 2*ms); again != nil || s.Counts().Seats != 2 {
		t.Error("a request can be finished twice")
	}
}

func TestQuietFlowGoesBeforeTheBacklogOfAGreedyOne(t *testing.T) {
	s := level(1, 8, 50)
	running := one(0, 1)
	arrive(t, s, running, 0, Run)
	for range 50 {
		arrive(t, s, one(0, 1), 0, Wait)
	}
	quiet := one(3, 1)
	arrive(t, s, quiet, 5*ms, Wait)
	now := 5 * ms
	for range 3 {
		now += 10 * ms
		_, woken := s.Finish(running, now)
		if len(woken) != 1 {
			t.Fatalf("woken %v", woken)
		}
		if running = woken[0]; running == quiet {
			return
		}
	}
	t.Error("three of the greedy flow ran before the only one of the quiet flow")
}

func TestWideRequestGetsItsTurnBesideNarrowOnes(t *testing.T) {
	s := level(4, 8, 50)
	var running []*Request
	for range 4 {
		r := one(0, 1)
		arrive(t, s, r, 0, Run)
		running = append(running, r)
	}
	wide := one(1, 3)
	arrive(t, s, wide, ms, Wait)
	for range 40 {
		arrive(t, s, one(0, 1), ms, Wait)
	}
	for now := 2 * ms; now < 60*ms; now += ms {
		_, woken := s.Finish(running[0], now)
		running = append(running[1:], woken...)
		if wide.State == Running {
			if c := s.Counts(); c.Seats > 4 {
				t.Errorf("%d seats of 4", c.Seats)
			}
			return
		}
	}
	t.Error("the wide request starves")
}

func TestWiderThanTheLevelRunsAlone(t *testing.T) {
	s := level(3, 2, 5)
	narrow, wide := one(0, 1), one(1, 5)
	arrive(t, s, narrow, 0, Run)
	arrive(t, s, wide, 0, Wait)
	if _, woken := s.Finish(narrow, ms); !slices.Equal(woken, []*Request{wide}) {
		t.Fatalf("woken %v", woken)
	}
	arrive(t, s, one(0, 1), ms, Wait)
}

func TestAbandon(t *testing.T) {
	s := level(1, 1, 5)
	a, b, c := one(0, 1), one(0, 1), one(0, 1)
	arrive(t, s, a, 0, Run)
	arrive(t, s, b, 0, Wait)
	arrive(t, s, c, 0, Wait)
	if ok, _ := s.Abandon(a, ms); ok {
		t.Error("a running request was abandoned")
	}
	if ok, woken := s.Abandon(b, ms); !ok || len(woken) > 0 {
		t.Errorf("abandon: %v, %v", ok, woken)
	}
	if _, woken := s.Finish(a, 2*ms); !slices.Equal(woken, []*Request{c}) {
		t.Errorf("woken %v", woken)
	}
	s.Finish(c, 3*ms)
	if !s.Idle() || s.Counts() != (Counts{Limit: 1}) {
		t.Errorf("not idle: %+v", s.Counts())
	}
}

func TestLevelWithoutSeatsHolds(t *testing.T) {
	s := level(0, 2, 5)
	r := one(0, 1)
	arrive(t, s, r, 0, Wait)
	if woken := s.Limit(1, ms); !slices.Equal(woken, []*Request{r}) {
		t.Errorf("woken %v", woken)
	}
}

func TestRejectAndExempt(t *testing.T) {
	s := &Set{}
	s.Limit(1, 0)
	arrive(t, s, one(0, 1), 0, Run)
	arrive(t, s, one(0, 1), 0, Over)
	s.Configure(Config{Exempt: true}, ms)
	r := one(0, 5)
	arrive(t, s, r, ms, Run)
	if c := s.Counts(); c.Seats != 6 || r.Line != -1 {
		t.Errorf("%+v, line %d", c, r.Line)
	}
}

func TestConfigureKeepsWhatWaits(t *testing.T) {
	s := level(1, 8, 5)
	running, held := one(7, 1), one(7, 1)
	arrive(t, s, running, 0, Run)
	arrive(t, s, held, 0, Wait)
	s.Configure(Config{Queues: 2, Hand: 1, Length: 5}, ms)
	if n := len(s.Lines()); n != 8 {
		t.Errorf("%d queues while the eighth is busy", n)
	}
	if _, woken := s.Finish(running, 2*ms); !slices.Equal(woken, []*Request{held}) {
		t.Errorf("woken %v", woken)
	}
	s.Finish(held, 3*ms)
	if n := len(s.Lines()); n != 2 {
		t.Errorf("%d queues, want 2", n)
	}
	other := one(1, 1)
	arrive(t, s, one(0, 1), 3*ms, Run)
	arrive(t, s, other, 3*ms, Wait)
	if woken := s.Configure(Config{Exempt: true}, 4*ms); !slices.Equal(woken, []*Request{other}) {
		t.Errorf("becoming exempt woke %v", woken)
	}
}

func TestLinger(t *testing.T) {
	s := level(3, 2, 5)
	r := &Request{Work: Work{Seats: 1, FinalSeats: 2, Extra: 5 * ms}}
	arrive(t, s, r, 0, Run)
	narrow, wide := one(1, 1), one(1, 2)
	arrive(t, s, narrow, 0, Run)
	arrive(t, s, wide, 0, Wait)
	after, woken := s.Finish(r, ms)
	if after != 5*ms || len(woken) > 0 || s.Counts().Seats != 3 {
		t.Fatalf("after %v, woken %v, %+v", after, woken, s.Counts())
	}
	if woken := s.Release(r, 6*ms); !slices.Equal(woken, []*Request{wide}) {
		t.Errorf("woken %v", woken)
	}
}

// However many seats there are, only so many requests compute at a time; one that runs long is taken to wait for something,
// and makes room.
func TestYoungRequestsAreBounded(t *testing.T) {
	s := &Set{}
	s.Configure(Config{Queues: 4, Hand: 1, Length: 50, Young: 3}, 0)
	s.Limit(100, 0)
	load := func(n int) *Request { return &Request{Work: Work{Seats: 1, Load: n}} }
	first, second := load(2), load(1)
	arrive(t, s, first, 0, Run)
	arrive(t, s, second, 10*ms, Run)
	if s.Again(10*ms) != 0 {
		t.Error("nothing waits, and yet somebody is to look")
	}
	third, fourth := load(2), load(1)
	arrive(t, s, third, 20*ms, Wait)
	arrive(t, s, load(0), 20*ms, Wait) // behind another of its flow
	arrive(t, s, fourth, 20*ms, Wait)
	if again := s.Again(20 * ms); again != 80*ms {
		t.Errorf("to look again after %v", again)
	}
	if woken := s.Look(99 * ms); len(woken) > 0 {
		t.Errorf("woken too soon: %v", woken)
	}
	if woken := s.Look(100 * ms); len(woken) != 2 || woken[0] != third {
		t.Errorf("woken %v", woken)
	}
	if _, woken := s.Finish(second, 101*ms); !slices.Equal(woken, []*Request{fourth}) {
		t.Errorf("woken %v", woken)
	}
	s.Finish(first, 102*ms)
	s.Finish(third, 103*ms)
	wide := load(9)
	arrive(t, s, wide, 104*ms, Wait)
	if _, woken := s.Finish(fourth, 105*ms); !slices.Equal(woken, []*Request{wide}) {
		t.Errorf("one that loads more than the bound does not run alone: %v", woken)
	}
}

// Seat-seconds, not requests, are what is shared: of three flows that always have work, the one with long and the one with
// wide requests get no more than the one with short ones.
func TestSharesSeatSecondsEvenly(t *testing.T) {
	s := level(8, 3, 1000)
	kinds := []struct {
		seats int
		takes time.Duration
	}{{1, 2 * ms}, {1, 20 * ms}, {4, 5 * ms}}
	type job struct {
		r    *Request
		ends time.Duration
	}
	var running []job
	had := make([]float64, len(kinds))
	begin := func(now time.Duration, rs ...*Request) {
		for _, r := range rs {
			running = append(running, job{r, now + kinds[r.Flow].takes})
		}
	}
	put := func(flow int, now time.Duration) {
		r := one(uint64(flow), kinds[flow].seats)
		v, woken := s.Arrive(r, now)
		begin(now, woken...)
		if v == Run && !slices.Contains(woken, r) {
			begin(now, r)
		}
	}
	for range 20 {
		for flow := range kinds {
			put(flow, 0)
		}
	}
	for now := time.Duration(0); now < 20*time.Second; {
		i := 0
		for j := range running {
			if running[j].ends < running[i].ends {
				i = j
			}
		}
		j := running[i]
		running = slices.Delete(running, i, i+1)
		now = j.ends
		_, woken := s.Finish(j.r, now)
		had[j.r.Flow] += float64(kinds[j.r.Flow].seats) * kinds[j.r.Flow].takes.Seconds()
		begin(now, woken...)
		put(int(j.r.Flow), now)
	}
	mean := (had[0] + had[1] + had[2]) / 3
	for flow, h := range had {
		if math.Abs(h-mean) > 0.1*mean {
			t.Errorf("flow %d had %.1f seat-seconds of %.1f on average: %v", flow, h, mean, had)
		}
	}
}

// Whatever happens in whatever order, seats are not oversold, nothing is lost, and in the end nothing is left.
func TestInvariants(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		s := &Set{}
		config := Config{Queues: 1 + rnd.IntN(12), Hand: 1, Length: 1 + rnd.IntN(8), Young: rnd.IntN(5)}
		config.Hand = 1 + rnd.IntN(config.Queues)
		limit := 1 + rnd.IntN(10)
		s.Configure(config, 0)
		s.Limit(limit, 0)
		var all []*Request
		now := time.Duration(0)
		grown := limit
		for range 500 {
			now += time.Duration(rnd.IntN(5)) * ms
			switch r := pickRequest(rnd, all); rnd.IntN(12) {
			default:
				r := &Request{Flow: rnd.Uint64(), Work: Work{Seats: 1 + rnd.IntN(4), FinalSeats: rnd.IntN(3), Extra: time.Duration(rnd.IntN(2)) * ms, Load: rnd.IntN(4)}}
				before := s.Counts()
				v, woken := s.Arrive(r, now)
				if v == Full && before.Waiting == 0 {
					t.Fatalf("seed %d: full with nothing waiting", seed)
				}
				if (v == Run) != (r.State == Running) || (v == Wait) != (r.State == Waiting) || slices.ContainsFunc(woken, func(w *Request) bool { return w.State != Running }) {
					t.Fatalf("seed %d: verdict %d, state %d", seed, v, r.State)
				}
				if v == Run || v == Wait {
					all = append(all, r)
				}
			case 0, 1, 2:
				if r != nil {
					s.Finish(r, now)
				}
			case 3:
				if r != nil {
					s.Release(r, now)
				}
			case 4:
				if r != nil && rnd.IntN(4) == 0 {
					s.Abandon(r, now)
				}
			case 5:
				if rnd.IntN(20) == 0 {
					limit = 1 + rnd.IntN(10)
					grown = max(grown, limit)
					s.Limit(limit, now)
				}
			case 7:
				s.Look(now)
			case 6:
				if rnd.IntN(20) == 0 {
					config.Queues = 1 + rnd.IntN(12)
					config.Hand = 1 + rnd.IntN(config.Queues)
					s.Configure(config, now)
				}
			}
			check(t, seed, s, all, grown)
		}
		for !s.Idle() {
			before := s.Counts()
			now += ms
			for _, r := range all {
				s.Finish(r, now)
				s.Release(r, now)
			}
			if s.Counts() == before {
				t.Fatalf("seed %d: stuck at %+v", seed, before)
			}
		}
		if c := s.Counts(); c.Seats != 0 || c.WaitingSeats != 0 || c.Active != 0 || c.Running != 0 {
			t.Fatalf("seed %d: left over: %+v", seed, c)
		}
	}
}

func pickRequest(rnd *rand.Rand, all []*Request) *Request {
	if len(all) == 0 {
		return nil
	}
	return all[rnd.IntN(len(all))]
}

func check(t *testing.T, seed uint64, s *Set, all []*Request, limit int) {
	t.Helper()
	c, running, waiting := s.Counts(), 0, 0
	for _, r := range all {
		switch r.State {
		case Running, Lingering:
			running++
		case Waiting:
			waiting++
		}
	}
	load := 0
	for _, r := range all {
		if r.young {
			load += r.Work.Load
		}
	}
	if load != s.load {
		t.Fatalf("seed %d: a load of %d, but %d counted", seed, load, s.load)
	}
	if c.Running != running || c.Waiting != waiting {
		t.Fatalf("seed %d: counts %+v, but %d run and %d wait", seed, c, running, waiting)
	}
	if c.Seats > limit && c.Running > 1 {
		t.Fatalf("seed %d: %d seats of %d", seed, c.Seats, limit)
	}
	lines := 0
	for _, l := range s.Lines() {
		lines += l.Waiting
	}
	seen := 0
	s.Each(func(*Request, int) { seen++ })
	if lines != waiting || seen != running+waiting {
		t.Fatalf("seed %d: %d in queues, %d seen, but %d wait and %d run", seed, lines, seen, waiting, running)
	}
}
