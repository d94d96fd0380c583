package pebble

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"karve/store"
)

// Saved is what Salvage found in the files of a damaged directory.
type Saved struct {
	// Records are the newest states found, in key order. Revision is one that nobody was given yet: beyond all that is known.
	Records  []store.Mutation
	Revision uint64
	// Notes say what could not be read, one sentence each, and what that means.
	Notes []string
}

// revisionGap is how far the revision moves beyond the last known one when writes may be lost: their revisions must not be
// given out again.
const revisionGap = 1000

// Salvage reads tables and logs of a directory one by one, past whatever of them is damaged, without the database's own
// book of which files count. It changes nothing. Should old files be left among them, records that were deleted since may
// be found again.
func Salvage(ctx context.Context, dir string) (Saved, error) {
	lock, err := lockOffline(dir)
	if err != nil {
		return Saved{}, err
	}
	defer lock.Close()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return Saved{}, err
	}
	slices.Sort(names)
	h := &heap{found: map[string]version{}, acknowledged: readMark(dir)}
	// The database's own book tells of files that are gone, which the others cannot.
	if s, err := openReadOnly(dir); err != nil {
		h.note("the database does not open: %v", err)
	} else {
		_ = s.db.Close()
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return Saved{}, err
		}
		switch {
		case strings.HasSuffix(name, ".sst"):
			h.table(ctx, name)
		case strings.HasSuffix(name, ".log"):
			h.log(name)
		}
	}
	return h.saved(), nil
}

// version is one state of a key: kind says whether it is a record or a deletion.
type version struct {
	seq   pebble.SeqNum
	kind  pebble.InternalKeyKind
	value []byte
}

// heap collects the newest version of each key from whatever order files are read in.
type heap struct {
	found map[string]version
	last  uint64
	notes []string
	// acknowledged is what the mark of the directory says.
	acknowledged uint64
}

func (h *heap) note(format string, args ...any) {
	h.notes = append(h.notes, sentence(format, args))
}

// sentence drops from errors what follows their first line.
func sentence(format string, args []any) string {
	for i, a := range args {
		if err, ok := a.(error); ok {
			args[i], _, _ = strings.Cut(err.Error(), "\n")
		}
	}
	return fmt.Sprintf(format, args...)
}

func (h *heap) add(key []byte, v version) {
	if bytes.Equal(key, headerKey) {
		if last, err := decodeHeader(v.value); err == nil {
			h.last = max(h.last, last)
		}
		return
	}
	was, ok := h.found[string(key)]
	if !ok || v.seq > was.seq || v.seq == was.seq && revisionOf(v) > revisionOf(was) {
		v.value = bytes.Clone(v.value)
		h.found[string(key)] = v
	}
}

// revisionOf orders versions whose sequence numbers compactions have set to zero.
func revisionOf(v version) uint64 {
	if v.kind != pebble.InternalKeyKindSet || len(v.value) < recordHeader {
		return 0
	}
	return binary.BigEndian.Uint64(v.value)
}

// table reads the records of a table. Around a damaged block it comes from both sides, and tries keys in between.
func (h *heap) table(ctx context.Context, name string) {
	short := filepath.Base(name)
	f, err := vfs.Default.Open(name)
	if err != nil {
		h.note("table %s cannot be opened: %v", short, err)
		return
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		_ = f.Close()
		h.note("table %s cannot be read: %v", short, err)
		return
	}
	r, err := sstable.NewReader(ctx, readable, (&pebble.Options{}).MakeReaderOptions())
	if err != nil {
		_ = readable.Close()
		h.note("table %s cannot be read at all: %v", short, err)
		return
	}
	defer r.Close()
	t := &tableRun{heap: h, reader: r}
	end := t.forward(nil)
	if t.err == nil {
		return
	}
	first := t.err
	start := t.backward(nil, end)
	t.between(end, start)
	h.note("table %s is damaged: what lies between %s and %s is lost in part (%v)", short, shown(end), shown(start), first)
}

func shown(key []byte) string {
	if key == nil {
		return "its end"
	}
	return strconv.Quote(string(key))
}

// tableRun reads stretches of one table.
type tableRun struct {
	heap   *heap
	reader *sstable.Reader
	err    error
}

// read goes from a key (nil: from the end that lies behind it) in one direction, to the first error or until what is known.
// It returns the last key it read, nil for none.
func (t *tableRun) read(from, known []byte, back bool) (at []byte) {
	it, err := t.reader.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		t.err = err
		return nil
	}
	defer it.Close()
	kv, next := it.First, it.Next
	if back {
		kv, next = it.Last, it.Prev
	}
	one := kv()
	switch {
	case from != nil && back:
		one = it.SeekLT(from, 0)
	case from != nil:
		one = it.SeekGE(from, 0)
	}
	for ; one != nil; one = next() {
		if known != nil && bytes.Compare(one.K.UserKey, known) <= 0 {
			break
		}
		value, _, err := one.Value(nil)
		if err != nil {
			t.err = err
			return at
		}
		at = bytes.Clone(one.K.UserKey)
		t.heap.add(one.K.UserKey, version{one.K.SeqNum(), one.K.Kind(), value})
	}
	t.err = it.Error()
	return at
}

