package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"karve/cluster"
	"karve/config"
)

// part is a command that runs some components until it is told to stop.
type part struct {
	use, short string
	components config.Components
}

var parts = []part{
	{"server", "Run a whole node with the control plane", config.Server()},
	{"agent", "Run a node that joins a control plane", config.Agent()},
	{"apiserver", "Run the API server with its store", config.Components{APIServer: true}},
	{"controllers", "Run the controllers", config.Components{Controllers: true}},
	{"scheduler", "Run the scheduler", config.Components{Scheduler: true}},
	{"kubelet", "Run the kubelet with the container engine", config.Components{Kubelet: true}},
	{"proxy", "Run the Service proxy", config.Components{Proxy: true}},
	{"dns", "Run the cluster's name server", config.Components{DNS: true}},
}

func partCommands() []*cobra.Command {
	var out []*cobra.Command
	for _, p := range parts {
		out = append(out, partCommand(p))
	}
	return out
}

func partCommand(p part) *cobra.Command {
	c := &cobra.Command{Use: p.use, Short: p.short, Args: cobra.NoArgs}
	flags := config.BindFlags(c.Flags())
	kubeconfig := c.Flags().String("kubeconfig", "", "the same as --join-kubeconfig")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *kubeconfig != "" {
			if err := cmd.Flags().Set("join-kubeconfig", *kubeconfig); err != nil {
				return err
			}
		}
		base := config.Default()
		base.Components = p.components
		conf, err := config.Load(base, os.Environ(), flags)
		if err != nil {
			return err
		}
		if err := conf.Complete(); err != nil {
			return err
		}
		if err := conf.Validate(); err != nil {
			return fmt.Errorf("the configuration has mistakes:\n%w", err)
		}
		closeOnExec()
		cluster.Version = version
		return cluster.Run(cmd.Context(), conf, logger(conf.Log))
	}
	return c
}

func logger(l config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(strings.ToUpper(l.Level))) // validated before
	o := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

// closeOnExec keeps descriptors that were passed to us, such as the host's network namespace, from programs we start.
func closeOnExec() {
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, f := range fds {
		if n, err := strconv.Atoi(filepath.Base(f)); err == nil && n > 2 {
			unix.CloseOnExec(n)
		}
	}
}
