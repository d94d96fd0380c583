package store

import (
	"sort"
	"strings"

	"github.com/tidwall/btree"
)

// index is the ordered map of live records. A copy costs O(1): nodes are shared until one side writes.
type index = btree.Map[string, *Record]

// View is an immutable snapshot of all records at one revision. It needs no closing and is safe for concurrent use; it keeps
// the records it shows in memory.
type View struct {
	revision uint64
	records  *index
	prefix   string
}

// Covers reports whether the view shows all records with the prefix; only one of the past (Store.Past) may not.
func (v *View) Covers(prefix string) bool { return strings.HasPrefix(prefix, v.prefix) }

// Revision is the revision the snapshot was taken at.
func (v *View) Revision() uint64 { return v.revision }

// Get returns the record at key, nil for none.
func (v *View) Get(key string) *Record {
	r, _ := v.records.Get(key)
	return r
}

// Scan calls fn in key order for the records whose key begins with prefix and, if after is not empty, is greater than after,
// until fn returns false.
func (v *View) Scan(prefix, after string, fn func(*Record) bool) {
	start := prefix
	if after != "" && after >= prefix {
		start = after
	}
	v.records.Ascend(start, func(key string, r *Record) bool {
		if !strings.HasPrefix(key, prefix) {
			return false
		}
		if after != "" && key <= after {
			return true
		}
		return fn(r)
	})
}

// Count returns how many records have the prefix, in logarithmic time.
func (v *View) Count(prefix string) int { return v.rankEnd(prefix) - v.rank(prefix) }

// CountAfter returns how many records have the prefix and a key greater than after: what a Scan from there would show.
func (v *View) CountAfter(prefix, after string) int {
	if after < prefix {
		return v.Count(prefix)
	}
	// The smallest key greater than after is after with a zero byte behind it.
	return max(v.rankEnd(prefix)-v.rank(after+"\x00"), 0)
}

// rank is the number of keys smaller than key.
func (v *View) rank(key string) int {
	return sort.Search(v.records.Len(), func(i int) bool {
		k, _, _ := v.records.GetAt(i)
		return k >= key
	})
}

// rankEnd is the number of keys smaller than every key beyond those with the prefix.
func (v *View) rankEnd(prefix string) int {
	for n := len(prefix); n > 0; n-- {
		if last := prefix[n-1]; last < 0xff {
			return v.rank(prefix[:n-1] + string([]byte{last + 1}))
		}
	}
	return v.records.Len()
}
