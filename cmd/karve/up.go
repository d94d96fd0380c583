package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"karve/cluster/local"
)

func upCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster on this machine, or bring it back to life",
		Long: "Start a cluster on this machine and wait until every node is Ready. Nodes are network, mount and cgroup namespaces\n" +
			"behind one bridge; the API and the published ports are on 127.0.0.1. The cluster is entered in your kubeconfig.\n" +
			"On a cluster that is there already, up starts what has stopped and adds the nodes that are missing.",
		Example: "  sudo karve up\n  sudo karve up --nodes 3 --publish 8080:30080",
		Args:    cobra.NoArgs,
	}
	name, dir := which(c)
	nodes := c.Flags().Int("nodes", 0, "how many nodes (default 1)")
	publish := c.Flags().StringSlice("publish", nil, "HOST:NODEPORT, a port of 127.0.0.1 that leads to a NodePort; /udp may follow")
	timeout := c.Flags().Duration("timeout", 2*time.Minute, "how long to wait for the nodes")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		o := local.UpOptions{Name: *name, Dir: *dir, Nodes: *nodes, Timeout: *timeout, Progress: local.NewProgress(os.Stderr)}
		if cmd.Flags().Changed("publish") {
			o.Publish = []local.Publish{}
		}
		if cmd.Flags().Changed("nodes") && *nodes < 1 {
			return fmt.Errorf("--nodes is %d: ask for at least one", *nodes)
		}
		for _, s := range *publish {
			p, err := local.ParsePublish(s)
			if err != nil {
				return fmt.Errorf("--publish: %w", err)
			}
			o.Publish = append(o.Publish, p)
		}
		started := time.Now()
		s, err := local.Up(cmd.Context(), o)
		if err != nil {
			return err
		}
		for _, p := range s.Publish {
			o.Progress.Line("127.0.0.1:%d leads to NodePort %d", p.Host, p.NodePort)
		}
		o.Progress.Line("The cluster %s is ready after %.2f s; kubectl speaks to it (context %s).", s.Name, time.Since(started).Seconds(), s.Kubeconfig.Context)
		return nil
	}
	return c
}
