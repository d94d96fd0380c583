package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"karve/store"
	"karve/store/storetest"
)

// memPlace is a file system in memory that forgets, in a crash, any part of what was not synced.
type memPlace struct{ fs *vfs.MemFS }

func (p *memPlace) Open(t *testing.T) store.Engine {
	e, err := open(p.fs, "data", nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (p *memPlace) Crash(t *testing.T, r *rand.Rand) {
	p.fs = p.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[r.IntN(3)], RNG: r})
}

// dirPlace is a real directory; a crash is that of the process: its files are copied while it runs.
type dirPlace struct{ dir string }

func (p *dirPlace) Open(t *testing.T) store.Engine {
	e, err := Open(p.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (p *dirPlace) Crash(t *testing.T, _ *rand.Rand) {
	from := p.dir
	p.dir = t.TempDir()
	// A copy during which files came or went is no moment's state; it is taken again.
	for copyDir(t, from, p.dir) != nil {
		p.dir = t.TempDir()
	}
}

func copyDir(t *testing.T, from, to string) error {
	before, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	// The mark first: it is a lower bound of what the other files hold.
	slices.SortStableFunc(before, func(a, b os.DirEntry) int {
		if a.Name() == markName {
			return -1
		}
		return 0
	})
	for _, f := range before {
		data, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range before {
		names[f.Name()] = true
	}
	for _, f := range after {
		if !names[f.Name()] {
			return errors.New("files changed")
		}
	}
	return nil
}

func TestEngineInMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Backend { return &memPlace{vfs.NewCrashableMem()} })
}

func TestEngineOnDisk(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend { return &dirPlace{filepath.Join(t.TempDir(), "data")} })
}

// put applies one write.
func put(e *Engine, key string, revision uint64, value []byte) error {
	return e.Apply([]store.Mutation{{Key: key, Revision: revision, Value: value}})
}

// load reads everything.
func load(e *Engine) (map[string]string, uint64, error) {
	got := map[string]string{}
	last, err := e.Load(context.Background(), func(key string, revision uint64, value []byte) error {
		got[key] = fmt.Sprintf("%d %s", revision, value)
		return nil
	})
	return got, last, err
}

func TestDirectoryIsPrivateAndLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	e, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %v, %v", st.Mode(), err)
	}
	want := fmt.Sprintf("data directory %s is in use by another karve (pid %d): stop it, or give another directory", dir, os.Getpid())
	if _, err := Open(dir, nil); err == nil || err.Error() != want {
		t.Errorf("second Open: got %v, want %s", err, want)
	}
	// Another process says the same.
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperOpen$")
	cmd.Env = append(os.Environ(), "PEBBLE_TEST_DIR="+dir)
	if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), want) {
		t.Errorf("Open in another process: %s", out)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err = Open(dir, nil); err != nil {
		t.Fatalf("Open after Close: %v", err)
	}
	e.Close()
}

// TestHelperOpen is the other process of the tests here.
func TestHelperOpen(t *testing.T) {
	dir := os.Getenv("PEBBLE_TEST_DIR")
	if dir == "" {
		t.Skip("only run by another test")
	}
	e, err := Open(dir, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	// Write until killed, and say what is acknowledged.
	for revision := uint64(1); ; revision++ {
		if err := put(e, fmt.Sprintf("k/%d", revision%100), revision, bytes.Repeat([]byte{'v'}, 2000)); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("ok", revision)
	}
}

// TestKill kills a writing process at once: its lock is free, and all it acknowledged is there.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		os.RemoveAll(dir)
		cmd := exec.Command(os.Args[0], "-test.run=^TestHelperOpen$")
		cmd.Env = append(os.Environ(), "PEBBLE_TEST_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var acknowledged uint64
		for acknowledged < 150 {
			if _, err := fmt.Fscanf(out, "ok %d\n", &acknowledged); err != nil {
				t.Fatal(err)
			}
		}
		cmd.Process.Kill()
		for {
			if _, err := fmt.Fscanf(out, "ok %d\n", &acknowledged); err != nil {
				break
			}
		}
		cmd.Wait()
		e, err := Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, last, err := load(e)
		if err != nil || last < acknowledged || len(got) != 100 {
			t.Errorf("after a kill: %d records, revision %d of %d, %v", len(got), last, acknowledged, err)
		}
		e.Close()
	}
}

