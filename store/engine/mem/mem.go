// Package mem is a store engine that keeps its records in memory: for tests, and for clusters that need not outlive their
// process. Tests use its hooks to make it fail and stall. It is opened by whoever composes a server or a test, and used by
// store. It does not survive its process.
package mem

import (
	"context"
	"fmt"
	"maps"
	"sort"
	"sync"

	"karve/store"
)

// Engine is a store.Engine in memory. Closing one and opening a store on it again is a restart that lost nothing.
type Engine struct {
	// Before, if not nil, is called with each batch before it is applied; it may block, and an error from it is what
	// Apply returns without applying anything. Wrap store.ErrNotApplied to say so. Set it before the engine is used.
	Before func(batch []store.Mutation) error
	// After, if not nil, is called when the batch was applied; an error from it is what Apply returns all the same: a write
	// whose acknowledgement was lost. Set it before the engine is used.
	After func(batch []store.Mutation) error

	mu      sync.Mutex
	records map[string]record
	last    uint64
}

type record struct {
	revision uint64
	value    []byte
}

// New returns an empty engine.
func New() *Engine { return &Engine{records: map[string]record{}} }

// Clone returns an engine, without hooks, that holds what this one holds now.
func (e *Engine) Clone() *Engine {
	e.mu.Lock()
	defer e.mu.Unlock()
	return &Engine{records: maps.Clone(e.records), last: e.last}
}

// Load calls fn for every live record, in key order.
func (e *Engine) Load(ctx context.Context, fn func(key string, revision uint64, value []byte) error) (uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	keys := make([]string, 0, len(e.records))
	for key := range e.records {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := fn(key, e.records[key].revision, e.records[key].value); err != nil {
			return 0, fmt.Errorf("load %s: %w", key, err)
		}
	}
	return e.last, nil
}

// Apply applies the batch.
func (e *Engine) Apply(batch []store.Mutation) error {
	if e.Before != nil {
		if err := e.Before(batch); err != nil {
			return err
		}
	}
	e.mu.Lock()
	for _, m := range batch {
		if m.Value == nil {
			delete(e.records, m.Key)
		} else {
			e.records[m.Key] = record{m.Revision, m.Value}
		}
		e.last = m.Revision
	}
	e.mu.Unlock()
	if e.After != nil {
		return e.After(batch)
	}
	return nil
}

// Close does nothing; the records stay for the next Load.
func (e *Engine) Close() error { return nil }
