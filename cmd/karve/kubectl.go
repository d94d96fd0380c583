package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

func kubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl …",
		Short:              "Run the kubectl that was built with karve",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			// A program of its own: what it loads at start would be paid by every start of karve.
			dir := filepath.Dir(exe)
			path := filepath.Join(dir, "kubectl")
			if _, err := os.Stat(path); err != nil { // installed, it keeps out of the way of a kubectl of the user's
				path = filepath.Join(dir, "..", "lib", "karve", "kubectl")
			}
			if err := syscall.Exec(path, append([]string{"kubectl"}, args...), os.Environ()); err != nil {
				return fmt.Errorf("run %s: %w: build it with make build", path, err)
			}
			return nil
		},
	}
}
