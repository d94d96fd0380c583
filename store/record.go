package store

import (
	"log/slog"
	"reflect"
	"sync/atomic"
	"unsafe"
	"weak"
)

// Record is one stored object at one revision. It never changes once it can be seen; readers share it and must not write
// to Value, to an attachment or to a form.
type Record struct {
	Key      string
	Revision uint64
	Value    []byte

	// from makes the attachment on first use when the writer gave none.
	from *loader
	att  atomic.Pointer[attachment]
	form atomic.Pointer[weak.Pointer[[]byte]]
}

// attachment holds the value of a record. A pointer is held weakly: what nobody uses is made again when somebody asks, so that
// memory holds the bytes of all records and the objects of those in use. The zero value is a value that could not be made.
type attachment struct {
	value any
	kind  reflect.Type // of what a weakly held pointer points to
	weak  weak.Pointer[byte]
}

func hold(value any) *attachment {
	v := reflect.ValueOf(value)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Type().Elem().Size() == 0 {
		return &attachment{value: value}
	}
	return &attachment{kind: v.Type().Elem(), weak: weak.Make((*byte)(v.UnsafePointer()))}
}

// get returns the value, false if it is gone.
func (a *attachment) get() (any, bool) {
	if a.kind == nil {
		return a.value, true
	}
	p := a.weak.Value()
	if p == nil {
		return nil, false
	}
	return reflect.NewAt(a.kind, unsafe.Pointer(p)).Interface(), true
}

// loader is Options.Attach with its log, shared by all records of a store.
type loader struct {
	attach func(key string, revision uint64, value []byte) (any, error)
	log    *slog.Logger
}

// Attachment returns what rides along with the bytes: what Write.Attach returned, or what Options.Attach makes of them, made
// on first use and again after a while without any. It is nil if that failed, which is logged once per record. Safe for
// concurrent use; callers that hold the value all have the same.
func (r *Record) Attachment() any {
	for {
		a := r.att.Load()
		if a != nil {
			if value, ok := a.get(); ok {
				return value
			}
		}
		if r.from == nil || r.from.attach == nil {
			return nil
		}
		value, err := r.from.attach(r.Key, r.Revision, r.Value)
		if err != nil {
			value = nil
		}
		if !r.att.CompareAndSwap(a, hold(value)) {
			continue
		}
		if err != nil {
			r.from.log.Error("stored record cannot be read", "key", r.Key, "revision", r.Revision, "err", err)
		}
		return value
	}
}

// Form returns an encoding of the record that readers share: what build made, for as long as somebody uses it or did a
// moment ago. Callers that race may each build. An error is returned and not kept. Safe for concurrent use.
func (r *Record) Form(build func() ([]byte, error)) ([]byte, error) {
	if w := r.form.Load(); w != nil {
		if b := w.Value(); b != nil {
			return *b, nil
		}
	}
	b, err := build()
	if err != nil {
		return nil, err
	}
	w := weak.Make(&b)
	r.form.Store(&w)
	return b, nil
}
