// Package store keeps the cluster's objects: an ordered copy-on-write index of encoded records with one revision counter,
// above a narrow Engine that makes batches durable. Only apiserver uses it. It knows keys, bytes and revisions, and nothing
// of Kubernetes: what a reader needs beside the bytes (the decoded object, its labels) rides along as an attachment.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// Engine makes writes durable and gives them back at the next start. Calls of Apply never overlap. One that is a Shared too
// has further duties.
type Engine interface {
	// Load calls fn for every live record, in key order, and returns the last revision made durable. fn may keep value.
	Load(ctx context.Context, fn func(key string, revision uint64, value []byte) error) (last uint64, err error)
	// Apply makes the batch durable, wholly or not at all, before it returns. An error that wraps ErrNotApplied says that
	// the batch was surely not applied and may be forgotten; after any other error its outcome is unknown.
	Apply(batch []Mutation) error
	// Close releases the engine. Nothing acknowledged is lost by not calling it.
	Close() error
}

// Mutation is one durable change: Value nil deletes Key.
type Mutation struct {
	Key      string
	Revision uint64
	Value    []byte
	// Expect is the revision that Key is at, 0 for none. The store has checked it, except for a Shared engine.
	Expect uint64
}

// Options configures Open.
type Options struct {
	Engine Engine
	// Topic names the event log a key belongs to (the resource's prefix). A watch follows one topic.
	Topic func(key string) string
	// Attach makes the attachment of a record read back from the engine, on first use of Record.Attachment.
	Attach func(key string, revision uint64, value []byte) (any, error)
	// History is how many events of a topic are kept for watchers to continue from (default 4096). A watcher that is
	// further behind gets ErrExpired. Events are shared; keeping one costs what the replaced record costs.
	History int
	// HistoryBytes is how much the values of a topic's events may take (default 32 MiB): of big records fewer events are kept,
	// but 64 in any case.
	HistoryBytes int
	Log          *slog.Logger
}

// Write is one change. Exactly one revision is spent on it.
type Write struct {
	Key string
	// Expect is the revision the record must have now; 0 means it must not exist.
	Expect uint64
	// Value is the encoded object; nil deletes the record.
	Value []byte
	// Attach is called once, after the write is durable and before Commit returns, with the revision it got; what it
	// returns becomes the attachment of the record (for a delete: of the record that the event carries). No one sees the
	// record without it, except on a Shared engine: who is faster there than the answer gets what Options.Attach makes.
	Attach func(revision uint64) any
}

// Event is one committed change of a topic. For a delete, Record is the last state under the revision of the deletion and
// Deleted is true. Prev is the record that was replaced or deleted, nil for a creation.
type Event struct {
	Record  *Record
	Prev    *Record
	Deleted bool
}

var (
	// ErrExpired means that the log no longer reaches back to the revision asked for: read anew.
	ErrExpired = errors.New("store: revision is too old")
	// ErrClosed means that the store is shutting down.
	ErrClosed = errors.New("store: closed")
	// ErrNotApplied is wrapped by an Engine's error when the batch was surely not applied: later writes may be tried.
	ErrNotApplied = errors.New("store: not applied")
	// ErrConflict is what a Shared engine answers when Expect did not hold: the write was surely not applied by the attempt
	// that was answered.
	ErrConflict = errors.New("store: conflict")
	// ErrUnanswered is joined to ErrConflict when an earlier attempt of the same write went unanswered: it happened by
	// Mutation.Revision, or never will. By itself, the outcome of the write is unknown and stays so.
	ErrUnanswered = errors.New("store: a write went unanswered: it may have happened or not")
	// ErrReadOnly answers every write after one whose outcome is unknown, until a Recoverer has come back: with another
	// engine what the disk holds is only known after a restart.
	ErrReadOnly = errors.New("store: read-only")
)

// ConflictError answers a Write whose Expect does not hold. Current is the record that is there, nil for none.
type ConflictError struct {
	Key     string
	Current *Record
}

func (e *ConflictError) Error() string {
	if e.Current == nil {
		return fmt.Sprintf("store: %s does not exist", e.Key)
	}
	return fmt.Sprintf("store: %s is at revision %d", e.Key, e.Current.Revision)
}
