package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"karve/apiserver/resource"
	"karve/store"
	"karve/store/engine/pebble"
)

func storeDump() *cobra.Command {
	c := &cobra.Command{Use: "dump DIR [KEY]", Short: "List what is stored, or show one object", Args: cobra.RangeArgs(1, 2),
		Long: "List what is stored below a key (all by default), or show the object that is stored under it. What Secrets hold is hidden.",
		Example: "  karve store dump /var/lib/karve/karve\n  karve store dump /var/lib/karve/karve /registry/pods/\n" +
			"  karve store dump /var/lib/karve/karve /registry/pods/default/web -o json"}
	output := c.Flags().StringP("output", "o", "", "yaml (default for an object) or json")
	secrets := c.Flags().Bool("show-secrets", false, "show what Secrets hold")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if *output != "" && *output != "json" && *output != "yaml" {
			return fmt.Errorf("--output %s is not known: give yaml or json", *output)
		}
		key := ""
		if len(args) == 2 {
			key = args[1]
			if !strings.HasPrefix(key, "/") {
				key = resource.Root + key
			}
		}
		e, err := pebble.OpenReadOnly(storeDir(args[0]))
		if err != nil {
			return err
		}
		defer e.Close()
		var list []listed
		var one *store.Mutation
		_, err = e.Load(cmd.Context(), func(k string, revision uint64, value []byte) error {
			if k == key {
				one = &store.Mutation{Key: k, Revision: revision, Value: value}
			}
			if strings.HasPrefix(k, key) {
				list = append(list, listed{k, revision, len(value)})
			}
			return nil
		})
		switch {
		case err != nil:
			return err
		case one != nil:
			return dumpObject(cmd, one, *output, *secrets)
		case len(list) == 0 && key != "":
			return fmt.Errorf("nothing is stored below %s: karve store dump %s lists the keys", key, args[0])
		}
		return dumpList(cmd, list, *output)
	}
	return c
}

// listed is a line of the list.
type listed struct {
	Key      string `json:"key"`
	Revision uint64 `json:"revision"`
	Bytes    int    `json:"bytes"`
}

func dumpList(cmd *cobra.Command, list []listed, output string) error {
	if output == "" {
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "KEY\tREVISION\tBYTES")
		total := 0
		for _, l := range list {
			fmt.Fprintf(w, "%s\t%d\t%d\n", l.Key, l.Revision, l.Bytes)
			total += l.Bytes
		}
		if err := w.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d records, %s\n", len(list), mib(int64(total)))
		return err
	}
	return printAs(cmd, list, output)
}

func printAs(cmd *cobra.Command, v any, output string) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil && output != "json" {
		b, err = yaml.JSONToYAML(b)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.TrimSpace(string(b)))
	return err
}

func dumpObject(cmd *cobra.Command, m *store.Mutation, output string, secrets bool) error {
	obj, err := resource.Attach(m.Key, m.Revision, m.Value)
	if err != nil {
		return fmt.Errorf("read %s: %w", m.Key, err)
	}
	b, err := json.Marshal(obj)
	if err != nil {
		return fmt.Errorf("read %s: %w", m.Key, err)
	}
	var tree map[string]any
	switch {
	case obj != nil:
		err = json.Unmarshal(b, &tree)
	case json.Unmarshal(m.Value, &tree) != nil:
		return fmt.Errorf("%s is of no kind that this karve knows: its %d bytes are not shown", m.Key, len(m.Value))
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", m.Key, err)
	}
	if !secrets && (tree["kind"] == "Secret" || strings.HasPrefix(m.Key, resource.Root+"secrets/")) {
		hide(tree)
	}
	return printAs(cmd, tree, output)
}

// hide replaces what a Secret holds by how much it is, wherever a copy of it may be.
func hide(tree map[string]any) {
	for _, field := range []string{"data", "stringData"} {
		data, _ := tree[field].(map[string]any)
		for k, v := range data {
			text, _ := v.(string)
			data[k] = fmt.Sprintf("(hidden, %d characters; --show-secrets shows it)", len(text))
		}
	}
	meta, _ := tree["metadata"].(map[string]any)
	notes, _ := meta["annotations"].(map[string]any)
	const applied = "kubectl.kubernetes.io/last-applied-configuration"
	if _, ok := notes[applied]; ok {
		notes[applied] = "(hidden; --show-secrets shows it)"
	}
}
