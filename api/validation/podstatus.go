package validation

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// podStatus judges what a kubelet reports.
func podStatus(o, old *corev1.Pod) errors {
	errs := annotationChanges(o, old, field.NewPath("metadata", "annotations"))
	for i, c := range o.Status.Conditions {
		switch c.Type {
		case corev1.PodScheduled, corev1.PodReady, corev1.PodInitialized:
		default:
			// upstream reports conditions under metadata
			errs = append(errs, qualifiedName(field.NewPath("metadata", "conditions").Index(i).Child("Type"), string(c.Type))...)
		}
	}
	p := field.NewPath("status")
	if n := o.Status.NominatedNodeName; n != "" && n != old.Status.NominatedNodeName {
		errs = append(errs, invalid(p.Child("nominatedNodeName"), n, subdomain(n, false))...)
	}
	errs = append(errs, immutable(p.Child("qosClass"), o.Status.QOSClass, old.Status.QOSClass)...)
	for _, l := range containerStatuses(o, old) {
		at := p.Child(l.name)
		errs = append(errs, stayTerminated(l.is, l.was, l.restarts, at)...)
		errs = append(errs, statusUsers(l.is, o.Spec.OS, at)...)
		if l.name == "ephemeralContainerStatuses" {
			for i := range l.is {
				if len(l.is[i].AllocatedResourcesStatus) > 0 {
					errs = append(errs, field.Forbidden(at.Index(i).Child("allocatedResourcesStatus"), "must not be specified in container status"))
				}
			}
			continue
		}
		errs = append(errs, allocatedStatus(l.is, l.containers, at)...)
	}
	errs = append(errs, claimStatuses(o, p.Child("resourceClaimStatuses"))...)
	pods := make([]string, len(o.Status.PodIPs))
	for i := range pods {
		pods[i] = o.Status.PodIPs[i].IP
	}
	errs = append(errs, statusIPs(pods, o.Status.PodIPs, p.Child("podIPs"))...)
	hosts := make([]string, len(o.Status.HostIPs))
	for i := range hosts {
		hosts[i] = o.Status.HostIPs[i].IP
	}
	if len(hosts) > 0 && o.Status.HostIP != hosts[0] {
		errs = append(errs, field.Invalid(p.Child("hostIPs").Index(0).Child("ip"), hosts[0], "must be equal to `hostIP`"))
	}
	return append(errs, statusIPs(hosts, o.Status.HostIPs, p.Child("hostIPs"))...)
}

// statusList is one of the three lists of container statuses, with what its containers are.
type statusList struct {
	name       string
	is, was    []corev1.ContainerStatus
	containers []corev1.Container
	// restarts says whether a container that ended with this code may run again.
	restarts func(name string, exit int32) bool
}

func containerStatuses(o, old *corev1.Pod) []statusList {
	within := func(list []corev1.Container) func(string, int32) bool {
		return func(name string, exit int32) bool {
			for i := range list {
				if list[i].Name == name {
					return restartable(&list[i], old.Spec.RestartPolicy, exit)
				}
			}
			return restartsAfter(old.Spec.RestartPolicy, exit)
		}
	}
	return []statusList{
		{"containerStatuses", o.Status.ContainerStatuses, old.Status.ContainerStatuses, o.Spec.Containers, within(old.Spec.Containers)},
		{"initContainerStatuses", o.Status.InitContainerStatuses, old.Status.InitContainerStatuses, o.Spec.InitContainers, within(old.Spec.InitContainers)},
		{"ephemeralContainerStatuses", o.Status.EphemeralContainerStatuses, old.Status.EphemeralContainerStatuses, nil, func(string, int32) bool { return false }},
	}
}

func restartsAfter(p corev1.RestartPolicy, exit int32) bool {
	return p == corev1.RestartPolicyAlways || p == corev1.RestartPolicyOnFailure && exit != 0
}

// restartable applies the container's own rules and policy before the pod's.
func restartable(c *corev1.Container, pod corev1.RestartPolicy, exit int32) bool {
	if c.RestartPolicy == nil {
		return restartsAfter(pod, exit)
	}
	for _, r := range c.RestartPolicyRules {
		if r.ExitCodes != nil && slices.Contains(r.ExitCodes.Values, exit) == (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return true
		}
	}
	return restartsAfter(corev1.RestartPolicy(*c.RestartPolicy), exit)
}

// stayTerminated refuses to bring a container back to life that its pod will not start again.
func stayTerminated(list, was []corev1.ContainerStatus, restarts func(string, int32) bool, p *field.Path) errors {
	var errs errors
	for i := range was {
		t := was[i].State.Terminated
		if t == nil || restarts(was[i].Name, t.ExitCode) {
			continue
		}
		for j := range list {
			if list[j].Name == was[i].Name && list[j].State.Terminated == nil {
				errs = append(errs, field.Forbidden(p.Index(i).Child("state"), "may not be transitioned to non-terminated state"))
			}
		}
	}
	return errs
}

