// Package controller runs the control loops of the cluster: one folder below holds one controller, and Run runs those asked
// for over one set of shared caches, in one process at a time when leader election is on. cluster and cmd call it. It talks
// to the API through client alone, so it works against any conformant API server.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"karve/client"
	"karve/controller/certificate"
	"karve/controller/clusterrole"
	"karve/controller/daemonset"
	"karve/controller/deployment"
	"karve/controller/endpoints"
	"karve/controller/endpointslice"
	"karve/controller/garbagecollector"
	"karve/controller/job"
	"karve/controller/loop"
	"karve/controller/namespace"
	"karve/controller/nodeipam"
	"karve/controller/nodelifecycle"
	"karve/controller/podgc"
	"karve/controller/replicaset"
	"karve/controller/rootca"
	"karve/controller/serviceaccount"
	"karve/controller/statefulset"
)

// Options configure Run. Transport is the only one that must be set.
type Options struct {
	Transport client.Transport
	Log       *slog.Logger
	// Identity names this process in the election; LeaderElect turns the election on.
	Identity    string
	LeaderElect bool
	// Only selects controllers by name as --controllers does: "*" all that are on by default, "name" one, "-name" not this
	// one. Empty means "*".
	Only []string
	// ClusterCIDR is what node ranges are cut from, NodeCIDRMaskSize their size (0: /24, or /64 for IPv6). Without a
	// ClusterCIDR nodes get no range.
	ClusterCIDR      netip.Prefix
	NodeCIDRMaskSize int
	// RootCA is the PEM bundle published to every namespace; none is when it is empty.
	RootCA []byte
	// Signer issues certificates for approved requests; without one they are left alone.
	Signer certificate.Signer
	// Workers, when above 0, replaces each controller's own number of workers.
	Workers int
	// NodeMonitorGrace is how long a node may be silent before it counts as unknown (0: 40 s), and NodeMonitorPeriod how
	// often that is looked at (0: 5 s).
	NodeMonitorGrace, NodeMonitorPeriod time.Duration
	// TerminatedPodThreshold is how many finished pods are kept (0: 12,500).
	TerminatedPodThreshold int
}

// entry is one controller that can be switched on.
type entry struct {
	name string
	make func(*loop.Env, *Options) ([]*loop.Controller, error)
}

func simple(name string, fn func(*loop.Env) *loop.Controller) entry {
	return entry{name, func(e *loop.Env, _ *Options) ([]*loop.Controller, error) { return []*loop.Controller{fn(e)}, nil }}
}

// table lists the controllers, every one on by default.
var table = []entry{
	simple(replicaset.Name, replicaset.New),
	simple(replicaset.NameController, replicaset.NewReplicationController),
	simple(deployment.Name, deployment.New),
	simple(endpointslice.Name, endpointslice.New),
	simple(endpoints.Name, endpoints.New),
	simple(namespace.Name, namespace.New),
	simple(serviceaccount.Name, serviceaccount.New),
	simple(clusterrole.Name, clusterrole.New),
	simple(daemonset.Name, daemonset.New),
	simple(statefulset.Name, statefulset.New),
	simple(job.Name, job.New),
	simple(job.NameTTL, job.NewTTL),
	simple(garbagecollector.Name, garbagecollector.New),
	{nodelifecycle.Name, func(e *loop.Env, o *Options) ([]*loop.Controller, error) {
		return []*loop.Controller{nodelifecycle.New(e, nodelifecycle.Times{Grace: o.NodeMonitorGrace, Period: o.NodeMonitorPeriod})}, nil
	}},
	simple(nodelifecycle.NameTaint, nodelifecycle.NewTaint),
	{podgc.Name, func(e *loop.Env, o *Options) ([]*loop.Controller, error) {
		return []*loop.Controller{podgc.New(e, o.TerminatedPodThreshold)}, nil
	}},
	{rootca.Name, func(e *loop.Env, o *Options) ([]*loop.Controller, error) {
		if len(o.RootCA) == 0 {
			return nil, nil
		}
		return []*loop.Controller{rootca.New(e, o.RootCA)}, nil
	}},
	{certificate.Name, func(e *loop.Env, o *Options) ([]*loop.Controller, error) {
		if o.Signer == nil {
			return nil, nil
		}
		return []*loop.Controller{certificate.New(e, o.Signer)}, nil
	}},
	{nodeipam.Name, func(e *loop.Env, o *Options) ([]*loop.Controller, error) {
		if !o.ClusterCIDR.IsValid() {
			return nil, nil
		}
		c, err := nodeipam.New(e, o.ClusterCIDR, o.NodeCIDRMaskSize)
		return []*loop.Controller{c}, err
	}},
}

// Names returns the name of every controller.
func Names() (out []string) {
	for _, e := range table {
		out = append(out, e.name)
	}
	return out
}

// enabled interprets Options.Only.
func enabled(only []string, name string) bool {
	if len(only) == 0 {
		return true
	}
	if slices.Contains(only, name) {
		return true
	}
	if slices.Contains(only, "-"+name) {
		return false
	}
	return slices.Contains(only, "*")
}

// Check reports a selection that names no controller.
func Check(only []string) error {
	names := Names()
	for _, o := range only {
		if o != "*" && !slices.Contains(names, strings.TrimPrefix(o, "-")) {
			return fmt.Errorf("no controller is called %q; there are %s", o, strings.Join(names, ", "))
		}
	}
	return nil
}

// Run runs the controllers until ctx ends, and returns when all have stopped. With LeaderElect it first waits to become
// leader, and it returns an error when it stops being it: the caller should exit or call Run again.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Transport == nil {
		return errors.New("run controllers: no transport")
	}
	if err := Check(o.Only); err != nil {
		return err
	}
	if !o.LeaderElect {
		return run(ctx, &o)
	}
	if o.Identity == "" {
		return errors.New("run controllers: leader election needs an identity")
	}
	return Lead(ctx, o.Transport, o.Log, leaseName, o.Identity, func(ctx context.Context) error { return run(ctx, &o) })
}

func run(ctx context.Context, o *Options) error {
	env := loop.NewEnv(o.Transport, o.Log)
	var list []*loop.Controller
	for _, e := range table {
		if !enabled(o.Only, e.name) {
			continue
		}
		cs, err := e.make(env, o)
		if err != nil {
			return fmt.Errorf("make controller %s: %w", e.name, err)
		}
		for _, c := range cs {
			if o.Workers > 0 && c.Workers != 1 { // one worker is a promise, not a speed
				c.Workers = o.Workers
			}
			list = append(list, c)
		}
	}
	env.Run(ctx, list)
	return nil
}
