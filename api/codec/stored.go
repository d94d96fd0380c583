package codec

import (
	"bytes"
	"encoding/binary"
	"iter"
)

// Stored is the protobuf body of a stored object, taken apart where its resourceVersion belongs: what is in the store has
// none, as that is the revision it was stored under. Readers of protobuf get these very bytes, with the version put in,
// and the object is not decoded for them. It refers to the value it was made of.
type Stored struct {
	before, after []byte // of resourceVersion in the metadata
	rest          []byte // of the object, after its metadata
}

// Fields of the messages that are read here, by number: those of runtime.Unknown, of an object, of ObjectMeta, of a map's entry.
const (
	unknownRaw      = 2
	objectMetadata  = 1
	metaVersion     = 6
	metaLabels      = 11
	entryKey        = 1
	entryValue      = 2
	lengthDelimited = 2
)

// Open takes a stored value apart. It returns false for what is stored in another form (JSON), or has no metadata in front.
func Open(value []byte) (Stored, bool) {
	raw, ok := body(value)
	if !ok {
		return Stored{}, false
	}
	number, kind, field, rest, ok := next(raw)
	if !ok || number != objectMetadata || kind != lengthDelimited {
		return Stored{}, false
	}
	s := Stored{before: field, rest: rest}
	for at := field; len(at) > 0; {
		number, _, _, left, ok := next(at)
		if !ok {
			return Stored{}, false
		}
		if number >= metaVersion {
			s.before, s.after = field[:len(field)-len(at)], at
			if number == metaVersion {
				s.after = left
			}
			break
		}
		at = left
	}
	return s, true
}

// body returns the object's message within a stored value.
func body(value []byte) ([]byte, bool) {
	at, ok := bytes.CutPrefix(value, magic)
	for ok && len(at) > 0 {
		var number, kind int
		var field []byte
		if number, kind, field, at, ok = next(at); ok && number == unknownRaw && kind == lengthDelimited {
			return field, true
		}
	}
	return nil, false
}

// next reads one field of a message. field is its content if it is length-delimited, and empty otherwise.
func next(b []byte) (number, kind int, field, rest []byte, ok bool) {
	tag, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, 0, nil, nil, false
	}
	b = b[n:]
	number, kind = int(tag>>3), int(tag&7)
	switch kind {
	case 0:
		if _, n = binary.Uvarint(b); n <= 0 {
			return 0, 0, nil, nil, false
		}
		return number, kind, nil, b[n:], true
	case 1, 5:
		size := 8
		if kind == 5 {
			size = 4
		}
		if len(b) < size {
			return 0, 0, nil, nil, false
		}
		return number, kind, nil, b[size:], true
	case lengthDelimited:
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return 0, 0, nil, nil, false
		}
		b = b[n:]
		return number, kind, b[:size], b[size:], true
	}
	return 0, 0, nil, nil, false
}

func (s *Stored) meta(version string) int {
	return len(s.before) + 1 + UvarintLen(len(version)) + len(version) + len(s.after)
}

// Len returns the length of what Append appends.
func (s *Stored) Len(version string) int {
	m := s.meta(version)
	return 1 + UvarintLen(m) + m + len(s.rest)
}

// Append appends the object under a resourceVersion, as protobuf without an envelope.
func (s *Stored) Append(out []byte, version string) []byte {
	out = binary.AppendUvarint(append(out, objectMetadata<<3|lengthDelimited), uint64(s.meta(version)))
	out = append(out, s.before...)
	out = appendString(out, metaVersion<<3|lengthDelimited, version)
	out = append(out, s.after...)
	return append(out, s.rest...)
}

// Labels are an object's labels, read from its stored form one at a time. It is a labels.Labels.
type Labels struct{ meta []byte }

// Labels returns the object's labels.
func (s *Stored) Labels() Labels { return Labels{s.after} }

func (l Labels) all() iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		for at := l.meta; len(at) > 0; {
			number, _, entry, rest, ok := next(at)
			if !ok || number > metaLabels {
				return
			}
			at = rest
			if number != metaLabels {
				continue
			}
			var key, value []byte
			for len(entry) > 0 {
				n, _, f, left, ok := next(entry)
				if !ok {
					return
				}
				switch n {
				case entryKey:
					key = f
				case entryValue:
					value = f
				}
				entry = left
			}
			if !yield(key, value) {
				return
			}
		}
	}
}

// Lookup implements labels.Labels.
func (l Labels) Lookup(label string) (string, bool) {
	for k, v := range l.all() {
		if string(k) == label {
			return string(v), true
		}
	}
	return "", false
}

// Has implements labels.Labels.
func (l Labels) Has(label string) bool {
	_, ok := l.Lookup(label)
	return ok
}

// Get implements labels.Labels.
func (l Labels) Get(label string) string {
	v, _ := l.Lookup(label)
	return v
}

// Text returns the string field at a path of field numbers below the object, "" if it is not there.
func Text(value []byte, path ...int) string {
	at, ok := body(value)
	if !ok {
		return ""
	}
	for i, want := range path {
		var found []byte
		for len(at) > 0 {
			number, kind, field, rest, ok := next(at)
			if !ok {
				return ""
			}
			if at = rest; number == want && kind == lengthDelimited {
				found = field
				if i < len(path)-1 {
					break // the last one counts of a scalar; messages are written once
				}
			}
		}
		at = found
	}
	return string(at)
}
