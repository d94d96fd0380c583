package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"karve/store"
	"karve/store/storetest"
)

// fault says how a disk misbehaves while it is on: which operations on which files fail, with what.
type fault struct {
	name  string
	files string // part of the names it concerns
	write error  // writes fail with this
	torn  bool   // after half of the bytes were written
	sync  error  // syncs fail with this
	full  error  // making files fails with this
}

// disk is a file system in memory that can fail and stall, and forgets in a crash what was not synced.
type disk struct {
	vfs.FS // what it is to those above
	mem    *vfs.MemFS
	on     atomic.Pointer[fault]
	hits   atomic.Int64
	// stall, if set, is called before each sync.
	stall atomic.Pointer[func()]
	// unsynced counts the bytes of each log that no sync covers yet.
	mu       sync.Mutex
	unsynced map[string]int
	syncs    int
}

func newDisk() *disk {
	mem := vfs.NewCrashableMem()
	return &disk{FS: mem, mem: mem, unsynced: map[string]int{}}
}

func (d *disk) fails(name string, pick func(*fault) error) (*fault, error) {
	f := d.on.Load()
	if f == nil || !strings.Contains(d.PathBase(name), f.files) || pick(f) == nil {
		return nil, nil
	}
	d.hits.Add(1)
	return f, &os.PathError{Op: "use", Path: name, Err: pick(f)}
}

func (d *disk) file(name string, open func() (vfs.File, error)) (vfs.File, error) {
	if _, err := d.fails(name, func(f *fault) error { return f.full }); err != nil {
		return nil, err
	}
	inner, err := open()
	if err != nil {
		return nil, err
	}
	return &diskFile{inner, d, name}, nil
}

func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file(name, func() (vfs.File, error) { return d.FS.Create(name, c) })
}

func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return d.file(name, func() (vfs.File, error) { return d.FS.OpenReadWrite(name, c, o...) })
}

func (d *disk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.file(to, func() (vfs.File, error) { return d.FS.ReuseForWrite(from, to, c) })
}

type diskFile struct {
	vfs.File
	disk *disk
	name string
}

func (f *diskFile) Write(p []byte) (int, error) {
	if fault, err := f.disk.fails(f.name, func(f *fault) error { return f.write }); err != nil {
		n := 0
		if fault.torn {
			n, _ = f.File.Write(bytes.Clone(p[:len(p)/2]))
		}
		return n, err
	}
	if strings.HasSuffix(f.name, ".log") {
		f.disk.mu.Lock()
		f.disk.unsynced[f.name] += len(p)
		f.disk.mu.Unlock()
	}
	return f.File.Write(p)
}

func (f *diskFile) sync(sync func() error) error {
	if stall := f.disk.stall.Load(); stall != nil {
		(*stall)()
	}
	if _, err := f.disk.fails(f.name, func(f *fault) error { return f.sync }); err != nil {
		return err
	}
	f.disk.mu.Lock()
	before := f.disk.unsynced[f.name]
	f.disk.mu.Unlock()
	if err := sync(); err != nil {
		return err
	}
	f.disk.mu.Lock()
	f.disk.unsynced[f.name] -= before
	f.disk.syncs++
	f.disk.mu.Unlock()
	return nil
}

func (f *diskFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *diskFile) SyncData() error { return f.sync(f.File.SyncData) }

// SyncTo promises nothing unless it says so.
func (f *diskFile) SyncTo(length int64) (full bool, err error) {
	err = f.sync(func() error {
		full = true
		return f.File.Sync()
	})
	return full, err
}

// crash returns what a loss of power at this moment leaves, when no write reached the disk that was not synced.
func (d *disk) crash() *vfs.MemFS { return d.mem.CrashClone(vfs.CrashCloneCfg{}) }

// durable opens what a crash would leave now.
func (d *disk) durable(t *testing.T) (map[string]string, uint64) {
	t.Helper()
	e, err := open(d.crash(), "data", nil)
	if err != nil {
		t.Fatalf("open what a crash leaves: %v", err)
	}
	defer e.Close()
	got, last, err := load(e)
	if err != nil {
		t.Fatalf("read what a crash leaves: %v", err)
	}
	return got, last
}

