package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"karve/apiserver/resource"
	"karve/config"
	"karve/store"
	"karve/store/engine/etcd"
	"karve/store/engine/pebble"
)

// eventKeys is what the keys of events begin with.
const eventKeys = resource.Root + "events/"

// openEngine opens what the API server keeps its objects in: the etcd it shares with others if there is one, else a database
// below the data directory. In etcd events live for lifetime.
func openEngine(ctx context.Context, c *config.Config, lifetime time.Duration, log *slog.Logger) (store.Engine, error) {
	if len(c.Etcd.Servers) == 0 {
		return pebble.Open(filepath.Join(c.DataDir, "store"), log)
	}
	every, err := c.Etcd.Compaction()
	if err != nil {
		return nil, fmt.Errorf("etcd.compactionInterval: %w", err)
	}
	return etcd.Open(ctx, etcd.Options{Endpoints: c.Etcd.Servers, CAFile: c.Etcd.CAFile, CertFile: c.Etcd.CertFile, KeyFile: c.Etcd.KeyFile,
		Prefix: c.Etcd.Prefix, Root: resource.Root, CompactEvery: every, Log: log, TTL: func(key string) time.Duration {
			if strings.HasPrefix(key, eventKeys) {
				return lifetime
			}
			return 0
		}})
}

// ownExpiry is the lifetime of events that the API server has to see to, 0 where etcd's leases do.
func ownExpiry(c *config.Config, lifetime time.Duration) time.Duration {
	if len(c.Etcd.Servers) > 0 {
		return 0
	}
	return lifetime
}
