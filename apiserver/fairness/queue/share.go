package queue

import "math"

// Share is a level's claim to the seats of the server.
type Share struct {
	Exempt bool
	// Shares are its part of all, Lendable the percentage of what it gets that others may use, Borrow the percentage it may
	// use more; nil is as much as there is.
	Shares, Lendable int
	Borrow           *int
}

// Bounds are the seats a level has nominally, and the least and most it may have while levels lend to each other.
type Bounds struct{ Nominal, Min, Max int }

// Divide divides total seats among levels, each rounded up.
func Divide(total int, shares []Share) []Bounds {
	sum := 0
	for _, s := range shares {
		sum += s.Shares
	}
	out := make([]Bounds, len(shares))
	for i, s := range shares {
		n := 0
		if sum > 0 {
			n = int(math.Ceil(float64(total) * float64(s.Shares) / float64(sum)))
		}
		lent := int(math.Round(float64(n) * float64(s.Lendable) / 100))
		most := n + total
		if s.Borrow != nil {
			most = n + int(math.Round(float64(n)*float64(*s.Borrow)/100))
		}
		out[i] = Bounds{n, n - lent, most}
	}
	return out
}

// Claim is what a level could use, for Adjust.
type Claim struct {
	Bounds
	Exempt bool
	// Peak is the greatest demand of the last period, Smooth the smoothed one.
	Peak   int
	Smooth float64
}

// little is the demand of a level without any: what nobody else may have is its.
const little = 1e-3

// Adjust says how many seats each level may occupy until the next adjustment, out of all that they have nominally. Exempt
// levels take what they used, for they cannot be held back; every other one gets at least its minimum, keeps of its nominal
// seats what it used, and of what is left as much as every level does in proportion to its demand, within its bounds.
func Adjust(claims []Claim) []int {
	out := make([]int, len(claims))
	left, leastSum, lowSum := 0, 0, 0
	for i, c := range claims {
		left += c.Nominal
		if c.Exempt {
			out[i] = max(c.Min, c.Peak)
		}
	}
	for i, c := range claims {
		if c.Exempt {
			left -= out[i]
			continue
		}
		leastSum += c.Min
		lowSum += c.low()
	}
	if left <= leastSum {
		for i, c := range claims {
			if !c.Exempt {
				out[i] = max(c.Min, min(c.Nominal, 1))
			}
		}
		return out
	}
	spans := make([]span, len(claims))
	for i, c := range claims {
		switch {
		case c.Exempt:
		case left <= lowSum:
			spans[i] = span{float64(c.Min), float64(c.low()), float64(c.low())}
		default:
			spans[i] = span{float64(c.low()), float64(max(c.Max, c.low())), max(float64(c.low()), c.Smooth, little)}
		}
	}
	for i, n := range allot(float64(left), spans) {
		if c := claims[i]; !c.Exempt {
			// Only a level that has no seat of its own is closed: one that lent them all must be able to begin.
			out[i] = max(int(math.Round(n)), min(c.Nominal, 1))
		}
	}
	return out
}

// low is what a level keeps while it uses it: no more than is its own, no less than its minimum.
func (c Claim) low() int { return max(c.Min, min(c.Nominal, c.Peak)) }

// span bounds a part; target is what it is in proportion to.
type span struct{ low, high, target float64 }

func (s span) at(p float64) float64 { return min(s.high, max(s.low, p*s.target)) }

// allot finds the one proportion at which the parts add up to total, as near as their bounds allow.
func allot(total float64, spans []span) []float64 {
	sum := func(p float64) (n float64) {
		for _, s := range spans {
			n += s.at(p)
		}
		return n
	}
	// No part grows any more beyond the greatest high/target.
	low, high := 0.0, 0.0
	for _, s := range spans {
		if s.target > 0 {
			high = max(high, s.high/s.target)
		}
	}
	for range 64 {
		if mid := (low + high) / 2; sum(mid) < total {
			low = mid
		} else {
			high = mid
		}
	}
	out := make([]float64, len(spans))
	for i, s := range spans {
		out[i] = s.at(high)
	}
	return out
}
