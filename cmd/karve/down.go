package main

import (
	"os"

	"github.com/spf13/cobra"

	"karve/cluster/local"
)

func downCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "down",
		Short: "Remove a cluster of this machine without a trace",
		Args:  cobra.NoArgs,
	}
	name, dir := which(c)
	keep := c.Flags().Bool("keep-data", false, "leave the data directory, so that karve up brings the same cluster back")
	c.RunE = func(*cobra.Command, []string) error {
		return local.Down(local.DownOptions{Name: *name, Dir: *dir, KeepData: *keep, Progress: local.NewProgress(os.Stderr)})
	}
	return c
}
