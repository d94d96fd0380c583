package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"karve/store"
)

func write(t testing.TB, last uint64, records []store.Mutation) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range records {
		if err := w.Add(m.Key, m.Revision, m.Value); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(last); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(data []byte) (records []store.Mutation, last uint64, err error) {
	r, err := NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, 0, err
	}
	for {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return records, r.Last(), nil
		}
		if err != nil {
			return nil, 0, err
		}
		records = append(records, m)
	}
}

var sample = []store.Mutation{{Key: "/a", Revision: 7, Value: []byte("x")}, {Key: "/b", Revision: 1 << 40, Value: []byte{}},
	{Key: "/c/d", Revision: 3, Value: bytes.Repeat([]byte("long"), 100_000)}}

func TestThereAndBack(t *testing.T) {
	for n := range len(sample) + 1 {
		got, last, err := read(write(t, 1<<41, sample[:n]))
		if err != nil || last != 1<<41 || len(got) != n || n > 0 && fmt.Sprint(got) != fmt.Sprint(sample[:n]) {
			t.Errorf("%d records: got %d at %d, %v", n, len(got), last, err)
		}
	}
}

func TestDamage(t *testing.T) {
	data := write(t, 99, sample[:2])
	for i := range data {
		for _, changed := range [][]byte{data[:i], append(append(bytes.Clone(data[:i]), data[i]^4), data[i+1:]...)} {
			if got, last, err := read(changed); err == nil {
				t.Errorf("byte %d changed, or cut there: read %v at %d", i, got, last)
			}
		}
	}
	if _, _, err := read(append(bytes.Clone(data), 'x')); err == nil {
		t.Error("something behind the end is not noticed")
	}
	if _, _, err := read([]byte(strings.Replace(string(data), "export 1", "export 2", 1))); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("another version: %v", err)
	}
	if _, _, err := read([]byte("apiVersion: v1")); err == nil || !strings.Contains(err.Error(), "no file of `karve store export`") {
		t.Errorf("something else: %v", err)
	}
}

// FuzzRead reads anything: what is taken is what is written for the same.
func FuzzRead(f *testing.F) {
	f.Add(write(f, 9, sample[:2]))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, last, err := read(data)
		if err != nil {
			return
		}
		again, last2, err := read(write(t, last, records))
		if err != nil || last2 != last || fmt.Sprint(again) != fmt.Sprint(records) {
			t.Fatalf("%d records at %d came back as %d at %d, %v", len(records), last, len(again), last2, err)
		}
	})
}
