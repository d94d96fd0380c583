package store

import (
	"log/slog"
	"sync/atomic"
)

// Record is one stored object at one revision. It never changes once it can be seen; readers share it and must not write
// to Value, to an attachment or to a form.
type Record struct {
	Key      string
	Revision uint64
	Value    []byte

	// from makes the attachment on first use when the writer gave none.
	from  *loader
	att   atomic.Pointer[attachment]
	forms atomic.Pointer[forms]
}

// Forms is how many cached encodings a record has room for: ids 0 to Forms-1.
const Forms = 6

// forms is allocated only for records that somebody encoded, which spares most of them 40 bytes.
type forms [Forms]atomic.Pointer[[]byte]

// attachment boxes the value, so that "made, and it is nil" differs from "not made yet".
type attachment struct{ value any }

// loader is Options.Attach with its log, shared by all records of a store.
type loader struct {
	attach func(key string, revision uint64, value []byte) (any, error)
	log    *slog.Logger
}

// Attachment returns what rides along with the bytes: what Write.Attach returned, or for a record that came without (one
// read back from the engine) what Options.Attach makes of it, made on first use. It is nil if that failed, which is logged
// once per record. Safe for concurrent use; racing first callers get the same value.
func (r *Record) Attachment() any {
	if a := r.att.Load(); a != nil {
		return a.value
	}
	if r.from == nil || r.from.attach == nil {
		return nil
	}
	value, err := r.from.attach(r.Key, r.Revision, r.Value)
	if err != nil {
		value = nil
	}
	if r.att.CompareAndSwap(nil, &attachment{value}) && err != nil {
		r.from.log.Error("stored record cannot be read", "key", r.Key, "revision", r.Revision, "err", err)
	}
	return r.att.Load().value
}

// Form returns encoding id (0 to Forms-1) of the record, building it on first use. Callers that race may each build; the
// first result is kept and shared by all. An error is returned and not kept. Safe for concurrent use.
func (r *Record) Form(id int, build func() ([]byte, error)) ([]byte, error) {
	all := r.forms.Load()
	if all == nil {
		r.forms.CompareAndSwap(nil, new(forms))
		all = r.forms.Load()
	}
	slot := &all[id]
	if b := slot.Load(); b != nil {
		return *b, nil
	}
	b, err := build()
	if err != nil {
		return nil, err
	}
	slot.CompareAndSwap(nil, &b)
	return *slot.Load(), nil
}
