package store

import (
	"context"
	"testing"

	"karve/store"
	"karve/store/engine/pebble"
)

// BenchmarkOpen opens a store with 200,000 pods: what a server pays before it can do anything.
func BenchmarkOpen(b *testing.B) {
	const n = 200_000
	dir := b.TempDir()
	e, err := pebble.Open(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	if err := e.Fill(n, pods(n)); err != nil {
		b.Fatal(err)
	}
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		e, err := pebble.Open(dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		s, err := store.Open(context.Background(), store.Options{Engine: e, Topic: func(string) string { return "pods" }})
		if err != nil {
			b.Fatal(err)
		}
		if s.View().Count("") != n {
			b.Fatal("records are missing")
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
