package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"karve/cluster/local"
)

func statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the nodes, components and processes of a cluster of this machine",
		Args:  cobra.NoArgs,
	}
	name, dir := which(c)
	output := c.Flags().StringP("output", "o", "", "json, for programs")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output != "" && *output != "json" {
			return fmt.Errorf("--output is %q: only json is known", *output)
		}
		r, err := local.Status(cmd.Context(), *name, *dir)
		if err != nil {
			return err
		}
		if *output == "json" {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			err = e.Encode(r)
		} else {
			err = printStatus(cmd.OutOrStdout(), r)
		}
		if err == nil && !r.Healthy {
			err = fmt.Errorf("the cluster %s is not well: karve up starts what has stopped, %s/logs tells why it did", r.Name, r.Dir)
		}
		return err
	}
	return c
}

func printStatus(out io.Writer, r *local.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "Cluster\t%s\nAPI\t%s\nContext\t%s in %s\nData\t%s\nFabric\t%s\n", r.Name, r.API, r.Context, r.Config, r.Dir, r.Subnet)
	for _, p := range r.Publish {
		fmt.Fprintf(w, "Published\t127.0.0.1:%d/%s to NodePort %d\n", p.Host, p.Protocol, p.NodePort)
	}
	if r.Problem != "" {
		fmt.Fprintf(w, "Problem\t%s\n", r.Problem)
	}
	fmt.Fprintf(w, "\nNODE\tREADY\tADDRESS\tVERSION\tPID\tCOMPONENTS\n")
	for _, n := range r.Nodes {
		ready := "yes"
		if !n.Ready {
			ready = "no"
		}
		var parts []string
		for _, c := range n.Components {
			s := c.Name
			if !c.Healthy {
				s += " (" + c.Message + ")"
			}
			parts = append(parts, s)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, ready, n.IP, dash(n.Version), dash(number(n.PID)), dash(strings.Join(parts, " ")))
		if n.Problem != "" {
			fmt.Fprintf(w, "\t%s\n", n.Problem)
		}
	}
	fmt.Fprintf(w, "\nPID\tPROCESS\tNODE\tMEMORY\tCGROUP\n")
	for _, p := range r.Processes {
		fmt.Fprintf(w, "%d\t%s\t%s\t%.1f MiB\t%s\n", p.PID, p.Name, p.Node, float64(p.Memory)/(1<<20), p.Cgroup)
	}
	fmt.Fprintf(w, "%d processes\t\t\t%.1f MiB\t\n", len(r.Processes), float64(r.Memory)/(1<<20))
	return w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