// TestDamage flips a byte somewhere in a file: what is read is right, or nothing is.
func TestDamage(t *testing.T) {
	original := t.TempDir()
	e, err := Open(original, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	history := []map[string]string{{}}
	for revision := uint64(1); revision <= 60; revision++ {
		value := make([]byte, 3000)
		for i := range value {
			value[i] = byte('a' + r.IntN(26))
		}
		if err := put(e, fmt.Sprintf("k/%02d", revision%40), revision, value); err != nil {
			t.Fatal(err)
		}
		state := map[string]string{fmt.Sprintf("k/%02d", revision%40): fmt.Sprintf("%d %s", revision, value)}
		for key, text := range history[revision-1] {
			if _, ok := state[key]; !ok {
				state[key] = text
			}
		}
		history = append(history, state)
		if revision == 30 {
			if err := e.session.Load().db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The files of a process that was killed: table, log, manifest.
	running := t.TempDir()
	if err := copyDir(t, original, running); err != nil {
		t.Fatal(err)
	}
	e.Close()
	files, err := os.ReadDir(running)
	if err != nil {
		t.Fatal(err)
	}
	const flips = 12
	refused := map[string]int{}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(running, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if len(data) == 0 || f.Name() == lockName || f.Name() == markName {
			continue
		}
		for range flips {
			dir := t.TempDir()
			if err := copyDir(t, running, dir); err != nil {
				t.Fatal(err)
			}
			flipped := bytes.Clone(data)
			at := r.IntN(len(data))
			flipped[at] ^= 1 << r.IntN(8)
			if err := os.WriteFile(filepath.Join(dir, f.Name()), flipped, 0o600); err != nil {
				t.Fatal(err)
			}
			got, last, err := openAndLoad(dir)
			if err != nil {
				refused[filepath.Ext(f.Name())]++
				if !strings.Contains(err.Error(), dir) {
					t.Errorf("error does not name the directory: %v", err)
				}
				continue
			}
			if last != 60 || fmt.Sprint(got) != fmt.Sprint(history[last]) {
				t.Errorf("byte %d of %s flipped: opened at revision %d with %d records", at, f.Name(), last, len(got))
			}
		}
	}
	t.Logf("refused, of %d each, by kind of file: %v", flips, refused)
	if refused[".sst"] == 0 || refused[".log"] == 0 {
		t.Error("no damage was noticed")
	}

	// The end of the newest log is gone.
	logs, err := filepath.Glob(filepath.Join(running, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log: %v", err)
	}
	dir := t.TempDir()
	if err := copyDir(t, running, dir); err != nil {
		t.Fatal(err)
	}
	shorter := filepath.Join(dir, filepath.Base(logs[len(logs)-1]))
	st, err := os.Stat(shorter)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(shorter, st.Size()-5000); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openAndLoad(dir); err == nil || !strings.Contains(err.Error(), "were acknowledged") {
		t.Errorf("with a shorter log: %v", err)
	}
	// A file that is gone.
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".sst" {
			continue
		}
		os.Remove(filepath.Join(running, f.Name()))
		_, _, err := openAndLoad(running)
		if err == nil || !strings.Contains(err.Error(), "or restore it from a backup, or move it away") {
			t.Errorf("with %s gone: %v", f.Name(), err)
		}
		break
	}
}

func openAndLoad(dir string) (map[string]string, uint64, error) {
	e, err := Open(dir, nil)
	if err != nil {
		return nil, 0, err
	}
	defer e.Close()
	return load(e)
}

func TestDiskFull(t *testing.T) {
	e, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := put(e, "k/a", 1, []byte("v")); err != nil {
		t.Fatal(err)
	}
	real := e.free
	tests := []struct {
		free    uint64
		value   []byte
		refused bool
	}{
		{reserveBytes - 1, []byte("v"), true},
		{reserveBytes + 10, []byte("v"), false},
		{reserveBytes / 2, nil, false},
		{reserveBytes/2 - 1, nil, true},
		{0, nil, true},
	}
	revision := uint64(1)
	for _, test := range tests {
		e.free = func() (uint64, error) { return test.free, nil }
		err := put(e, "k/a", revision+1, test.value)
		if test.refused != errors.Is(err, store.ErrNotApplied) || test.refused == (err == nil) {
			t.Errorf("with %d bytes free, value %q: %v", test.free, test.value, err)
		}
		if err == nil {
			revision++
		} else if !strings.Contains(err.Error(), "disk is full") || !strings.Contains(err.Error(), e.dir) {
			t.Errorf("error is not clear: %v", err)
		}
	}
	e.free = real
	if err := put(e, "k/a", revision+1, []byte("v")); err != nil {
		t.Errorf("after space was freed: %v", err)
	}
}

// TestFailingDisk makes writing or syncing the log fail: the call says so, later ones too, nothing ends the process or
// hangs, and what was acknowledged is there after a restart.
func TestFailingDisk(t *testing.T) {
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpFileSyncData} {
		for _, cause := range []error{syscall.ENOSPC, syscall.EIO} {
			t.Run(fmt.Sprintf("%v/%v", kind, cause), func(t *testing.T) {
				disk := vfs.NewCrashableMem()
				toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
					if op.Kind == kind && strings.HasSuffix(op.Path, ".log") {
						return &os.PathError{Op: "write", Path: op.Path, Err: cause}
					}
					return nil
				})}
				var logged bytes.Buffer
				e, err := open(errorfs.Wrap(disk, toggle), "data", slog.New(slog.NewTextHandler(&logged, nil)))
				if err != nil {
					t.Fatal(err)
				}
				if err := put(e, "k/a", 1, []byte("1")); err != nil {
					t.Fatal(err)
				}
				toggle.On()
				err = put(e, "k/a", 2, []byte("2"))
				if !errors.Is(err, cause) || errors.Is(err, store.ErrNotApplied) {
					t.Errorf("got %v, want %v", err, cause)
				}
				if err := put(e, "k/b", 3, []byte("3")); !errors.Is(err, cause) {
					t.Errorf("next write: %v", err)
				}
				if err := e.Close(); !errors.Is(err, cause) {
					t.Errorf("close: %v", err)
				}
				if !strings.Contains(logged.String(), "database stopped") {
					t.Errorf("log: %s", logged.String())
				}
				again, err := open(disk.CrashClone(vfs.CrashCloneCfg{}), "data", nil)
				if err != nil {
					t.Fatal(err)
				}
				defer again.Close()
				got, last, err := load(again)
				if err != nil || last == 1 && got["k/a"] != "1 1" || last == 2 && got["k/a"] != "2 2" || last == 0 || last > 2 {
					t.Errorf("after a restart: %v at %d, %v", got, last, err)
				}
			})
		}
	}
}

func TestReservedKeys(t *testing.T) {
	e, err := open(vfs.NewMem(), "data", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, key := range []string{"", "\x00karve", "\x00"} {
		if err := put(e, key, 1, []byte("v")); !errors.Is(err, store.ErrNotApplied) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	if _, last, err := load(e); last != 0 || err != nil {
		t.Errorf("revision %d, %v", last, err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	m := store.Mutation{Key: "k", Revision: 7, Value: []byte("value")}
	good := make([]byte, recordHeader+len(m.Value))
	encodeRecord(good, &m)
	f.Add(good)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, stored []byte) {
		revision, value, err := decodeRecord("k", stored)
		if err != nil {
			return
		}
		again := make([]byte, recordHeader+len(value))
		encodeRecord(again, &store.Mutation{Key: "k", Revision: revision, Value: value})
		if !bytes.Equal(again, stored) {
			t.Errorf("%x reads as %d %x", stored, revision, value)
		}
	})
}
