// Package clients holds the proof that the client libraries people use cannot tell karve from another API server: client-go's
// informers, leader election, dynamic, metadata, typed and scale clients, event recorders and discovery, and
// controller-runtime's manager and envtest. `make test` runs it; nothing imports it. It is a module of its own, so that karve
// itself depends on none of these libraries. It runs the built program (KARVE, or bin/karve) and owns the API servers it
// starts, each on a loopback port with a data directory of its own; it knows nothing of the code's inside.
package clients
