package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
)

// wait polls until done, and fails early when one of the processes ends.
func wait(ctx context.Context, procs []*process, what string, done func() (bool, string)) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		ok, why := done()
		if ok {
			return nil
		}
		for _, p := range procs {
			select {
			case <-p.done:
				return p.failure()
			default:
			}
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("waited in vain until %s (%s): look into %s", what, why, filepath.Dir(procs[0].log))
			}
			return fmt.Errorf("interrupted before %s: run karve up again to go on, or karve down", what)
		case <-tick.C:
		}
	}
}

// notReady counts the nodes that are not Ready and says what is wrong with the first of them. A node whose process was
// restarted counts only when it has renewed its lease since: until then its status speaks of the process before.
func (s *State) notReady(ctx context.Context, api client.Transport, restarted map[string]bool, since time.Time) (int, string) {
	nodes, _, err := client.Of[*corev1.Node](api).List(ctx, "", metav1.ListOptions{})
	if err != nil {
		return len(s.Nodes), err.Error()
	}
	missing, why := 0, ""
	for _, n := range s.Nodes {
		w := readiness(n.Name, nodes)
		if w == "" && restarted[n.Name] {
			l, err := client.Of[*coordv1.Lease](api).Get(ctx, corev1.NamespaceNodeLease, n.Name)
			if err != nil || l.Spec.RenewTime == nil || l.Spec.RenewTime.Time.Before(since) {
				w = n.Name + " has not reported since it was restarted"
			}
		}
		if w != "" {
			missing++
			if why == "" {
				why = w
			}
		}
	}
	return missing, why
}

func readiness(name string, nodes []*corev1.Node) string {
	for _, n := range nodes {
		if n.Name != name {
			continue
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				if c.Status == corev1.ConditionTrue {
					return ""
				}
				return name + ": " + c.Message
			}
		}
		return name + " has not reported"
	}
	return name + " has not joined"
}
