// Package archive is the portable form of a store's records: one file that any engine's records can be written to and read
// from, on any machine, and that says by a checksum whether it is whole. `karve store export` writes it and `import` reads it.
// It knows keys, revisions and bytes, neither engines nor objects, and it does not encrypt: such a file holds every Secret.
package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"karve/store"
)

// magic is the first line. What follows are records, each as length of key, key, revision, length of value, value; then a zero,
// the last revision and the number of records; then the SHA-256 of all that. Numbers are unsigned varints.
const magic = "karve store export 1\n"

// maxField is the length of a key or value that no store holds.
const maxField = 1 << 30

// ErrDamaged says that a file is not what was written.
var ErrDamaged = errors.New("the file is damaged")

// Writer writes records one after another. It is for one goroutine.
type Writer struct {
	out   *bufio.Writer
	sum   hash.Hash
	all   io.Writer
	count uint64
	buf   []byte
}

// NewWriter begins a file.
func NewWriter(w io.Writer) (*Writer, error) {
	a := &Writer{out: bufio.NewWriterSize(w, 1<<16), sum: sha256.New()}
	a.all = io.MultiWriter(a.out, a.sum)
	_, err := io.WriteString(a.all, magic)
	return a, err
}

// Add writes a record.
func (a *Writer) Add(key string, revision uint64, value []byte) error {
	if key == "" {
		return errors.New("add a record without a key")
	}
	a.buf = binary.AppendUvarint(a.buf[:0], uint64(len(key)))
	a.buf = append(a.buf, key...)
	a.buf = binary.AppendUvarint(a.buf, revision)
	a.buf = binary.AppendUvarint(a.buf, uint64(len(value)))
	a.buf = append(a.buf, value...)
	a.count++
	_, err := a.all.Write(a.buf)
	return err
}

// Close ends the file with the last revision of the store.
func (a *Writer) Close(last uint64) error {
	a.buf = binary.AppendUvarint(append(a.buf[:0], 0), last)
	a.buf = binary.AppendUvarint(a.buf, a.count)
	if _, err := a.all.Write(a.buf); err != nil {
		return err
	}
	if _, err := a.out.Write(a.sum.Sum(nil)); err != nil {
		return err
	}
	return a.out.Flush()
}

// Reader reads records one after another. It is for one goroutine.
type Reader struct {
	in   *bufio.Reader
	sum  hash.Hash
	n    uint64
	done bool
	last uint64
}

// NewReader begins to read a file, and says if it is something else.
func NewReader(r io.Reader) (*Reader, error) {
	a := &Reader{in: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	b := make([]byte, len(magic))
	if _, err := io.ReadFull(a.in, b); err != nil || string(b) != magic {
		if bytes.HasPrefix(b, []byte("karve store export ")) {
			return nil, fmt.Errorf("it was written by another version of karve (%q, this one knows %q)", bytes.TrimSpace(b), magic[:len(magic)-1])
		}
		return nil, errors.New("it is no file of `karve store export`")
	}
	a.sum.Write(b)
	return a, nil
}

// Next returns the next record, io.EOF after the last one if the file is whole. Any other error but that of the reader below
// wraps ErrDamaged.
func (a *Reader) Next() (store.Mutation, error) {
	if a.done {
		return store.Mutation{}, io.EOF
	}
	n, err := a.number()
	if err != nil {
		return store.Mutation{}, err
	}
	if n == 0 {
		return store.Mutation{}, a.end()
	}
	key, err := a.bytes(n)
	if err != nil {
		return store.Mutation{}, err
	}
	m := store.Mutation{Key: string(key)}
	if m.Revision, err = a.number(); err != nil {
		return m, err
	}
	if n, err = a.number(); err != nil {
		return m, err
	}
	m.Value, err = a.bytes(n)
	a.n++
	return m, err
}

// Last is the revision of the store that was exported, once Next has returned io.EOF.
func (a *Reader) Last() uint64 { return a.last }

// Count is how many records were read.
func (a *Reader) Count() uint64 { return a.n }

func (a *Reader) end() (err error) {
	if a.last, err = a.number(); err != nil {
		return err
	}
	count, err := a.number()
	if err != nil {
		return err
	}
	want := a.sum.Sum(nil)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(a.in, got); err != nil {
		return cut(err)
	}
	if !bytes.Equal(got, want) || count != a.n {
		return fmt.Errorf("%w: its checksum does not match: copy it again", ErrDamaged)
	}
	if _, err := a.in.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	}
	a.done = true
	return io.EOF
}

// ReadByte takes a byte and adds it to the checksum.
func (a *Reader) ReadByte() (byte, error) {
	b, err := a.in.ReadByte()
	if err == nil {
		a.sum.Write([]byte{b})
	}
	return b, err
}

func (a *Reader) number() (uint64, error) {
	n, err := binary.ReadUvarint(a)
	if err != nil {
		return 0, cut(err)
	}
	return n, nil
}

func (a *Reader) bytes(n uint64) ([]byte, error) {
	if n > maxField {
		return nil, fmt.Errorf("%w: it has a field of %d bytes", ErrDamaged, n)
	}
	// It grows with what is there, not with what a damaged length says.
	var b bytes.Buffer
	if n < 1<<20 {
		b.Grow(int(n))
	}
	if _, err := io.CopyN(io.MultiWriter(&b, a.sum), a.in, int64(n)); err != nil {
		return nil, cut(err)
	}
	return b.Bytes(), nil
}

// cut names the end of a file where none should be.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early: copy it again", ErrDamaged)
	}
	return err
}
