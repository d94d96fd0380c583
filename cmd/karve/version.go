package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// apiLevel is the Kubernetes version whose API is served.
const apiLevel = "v1.36"

func versionCommand() *cobra.Command {
	c := &cobra.Command{Use: "version", Short: "Show the version of karve", Args: cobra.NoArgs}
	output := c.Flags().StringP("output", "o", "", "json, for programs")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output == "json" {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"version": version, "kubernetes": apiLevel,
				"go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "karve %s (Kubernetes %s, %s, %s/%s)\n", version, apiLevel, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	}
	return c
}
