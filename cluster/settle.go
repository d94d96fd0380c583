package cluster

import (
	"context"
	"runtime/debug"
	"time"
)

// settleAfter is how long after its start a process has done what is done once: tables, certificates, first lists.
const settleAfter = 5 * time.Second

// settle gives the garbage of starting back to the machine, once. Starting allocates several times what an idle cluster
// holds, and an idle one allocates so little that the collector would not run for minutes.
func settle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(settleAfter):
		debug.FreeOSMemory()
	}
}
