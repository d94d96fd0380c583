package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"karve/cluster/control"
	"karve/cluster/local"
	"karve/config"
	"karve/engine/image"
)

func imageCommand() *cobra.Command {
	c := &cobra.Command{Use: "image", Short: "Load, list, pull, remove and make images", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(imageLoad(), imageList(), imageRemove(), imagePull(), imagePack())
	return c
}

// node is one node an image command speaks to.
type node struct {
	name string
	*control.Client
}

// targets adds the flags that choose nodes, and returns a function that finds them.
func targets(c *cobra.Command) func() ([]node, error) {
	name, dir := which(c)
	only := c.Flags().StringSlice("node", nil, "only these nodes (default: all)")
	return func() ([]node, error) {
		names, sockets, err := local.Nodes(*name, *dir)
		if s := config.Default().ControlSocket(); err != nil && !c.Flags().Changed("name") {
			if _, serr := os.Stat(s); serr == nil { // no `karve up`, but a `karve server` or `karve agent` of this machine
				host, _ := os.Hostname()
				names, sockets, err = []string{host}, []string{s}, nil
			}
		}
		if err != nil {
			return nil, err
		}
		var out []node
		for i, n := range names {
			if len(*only) == 0 || slices.Contains(*only, n) {
				out = append(out, node{n, control.Dial(sockets[i])})
			}
		}
		if len(out) == 0 {
			return nil, fmt.Errorf("no node is called %s: there are %s", strings.Join(*only, ", "), strings.Join(names, ", "))
		}
		return out, nil
	}
}

// each runs fn on every node at once and joins what fails.
func each(nodes []node, fn func(n node) error) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			if err := fn(n); err != nil {
				errs[i] = fmt.Errorf("%s: %w", n.name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func imageLoad() *cobra.Command {
	c := &cobra.Command{Use: "load FILE…", Short: "Load image tarballs (docker save or OCI layout) into the nodes", Args: cobra.MinimumNArgs(1)}
	find := targets(c)
	c.RunE = func(cmd *cobra.Command, files []string) error {
		nodes, err := find()
		if err != nil {
			return err
		}
		for _, file := range files {
			err := each(nodes, func(n node) error {
				f, err := os.Open(file)
				if err != nil {
					return err
				}
				defer f.Close()
				names, err := n.Load(cmd.Context(), f)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", n.name, strings.Join(names, " "))
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	return c
}

func imageList() *cobra.Command {
	c := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List the images of the nodes", Args: cobra.NoArgs}
	find := targets(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		nodes, err := find()
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "NODE\tIMAGE\tID\tSIZE")
		for _, n := range nodes {
			list, err := n.List(cmd.Context())
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			for _, im := range list {
				for _, name := range append([]string(nil), im.Names...) {
					id := strings.TrimPrefix(im.ID, "sha256:")
					fmt.Fprintf(w, "%s\t%s\t%s\t%.1f MiB\n", n.name, name, id[:min(12, len(id))], float64(im.Size)/(1<<20))
				}
			}
		}
		return w.Flush()
	}
	return c
}

func imageRemove() *cobra.Command {
	c := &cobra.Command{Use: "rm IMAGE…", Short: "Remove images from the nodes", Args: cobra.MinimumNArgs(1)}
	find := targets(c)
	c.RunE = func(cmd *cobra.Command, names []string) error {
		nodes, err := find()
		if err != nil {
			return err
		}
		return each(nodes, func(n node) error {
			var errs []error
			for _, name := range names {
				errs = append(errs, n.Remove(cmd.Context(), name))
			}
			return errors.Join(errs...)
		})
	}
	return c
}

func imagePull() *cobra.Command {
	c := &cobra.Command{Use: "pull IMAGE…", Short: "Have the nodes fetch images from their registry", Args: cobra.MinimumNArgs(1)}
	find := targets(c)
	c.RunE = func(cmd *cobra.Command, names []string) error {
		nodes, err := find()
		if err != nil {
			return err
		}
		return each(nodes, func(n node) error {
			for _, name := range names {
				full, err := n.Pull(cmd.Context(), name)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", n.name, full)
			}
			return nil
		})
	}
	return c
}

func imagePack() *cobra.Command {
	c := &cobra.Command{
		Use:     "pack NAME FILE[:PATH]…",
		Short:   "Make an image tarball of files of this machine, without a base image",
		Example: "  karve image pack -o web.tar --entrypoint /web shop/web:v1 ./web",
		Args:    cobra.MinimumNArgs(2),
	}
	o := image.PackOptions{Files: map[string]string{}}
	out := c.Flags().StringP("output", "o", "image.tar", "file to write")
	c.Flags().StringSliceVar(&o.Entrypoint, "entrypoint", nil, "program and arguments that are run (default: the first file)")
	c.Flags().StringSliceVar(&o.Cmd, "cmd", nil, "arguments that follow, which a pod may replace")
	c.Flags().StringArrayVar(&o.Env, "env", nil, "NAME=value")
	c.Flags().StringVar(&o.WorkingDir, "workdir", "", "directory it is run in")
	c.Flags().StringVar(&o.User, "user", "", "UID[:GID] it is run as")
	c.Flags().StringSliceVar(&o.Dirs, "dir", nil, "empty directories to make")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		o.Name = args[0]
		for i, a := range args[1:] {
			file, path, ok := strings.Cut(a, ":")
			if !ok {
				path = "/" + file[strings.LastIndexByte(file, '/')+1:]
			}
			o.Files[path] = file
			if i == 0 && len(o.Entrypoint) == 0 {
				o.Entrypoint = []string{path}
			}
		}
		return image.Pack(*out, o)
	}
	return c
}
