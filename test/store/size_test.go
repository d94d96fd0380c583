package store

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"karve/store"
	"karve/store/storetest"
)

// TestSizeIsBounded changes 1,000 objects again and again: the data directory stays small by itself, at every moment, and opens
// to exactly what was written last.
func TestSizeIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(storetest.Seed(t), 3))
	updates, limit := int64(30_000), int64(60<<20)
	if storetest.Long() {
		updates, limit = 1_000_000, 200<<20
	}
	const objects, writers = 1000, 100
	dir := t.TempDir()
	s := openDir(t, dir)
	// Objects of one to three KiB that do not compress to nothing, as real ones do not.
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = "abcdefghijklmnopqrstuvwxyz0123456789-_/:\",{}"[r.IntN(44)]
	}
	var done, largest atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		rnd := rand.New(rand.NewPCG(r.Uint64(), 4))
		wg.Go(func() {
			var revisions [objects / writers]uint64
			for i := 0; ; i++ {
				n := done.Add(1)
				if n > updates {
					return
				}
				k := i % len(revisions)
				at := rnd.IntN(len(noise) - 4000)
				record, err := s.Commit(context.Background(), store.Write{Key: fmt.Sprintf("k/%d-%d", w, k), Expect: revisions[k],
					Value: noise[at : at+1000+rnd.IntN(2000)]})
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				revisions[k] = record.Revision
				if n%(updates/50) == 0 {
					largest.Store(max(largest.Load(), size(t, dir)))
				}
			}
		})
	}
	wg.Wait()
	want := contents(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	end := size(t, dir)
	t.Logf("%d updates of %d objects: the data directory had %d MiB at most and has %d MiB", updates, objects, largest.Load()>>20, end>>20)
	if largest.Load() > limit || end > limit {
		t.Errorf("it is to stay under %d MiB", limit>>20)
	}
	s = openDir(t, dir)
	defer s.Close()
	if got := contents(s); len(got) != objects || fmt.Sprint(got) != fmt.Sprint(want) || s.Revision() != uint64(updates) {
		t.Errorf("after a restart there are %d objects at %d", len(got), s.Revision())
	}
}

func contents(s *store.Store) map[string]string {
	all := map[string]string{}
	s.View().Scan("", "", func(r *store.Record) bool {
		all[r.Key] = fmt.Sprintf("%d %s", r.Revision, r.Value)
		return true
	})
	return all
}

// size is how many bytes the files of a directory hold. Files may go while it looks.
func size(t testing.TB, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return sum
}
