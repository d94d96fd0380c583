package metrics

import (
	"math"
	"strconv"
	"sync/atomic"
	"time"
)

// bounds are the upper ends of a histogram's buckets with their text, in ascending order, as whole numbers of which unit
// make one of what is shown.
type bounds struct {
	at   []int64
	text []string
	unit float64
}

func newBounds(unit float64, at ...float64) *bounds {
	b := &bounds{unit: unit}
	for _, v := range at {
		b.at = append(b.at, int64(math.Round(v*unit)))
		b.text = append(b.text, strconv.FormatFloat(v, 'g', -1, 64))
	}
	return b
}

const seconds = float64(time.Second)

var (
	latencies = newBounds(seconds, 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
	promised  = newBounds(seconds, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
	listTimes = newBounds(seconds, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 15, 20, 30, 45, 60)
	admitting = newBounds(seconds, 0.005, 0.025, 0.1, 0.5, 1, 2.5)
	sizes     = newBounds(1, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)
)

// histogram counts values by bucket. Safe for concurrent use; a reader may see a value in its bucket before it is in the sum.
type histogram struct {
	counts []atomic.Uint64 // one more than there are bounds
	sum    atomic.Int64
}

func (h *histogram) init(b *bounds) { h.counts = make([]atomic.Uint64, len(b.at)+1) }

func (h *histogram) observe(b *bounds, v int64) {
	i := 0 // nearly everything is in the first buckets
	for i < len(b.at) && v > b.at[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(v)
}
