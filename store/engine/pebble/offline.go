package pebble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"karve/store"
)

// Report is what Check found in a directory.
type Report struct {
	// Files and Bytes are what lies there.
	Files int
	Bytes int64
	// Records and RecordBytes (of values) are what can be read; Revision is the last one written, Acknowledged the last one
	// that a server is known to have acknowledged.
	Records                int
	RecordBytes            int64
	Revision, Acknowledged uint64
	// Problems say what is damaged, one sentence each; none if the directory is sound.
	Problems []string
}

// Check reads everything in a directory that no server has open, and changes nothing. An error says that it could not look;
// damage is in the report.
func Check(ctx context.Context, dir string) (Report, error) {
	var r Report
	lock, err := lockOffline(dir)
	if err != nil {
		return r, err
	}
	defer lock.Close()
	if r.Files, r.Bytes, err = measure(dir); err != nil {
		return r, err
	}
	r.Acknowledged = readMark(dir)
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, sentence(format, args)) }
	s, err := openReadOnly(dir)
	if err != nil {
		problem("the database does not open: %v", err)
		return r, nil
	}
	defer s.db.Close()
	last, found, err := s.last()
	if err != nil {
		problem("its last revision cannot be read: %v", err)
	}
	r.Revision = last
	if last < r.Acknowledged {
		problem("writes up to revision %d were acknowledged, but the files end at %d: the end of the log is missing", r.Acknowledged, last)
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: firstKey})
	if err != nil {
		problem("its records cannot be read: %v", err)
		return r, nil
	}
	key := ""
	for it.First(); it.Valid(); it.Next() {
		if err := ctx.Err(); err != nil {
			return r, errors.Join(err, it.Close())
		}
		key = string(it.Key())
		stored, err := it.ValueAndErr()
		if err == nil {
			var revision uint64
			var value []byte
			if revision, value, err = decodeRecord(key, stored); err == nil {
				r.Records++
				r.RecordBytes += int64(len(value))
				if !found || revision > last {
					problem("record %q has revision %d, beyond the last one", key, revision)
				}
				continue
			}
		}
		problem("record %q cannot be read: %v", key, err)
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		problem("records after %q cannot be read: %v", key, err)
	}
	return r, nil
}

// OpenReadOnly opens a directory that no server has open for a look at it: only Load, Size and Close may be called.
func OpenReadOnly(dir string) (*Engine, error) {
	lock, err := lockOffline(dir)
	if err != nil {
		return nil, err
	}
	e := &Engine{dir: dir, fs: vfs.Default, log: slog.New(slog.DiscardHandler), lock: lock, acknowledged: readMark(dir)}
	s, err := openReadOnly(dir)
	if err != nil {
		lock.Close()
		return nil, e.explain("open", err)
	}
	e.session.Store(s)
	return e, nil
}

func openReadOnly(dir string) (*session, error) {
	s := &session{fatal: newFatal(slog.New(slog.DiscardHandler)), trouble: new(atomic.Pointer[error])}
	s.fence = newFence(vfs.Default, s.fatal)
	o := options(s, dir, slog.New(slog.DiscardHandler))
	o.ReadOnly = true
	err := s.fatal.guard(func() (err error) {
		s.db, err = pebble.Open(dir, o)
		return err
	})
	if err != nil {
		s.fence.cut()
		return nil, err
	}
	return s, nil
}

// Compact rewrites the files so that they hold the live records only, and returns how many bytes there were before and are
// after. It needs as much free space as the live records take, and closes the engine.
func (e *Engine) Compact(ctx context.Context) (before, after int64, err error) {
	if _, before, err = measure(e.dir); err != nil {
		return 0, 0, err
	}
	s := e.session.Load()
	err = s.fatal.guard(func() error {
		if err := s.db.Flush(); err != nil {
			return err
		}
		if err := s.db.Compact(ctx, []byte{0}, []byte{0xff}, false); err != nil {
			return err
		}
		return s.db.Close()
	})
	if err == nil { // logs that are used up go when the database is opened anew
		s.fence.cut()
		var anew *session
		if anew, err = start(e.fs, e.dir, e.log).first(); err == nil {
			e.session.Store(anew)
		}
	}
	if err != nil {
		s.fatal.stop(err)
		return before, before, e.explain("compact", err)
	}
	if err := e.Close(); err != nil {
		return before, before, err
	}
	_, after, err = measure(e.dir)
	return before, after, err
}

// Fill writes records with revisions of their own into an empty engine, which is at revision last afterwards. next returns
// io.EOF when there are no more.
func (e *Engine) Fill(last uint64, next func() (store.Mutation, error)) error {
	s := e.session.Load()
	if was, found, err := s.last(); err != nil || found {
		if err == nil {
			err = fmt.Errorf("it is not empty (it is at revision %d): give a new directory", was)
		}
		return fmt.Errorf("fill data directory %s: %w", e.dir, err)
	}
	b := s.db.NewBatch()
	for {
		m, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && m.Revision > last {
			err = fmt.Errorf("record %q has revision %d, beyond the last one, %d", m.Key, m.Revision, last)
		}
		if err == nil && (m.Key == "" || m.Key[0] < firstKey[0]) {
			err = fmt.Errorf("key %q is reserved", m.Key)
		}
		if err != nil {
			return fmt.Errorf("fill data directory %s: %w", e.dir, err)
		}
		value := make([]byte, recordHeader+len(m.Value))
		encodeRecord(value, &m)
		if err := b.Set([]byte(m.Key), value, nil); err != nil {
			return fmt.Errorf("fill data directory %s: %w", e.dir, err)
		}
		if b.Len() < memTableBytes/4 {
			continue
		}
		// Without the last revision beside them they are no records yet: a filling that is interrupted does not open.
		if err := s.fatal.guard(func() error { return s.db.Apply(b, pebble.NoSync) }); err != nil {
			return e.explain("fill", err)
		}
		b = s.db.NewBatch()
	}
	if err := b.Set(headerKey, encodeHeader(last), nil); err != nil {
		return fmt.Errorf("fill data directory %s: %w", e.dir, err)
	}
	err := s.fatal.guard(func() error {
		if err := s.db.Apply(b, pebble.Sync); err != nil {
			return err
		}
		return s.db.Flush()
	})
	if err != nil {
		return e.explain("fill", err)
	}
	if e.mark != nil {
		err = e.mark.set(last)
	}
	return err
}

// lockOffline takes a directory that must be there. On a file system that cannot be written nobody else can use it either.
func lockOffline(dir string) (io.Closer, error) {
	files, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no directory %s: give the data directory of a server (--data), or the store in it", dir)
	case err != nil:
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	known := false
	for _, f := range files {
		known = known || strings.HasPrefix(f.Name(), "MANIFEST-") || strings.HasPrefix(f.Name(), "marker.") ||
			strings.HasSuffix(f.Name(), ".sst") || f.Name() == markName
	}
	if !known {
		return nil, fmt.Errorf("%s holds no store: give the data directory of a server (--data), or the store in it", dir)
	}
	lock, err := lockDir(dir)
	if errors.Is(err, syscall.EROFS) {
		return io.NopCloser(nil), nil
	}
	return lock, err
}

func measure(dir string) (files int, size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			files++
			size += info.Size()
		}
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("measure data directory: %w", err)
	}
	return files, size, nil
}
