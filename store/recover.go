package store

import (
	"errors"
	"fmt"
	"time"
)

// Recoverer is an Engine that can come back after an error of unknown outcome, and tell then what became of the batch.
type Recoverer interface {
	Engine
	// Recover makes the engine usable again if that is possible now, and returns the last revision that is durable. It is
	// called by who calls Apply, and again some time after an error.
	Recover() (last uint64, err error)
}

const (
	// firstRetry is how long after a failed Recover the next one is tried, lastRetry how long that may grow.
	firstRetry = 500 * time.Millisecond
	lastRetry  = 15 * time.Second
)

// doubt is a batch that may be on the disk or not. Until that is known no write may build on either.
type doubt struct {
	engine Recoverer
	writes []change
	timer  *time.Timer
	pause  time.Duration
	since  time.Time
}

// apply hands the batch to the engine. When the outcome is unknown, an engine that comes back at once tells it.
func (c *committer) apply() error {
	err := c.store.engine.Apply(c.muts)
	if err == nil || errors.Is(err, ErrNotApplied) {
		return err
	}
	engine, ok := c.store.engine.(Recoverer)
	if !ok {
		return err
	}
	last, failed := engine.Recover()
	happened, known := c.judge(last, failed, c.writes)
	switch {
	case known && happened:
		c.store.log.Warn("a write failed at first; the disk has it", "err", err)
		return nil
	case known:
		return fmt.Errorf("%w: %w", ErrNotApplied, err)
	}
	c.doubt = &doubt{engine: engine, pause: firstRetry, since: time.Now()}
	return err
}

// judge tells from an answer of Recover whether the writes are on the disk.
func (c *committer) judge(last uint64, err error, writes []change) (happened, known bool) {
	if err != nil {
		return false, false
	}
	if last == writes[len(writes)-1].record.Revision {
		return true, true
	}
	// An engine that holds neither state has lost what was acknowledged: nothing may be written to it.
	return false, last == c.store.revision
}

// keep puts the batch aside until the engine comes back. Its callers are answered by now.
func (d *doubt) keep(writes []change) {
	d.writes = append([]change(nil), writes...)
	for i := range d.writes {
		p := *d.writes[i].pending
		p.done, p.Attach = nil, nil
		d.writes[i].pending = &p
	}
	d.timer = time.NewTimer(d.pause)
}

// retry is the channel that says when to try again, nil while nothing is in doubt.
func (c *committer) retry() <-chan time.Time {
	if c.doubt == nil {
		return nil
	}
	return c.doubt.timer.C
}

// settle tries to find out what became of the batch in doubt. Once that is known it is shown or forgotten, and writes are
// taken again.
func (c *committer) settle() {
	d, s := c.doubt, c.store
	last, err := d.engine.Recover()
	happened, known := c.judge(last, err, d.writes)
	if !known {
		if err == nil {
			err = fmt.Errorf("the engine is at revision %d, but %d was acknowledged", last, s.revision)
		}
		stop := fmt.Errorf("%w since a write failed at %s; writes are taken again by themselves once the disk works: %w",
			ErrReadOnly, d.since.Format(time.TimeOnly), err)
		c.stop = stop
		s.broken.Store(&stop)
		d.pause = min(2*d.pause, lastRetry)
		d.timer.Reset(d.pause)
		return
	}
	if happened {
		c.writes = append(c.writes[:0], d.writes...)
		c.publish()
		clear(c.writes)
		c.writes = c.writes[:0]
	}
	c.doubt, c.stop = nil, nil
	s.broken.Store(nil)
	s.log.Info("store takes writes again", "after", time.Since(d.since).Round(time.Millisecond), "revision", last, "unanswered writes happened", happened)
}
