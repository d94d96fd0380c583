package pebble

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"karve/store"
)

// FuzzRecord writes records and reads them back: as they are, under another key, and with one byte changed.
func FuzzRecord(f *testing.F) {
	f.Add("/registry/pods/a/b", uint64(7), []byte("value"), uint16(3))
	f.Add("k", uint64(1<<63), []byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, key string, revision uint64, value []byte, at uint16) {
		m := &store.Mutation{Key: key, Revision: revision, Value: value}
		b := make([]byte, recordHeader+len(value))
		encodeRecord(b, m)
		gotRevision, got, err := decodeRecord(key, b)
		if err != nil || gotRevision != revision || !bytes.Equal(got, value) {
			t.Fatalf("%d %q %v, wrote %d %q", gotRevision, got, err, revision, value)
		}
		if len(got) != cap(got) {
			t.Fatalf("a value of %d bytes holds on to %d", len(got), cap(got))
		}
		if _, _, err := decodeRecord(key+"x", b); err == nil {
			t.Fatal("a record that lies under another key was taken")
		}
		b[int(at)%len(b)] ^= 0x40
		if _, _, err := decodeRecord(key, b); err == nil {
			t.Fatalf("byte %d was changed, and the record taken", int(at)%len(b))
		}
	})
}

// FuzzHeader reads the last revision of a batch as it may lie on a disk.
func FuzzHeader(f *testing.F) {
	f.Add(encodeHeader(0))
	f.Add(encodeHeader(1 << 40))
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		last, err := decodeHeader(b)
		if err == nil && !bytes.Equal(encodeHeader(last), b) {
			t.Fatalf("%q was taken for %d, which is written %q", b, last, encodeHeader(last))
		}
	})
}

// FuzzMark opens a mark file with anything in it: it never says more than was written, and takes the next revision.
func FuzzMark(f *testing.F) {
	f.Add([]byte{}, uint64(1))
	f.Add(make([]byte, 12), uint64(9))
	f.Fuzz(func(t *testing.T, content []byte, next uint64) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, markName), content, 0o600); err != nil {
			t.Fatal(err)
		}
		m, got, err := openMark(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got != 0 && (len(content) < 8 || binary.BigEndian.Uint64(content) != got) {
			t.Fatalf("%q is read as %d", content, got)
		}
		if err := m.set(next); err != nil {
			t.Fatal(err)
		}
		m.f.Close()
		m, got, err = openMark(dir)
		if err != nil || got != next {
			t.Fatalf("%d %v, set %d", got, err, next)
		}
		m.f.Close()
	})
}
