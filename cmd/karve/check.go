package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"karve/cluster/local"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Try out whether this machine can run a cluster",
		Args:  cobra.NoArgs,
	}
	name, dir := which(c)
	output := c.Flags().StringP("output", "o", "", "json, for programs")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *dir == "" {
			*dir = local.DefaultDir(*name)
		}
		all := local.Check(*dir)
		failed := 0
		for _, f := range all {
			if !f.OK {
				failed++
			}
		}
		if *output == "json" {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			if err := e.Encode(all); err != nil {
				return err
			}
		} else {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, f := range all {
				mark := "ok"
				if !f.OK {
					mark = "FAILED"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", mark, f.Name, f.Found)
				if !f.OK {
					fmt.Fprintf(w, "\t\tremedy: %s\n", f.Remedy)
				}
			}
			if err := w.Flush(); err != nil {
				return err
			}
		}
		if failed > 0 {
			return fmt.Errorf("%d of %d checks failed: each says above what to do", failed, len(all))
		}
		return nil
	}
	return c
}
