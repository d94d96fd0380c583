package store_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"karve/store"
	"karve/store/engine/mem"
	"karve/store/engine/pebble"
)

var ctx = context.Background()

// open opens a store that the test closes.
func open(t testing.TB, engine store.Engine) *store.Store {
	t.Helper()
	return openHistory(t, engine, 0)
}

func openHistory(t testing.TB, engine store.Engine, history int) *store.Store {
	t.Helper()
	s, err := store.Open(ctx, store.Options{Engine: engine, History: history, Topic: func(key string) string {
		topic, _, _ := strings.Cut(key, "/")
		return topic
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// put writes whatever the key holds now.
func put(t testing.TB, s *store.Store, key string, value []byte) *store.Record {
	var expect uint64
	if r := s.Get(key); r != nil {
		expect = r.Revision
	}
	r, err := s.Commit(ctx, store.Write{Key: key, Expect: expect, Value: value})
	if err != nil {
		t.Error(err)
	}
	return r
}

func BenchmarkCommit(b *testing.B) {
	value := bytes.Repeat([]byte("abcdefghijklmno"), 100)
	for _, engine := range []string{"mem", "pebble"} {
		for _, writers := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/writers=%d", engine, writers), func(b *testing.B) {
				var e store.Engine = mem.New()
				if engine == "pebble" {
					var err error
					if e, err = pebble.Open(b.TempDir(), nil); err != nil {
						b.Fatal(err)
					}
				}
				s := open(b, e)
				var n atomic.Int64
				var wg sync.WaitGroup
				b.ReportAllocs()
				b.ResetTimer()
				for w := range writers {
					wg.Go(func() {
						for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
							put(b, s, fmt.Sprintf("pods/%d-%d", w, i%50), value)
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

func filled(b *testing.B, n int) *store.Store {
	s := open(b, mem.New())
	for i := range n {
		put(b, s, fmt.Sprintf("pods/namespace/pod-%05d", i), []byte("v"))
	}
	b.ReportAllocs()
	b.ResetTimer()
	return s
}

func BenchmarkGet(b *testing.B) {
	s := filled(b, 5000)
	keys := make([]string, 64)
	for i := range keys {
		keys[i] = fmt.Sprintf("pods/namespace/pod-%05d", i*71)
	}
	for i := 0; b.Loop(); i++ {
		if s.Get(keys[i%64]) == nil {
			b.Fatal("missing")
		}
	}
}

func BenchmarkScan5000(b *testing.B) {
	s := filled(b, 5000)
	for b.Loop() {
		n := 0
		s.View().Scan("pods/", "", func(*store.Record) bool { n++; return true })
		if n != 5000 {
			b.Fatal(n)
		}
	}
}

func BenchmarkCount5000(b *testing.B) {
	s := filled(b, 5000)
	for b.Loop() {
		if s.View().Count("pods/") != 5000 {
			b.Fatal("miscounted")
		}
	}
}

// BenchmarkFanOut is one commit seen by 100 watchers; ns/op is per commit, so 100 deliveries. The writers go as fast as they
// can, or at 20,000 commits a second: there cpu-ns/event, over all threads, is what counts.
func BenchmarkFanOut(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) { fanOut(b, 100, writers, 0) })
	}
	for _, watchers := range []int{0, 100} {
		b.Run(fmt.Sprintf("paced/watchers=%d", watchers), func(b *testing.B) { fanOut(b, watchers, 1, 50*time.Microsecond) })
	}
}

func fanOut(b *testing.B, watchers, writers int, pace time.Duration) {
	s := openHistory(b, mem.New(), b.N+1) // as nobody may fall behind here
	var wg, writing sync.WaitGroup
	var calls, n atomic.Int64
	for range watchers {
		c, err := s.Watch("pods", 0)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			for seen := 0; seen < b.N; calls.Add(1) {
				events, _, err := c.Next(ctx)
				if err != nil {
					b.Error(err)
					return
				}
				seen += len(events)
			}
		})
	}
	b.ReportAllocs()
	b.ResetTimer()
	before, began := cpu(b), time.Now()
	for w := range writers {
		writing.Go(func() {
			key := fmt.Sprintf("pods/%d", w)
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				// Sleeping is coarse: what is behind schedule goes out in a burst, as it would from a server under load.
				if wait := time.Duration(i)*pace - time.Since(began); wait > 0 {
					time.Sleep(wait)
				}
				put(b, s, key, []byte("v"))
			}
		})
	}
	writing.Wait()
	wg.Wait()
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/event")
	if watchers > 0 {
		b.ReportMetric(float64(calls.Load())/float64(b.N)/float64(watchers), "wakes/event")
	}
}

// cpu is the processor time this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rss is the resident memory of this process in KiB.
func rss(t testing.TB) int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// BenchmarkIdleMemory reports what an empty database adds to a process, and what one adds after 20 MiB of writes.
func BenchmarkIdleMemory(b *testing.B) {
	for b.Loop() {
		runtime.GC()
		before := rss(b)
		e, err := pebble.Open(b.TempDir(), nil)
		if err != nil {
			b.Fatal(err)
		}
		s := open(b, e)
		runtime.GC()
		b.ReportMetric(float64(rss(b)-before), "KiB-empty")
		value := make([]byte, 20<<10)
		for i := range 1000 {
			put(b, s, fmt.Sprintf("pods/%d", i%10), value)
		}
		s.Compact(s.Revision())
		runtime.GC()
		runtime.GC()
		b.ReportMetric(float64(rss(b)-before), "KiB-used")
	}
}
