package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
)

// defaultHistory is how many events of a topic are kept when Options.History is 0, defaultHistoryBytes how big they may be
// when Options.HistoryBytes is 0.
const (
	defaultHistory      = 4096
	defaultHistoryBytes = 32 << 20
)

// Store is the index, the event logs and the committer. All methods are safe for concurrent use.
type Store struct {
	engine  Engine
	shared  *sharing // nil unless the engine is a Shared
	topicOf func(string) string
	loader  *loader
	history keep
	log     *slog.Logger

	// mu guards the index, its revision and the cached view. Event logs are appended to while it is held for writing.
	mu       sync.RWMutex
	records  *index
	revision uint64
	view     *View
	waiting  []waiter

	// published is revision again, set after the logs have everything up to it: what cursors measure progress by.
	published atomic.Uint64

	topicsMu     sync.Mutex
	topics       map[string]*topicLog
	floor        uint64
	topicsClosed bool

	queue  chan *pending
	closed chan struct{}
	ended  chan struct{}
	once   sync.Once
	err    error
	broken atomic.Pointer[error]
}

// Err returns why the store takes no writes now, nil while it does. On a Shared engine it asks that, for up to two seconds.
func (s *Store) Err() error {
	if s.shared != nil {
		return s.shared.ask(s)
	}
	if e := s.broken.Load(); e != nil {
		return *e
	}
	return nil
}

// Open reads every record from the engine and starts the committer. The store owns the engine from then on and closes it;
// if Open fails the engine stays the caller's.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Engine == nil || o.Topic == nil {
		return nil, fmt.Errorf("open store: Engine and Topic are required")
	}
	if o.History <= 0 {
		o.History = defaultHistory
	}
	if o.HistoryBytes <= 0 {
		o.HistoryBytes = defaultHistoryBytes
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		engine:  o.Engine,
		topicOf: o.Topic,
		loader:  &loader{attach: o.Attach, log: o.Log},
		history: keep{o.History, o.HistoryBytes},
		log:     o.Log,
		records: new(index),
		topics:  map[string]*topicLog{},
		queue:   make(chan *pending, maxBatch),
		closed:  make(chan struct{}),
		ended:   make(chan struct{}),
	}
	last, err := o.Engine.Load(ctx, func(key string, revision uint64, value []byte) error {
		if value == nil {
			value = []byte{}
		}
		s.records.Load(key, &Record{Key: key, Revision: revision, Value: value, from: s.loader})
		s.revision = max(s.revision, revision)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load records: %w", err)
	}
	if last < s.revision {
		return nil, fmt.Errorf("load records: the engine is at revision %d but holds a record of revision %d: its data is damaged", last, s.revision)
	}
	s.revision = last
	s.published.Store(last)
	s.floor = last
	if shared, ok := o.Engine.(Shared); ok {
		s.share(ctx, shared)
	} else {
		go s.commitLoop()
	}
	return s, nil
}

// Close stops the committer after the batch in work, answers everything still queued with ErrClosed, ends the watches and
// closes the engine, whose error it returns. Reads keep working. On a Shared engine it waits a moment for the writes in
// work and for what they are to show.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.closed)
		if s.shared != nil {
			s.unshare()
		}
		<-s.ended
		s.topicsMu.Lock()
		s.topicsClosed = true
		for _, l := range s.topics {
			l.close()
		}
		s.topicsMu.Unlock()
		if err := s.engine.Close(); err != nil {
			s.err = fmt.Errorf("close engine: %w", err)
		}
	})
	return s.err
}

// Revision is the revision of the newest published write.
func (s *Store) Revision() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.revision
}

// Get returns the newest record at key, nil for none.
func (s *Store) Get(key string) *Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, _ := s.records.Get(key)
	return r
}

// View returns a snapshot of now, in O(1). Callers between two writes share one.
func (s *Store) View() *View {
	s.mu.RLock()
	v := s.view
	s.mu.RUnlock()
	if v != nil {
		return v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view == nil {
		s.view = &View{revision: s.revision, records: s.records.Copy()}
	}
	return s.view
}