func openStore(t *testing.T, e store.Engine, log *slog.Logger) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), store.Options{Engine: e, Log: log, History: 1 << 20, Topic: func(string) string { return "k" }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var faults = []fault{
	{name: "log write EIO", files: ".log", write: syscall.EIO},
	{name: "log write ENOSPC", files: ".log", write: syscall.ENOSPC},
	{name: "log torn write EIO", files: ".log", write: syscall.EIO, torn: true},
	{name: "log torn write ENOSPC", files: ".log", write: syscall.ENOSPC, torn: true},
	{name: "log short write", files: ".log", write: io.ErrShortWrite, torn: true},
	{name: "log sync EIO", files: ".log", sync: syscall.EIO},
	{name: "log sync ENOSPC", files: ".log", sync: syscall.ENOSPC},
	{name: "table write ENOSPC", files: ".sst", write: syscall.ENOSPC},
	{name: "table sync EIO", files: ".sst", sync: syscall.EIO},
	{name: "table torn write", files: ".sst", write: syscall.EIO, torn: true},
	{name: "manifest write EIO", files: "MANIFEST", write: syscall.EIO, torn: true},
	{name: "manifest sync EIO", files: "MANIFEST", sync: syscall.EIO},
	{name: "no new files", full: syscall.ENOSPC},
	{name: "everything fails", write: syscall.EIO, sync: syscall.EIO, full: syscall.EIO, torn: true},
}

// TestDiskFailsAndComesBack lets the disk fail under concurrent writes and then work again. While it fails nothing shows that
// is not durable, and errors say what to do; afterwards writes are taken again without a restart, what was acknowledged is
// there, what was not is there wholly or not at all, and watchers have seen every write once and in order.
func TestDiskFailsAndComesBack(t *testing.T) {
	seed := storetest.Seed(t)
	rounds := 1
	if storetest.Long() {
		rounds = 20
	}
	for i, f := range faults {
		t.Run(strings.ReplaceAll(f.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			for round := range rounds {
				(&failingRun{T: t, rand: rand.New(rand.NewPCG(seed, uint64(i*1000+round))), disk: newDisk()}).run(&f)
			}
		})
	}
}

type failingRun struct {
	*testing.T
	rand  *rand.Rand
	disk  *disk
	store *store.Store

	mu      sync.Mutex
	acked   map[uint64]string   // revision: key and value
	unknown map[string]struct{} // writes without an answer, as key and value
	errs    map[string]int
	wrote   atomic.Int64
}

const faultWriters = 6

func (r *failingRun) run(f *fault) {
	var logged syncBuffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	e, err := open(r.disk, "data", log)
	if err != nil {
		r.Fatal(err)
	}
	r.store = openStore(r.T, e, log)
	defer r.store.Close()
	r.acked, r.unknown, r.errs = map[uint64]string{}, map[string]struct{}{}, map[string]int{}
	cursor, err := r.store.Watch("k", 0)
	if err != nil {
		r.Fatal(err)
	}
	var events []store.Event
	var seen atomic.Uint64
	var watching, writing sync.WaitGroup
	ctx, stopWatch := context.WithCancel(context.Background())
	watching.Go(func() {
		for {
			more, _, err := cursor.Next(ctx)
			if err != nil {
				return
			}
			events = append(events, more...)
			seen.Store(more[len(more)-1].Record.Revision)
			if len(events)%40 < len(more) { // what a watcher sees a crash must not take back
				if _, last := r.disk.durable(r.T); last < events[len(events)-1].Record.Revision {
					r.Errorf("event of revision %d was shown, but only %d is durable", events[len(events)-1].Record.Revision, last)
				}
			}
		}
	})
	stop := make(chan struct{})
	for w := range faultWriters {
		rnd := rand.New(rand.NewPCG(r.rand.Uint64(), 1))
		writing.Go(func() { r.write(w, rnd, stop) })
	}
	r.until("writes before the fault", func() bool { return r.wrote.Load() > 100 })
	before := r.disk.hits.Load()
	r.disk.on.Store(f)
	r.until("the fault to show", func() bool {
		// Faults of tables need a flush: values are big enough for one to come.
		return r.disk.hits.Load() > before+int64(r.rand.IntN(3))
	})
	if r.rand.IntN(2) == 0 {
		time.Sleep(time.Duration(r.rand.IntN(200)) * time.Millisecond)
	}
	shown := r.store.Revision()
	if _, last := r.disk.durable(r.T); last < shown {
		r.Errorf("revision %d is shown while the disk fails, but only %d is durable", shown, last)
	}
	r.disk.on.Store(nil)
	began := r.wrote.Load()
	r.until("writes after the fault", func() bool { return r.wrote.Load() > began+100 })
	close(stop)
	writing.Wait()
	if err := r.store.Err(); err != nil {
		r.Errorf("the store stays read-only: %v", err)
	}
	r.until("the watcher to be done", func() bool { return seen.Load() == r.store.Revision() })
	stopWatch()
	watching.Wait()
	r.judge(events, logged.String())
}

// until waits for what must come.
func (r *failingRun) until(what string, done func() bool) {
	r.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.Fatalf("no end of waiting for %s; errors were %v", what, r.errs)
		}
	}
}

