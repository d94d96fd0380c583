package pebble

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errFenced is what a database that was given up gets for whatever it still tries.
var errFenced = errors.New("this opening of the database was given up")

// fence is the file system one opening of the database works through. A database that has failed cannot be closed: its
// goroutines may stand still anywhere. Once the fence is cut nothing they still do has any effect, so that the same files
// can be opened anew beside them.
//
// It also keeps Pebble from errors it answers by a panic, with its locks in a state that ends the process whoever recovers:
// those of its log and of directories. Once the database is open, they are taken for fatal here and never returned.
//
// Safe for concurrent use.
type fence struct {
	vfs.FS
	fatal *fatal
	// steady says that the database is open.
	steady atomic.Bool
	// mu is held for reading while an operation runs, so that cut waits for those in work.
	mu    sync.RWMutex
	down  bool
	files map[*fenced]struct{}
	// opened guards files.
	opened sync.Mutex
}

func newFence(fs vfs.FS, fatal *fatal) *fence {
	return &fence{FS: fs, fatal: fatal, files: map[*fenced]struct{}{}}
}

// cut ends all effect of whoever works through the fence and closes its files. It returns when no operation is in work.
func (f *fence) cut() {
	f.mu.Lock()
	f.down = true
	f.mu.Unlock()
	f.opened.Lock()
	defer f.opened.Unlock()
	for file := range f.files {
		_ = file.File.Close()
	}
	f.files = nil
}

func (f *fence) do(fn func() error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.down {
		return errFenced
	}
	return fn()
}

// vital is do for what Pebble cannot be told to have failed. It does not return then.
func (f *fence) vital(fn func() error) error {
	err := f.do(fn)
	if err != nil && f.steady.Load() {
		f.fatal.fail(fmt.Errorf("database stopped: %w", err))
	}
	return err
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

func (f *fence) open(vital bool, open func() (vfs.File, error)) (file vfs.File, err error) {
	do := f.do
	if vital {
		do = f.vital
	}
	err = do(func() error {
		inner, err := open()
		if err != nil {
			return err
		}
		guarded := &fenced{File: inner, fence: f, do: do}
		f.opened.Lock()
		f.files[guarded] = struct{}{}
		f.opened.Unlock()
		file = guarded
		return nil
	})
	return file, err
}

func (f *fence) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.open(isLog(name), func() (vfs.File, error) { return f.FS.Create(name, c) })
}

func (f *fence) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	return f.open(isLog(name), func() (vfs.File, error) { return f.FS.Open(name, o...) })
}

func (f *fence) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return f.open(isLog(name), func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, o...) })
}

func (f *fence) OpenDir(name string) (vfs.File, error) {
	return f.open(true, func() (vfs.File, error) { return f.FS.OpenDir(name) })
}

func (f *fence) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.open(isLog(to), func() (vfs.File, error) { return f.FS.ReuseForWrite(from, to, c) })
}

func (f *fence) Link(from, to string) error {
	return f.do(func() error { return f.FS.Link(from, to) })
}

func (f *fence) Remove(name string) error {
	return f.do(func() error { return f.FS.Remove(name) })
}

func (f *fence) RemoveAll(name string) error {
	return f.do(func() error { return f.FS.RemoveAll(name) })
}

func (f *fence) Rename(from, to string) error {
	return f.do(func() error { return f.FS.Rename(from, to) })
}

func (f *fence) MkdirAll(dir string, perm os.FileMode) error {
	return f.do(func() error { return f.FS.MkdirAll(dir, perm) })
}

// Lock does nothing: the directory is locked by the engine, once for all openings.
func (f *fence) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// Unwrap returns the file system behind the fence.
func (f *fence) Unwrap() vfs.FS { return f.FS }

// fenced is a file opened through a fence.
type fenced struct {
	vfs.File
	fence *fence
	do    func(func() error) error
}

func (f *fenced) Close() error {
	return f.do(func() error {
		f.fence.opened.Lock()
		delete(f.fence.files, f)
		f.fence.opened.Unlock()
		return f.File.Close()
	})
}

func (f *fenced) Read(p []byte) (n int, err error) {
	err = f.do(func() (err error) { n, err = f.File.Read(p); return err })
	return n, err
}

func (f *fenced) ReadAt(p []byte, at int64) (n int, err error) {
	err = f.do(func() (err error) { n, err = f.File.ReadAt(p, at); return err })
	return n, err
}

func (f *fenced) Write(p []byte) (n int, err error) {
	err = f.do(func() (err error) { n, err = f.File.Write(p); return err })
	return n, err
}

func (f *fenced) WriteAt(p []byte, at int64) (n int, err error) {
	err = f.do(func() (err error) { n, err = f.File.WriteAt(p, at); return err })
	return n, err
}

func (f *fenced) Preallocate(at, length int64) error {
	return f.do(func() error { return f.File.Preallocate(at, length) })
}

func (f *fenced) Sync() error { return f.do(f.File.Sync) }

func (f *fenced) SyncData() error { return f.do(f.File.SyncData) }

func (f *fenced) SyncTo(length int64) (full bool, err error) {
	err = f.do(func() (err error) { full, err = f.File.SyncTo(length); return err })
	return full, err
}

func (f *fenced) Stat() (info vfs.FileInfo, err error) {
	err = f.do(func() (err error) { info, err = f.File.Stat(); return err })
	return info, err
}

func (f *fenced) Prefetch(at, length int64) error {
	return f.do(func() error { return f.File.Prefetch(at, length) })
}