func (t *tableRun) forward(from []byte) []byte { return t.read(from, nil, false) }

func (t *tableRun) backward(from, known []byte) []byte { return t.read(from, known, true) }

// tries is how many keys are looked for in what lies between damaged blocks of a table.
const tries = 300

// between looks for readable blocks between two damaged ones by trying keys in the middle, the widest gaps first.
func (t *tableRun) between(low, high []byte) {
	gaps := [][2][]byte{{low, high}}
	for n := 0; n < tries && len(gaps) > 0; n++ {
		low, high := gaps[0][0], gaps[0][1]
		gaps = gaps[1:]
		if high == nil {
			continue
		}
		mid := middle(low, high)
		if bytes.Compare(mid, low) <= 0 || bytes.Compare(mid, high) >= 0 {
			continue
		}
		end := t.forward(mid)
		if end == nil {
			gaps = append(gaps, [2][]byte{low, mid}, [2][]byte{mid, high})
			continue
		}
		start := t.backward(mid, low)
		if start == nil {
			start = mid
		}
		gaps = append(gaps, [2][]byte{low, start}, [2][]byte{end, high})
	}
}

// middle is a key half way between two.
func middle(low, high []byte) []byte {
	n := max(len(low), len(high)) + 1
	out := make([]byte, n)
	at := func(b []byte, i int) int {
		if i < len(b) {
			return int(b[i])
		}
		return 0
	}
	carry := 0
	sum := make([]int, n)
	for i := n - 1; i >= 0; i-- {
		s := at(low, i) + at(high, i) + carry
		sum[i], carry = s&0xff, s>>8
	}
	rest := carry
	for i := range n {
		v := rest<<8 | sum[i]
		out[i], rest = byte(v/2), v%2
	}
	return out
}

// logBlock is where, in a log, reading can begin anew.
const logBlock = 32 << 10

// log reads the batches of a log, past those that are damaged. What follows the end of a log that was used again is of an older
// one, and recognised as such.
func (h *heap) log(name string) {
	short := filepath.Base(name)
	data, err := os.ReadFile(name)
	if err != nil {
		h.note("log %s cannot be read: %v", short, err)
		return
	}
	number, err := strconv.ParseUint(strings.TrimSuffix(short, ".log"), 10, 64)
	if err != nil {
		return
	}
	for at := int64(0); at < int64(len(data)); {
		r := logReader(record.NewReader, data[at:], number)
		var batch []byte
		for err = nil; err == nil; {
			var one io.Reader
			if one, err = r.Next(); err != nil {
				break
			}
			if batch, err = io.ReadAll(one); err == nil {
				h.batch(batch)
			}
		}
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return
		}
		stuck := at + r.Offset()
		next := (stuck/logBlock + 1) * logBlock
		if record.IsInvalidRecord(err) && bytes.Count(data[min(stuck, int64(len(data))):], []byte{0}) == len(data)-int(min(stuck, int64(len(data)))) {
			return // nothing but space for what was still to come
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, record.ErrUnexpectedEOF) {
			h.note("log %s is damaged at byte %d: writes near it are lost (%v)", short, stuck, err)
		}
		at = next
	}
}

// logReader names the type of a file's number, which Pebble does not export.
func logReader[N ~uint64](open func(io.Reader, N) *record.Reader, data []byte, number uint64) *record.Reader {
	return open(bytes.NewReader(data), N(number))
}

func (h *heap) batch(repr []byte) {
	header, ok := batchrepr.ReadHeader(repr)
	if !ok {
		return
	}
	seq := header.SeqNum
	for r := batchrepr.Read(repr); ; seq++ {
		kind, key, value, ok, err := r.Next()
		if !ok || err != nil {
			return
		}
		if kind == pebble.InternalKeyKindSet || kind == pebble.InternalKeyKindDelete {
			h.add(key, version{seq, kind, value})
		}
	}
}

// saved judges what was found.
func (h *heap) saved() Saved {
	out := Saved{}
	lost := len(h.notes) > 0
	if h.acknowledged > h.last {
		lost = true
		h.note("writes up to revision %d were acknowledged, but none after %d were found", h.acknowledged, h.last)
		h.last = h.acknowledged
	}
	for key, v := range h.found {
		if v.kind != pebble.InternalKeyKindSet {
			continue
		}
		revision, value, err := decodeRecord(key, v.value)
		if err != nil {
			lost = true
			h.note("record %q is damaged itself: %v", key, err)
			continue
		}
		h.last = max(h.last, revision)
		out.Records = append(out.Records, store.Mutation{Key: key, Revision: revision, Value: value})
	}
	slices.SortFunc(out.Records, func(a, b store.Mutation) int { return strings.Compare(a.Key, b.Key) })
	out.Revision = h.last
	if lost {
		out.Revision += revisionGap
		h.note("some records may be older than they were, or deleted ones be back: compare with what should be there")
	}
	out.Notes = h.notes
	return out
}
