// Package fairness is API Priority and Fairness: it lets a request run, makes it wait its turn, or turns it away, as the
// FlowSchemas and PriorityLevelConfigurations of the cluster say, so that one noisy client cannot starve the others. The API
// server asks it for every request over HTTP once it is known who sends it; parts of the same process do not pass it. It
// owns the objects of its API that every cluster has, and the Dangling condition of flow schemas. What belongs to which
// schema is decided in fairness/match, who runs and who waits in fairness/queue; this is the shell that has the clock, the
// locks and the counters.
package fairness

import (
	"context"
	"hash/maphash"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"karve/apiserver/authn"
	"karve/apiserver/fairness/match"
	"karve/apiserver/fairness/queue"
	"karve/apiserver/request"
	"karve/client"
)

// Headers of an answer that name the flow schema and priority level of its request.
const (
	headerSchema = "X-Kubernetes-Pf-Flowschema-Uid"
	headerLevel  = "X-Kubernetes-Pf-Prioritylevel-Uid"
)

// Options are what a Fairness works with.
type Options struct {
	// Caches are read for the configuration; Write is used for what the package owns.
	Caches *client.Caches
	Write  client.Transport
	// Seats are how many the levels share: about how many requests run at a time.
	Seats int
	// Processors are what requests compute on.
	Processors int
	// Patience is the longest a request waits in a queue; one with a deadline waits a quarter of its time at most.
	Patience time.Duration
	// Count returns how many objects a list of a collection reads; nil or a negative number if that is not known.
	Count func(i *request.Info) int
	Log   *slog.Logger
}

// Fairness admits requests. Safe for concurrent use.
type Fairness struct {
	opts   Options
	log    *slog.Logger
	epoch  time.Time
	config atomic.Pointer[config]
	watch  watchers
	nudged chan struct{}

	looking sync.Mutex // one look at a time
	mu      sync.Mutex // for changes of the configuration
	levels  map[string]*level
}

// New returns a Fairness that goes by the objects every cluster has until Run has read the others. Call it before the
// caches run.
func New(o Options) *Fairness {
	f := &Fairness{opts: o, log: o.Log, epoch: time.Now(), nudged: make(chan struct{}, 1), levels: map[string]*level{}}
	f.digest(levels(), schemas())
	f.follow()
	return f
}

// now is the time as queues count it.
func (f *Fairness) now() time.Duration { return time.Since(f.epoch) }

// Ticket is a request that runs.
type Ticket struct {
	request queue.Request
	from    *Fairness
	route   *route
	wake    chan struct{}
	user    *authn.User
	info    *request.Info
	flow    string
	watched bool
}

// Admit returns once a request may run; call Done when it has. It fails with the error to answer with when the request is
// turned away, or with that of the request's context. Headers of the answer are set either way.
func (f *Fairness) Admit(w http.ResponseWriter, r *http.Request, i *request.Info, u *authn.User) (*Ticket, error) {
	a := match.Attributes{User: u.Name, Groups: u.Groups, Verb: i.Verb, IsResource: i.IsResource, Path: i.Path,
		Namespace: i.Namespace, Group: i.Group, Resource: i.Resource, Subresource: i.Subresource}
	rt := f.config.Load().route(&a)
	h := w.Header()
	h[headerSchema], h[headerLevel] = rt.schemaUID, rt.levelUID
	t := &Ticket{from: f, route: rt, user: u, info: i, flow: match.Distinguisher(rt.schema, &a)}
	t.request.Of, t.request.Work = t, f.work(rt, r, i)
	if !rt.exempt {
		t.request.Flow = maphash.String(rt.flow.seed, t.flow)
	}
	if err := f.enter(r.Context(), t); err != nil {
		return nil, err
	}
	if i.IsResource && i.Verb == "watch" {
		t.watched = true
		f.watch.add(keyOf(i), 1)
	}
	return t, nil
}

