// Command karve is the whole program: a cluster on this machine (up, down, status, check, image), the parts of one as
// services (server, agent, and each by itself), and the way to kubectl. A command here reads its flags and calls one
// package; nothing is decided in this folder.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the Makefile.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "karve:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "karve",
		Short:         "Kubernetes as one small program",
		Long:          "karve is Kubernetes as one small program.\n\nStart with: sudo karve check, sudo karve up, karve kubectl get nodes.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("there is no command %q: karve --help lists them", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %s --help lists the flags", err, cmd.CommandPath())
	})
	c.AddGroup(&cobra.Group{ID: "local", Title: "A cluster on this machine:"}, &cobra.Group{ID: "parts", Title: "The parts, as services:"})
	for _, sub := range []*cobra.Command{upCommand(), downCommand(), statusCommand(), checkCommand(), imageCommand(), kubectlCommand()} {
		sub.GroupID = "local"
		c.AddCommand(sub)
	}
	for _, sub := range partCommands() {
		sub.GroupID = "parts"
		c.AddCommand(sub)
	}
	c.AddCommand(storeCommand(), versionCommand())
	return c
}

// which adds the flags that say which local cluster is meant.
func which(c *cobra.Command) (name, dir *string) {
	name = c.Flags().String("name", "karve", "name of the cluster")
	dir = c.Flags().String("data", "", "data directory (default /var/lib/karve/NAME)")
	return name, dir
}
