// Package podlog reads, follows, rotates and removes the log files of containers, which the runtime writes in CRI format:
// "time stream P|F text" a line. The kubelet's server and podrun call it. It never writes a line itself.
package podlog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Options narrow what Read writes. The zero value means all of it.
type Options struct {
	// Tail is how many of the last lines, or nil for all.
	Tail *int64
	// Since leaves out what is older.
	Since time.Time
	// Limit is the most bytes written, or nil.
	Limit *int64
	// Timestamps puts the time before each line.
	Timestamps bool
	// Stream is "stdout" or "stderr", or empty for both.
	Stream string
	// Follow goes on until done returns true and all was written, or ctx ends.
	Follow bool
	Done   func() bool
}

type line struct {
	at      time.Time
	stream  string
	partial bool
	text    []byte
}

// parse reads one line of CRI format without its newline.
func parse(b []byte) (line, bool) {
	stamp, rest, ok := bytes.Cut(b, []byte(" "))
	if !ok {
		return line{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return line{}, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return line{}, false
	}
	tags, text, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		tags, text = rest, nil
	}
	return line{at: at, stream: string(stream), partial: bytes.HasPrefix(tags, []byte("P")), text: text}, true
}

var errLimit = errors.New("limit reached")

type writer struct {
	w     io.Writer
	opts  *Options
	left  int64
	start bool // the next text begins a line
}

func (w *writer) put(l line) error {
	if w.opts.Stream != "" && l.stream != w.opts.Stream || l.at.Before(w.opts.Since) {
		return nil
	}
	var b []byte
	if w.opts.Timestamps && w.start {
		b = l.at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00")
		b = append(b, ' ')
	}
	b = append(b, l.text...)
	w.start = !l.partial
	if !l.partial {
		b = append(b, '\n')
	}
	if w.opts.Limit != nil {
		if int64(len(b)) >= w.left {
			b = b[:w.left]
		}
		w.left -= int64(len(b))
	}
	if _, err := w.w.Write(b); err != nil {
		return err
	}
	if w.opts.Limit != nil && w.left <= 0 {
		return errLimit
	}
	return nil
}

// open opens a log for reading: a plain file, not what a link leads to. Who may read logs may not thereby read the node's
// other files, should somebody have got a link into the logs' directory.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	return f, nil
}

// Read writes the log at path to out. Following goes on in the new file when the log is rotated.
func Read(ctx context.Context, path string, out io.Writer, opts Options) error {
	f, err := open(path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	w := &writer{w: out, opts: &opts, start: true}
	if opts.Limit != nil {
		w.left = *opts.Limit
	}
	if opts.Tail != nil {
		at, err := tailOffset(f, *opts.Tail, opts.Stream)
		if err != nil {
			return err
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return err
		}
	}
	in := bufio.NewReaderSize(f, 32<<10)
	var rest []byte
	for {
		ended := opts.Follow && opts.Done != nil && opts.Done()
		rest, err = drain(in, rest, w)
		if errors.Is(err, errLimit) {
			return nil
		}
		if err != nil {
			return err
		}
		if flush, ok := out.(interface{ Flush() }); ok {
			flush.Flush()
		}
		if !opts.Follow {
			return w.finish(rest)
		}
		if next := rotated(f, path); next != nil {
			// The runtime opens a new file only when it is done with the old one.
			if rest, err = drain(in, rest, w); err == nil {
				err = w.finish(rest)
			}
			if err != nil {
				next.Close()
				return ignoreLimit(err)
			}
			f.Close()
			f, rest = next, nil
			in.Reset(f)
			continue
		}
		if ended {
			return w.finish(rest)
		}
		if !wait(ctx, path, opts.Done) {
			return nil
		}
	}
}

// finish writes the line without a newline that a file ends with when the runtime died in the middle of it.
func (w *writer) finish(rest []byte) error {
	l, ok := parse(rest)
	if !ok {
		return nil
	}
	return ignoreLimit(w.put(l))
}

func ignoreLimit(err error) error {
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

// drain writes the whole lines that can be read now and returns the beginning of one that is not whole yet.
func drain(in *bufio.Reader, rest []byte, w *writer) ([]byte, error) {
	for {
		b, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			rest = append(rest, b...)
			continue
		}
		if err != nil {
			rest = append(rest, b...)
			if errors.Is(err, io.EOF) {
				return rest, nil
			}
			return rest, err
		}
		if len(rest) > 0 {
			b = append(rest, b...)
		}
		if l, ok := parse(b[:len(b)-1]); ok {
			if err := w.put(l); err != nil {
				return nil, err
			}
		}
		rest = rest[:0]
	}
}

// rotated opens the file that is at path now, when it is another one than f.
func rotated(f *os.File, path string) *os.File {
	a, err := f.Stat()
	if err != nil {
		return nil
	}
	b, err := os.Lstat(path)
	if err != nil || os.SameFile(a, b) {
		return nil
	}
	next, err := open(path)
	if err != nil {
		return nil
	}
	return next
}

// wait returns true when the log may have grown, and false when ctx ended. The kernel tells of writes and of files that
// come; once a second the end of the container is looked for.
func wait(ctx context.Context, path string, done func() bool) bool {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return pause(ctx)
	}
	defer unix.Close(fd)
	before, err := os.Stat(path)
	if err != nil {
		return pause(ctx)
	}
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_MODIFY|unix.IN_MOVE_SELF|unix.IN_DELETE_SELF|unix.IN_ATTRIB); err != nil {
		return pause(ctx)
	}
	if after, err := os.Stat(path); err != nil || after.Size() != before.Size() {
		return true
	}
	for range 10 {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
		if ctx.Err() != nil {
			return false
		}
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) || done != nil && done() {
			return true
		}
	}
	return true
}

func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(200 * time.Millisecond):
		return true
	}
}

// tailOffset returns where the last n lines begin. Parts of one line count as one.
func tailOffset(f *os.File, n int64, stream string) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n <= 0 {
		return end, err
	}
	const block = 32 << 10
	buf := make([]byte, block)
	var tail []byte // what was read and not yet split, beginning at pos
	pos, count, at := end, int64(0), end
	for {
		for {
			i := bytes.LastIndexByte(tail[:max(len(tail)-1, 0)], '\n')
			if i < 0 && pos > 0 || len(tail) == 0 {
				break
			}
			whole := tail[i+1:]
			if l, ok := parse(bytes.TrimSuffix(whole, []byte("\n"))); ok && (stream == "" || l.stream == stream) && !l.partial {
				if count == n {
					return at, nil
				}
				count++
			}
			at = pos + int64(i) + 1
			tail = tail[:i+1]
		}
		if pos == 0 {
			return 0, nil
		}
		size := min(int64(block), pos)
		if _, err := f.ReadAt(buf[:size], pos-size); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		pos -= size
		tail = append(append(make([]byte, 0, int(size)+len(tail)), buf[:size]...), tail...)
	}
}

// Tail returns the text of the last lines of a log, at most limit bytes of it, from its end.
func Tail(ctx context.Context, path string, lines int64, limit int) string {
	var b bytes.Buffer
	if err := Read(ctx, path, &b, Options{Tail: &lines}); err != nil {
		return ""
	}
	text := b.Bytes()
	if len(text) > limit {
		text = text[len(text)-limit:]
	}
	return string(bytes.ToValidUTF8(text, nil))
}
