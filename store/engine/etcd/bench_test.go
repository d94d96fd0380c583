package etcd

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"karve/store/engine/etcd/etcdtest"
)

// BenchmarkCommit is a write through etcd and back by its watch.
func BenchmarkCommit(b *testing.B) {
	c := etcdtest.Start(b, 1)
	value := bytes.Repeat([]byte("abcdefghijklmno"), 100)
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s, _ := openStore(b, Options{Endpoints: c.Endpoints(), Prefix: fmt.Sprintf("/b%d", writers)})
			var n atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for w := range writers {
				wg.Go(func() {
					for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
						put(b, s, fmt.Sprintf("pods/%d-%d", w, i%50), string(value))
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkSync is the price of a read that must be newest.
func BenchmarkSync(b *testing.B) {
	c := etcdtest.Start(b, 1)
	for _, readers := range []int{1, 64} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			s, _ := openStore(b, Options{Endpoints: c.Endpoints()})
			var n atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range readers {
				wg.Go(func() {
					for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
						if err := s.Sync(ctx); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
