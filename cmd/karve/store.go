package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"karve/store"
	"karve/store/archive"
	"karve/store/engine/pebble"
)

func storeCommand() *cobra.Command {
	c := &cobra.Command{Use: "store", Short: "Look into the data directory of a stopped server, and repair it", Args: cobra.NoArgs,
		Long: "Look into the data directory of a server that does not run, and repair it.\n\n" +
			"DIR is what the server is given as --data, or the store in it.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(storeCheck(), storeDump(), storeCompact(), storeExport(), storeImport())
	return c
}

// storeDir finds the store in what the user names.
func storeDir(dir string) string {
	if sub := filepath.Join(dir, "store"); isDir(sub) {
		return sub
	}
	return dir
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func storeCheck() *cobra.Command {
	c := &cobra.Command{Use: "check DIR", Short: "Read everything and say what is damaged", Args: cobra.ExactArgs(1),
		Example: "  karve store check /var/lib/karve/karve\n  karve store check /var/lib/karve/karve --salvage /var/lib/karve/saved"}
	output := c.Flags().StringP("output", "o", "", "json, for programs")
	into := c.Flags().String("salvage", "", "new directory to write a sound store to, of what can be read")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if *output != "" && *output != "json" {
			return fmt.Errorf("--output %s is not known: leave it out, or give json", *output)
		}
		dir := storeDir(args[0])
		if *into != "" {
			return salvage(cmd, dir, *into)
		}
		report, err := pebble.Check(cmd.Context(), dir)
		if err != nil {
			return err
		}
		if *output == "json" {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			if err := e.Encode(report); err != nil {
				return err
			}
		} else {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d files, %s; %d records, %s, at revision %d\n", dir, report.Files, mib(report.Bytes), report.Records,
				mib(report.RecordBytes), report.Revision)
			for _, p := range report.Problems {
				fmt.Fprintln(cmd.OutOrStdout(), "damaged:", p)
			}
		}
		if len(report.Problems) == 0 {
			return nil
		}
		saved, err := pebble.Salvage(cmd.Context(), dir)
		if err != nil {
			return err
		}
		return fmt.Errorf("the store is damaged: %d records can be read from its files. Restore a backup, or save those with: karve store check %s --salvage NEW-DIR",
			len(saved.Records), args[0])
	}
	return c
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func salvage(cmd *cobra.Command, dir, into string) error {
	if err := mustBeNew(into); err != nil {
		return err
	}
	saved, err := pebble.Salvage(cmd.Context(), dir)
	if err != nil {
		return err
	}
	for _, n := range saved.Notes {
		fmt.Fprintln(cmd.OutOrStdout(), "note:", n)
	}
	if len(saved.Records) == 0 {
		return fmt.Errorf("nothing in %s can be read: restore a backup", dir)
	}
	i := 0
	if err := fill(into, saved.Revision, func() (store.Mutation, error) {
		if i == len(saved.Records) {
			return store.Mutation{}, io.EOF
		}
		i++
		return saved.Records[i-1], nil
	}); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%d records written to %s, at revision %d. To use them put it in the place of %s, and keep that one.\n",
		len(saved.Records), into, saved.Revision, dir)
	return nil
}

func mustBeNew(dir string) error {
	files, err := os.ReadDir(dir)
	if err == nil && len(files) > 0 {
		return fmt.Errorf("%s is not empty: give a new directory", dir)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func fill(dir string, last uint64, next func() (store.Mutation, error)) error {
	e, err := pebble.Open(dir, nil)
	if err != nil {
		return err
	}
	return errors.Join(e.Fill(last, next), e.Close())
}

func storeCompact() *cobra.Command {
	c := &cobra.Command{Use: "compact DIR", Short: "Give disk space back that replaced and deleted records still take", Args: cobra.ExactArgs(1)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		dir := storeDir(args[0])
		if _, err := pebble.Check(cmd.Context(), dir); err != nil { // it says if there is nothing, or somebody uses it
			return err
		}
		e, err := pebble.Open(dir, nil)
		if err != nil {
			return err
		}
		before, after, err := e.Compact(cmd.Context())
		if err := errors.Join(err, e.Close()); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s before, %s after\n", dir, mib(before), mib(after))
		return nil
	}
	return c
}

func storeExport() *cobra.Command {
	c := &cobra.Command{Use: "export DIR FILE", Short: "Write all records to one portable file, with a checksum (it holds every Secret)", Args: cobra.ExactArgs(2)}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		e, err := pebble.OpenReadOnly(storeDir(args[0]))
		if err != nil {
			return err
		}
		defer e.Close()
		// Secrets are in it: nobody else may read it, and nothing is overwritten.
		f, err := os.OpenFile(args[1], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("make the file: %w", err)
		}
		count, last, err := export(cmd.Context(), e, f)
		if err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return errors.Join(fmt.Errorf("export: %w", err), os.Remove(args[1]))
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d records at revision %d written to %s. It holds Secrets: keep it as you keep those.\n", count, last, args[1])
		return nil
	}
	return c
}

func export(ctx context.Context, e store.Engine, w io.Writer) (count int, last uint64, err error) {
	a, err := archive.NewWriter(w)
	if err != nil {
		return 0, 0, err
	}
	last, err = e.Load(ctx, func(key string, revision uint64, value []byte) error {
		count++
		return a.Add(key, revision, value)
	})
	if err != nil {
		return count, 0, err
	}
	return count, last, a.Close(last)
}

func storeImport() *cobra.Command {
	c := &cobra.Command{Use: "import DIR FILE", Short: "Make a new store of an exported file", Args: cobra.ExactArgs(2),
		Long: "Make a new store of a file that `karve store export` wrote. DIR must be new, or a data directory without a store."}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		dir := args[0]
		if entries, err := os.ReadDir(dir); err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "pki" }) {
			dir = filepath.Join(dir, "store") // the data directory of a server that lost its store
		}
		if err := mustBeNew(dir); err != nil {
			return err
		}
		count, last, err := importFile(args[1], func(store.Mutation) error { return nil })
		if err != nil {
			return fmt.Errorf("read %s: %w", args[1], err)
		}
		f, err := os.Open(args[1])
		if err != nil {
			return err
		}
		defer f.Close()
		r, err := archive.NewReader(f)
		if err != nil {
			return fmt.Errorf("read %s: %w", args[1], err)
		}
		if err := fill(dir, last, r.Next); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d records written to %s, at revision %d\n", count, dir, last)
		return nil
	}
	return c
}

// importFile reads a file to its end, which proves that it is whole.
func importFile(path string, fn func(store.Mutation) error) (count, last uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	r, err := archive.NewReader(f)
	if err != nil {
		return 0, 0, err
	}
	for {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Count(), r.Last(), nil
		}
		if err != nil {
			return 0, 0, err
		}
		if err := fn(m); err != nil {
			return 0, 0, err
		}
	}
}