func (f *Fairness) enter(ctx context.Context, t *Ticket) error {
	l, flow := t.route.level, t.route.flow
	l.mu.Lock()
	verdict, woken := l.set.Arrive(&t.request, f.now())
	flow.width.add(float64(t.request.Work.Seats))
	switch verdict {
	case queue.Run:
		flow.start(t)
		f.tell(l, woken)
		l.mu.Unlock()
		return nil
	case queue.Full:
		defer l.mu.Unlock()
		return flow.reject(queueFull)
	case queue.Over:
		defer l.mu.Unlock()
		return flow.reject(overLimit)
	}
	t.wake = make(chan struct{})
	flow.waiting++
	flow.length.add(float64(l.set.Queued(&t.request)))
	f.tell(l, woken)
	l.mu.Unlock()
	return f.wait(ctx, t)
}

// wait waits for the turn of a queued request.
func (f *Fairness) wait(ctx context.Context, t *Ticket) error {
	timer := time.NewTimer(f.patience(ctx))
	defer timer.Stop()
	why := timedOut
	select {
	case <-t.wake:
		return nil
	case <-timer.C:
	case <-ctx.Done():
		why = cancelled
	}
	l, flow := t.route.level, t.route.flow
	l.mu.Lock()
	defer l.mu.Unlock()
	left, woken := l.set.Abandon(&t.request, f.now())
	if !left {
		return nil // its turn came meanwhile
	}
	f.tell(l, woken)
	flow.waiting--
	flow.waited[0].add((f.now() - t.request.Arrived).Seconds())
	err := flow.reject(why)
	if why == cancelled {
		return ctx.Err()
	}
	return err
}

func (f *Fairness) patience(ctx context.Context) time.Duration {
	if at, ok := ctx.Deadline(); ok {
		return min(f.opts.Patience, time.Until(at)/4)
	}
	return f.opts.Patience
}

// Done ends a request. It may be called more than once.
func (t *Ticket) Done() {
	if t.watched {
		t.watched = false
		t.from.watch.add(keyOf(t.info), -1)
	}
	t.leave()
}

func (t *Ticket) leave() {
	l, f := t.route.level, t.from
	l.mu.Lock()
	if t.request.State != queue.Running {
		l.mu.Unlock()
		return
	}
	now := f.now()
	after, woken := l.set.Finish(&t.request, now)
	t.route.flow.end(t, now, after > 0)
	f.tell(l, woken)
	l.mu.Unlock()
	if after > 0 {
		time.AfterFunc(after, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			f.tell(l, l.set.Release(&t.request, f.now()))
			t.route.flow.seats -= t.request.Work.FinalSeats
		})
	}
}

// tell lets requests go whose turn has come.
func (f *Fairness) tell(l *level, woken []*queue.Request) {
	for _, r := range woken {
		t := r.Of.(*Ticket)
		if t.wake == nil { // it has only just arrived, and is told by the verdict
			continue
		}
		flow := t.route.flow
		flow.waiting--
		flow.waited[1].add((r.Started - r.Arrived).Seconds())
		flow.start(t)
		close(t.wake)
	}
	if after := l.set.Again(f.now()); after > 0 && !l.looking {
		l.looking = true
		time.AfterFunc(after, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.looking = false
			f.tell(l, l.set.Look(f.now()))
		})
	}
}

type ticketKey struct{}

// With returns a context that carries the ticket of a watch, for Begun.
func With(ctx context.Context, t *Ticket) context.Context {
	return context.WithValue(ctx, ticketKey{}, t)
}

// Begun gives up the seats of a watch that has sent its initial events: from then on it costs what its events cost, and
// those who cause them have seats for that.
func Begun(ctx context.Context) {
	if t, ok := ctx.Value(ticketKey{}).(*Ticket); ok {
		t.leave()
	}
}

// tooMany is the answer to a request that is turned away; clients come back after a second.
func tooMany() error {
	return apierrors.NewTooManyRequests("Too many requests, please try again later.", 1)
}
