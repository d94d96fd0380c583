package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// markName is the file that says which revision was acknowledged last.
const markName = "karve.acknowledged"

// mark remembers the last acknowledged revision beside the database. Pebble takes damage near the end of its log for a write
// that the crash interrupted and drops what follows; the mark tells such a loss from an interrupted write. It is written
// after the batch is durable and is not synced itself, so it may lag behind after a loss of power, and never runs ahead.
type mark struct{ f *os.File }

// openMark opens the file and returns the revision it holds, 0 if it holds none that can be trusted.
func openMark(dir string) (*mark, uint64, error) {
	f, err := os.OpenFile(filepath.Join(dir, markName), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open mark of data directory: %w", err)
	}
	var b [12]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, 0, fmt.Errorf("read mark of data directory %s: %w", dir, err)
	}
	return &mark{f}, decodeMark(b[:]), nil
}

// readMark returns what the mark of a directory holds, without touching it; 0 if that cannot be trusted.
func readMark(dir string) uint64 {
	b, err := os.ReadFile(filepath.Join(dir, markName))
	if err != nil || len(b) != 12 {
		return 0
	}
	return decodeMark(b)
}

func decodeMark(b []byte) uint64 {
	if crc32.Checksum(b[:8], castagnoli) != binary.BigEndian.Uint32(b[8:12]) {
		return 0
	}
	return binary.BigEndian.Uint64(b[:8])
}

// set writes the revision.
func (m *mark) set(revision uint64) error {
	var b [12]byte
	binary.BigEndian.PutUint64(b[:8], revision)
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli))
	_, err := m.f.WriteAt(b[:], 0)
	return err
}
