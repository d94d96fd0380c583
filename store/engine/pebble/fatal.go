package pebble

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// fatal holds the error after which the database must not be used. Pebble reports it by a call that must not return, from
// whatever goroutine and with whatever locks held. Others end the process there. Here that goroutine is left blocked for good
// and whoever waits for the database is told: the rest of the program lives on, and the files are opened anew.
type fatal struct {
	log  *slog.Logger
	once sync.Once
	ch   chan struct{}
	err  error
}

func newFatal(log *slog.Logger) *fatal { return &fatal{log: log, ch: make(chan struct{})} }

// fail records the first error and never returns.
func (f *fatal) fail(err error) {
	f.stop(err)
	select {}
}

// stop records the first error.
func (f *fatal) stop(err error) {
	f.once.Do(func() {
		if !errors.Is(err, errFenced) {
			f.log.Error("database stopped", "err", err)
		}
		f.err = err
		close(f.ch)
	})
}

// failed returns the error, nil while there is none.
func (f *fatal) failed() error {
	select {
	case <-f.ch:
		return f.err
	default:
		return nil
	}
}

// guard runs fn, and gives up waiting for it when the database fails.
func (f *fatal) guard(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-f.ch:
		return f.err
	}
}

// logger passes on Pebble's errors and drops its chatter.
type logger struct {
	log     *slog.Logger
	session *session
}

func (l *logger) Infof(string, ...any) {}

func (l *logger) Errorf(format string, args ...any) {
	l.log.Error("database", "err", fmt.Sprintf(format, args...))
}

// Fatalf stops the use of the database; an error among the arguments stays recognisable.
func (l *logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("database stopped: "+format, args...)
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err = fmt.Errorf("database stopped: %w", cause)
		}
	}
	l.session.fatal.fail(err)
}

// backgroundPause is how long a failed flush or compaction waits. Pebble tries again at once otherwise.
const backgroundPause = 100 * time.Millisecond

func (l *logger) events() *pebble.EventListener {
	var last string
	return &pebble.EventListener{
		// Called with the database locked, so it is never called twice at a time, and waiting here slows the retries.
		BackgroundError: func(err error) {
			if errors.Is(err, errFenced) {
				l.session.fatal.fail(err) // given up: this goroutine has nothing left to do
			}
			l.session.trouble.Store(&err)
			if err.Error() != last {
				last = err.Error()
				l.log.Error("database cannot tidy its files", "err", err)
			}
			time.Sleep(backgroundPause)
		},
		FlushEnd: func(info pebble.FlushInfo) {
			if info.Err == nil {
				l.session.trouble.Store(nil)
				last = ""
			}
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			l.log.Error("database file is damaged", "path", info.Path, "err", info.Details)
		},
	}
}