// write is the only writer of its key.
func (r *failingRun) write(w int, rnd *rand.Rand, stop chan struct{}) {
	key := fmt.Sprintf("k/%d", w)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		current := r.store.Get(key)
		write := store.Write{Key: key}
		if current != nil {
			write.Expect = current.Revision
		}
		value := fmt.Sprintf("%d %s", n, strings.Repeat("x", 2000+rnd.IntN(40_000)))
		write.Value = []byte(value)
		if current != nil && n%7 == 6 {
			value, write.Value = "", nil
		}
		record, err := r.store.Commit(context.Background(), write)
		r.mu.Lock()
		var conflict *store.ConflictError
		switch {
		case err == nil:
			if was, ok := r.acked[record.Revision]; ok {
				r.Errorf("revision %d was given to %.30q and to %.30q", record.Revision, was, key+" "+value)
			}
			r.acked[record.Revision] = key + " " + value
			r.wrote.Add(1)
		case errors.As(err, &conflict): // a write without an answer has come to be in the meantime
		case errors.Is(err, store.ErrNotApplied), errors.Is(err, store.ErrReadOnly):
			r.errs[err.Error()]++
		default:
			r.unknown[key+" "+value] = struct{}{}
			r.errs[err.Error()]++
		}
		r.mu.Unlock()
		if err != nil {
			time.Sleep(time.Millisecond)
		}
	}
}

func (r *failingRun) judge(events []store.Event, log string) {
	for text := range r.errs {
		if !strings.Contains(text, "data directory data") || !strings.Contains(text, "free some space") && !strings.Contains(text, "check") {
			r.Errorf("an error that names no remedy: %s", text)
		}
	}
	state, revisions := map[string]string{}, map[uint64]bool{}
	var last uint64
	for _, e := range events {
		revision, value := e.Record.Revision, string(e.Record.Value)
		if e.Deleted {
			value = ""
		}
		if revision != last+1 {
			r.Errorf("an event of revision %d follows that of %d", revision, last)
		}
		last, revisions[revision] = revision, true
		text := e.Record.Key + " " + value
		if was, ok := r.acked[revision]; ok && was != text {
			r.Errorf("revision %d is %.30q, acknowledged was %.30q", revision, text, was)
		} else if _, ok := r.unknown[text]; !ok && was == "" {
			r.Errorf("revision %d is %.30q, which nobody wrote, or was told that it failed", revision, text)
		}
		state[e.Record.Key] = fmt.Sprintf("%d %s", revision, value)
		if e.Deleted {
			delete(state, e.Record.Key)
		}
	}
	for revision, text := range r.acked {
		if !revisions[revision] {
			r.Errorf("no event of revision %d, which was acknowledged to %.30q", revision, text)
		}
	}
	got, at := r.disk.durable(r.T)
	if at != last || fmt.Sprint(got) != fmt.Sprint(state) {
		r.Errorf("a crash leaves revision %d with %d keys; watchers have seen %d with %d", at, len(got), last, len(state))
	}
	r.Logf("%d writes acknowledged, %d unanswered, errors %d, log %d lines", len(r.acked), len(r.unknown), len(r.errs), strings.Count(log, "\n"))
}

// syncBuffer is a log that many write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestOpenOnFailingDisk opens a directory with a log to replay on a disk that takes nothing: it says so instead of trying for
// ever, and opens with everything once the disk works.
func TestOpenOnFailingDisk(t *testing.T) {
	for _, f := range []fault{
		{name: "full", files: ".sst", write: syscall.ENOSPC},
		{name: "broken", write: syscall.EIO, sync: syscall.EIO},
		{name: "no new files", full: syscall.EROFS},
	} {
		t.Run(strings.ReplaceAll(f.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			d := newDisk()
			e, err := open(d, "data", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := put(e, "k/a", 1, []byte("v")); err != nil {
				t.Fatal(err)
			}
			left := &disk{mem: d.crash(), unsynced: map[string]int{}}
			left.FS = left.mem
			left.on.Store(&f)
			if _, err := open(left, "data", nil); err == nil || !strings.Contains(err.Error(), "data directory data: ") ||
				!strings.Contains(err.Error(), "free some space") && !strings.Contains(err.Error(), "check it") && !strings.Contains(err.Error(), "mount it writable") {
				t.Errorf("opened on a failing disk: %v", err)
			} else {
				t.Log(err)
			}
			left.on.Store(nil)
			again, err := open(left, "data", nil)
			if err != nil {
				t.Fatalf("once the disk works: %v", err)
			}
			defer again.Close()
			if got, last, err := load(again); err != nil || last != 1 || got["k/a"] != "1 v" {
				t.Errorf("once the disk works there is %v at %d, %v", got, last, err)
			}
		})
	}
}
