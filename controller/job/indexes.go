package job

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// indexes is a set of completion indexes.
type indexes map[int]bool

// parseIndexes reads "1,3-5". What it cannot read, or is not below limit, it leaves out.
func parseIndexes(s string, limit int) indexes {
	out := indexes{}
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(lo)
		if err != nil {
			continue
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(hi); err != nil {
				continue
			}
		}
		for i := a; i <= b && i < limit; i++ {
			out[i] = true
		}
	}
	return out
}

// String writes the set in the form parseIndexes reads. A run of three or more becomes a range.
func (x indexes) String() string {
	var parts []string
	list := slices.Sorted(maps.Keys(x))
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		switch j - i {
		case 0:
			parts = append(parts, strconv.Itoa(list[i]))
		case 1:
			parts = append(parts, strconv.Itoa(list[i]), strconv.Itoa(list[j]))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", list[i], list[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}

func indexOf(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil {
		return -1
	}
	return n
}

func failureCount(p *corev1.Pod) int {
	n, err := strconv.Atoi(p.Annotations[batchv1.JobIndexFailureCountAnnotation])
	if err != nil {
		return 0
	}
	return n
}

// successRule returns which rule of the success policy the completed indexes meet, or -1.
func successRule(policy *batchv1.SuccessPolicy, done indexes, limit int) int {
	if policy == nil {
		return -1
	}
	for i, r := range policy.Rules {
		match := len(done)
		if r.SucceededIndexes != nil {
			want := parseIndexes(*r.SucceededIndexes, limit)
			match = 0
			for k := range want {
				if done[k] {
					match++
				}
			}
			if r.SucceededCount == nil && match == len(want) && match > 0 {
				return i
			}
		}
		if r.SucceededCount != nil && match >= int(*r.SucceededCount) {
			return i
		}
	}
	return -1
}

// verdict is what the failure policy says about a failed pod.
type verdict struct {
	action  batchv1.PodFailurePolicyAction
	message string
}

// judge applies the failure policy; without a matching rule the failure counts.
func judge(policy *batchv1.PodFailurePolicy, p *corev1.Pod) verdict {
	if policy == nil || p.Status.Phase != corev1.PodFailed {
		return verdict{action: batchv1.PodFailurePolicyActionCount}
	}
	for i, r := range policy.Rules {
		if r.OnExitCodes != nil {
			if c, code, ok := exitMatches(r.OnExitCodes, p); ok {
				return verdict{r.Action, fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d matching %s rule at index %d", c, p.Namespace, p.Name, code, r.Action, i)}
			}
		}
		for _, want := range r.OnPodConditions {
			for _, c := range p.Status.Conditions {
				if c.Type == want.Type && c.Status == want.Status {
					return verdict{r.Action, fmt.Sprintf("Pod %s/%s has condition %s matching %s rule at index %d", p.Namespace, p.Name, c.Type, r.Action, i)}
				}
			}
		}
	}
	return verdict{action: batchv1.PodFailurePolicyActionCount}
}

func exitMatches(r *batchv1.PodFailurePolicyOnExitCodesRequirement, p *corev1.Pod) (container string, code int32, ok bool) {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for _, c := range list {
			t := c.State.Terminated
			if t == nil || t.ExitCode == 0 || r.ContainerName != nil && *r.ContainerName != c.Name {
				continue
			}
			if slices.Contains(r.Values, t.ExitCode) == (r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return c.Name, t.ExitCode, true
			}
		}
	}
	return "", 0, false
}
