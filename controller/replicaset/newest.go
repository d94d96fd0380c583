package replicaset

import (
	"sync"

	"karve/client"
)

// newestOf keeps the object of the highest revision of many answers that arrive in parallel.
type newestOf[T client.Object] struct {
	mu  sync.Mutex
	rev uint64
	obj T
}

func (n *newestOf[T]) see(o T) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := client.Revision(o.GetResourceVersion()); r > n.rev {
		n.rev, n.obj = r, o
	}
}

func (n *newestOf[T]) get() T {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.obj
}
