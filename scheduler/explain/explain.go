// Package explain turns the reasons of the filters into the sentence that people read in a FailedScheduling event and in
// a pod's PodScheduled condition. It is pure.
package explain

import (
	"fmt"
	"sort"
	"strings"

	"karve/scheduler/filter"
)

// Refusal is what the filters said about one node.
type Refusal struct {
	Node    string
	Plugin  string
	Reasons []filter.Reason
}

// Message says why none of total nodes will do.
func Message(total int, refusals []Refusal) string {
	if total == 0 {
		return "no nodes available to schedule pods"
	}
	counts, preempt := map[string]int{}, map[string]int{}
	for i := range refusals {
		helps := true
		for _, r := range refusals[i].Reasons {
			counts[r.Text]++
			helps = helps && !r.Unresolvable
		}
		if helps {
			preempt["No preemption victims found for incoming pod"]++
		} else {
			preempt["Preemption is not helpful for scheduling"]++
		}
	}
	return fmt.Sprintf("0/%d nodes are available: %s. no new claims to deallocate, preemption: 0/%d nodes are available: %s.", total, join(counts), total, join(preempt))
}

func join(counts map[string]int) string {
	parts := make([]string, 0, len(counts))
	for text, n := range counts {
		parts = append(parts, fmt.Sprintf("%d %s", n, text))
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}
