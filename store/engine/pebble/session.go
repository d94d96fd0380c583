package pebble

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// session is one opening of the database. After a fatal error it is given up and another one takes its place.
type session struct {
	db    *pebble.DB
	fatal *fatal
	fence *fence
	// trouble is the last error of a flush or compaction, which Pebble tries again by itself; nil since one succeeded.
	trouble *atomic.Pointer[error]
}

// openWait is how long Recover waits for the database to open. It goes on trying in the background: on a disk that refuses
// writes, opening stands still until that ends.
const openWait = 5 * time.Second

// opening is a session that is being opened.
type opening struct {
	session *session
	done    chan struct{}
	err     error // valid once done is closed
}

// start opens the database in the background.
func start(fs vfs.FS, dir string, log *slog.Logger) *opening {
	s := &session{fatal: newFatal(log.With("dir", dir)), trouble: new(atomic.Pointer[error])}
	s.fence = newFence(fs, s.fatal)
	o := &opening{session: s, done: make(chan struct{})}
	go func() {
		defer close(o.done)
		o.err = s.fatal.guard(func() (err error) {
			s.db, err = pebble.Open(dir, options(s, dir, log))
			return err
		})
		s.fence.steady.Store(true)
		if o.err != nil {
			s.fence.cut()
		}
	}()
	return o
}

// wait returns the session once it is open. After d it returns an error that wraps errWaiting and may be called again.
func (o *opening) wait(d time.Duration) (*session, error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-o.done:
		if o.err != nil {
			return nil, o.err
		}
		return o.session, nil
	case <-timer.C:
		if cause := o.session.trouble.Load(); cause != nil {
			return nil, fmt.Errorf("%w: %w", errWaiting, *cause)
		}
		return nil, errWaiting
	}
}

// errWaiting says that the database does not open for the time being.
var errWaiting = errors.New("the disk does not take writes")

// first waits for the opening at the start of a process: for a minute if the disk is slow, for a moment if it refuses.
func (o *opening) first() (*session, error) {
	for refused, i := 0, 0; i < 60 && refused < 2; i++ {
		s, err := o.wait(time.Second)
		if !errors.Is(err, errWaiting) {
			return s, err
		}
		if o.session.trouble.Load() != nil {
			refused++
		}
	}
	s, err := o.wait(0)
	if err != nil {
		o.session.fence.cut()
	}
	return s, err
}

// last reads the revision of the last batch, found false when there was none yet.
func (s *session) last() (last uint64, found bool, err error) {
	err = s.fatal.guard(func() error {
		header, closer, err := s.db.Get(headerKey)
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		defer closer.Close()
		found = true
		last, err = decodeHeader(header)
		return err
	})
	return last, found, err
}

// Recover makes the engine usable again after a fatal error of the database, and returns the last revision that is durable
// now: what became of a batch whose outcome was unknown. It gives the failed database up and opens its files anew, which
// writes what the log holds to new files and syncs those: what it finds is on the disk, whatever the failed sync left in the
// kernel's memory. It tries for some seconds; an error says what is in the way, and that it may be called again, unless
// the files are damaged. It must not be called while Apply or Load runs.
func (e *Engine) Recover() (uint64, error) {
	if e.session.Load().fatal.failed() == nil {
		return e.acked, nil
	}
	if e.pending == nil {
		e.session.Load().fence.cut()
		e.pending = start(e.fs, e.dir, e.log)
	}
	s, err := e.pending.wait(openWait)
	if errors.Is(err, errWaiting) {
		return 0, e.explain("open", err)
	}
	e.pending = nil
	if err != nil {
		return 0, e.explain("open", err)
	}
	last, _, err := s.last()
	if err == nil && last != e.acked && last != e.doubt {
		err = fmt.Errorf("%w: writes up to revision %d were acknowledged, but the files end at %d", errDamaged, e.acked, last)
	}
	if err != nil {
		s.fatal.stop(err)
		e.session.Store(s)
		return 0, e.explain("read", err)
	}
	e.session.Store(s)
	e.acked, e.doubt = last, last
	e.log.Info("database opened anew after its disk failed", "dir", e.dir, "revision", last)
	return last, nil
}
