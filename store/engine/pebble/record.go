package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"karve/store"
)

// A record is stored under its key as: revision (8 bytes, big endian), CRC-32C of key, revision and value (4 bytes), value.
// Under headerKey every batch leaves the layout's version (1 byte), its last revision (8 bytes) and their CRC-32C (4 bytes),
// so that a deletion's revision is never given out again.
const (
	recordHeader  = 8 + 4
	headerLength  = 1 + 8 + 4
	layoutVersion = 1
)

var (
	headerKey = []byte("\x00karve")
	// firstKey is below every key of a record.
	firstKey   = []byte{1}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errDamaged = errors.New("damaged record")
)

func checksum(key string, revision, value []byte) uint32 {
	sum := crc32.Update(0, castagnoli, []byte(key))
	sum = crc32.Update(sum, castagnoli, revision)
	return crc32.Update(sum, castagnoli, value)
}

// encodeRecord fills dst, which has the right length.
func encodeRecord(dst []byte, m *store.Mutation) {
	binary.BigEndian.PutUint64(dst, m.Revision)
	binary.BigEndian.PutUint32(dst[8:], checksum(m.Key, dst[:8], m.Value))
	copy(dst[recordHeader:], m.Value)
}

// decodeRecord returns a copy of the value, of exactly its size.
func decodeRecord(key string, stored []byte) (revision uint64, value []byte, err error) {
	if len(stored) < recordHeader {
		return 0, nil, fmt.Errorf("%w: %q is %d bytes", errDamaged, key, len(stored))
	}
	if binary.BigEndian.Uint32(stored[8:]) != checksum(key, stored[:8], stored[recordHeader:]) {
		return 0, nil, fmt.Errorf("%w: checksum of %q does not match", errDamaged, key)
	}
	value = make([]byte, len(stored)-recordHeader)
	copy(value, stored[recordHeader:])
	return binary.BigEndian.Uint64(stored), value, nil
}

func encodeHeader(last uint64) []byte {
	b := make([]byte, headerLength)
	b[0] = layoutVersion
	binary.BigEndian.PutUint64(b[1:], last)
	binary.BigEndian.PutUint32(b[9:], crc32.Checksum(b[:9], castagnoli))
	return b
}

func decodeHeader(b []byte) (last uint64, err error) {
	if len(b) > 0 && b[0] > layoutVersion {
		return 0, fmt.Errorf("it was written by a newer karve (layout %d, this one knows %d)", b[0], layoutVersion)
	}
	if len(b) != headerLength || binary.BigEndian.Uint32(b[9:]) != crc32.Checksum(b[:9], castagnoli) {
		return 0, fmt.Errorf("%w: last revision", errDamaged)
	}
	return binary.BigEndian.Uint64(b[1:]), nil
}