func statusUsers(list []corev1.ContainerStatus, os *corev1.PodOS, p *field.Path) errors {
	var errs errors
	for i := range list {
		if list[i].User == nil || list[i].User.Linux == nil {
			continue
		}
		u, at := list[i].User.Linux, p.Index(i).Child("linux")
		if os != nil && os.Name == corev1.Windows {
			errs = append(errs, field.Forbidden(at, "cannot be set for a windows pod"))
			continue
		}
		errs = append(errs, userID(at.Child("uid"), &u.UID)...)
		errs = append(errs, groupID(at.Child("gid"), &u.GID)...)
		for g := range u.SupplementalGroups {
			errs = append(errs, groupID(at.Child("supplementalGroups").Index(g), &u.SupplementalGroups[g])...)
		}
	}
	return errs
}

// allocatedStatus checks the health of devices: of resources the container asks for, each device once.
func allocatedStatus(list []corev1.ContainerStatus, containers []corev1.Container, p *field.Path) errors {
	var errs errors
	for i := range list {
		at := p.Index(i).Child("allocatedResourcesStatus")
		k := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == list[i].Name })
		for j, a := range list[i].AllocatedResourcesStatus {
			if k >= 0 {
				errs = append(errs, asksFor(&containers[k], a.Name, at.Index(j).Child("name"))...)
			}
			seen := sets.New[corev1.ResourceID]()
			for n, r := range a.Resources {
				q := at.Index(j).Child("resources").Index(n)
				errs = append(errs, oneOf(q.Child("health"), r.Health, corev1.ResourceHealthStatusHealthy, corev1.ResourceHealthStatusUnhealthy, corev1.ResourceHealthStatusUnknown)...)
				if seen.Has(r.ResourceID) {
					errs = append(errs, field.Duplicate(q.Child("resourceID"), r.ResourceID))
				}
				seen.Insert(r.ResourceID)
			}
		}
	}
	return errs
}

func asksFor(c *corev1.Container, name corev1.ResourceName, p *field.Path) errors {
	if !strings.HasPrefix(string(name), "claim:") {
		if _, ok := c.Resources.Requests[name]; ok {
			return nil
		}
		return errors{field.Invalid(p, name, "must match one of the container's resource requests")}
	}
	for _, claim := range c.Resources.Claims {
		want := "claim:" + claim.Name
		if claim.Request != "" {
			want += "/" + claim.Request
		}
		if want == string(name) {
			return nil
		}
	}
	return errors{field.Invalid(p, name, "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty")}
}

func claimStatuses(o *corev1.Pod, p *field.Path) errors {
	var errs errors
	seen := sets.New[string]()
	for i, s := range o.Status.ResourceClaimStatuses {
		at := p.Index(i).Child("name")
		if !slices.ContainsFunc(o.Spec.ResourceClaims, func(c corev1.PodResourceClaim) bool { return c.Name == s.Name }) {
			errs = append(errs, field.Invalid(at, s.Name, "must match the name of an entry in `spec.resourceClaims`"))
		}
		if seen.Has(s.Name) {
			errs = append(errs, field.Duplicate(at, s.Name))
		}
		seen.Insert(s.Name)
		if n := s.ResourceClaimName; n != nil {
			errs = append(errs, invalid(at, n, subdomain(*n, false))...)
		}
	}
	return errs
}

// statusIPs checks a list of addresses: two at most, one of each family.
func statusIPs(list []string, value any, p *field.Path) errors {
	var errs errors
	for i, ip := range list {
		errs = append(errs, validation.IsValidIPForLegacyField(p.Index(i), ip, false, nil)...)
	}
	if len(list) < 2 {
		return errs
	}
	if len(errs) > 0 {
		errs = append(errs, field.InternalError(p, fmt.Errorf("failed to check for dual stack with error:%w", badAddress(list))))
	}
	if len(errs) > 0 || len(list) > 2 || sameFamily(list) {
		errs = append(errs, field.Invalid(p, value, "may specify no more than one IP for each IP family"))
	}
	for i, ip := range list {
		if slices.Contains(list[:i], ip) {
			errs = append(errs, field.Duplicate(p.Index(i), value))
		}
	}
	return errs
}

func badAddress(list []string) error {
	for i, ip := range list {
		if len(validation.IsValidIPForLegacyField(nil, ip, false, nil)) > 0 {
			return fmt.Errorf("invalid IP[%d]: %v", i, ip)
		}
	}
	return nil
}
