// Package pebble is the embedded store engine: records in a Pebble database in one directory, each batch synced to disk
// before it is acknowledged. Whoever composes a server opens it and hands it to store, which owns it from then on. It owns
// its directory, which one process may use at a time. It serves no reads after Load (the store's index does), so it keeps
// next to nothing in memory, and it does not encrypt: values come as they are to be stored.
package pebble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"karve/store"
)

const (
	// cacheBytes is small because blocks are read at Load and by compactions only.
	cacheBytes    = 512 << 10
	memTableBytes = 4 << 20
	memTables     = 4
	openFiles     = 64
	// reserveBytes is the free disk space below which writes are refused while refusing is still clean. It covers the memory
	// tables, a write-ahead log and a compaction; deletes may use half of it, so that one can get out again.
	reserveBytes = 32 << 20
)

// Engine is a store.Engine on a Pebble database.
type Engine struct {
	dir  string
	fs   vfs.FS
	log  *slog.Logger
	lock io.Closer
	// session is the database as it is open now, never nil; pending is the one that is to follow a failed one.
	session atomic.Pointer[session]
	pending *opening
	// acked is the last revision that is durable, doubt the last one of a batch that may be.
	acked, doubt uint64
	// mark is written after each batch; acknowledged is what it held at the start. Nil in tests without a directory.
	mark         *mark
	acknowledged uint64
	markFailed   bool
	// free tells how many bytes the file system has left.
	free func() (uint64, error)

	closeOnce sync.Once
	closeErr  error
}

// Open opens the database in dir, which is made (mode 0700) if it does not exist. Errors say which directory and what to
// do: it is in use by another process, it is damaged, it is not accessible.
func Open(dir string, log *slog.Logger) (*Engine, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	// It holds Secrets: a directory that was there before with a wider mode is narrowed.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("protect data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	e, err := open(vfs.Default, dir, log)
	if err != nil {
		lock.Close()
		return nil, err
	}
	e.lock = lock
	if e.mark, e.acknowledged, err = openMark(dir); err != nil {
		e.Close()
		return nil, err
	}
	e.free = func() (uint64, error) {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			return 0, err
		}
		return st.Bavail * uint64(st.Bsize), nil
	}
	return e, nil
}

// open opens the database on any file system, without lock and free-space check.
func open(fs vfs.FS, dir string, log *slog.Logger) (*Engine, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{dir: dir, fs: fs, log: log}
	s, err := start(fs, dir, log).first()
	if err != nil {
		return nil, e.explain("open", err)
	}
	e.session.Store(s)
	return e, nil
}

func options(s *session, dir string, log *slog.Logger) *pebble.Options {
	logger := &logger{log: log.With("dir", dir), session: s}
	o := &pebble.Options{
		// Given explicitly: the default one watches for slow disks with a goroutine and a timer per file.
		FS:                          s.fence,
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   cacheBytes,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: memTables,
		MaxOpenFiles:                openFiles,
		MaxManifestFileSize:         1 << 20,
		L0CompactionThreshold:       2,
		LBaseMaxBytes:               16 << 20,
		DisableTableStats:           true,
		Logger:                      logger,
		EventListener:               logger.events(),
	}
	o.Experimental.FileCacheShards = 1
	// Reads do not come here, so their number says nothing about what to compact.
	o.Experimental.ReadSamplingMultiplier = -1
	return o
}

// Load calls fn for every live record, in key order, and returns the last revision. It checks every record's checksum.
func (e *Engine) Load(ctx context.Context, fn func(key string, revision uint64, value []byte) error) (uint64, error) {
	s := e.session.Load()
	last, found, err := s.last()
	if err == nil && last < e.acknowledged {
		err = fmt.Errorf("%w: writes up to revision %d were acknowledged, but the files end at %d", errDamaged, e.acknowledged, last)
	}
	if err == nil {
		err = s.fatal.guard(func() error { return s.load(ctx, last, found, fn) })
	}
	if err != nil {
		return 0, e.explain("read", err)
	}
	e.acked, e.doubt = last, last
	return last, nil
}

func (s *session) load(ctx context.Context, last uint64, found bool, fn func(key string, revision uint64, value []byte) error) (err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: firstKey})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		stored, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		key := string(it.Key())
		revision, value, err := decodeRecord(key, stored)
		if err != nil {
			return err
		}
		if !found || revision > last {
			return fmt.Errorf("%w: record %q has revision %d, beyond the last one", errDamaged, key, revision)
		}
		if err := fn(key, revision, value); err != nil {
			return fmt.Errorf("load %q: %w", key, err)
		}
	}
	return it.Error()
}

