package pebble

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"karve/store"
)

// big makes a directory as a killed server leaves it: 3,000 records in tables, the newest 60 writes in the log alone, some of
// them deletions. It returns the records as load does.
func big(t *testing.T) (dir string, want map[string]string, last uint64) {
	t.Helper()
	running := t.TempDir()
	e, err := Open(running, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	want = map[string]string{}
	write := func(key string, value []byte) {
		last++
		if err := put(e, key, last, value); err != nil {
			t.Fatal(err)
		}
		want[key] = fmt.Sprintf("%d %s", last, value)
		if value == nil {
			delete(want, key)
		}
	}
	var batch []store.Mutation
	for i := range 3000 {
		last++
		m := store.Mutation{Key: fmt.Sprintf("/registry/pods/n/p-%04d", i), Revision: last, Value: fmt.Appendf(nil, "%d %s", i, strings.Repeat(fmt.Sprint(i*7919), 60))}
		want[m.Key] = fmt.Sprintf("%d %s", last, m.Value)
		batch = append(batch, m)
	}
	if err := e.Apply(batch); err != nil {
		t.Fatal(err)
	}
	if err := e.session.Load().db.Flush(); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		key := fmt.Sprintf("/registry/pods/n/p-%04d", i*31)
		if i%4 == 3 {
			write(key, nil)
		} else {
			write(key, fmt.Appendf(nil, "newer %d %s", i, strings.Repeat("y", 3000)))
		}
	}
	dir = t.TempDir()
	if err := copyDir(t, running, dir); err != nil {
		t.Fatal(err)
	}
	// What the tables hold is in no log any more, as it is when those were used again.
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log: %v", err)
	}
	for _, name := range logs[:len(logs)-1] {
		os.Remove(name)
	}
	return dir, want, last
}

func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no %s in %s", pattern, dir)
	}
	return names[len(names)-1]
}

// spoil overwrites bytes of a file at a part of its length.
func spoil(t *testing.T, name string, part float64) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := int(part * float64(len(data)))
	copy(data[at:], "damaged!")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCheckAndSalvage damages files really: Check says so, and Salvage finds what the damage did not touch.
