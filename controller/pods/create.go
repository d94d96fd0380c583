package pods

import (
	"karve/controller/loop"
)

// Width is how many requests of one batch are under way at once.
const Width = 64

// SlowStart calls fn n times in batches of 1, 2, 4, … at most Width at a time, and stops after a batch with an error, so
// that a refusal that would meet all is met by few. It returns how many calls succeeded and the first error.
func SlowStart(n int, fn func() error) (done int, err error) {
	for batch := 1; n > 0; batch *= 2 {
		batch = min(batch, n)
		for _, e := range loop.Parallel(batch, Width, func(int) error { return fn() }) {
			if e == nil {
				done++
			} else if err == nil {
				err = e
			}
		}
		if err != nil {
			return done, err
		}
		n -= batch
	}
	return done, nil
}
