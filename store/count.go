package store

// Events returns how many changes a topic has had since the store was opened.
func (s *Store) Events(topic string) uint64 {
	s.topicsMu.Lock()
	l := s.topics[topic]
	s.topicsMu.Unlock()
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}
