// Package cluster holds the acceptance tests: what somebody types, bin/karve and kubectl, on clusters of this machine made
// with `karve up`. `make test` runs it as root after `make build`; nothing imports it. It owns the clusters it starts, each
// with a name, a data directory and a kubeconfig of its own, and takes them down again. It asks nothing of the code's
// inside: whatever it needs to know it asks the API, the command line or the kernel.
package cluster
