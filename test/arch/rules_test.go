package arch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// finding is one place that breaks a rule. at begins with the file or folder and may go on with ":line".
type finding struct {
	at, what string
}

func (t *tree) at(f *file, line int) string { return fmt.Sprintf("%s:%d", f.path, line) }

// rule is one rule of the house.
type rule struct {
	name string
	// why is the reason, and where says in which section of docs/rules.md the rule stands.
	why, where string
	check      func(*tree) []finding
	// bait is a tree that breaks the rule once at each of caught; what else is in it keeps the rule.
	bait   map[string]string
	caught []string
	// waived holds files or folders that the check is wrong about, with the reason. One that no longer matches fails.
	waived map[string]string
}

// TestRules checks the whole tree.
func TestRules(t *testing.T) {
	tr := checkout(t)
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			used := map[string]bool{}
			var bad []string
			for _, f := range r.check(tr) {
				place, _, _ := strings.Cut(f.at, ":")
				if _, ok := r.waived[place]; ok {
					used[place] = true
					continue
				}
				bad = append(bad, f.at+": "+f.what)
			}
			slices.Sort(bad)
			if len(bad) > 0 {
				t.Errorf("%d times:\n  %s\nwhy: %s\nthe rule: docs/rules.md, %q", len(bad), strings.Join(bad, "\n  "), r.why, r.where)
			}
			for place, reason := range r.waived {
				if !used[place] {
					t.Errorf("%s is waived (%s) but keeps the rule: take it off the list", place, reason)
				}
			}
		})
	}
}

// TestRulesBite runs every rule on its bait.
func TestRulesBite(t *testing.T) {
	doc := checkoutFile(t, "docs/rules.md")
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			if !strings.Contains(doc, "## "+r.where+"\n") {
				t.Errorf("docs/rules.md has no section %q", r.where)
			}
			tr, err := plant(r.bait)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range r.check(tr) {
				got = append(got, f.at)
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(r.caught))
			if len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("caught %q, want %q", got, want)
			}
		})
	}
}

func checkoutFile(tb testing.TB, path string) string {
	for _, f := range checkout(tb).files {
		if f.path == path {
			return f.text
		}
	}
	tb.Fatalf("%s is missing", path)
	return ""
}

func rules() []rule {
	return slices.Concat(importRules(), shapeRules(), pureRules(), textRules(), moduleRules(), documentRules())
}