func TestCheckAndSalvage(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string)
		sound  bool
		says   string // in a problem
		atMost int    // records lost or older than they were
	}{
		{"nothing", func(*testing.T, string) {}, true, "", 0},
		{"a table in the middle", func(t *testing.T, dir string) { spoil(t, one(t, dir, "*.sst"), 0.5) }, false, "cannot be read", 30},
		{"a table near its end", func(t *testing.T, dir string) { spoil(t, one(t, dir, "*.sst"), 0.85) }, false, "cannot be read", 30},
		{"a table at its beginning", func(t *testing.T, dir string) { spoil(t, one(t, dir, "*.sst"), 0) }, false, "cannot be read", 30},
		{"a table twice", func(t *testing.T, dir string) {
			spoil(t, one(t, dir, "*.sst"), 0.2)
			spoil(t, one(t, dir, "*.sst"), 0.7)
		}, false, "cannot be read", 60},
		{"a table's footer", func(t *testing.T, dir string) { spoil(t, one(t, dir, "*.sst"), 0.99999) }, false, "", 3000},
		{"the log in the middle", func(t *testing.T, dir string) {
			// The log is longer than what is in it: what was written ends where zeros begin.
			name := one(t, dir, "*.log")
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			used := len(strings.TrimRight(string(data), "\x00"))
			spoil(t, name, 0.5*float64(used)/float64(len(data)))
		}, false, "", 30},
		{"the log's end", func(t *testing.T, dir string) {
			name := one(t, dir, "*.log")
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			used := len(strings.TrimRight(string(data), "\x00"))
			if err := os.Truncate(name, int64(used-7000)); err != nil {
				t.Fatal(err)
			}
		}, false, "the end of the log is missing", 5},
		{"no manifest", func(t *testing.T, dir string) { os.Remove(one(t, dir, "MANIFEST-*")) }, false, "does not open", 0},
		{"no log", func(t *testing.T, dir string) { os.Remove(one(t, dir, "*.log")) }, false, "the end of the log is missing", 60},
		{"no table", func(t *testing.T, dir string) { os.Remove(one(t, dir, "*.sst")) }, false, "does not open", 3000},
	}
	for _, test := range tests {
		t.Run(strings.ReplaceAll(test.name, " ", "_"), func(t *testing.T) {
			dir, want, last := big(t)
			test.damage(t, dir)
			report, err := Check(context.Background(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if test.sound != (len(report.Problems) == 0) || !strings.Contains(strings.Join(report.Problems, "\n"), test.says) {
				t.Errorf("problems: %q", report.Problems)
			}
			if test.sound && (report.Records != len(want) || report.Revision != last || report.Acknowledged != last || report.Files < 4 || report.Bytes < 3e5) {
				t.Errorf("report %+v, want %d records at %d", report, len(want), last)
			}
			before := listing(t, dir)
			saved, err := Salvage(context.Background(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if after := listing(t, dir); after != before {
				t.Errorf("the directory was changed from\n%s\nto\n%s", before, after)
			}
			wrong, found := 0, map[string]string{}
			for _, m := range saved.Records {
				found[m.Key] = fmt.Sprintf("%d %s", m.Revision, m.Value)
			}
			for key, text := range want {
				if found[key] != text {
					wrong++
				}
				delete(found, key)
			}
			wrong += len(found) // deleted, and back
			if wrong > 0 && (len(saved.Notes) == 0 || saved.Revision <= last) {
				t.Errorf("%d records are wrong or lost, and nothing is said of it: %q at %d", wrong, saved.Notes, saved.Revision)
			}
			t.Logf("%d of %d records wrong or lost; problems %.200q; notes %.300q", wrong, len(want), report.Problems, saved.Notes)
			if wrong > test.atMost {
				t.Errorf("%d of %d records are wrong or lost", wrong, len(want))
			}
			if saved.Revision < last {
				t.Errorf("salvaged at revision %d, though %d was given out", saved.Revision, last)
			}
			into := filepath.Join(t.TempDir(), "new")
			e, err := Open(into, nil)
			if err != nil {
				t.Fatal(err)
			}
			i := 0
			if err := e.Fill(saved.Revision, func() (store.Mutation, error) {
				if i == len(saved.Records) {
					return store.Mutation{}, io.EOF
				}
				i++
				return saved.Records[i-1], nil
			}); err != nil {
				t.Fatal(err)
			}
			e.Close()
			if report, err := Check(context.Background(), into); err != nil || len(report.Problems) > 0 || report.Records != len(saved.Records) || report.Revision != saved.Revision {
				t.Errorf("what was salvaged: %+v, %v", report, err)
			}
		})
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if f.Name() != lockName && f.Name() != "LOCK" {
			fmt.Fprintln(&b, f.Name(), info.Size(), info.ModTime())
		}
	}
	return b.String()
}

// TestOfflineRefusals: nothing is made where there is nothing, and a directory in use is left alone.
func TestOfflineRefusals(t *testing.T) {
	ctx := context.Background()
	missing := filepath.Join(t.TempDir(), "missing")
	other := t.TempDir()
	used := t.TempDir()
	e, err := Open(used, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for dir, says := range map[string]string{missing: "there is no directory", other: "holds no store", used: "is in use by another karve"} {
		_, err1 := Check(ctx, dir)
		_, err2 := OpenReadOnly(dir)
		_, err3 := Salvage(ctx, dir)
		for _, err := range []error{err1, err2, err3} {
			if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "give") {
				t.Errorf("%s: got %v, want %q and what to do", dir, err, says)
			}
		}
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("a directory was made")
	}
	if err := put(e, "k", 1, []byte("v")); err != nil {
		t.Error(err)
	}
	if err := e.Fill(9, func() (store.Mutation, error) { return store.Mutation{}, io.EOF }); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("fill what is in use: %v", err)
	}
}

// TestCompact writes the same records again and again: afterwards the files are about as big as those are.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	revision := uint64(0)
	for i := range 40 {
		var batch []store.Mutation
		for k := range 50 {
			revision++
			batch = append(batch, store.Mutation{Key: fmt.Sprintf("k/%d", k), Revision: revision, Value: fmt.Appendf(nil, "%d %s", i, strings.Repeat(fmt.Sprint(revision*7919), 300))})
		}
		if err := e.Apply(batch); err != nil {
			t.Fatal(err)
		}
	}
	want, last, err := load(e)
	if err != nil {
		t.Fatal(err)
	}
	before, after, err := e.Compact(context.Background())
	if err != nil || after >= before || after > 1<<20 {
		t.Errorf("%d bytes before, %d after, %v", before, after, err)
	}
	got, again, err := openAndLoad(dir)
	if err != nil || again != last || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after compaction: %d records at %d, %v", len(got), again, err)
	}
}