// Apply writes the batch and syncs it to disk. When the disk is nearly full, or did not take what was to be tidied up before,
// it refuses with an error that wraps store.ErrNotApplied. After any other error Recover tells what became of the batch; until
// it has succeeded every call fails.
func (e *Engine) Apply(batch []store.Mutation) error {
	if len(batch) == 0 {
		return nil
	}
	s, err := e.usable()
	if err != nil {
		return err
	}
	if err := e.room(s, batch); err != nil {
		return err
	}
	b := s.db.NewBatch()
	var last uint64
	for i := range batch {
		m := &batch[i]
		if m.Key == "" || m.Key[0] < firstKey[0] {
			return fmt.Errorf("%w: key %q is reserved", store.ErrNotApplied, m.Key)
		}
		last = max(last, m.Revision)
		if m.Value == nil {
			if err := b.Delete([]byte(m.Key), nil); err != nil {
				return fmt.Errorf("%w: %w", store.ErrNotApplied, err)
			}
			continue
		}
		op := b.SetDeferred(len(m.Key), recordHeader+len(m.Value))
		copy(op.Key, m.Key)
		encodeRecord(op.Value, m)
		if err := op.Finish(); err != nil {
			return fmt.Errorf("%w: %w", store.ErrNotApplied, err)
		}
	}
	if err := b.Set(headerKey, encodeHeader(last), nil); err != nil {
		return fmt.Errorf("%w: %w", store.ErrNotApplied, err)
	}
	e.doubt = last
	slow := time.AfterFunc(slowWrite, func() {
		e.log.Warn("a write has been waiting for the disk; readers are served, writers wait: check the disk", "dir", e.dir, "for", slowWrite)
	})
	err = s.fatal.guard(func() error { return s.db.Apply(b, pebble.Sync) })
	slow.Stop()
	if err != nil {
		// The batch is not given back to its pool: a stopped database may still hold it.
		return e.explain("write to", err)
	}
	e.acked = last
	_ = b.Close() // never an error for a batch that was applied
	if e.mark != nil {
		// The batch is durable, so a mark that stays behind is no reason to refuse it.
		if err := e.mark.set(last); err != nil && !e.markFailed {
			e.markFailed = true
			e.log.Warn("mark of the last acknowledged write cannot be written", "dir", e.dir, "err", err)
		}
	}
	return nil
}

// slowWrite is how long a write may wait for the disk before it is told in the log.
const slowWrite = 5 * time.Second

// usable returns the session to write to. One that failed between two writes is replaced: nothing is in doubt then.
func (e *Engine) usable() (*session, error) {
	s := e.session.Load()
	err := s.fatal.failed()
	switch {
	case err == nil:
		return s, nil
	case e.doubt != e.acked:
		return nil, e.explain("write to", err)
	}
	if _, err := e.Recover(); err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrNotApplied, err)
	}
	return e.session.Load(), nil
}

// room refuses a batch that could fill the disk, or that could come to wait for what the disk refuses to take.
func (e *Engine) room(s *session, batch []store.Mutation) error {
	if cause := s.trouble.Load(); cause != nil {
		waiting := int64(0)
		err := s.fatal.guard(func() error { waiting = s.db.Metrics().MemTable.Count; return nil })
		if err != nil || waiting >= memTables-1 {
			return fmt.Errorf("%w: %w", store.ErrNotApplied, e.explain("write to", *cause))
		}
	}
	if e.free == nil {
		return nil
	}
	free, err := e.free()
	if err != nil {
		return fmt.Errorf("%w: measure free space of data directory %s: %w", store.ErrNotApplied, e.dir, err)
	}
	need, onlyDeletes := uint64(reserveBytes), true
	for i := range batch {
		need += uint64(2 * len(batch[i].Value))
		onlyDeletes = onlyDeletes && batch[i].Value == nil
	}
	if onlyDeletes {
		need /= 2
	}
	if free >= need {
		return nil
	}
	return fmt.Errorf("%w: disk is full: data directory %s has %d MiB left and writing needs %d MiB: free some space, then try again",
		store.ErrNotApplied, e.dir, free>>20, (need+1<<20-1)>>20)
}

// Size returns the bytes of disk the database uses, 0 after a fatal error of it. It must not be called after Close.
func (e *Engine) Size() int64 {
	var size int64
	s := e.session.Load()
	err := s.fatal.guard(func() error {
		size = int64(s.db.Metrics().DiskSpaceUsage())
		return nil
	})
	if err != nil {
		return 0
	}
	return size
}

// Close closes the database and lets go of the directory. After a fatal error of the database it only does the latter.
func (e *Engine) Close() error {
	e.closeOnce.Do(func() {
		s := e.session.Load()
		err := s.fatal.failed()
		if err == nil {
			err = s.fatal.guard(s.db.Close)
		}
		s.fence.cut()
		if e.pending != nil {
			e.pending.session.fence.cut()
		}
		if err != nil {
			e.closeErr = e.explain("close", err)
		}
		if e.mark != nil {
			e.mark.f.Close()
		}
		if e.lock != nil {
			e.lock.Close()
		}
	})
	return e.closeErr
}

// explain adds to an error which directory it is about and what can be done.
func (e *Engine) explain(verb string, err error) error {
	err = brief{err}
	switch {
	case errors.Is(err, errDamaged), pebble.IsCorruptionError(err), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s data directory %s: its files are damaged; `karve store check %s` says what of it can be saved, or restore it from a backup, or move it away to start empty: %w",
			verb, e.dir, e.dir, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s data directory %s: disk is full; free some space: %w", verb, e.dir, err)
	case errors.Is(err, syscall.EIO):
		return fmt.Errorf("%s data directory %s: the disk fails; check it (dmesg tells more): %w", verb, e.dir, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s data directory %s: its file system is read-only; mount it writable (dmesg may tell why): %w", verb, e.dir, err)
	case errors.Is(err, errWaiting):
		return fmt.Errorf("%s data directory %s: %w; check it (dmesg tells more)", verb, e.dir, err)
	case e.session.Load() != nil && e.session.Load().fatal.failed() != nil:
		return fmt.Errorf("%s data directory %s: its disk fails; check it (dmesg tells more): %w", verb, e.dir, err)
	default:
		return fmt.Errorf("%s data directory %s: %w", verb, e.dir, err)
	}
}

// brief is an error that says its first line only: Pebble's go on with what is for its authors.
type brief struct{ error }

func (b brief) Error() string {
	text, _, _ := strings.Cut(b.error.Error(), "\n")
	return text
}

func (b brief) Unwrap() error { return b.error }
