package queue

import (
	"math"
	"time"
)

// Demand follows how many seats a level would use if it had no limit: those occupied and those waited for.
type Demand struct {
	since, last     time.Duration
	value           int
	peak            int
	sum, sumSquares float64
}

// Set says that the demand is value from now on.
func (d *Demand) Set(value int, now time.Duration) {
	d.pass(now)
	d.value = value
	d.peak = max(d.peak, value)
}

func (d *Demand) pass(now time.Duration) {
	if now <= d.last {
		return
	}
	t, v := (now - d.last).Seconds(), float64(d.value)
	d.sum += t * v
	d.sumSquares += t * v * v
	d.last = now
}

// Reading is what a period's demand was.
type Reading struct {
	Average, Deviation float64
	Peak               int
}

// Reset returns what the demand was since the last Reset, over time, and begins a new period.
func (d *Demand) Reset(now time.Duration) Reading {
	d.pass(now)
	r := Reading{Peak: d.peak, Average: float64(d.value)}
	if t := (now - d.since).Seconds(); t > 0 {
		r.Average = d.sum / t
		r.Deviation = math.Sqrt(max(0, d.sumSquares/t-r.Average*r.Average))
	}
	d.since, d.sum, d.sumSquares, d.peak = now, 0, 0, d.value
	return r
}

// smoothing is how much of the past a period keeps: a demand that ended has halved after five minutes of 10-second periods.
const smoothing = 0.977

// Smooth follows the envelope of a demand: up at once, down slowly.
func Smooth(before float64, r Reading) float64 {
	envelope := r.Average + r.Deviation
	return max(envelope, smoothing*before+(1-smoothing)*envelope)
}
