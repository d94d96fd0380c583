package local

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Progress tells a user what is being waited for: on a terminal as a line that moves, elsewhere one plain line per step.
type Progress struct {
	out io.Writer
	tty bool
}

// NewProgress writes to f. A nil f is silent.
func NewProgress(f *os.File) *Progress {
	if f == nil {
		return &Progress{out: io.Discard}
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &Progress{out: f, tty: err == nil}
}

// Step runs fn and reports what it did and how long it took. fn may call say to tell how far it is.
func (p *Progress) Step(what string, fn func(say func(string)) error) error {
	started := time.Now()
	var mu sync.Mutex
	detail := ""
	say := func(s string) { mu.Lock(); detail = s; mu.Unlock() }
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		if !p.tty {
			return
		}
		frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			mu.Lock()
			d := detail
			mu.Unlock()
			if d != "" {
				d = " – " + d
			}
			fmt.Fprintf(p.out, "\r\x1b[K%c %s%s %.1f s", frames[i%len(frames)], what, d, time.Since(started).Seconds())
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	err := fn(say)
	close(stop)
	<-stopped
	mark, lead := "ok", ""
	if err != nil {
		mark = "failed"
	}
	if p.tty {
		mark, lead = "✓", "\r\x1b[K"
		if err != nil {
			mark = "✗"
		}
	}
	fmt.Fprintf(p.out, "%s%s %s (%.2f s)\n", lead, mark, what, time.Since(started).Seconds())
	return err
}

// Line writes a line between steps.
func (p *Progress) Line(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }
