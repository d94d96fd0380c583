package validation

import (
	"fmt"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func hugePages(n corev1.ResourceName) bool {
	return strings.HasPrefix(string(n), corev1.ResourceHugePagesPrefix)
}

func native(n corev1.ResourceName) bool {
	return !strings.Contains(string(n), "/") || strings.Contains(string(n), corev1.ResourceDefaultNamespacePrefix)
}

func extended(n corev1.ResourceName) bool {
	if native(n) || strings.HasPrefix(string(n), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(n))) == 0
}

func containerStandard(n corev1.ResourceName) bool {
	return n == corev1.ResourceCPU || n == corev1.ResourceMemory || n == corev1.ResourceEphemeralStorage || hugePages(n)
}

func overcommits(n corev1.ResourceName) bool { return native(n) && !hugePages(n) }

// containerResourceName checks a name at its own key.
func containerResourceName(n corev1.ResourceName, p *field.Path) errors {
	errs := resourceName(n, p)
	if !strings.Contains(string(n), "/") {
		if !containerStandard(n) {
			errs = append(errs, field.Invalid(p, n, "must be a standard resource for containers"))
		}
	} else if len(errs) == 0 && !native(n) && !extended(n) {
		errs = append(errs, field.Invalid(p, n, "doesn't follow extended resource name standard"))
	}
	return errs
}

var standardResources = sets.New("cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
	"pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps", "persistentvolumeclaims", "storage", "requests.storage", "services.nodeports", "services.loadbalancers")

func standard(n corev1.ResourceName) bool {
	return standardResources.Has(string(n)) || strings.HasPrefix(string(n), "requests.hugepages-") || hugePages(n)
}

func resourceName(n corev1.ResourceName, p *field.Path) errors {
	if errs := qualifiedName(p, string(n)); len(errs) > 0 {
		return errs
	}
	if !strings.Contains(string(n), "/") && !standard(n) {
		return errors{field.Invalid(p, n, "must be a standard resource type or fully qualified")}
	}
	return nil
}

var wholeResources = sets.New("pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps", "persistentvolumeclaims", "services.nodeports", "services.loadbalancers")

func quantity(n corev1.ResourceName, q resource.Quantity, p *field.Path) errors {
	errs := nonNegativeQuantity(q, p)
	if (wholeResources.Has(string(n)) || extended(n)) && q.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(p, q.String(), "must be an integer"))
	}
	return errs
}

func nonNegativeQuantity(q resource.Quantity, p *field.Path) errors {
	if q.Sign() < 0 {
		return errors{field.Invalid(p, q.String(), "must be greater than or equal to 0").WithOrigin("minimum")}
	}
	return nil
}

func sortedNames(l corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(l))
	for n := range l {
		names = append(names, n)
	}
	sort.Slice(names, func(i, j int) bool { return names[i] < names[j] })
	return names
}

func containerResources(r *corev1.ResourceRequirements, ctx *podContext, p *field.Path) errors {
	return append(requirements(r.Limits, r.Requests, containerResourceName, p), claimRefs(r.Claims, ctx.claims, p.Child("claims"))...)
}

// requirements checks limits and requests, one against the other.
func requirements(limits, requests corev1.ResourceList, name func(corev1.ResourceName, *field.Path) errors, p *field.Path) errors {
	var errs errors
	limitPath, requestPath := p.Child("limits"), p.Child("requests")
	cpuOrMemory, huge := false, false
	note := func(n corev1.ResourceName, q resource.Quantity) {
		huge = huge || hugePages(n)
		cpuOrMemory = cpuOrMemory || n == corev1.ResourceCPU || n == corev1.ResourceMemory
	}
	for _, n := range sortedNames(limits) {
		q := limits[n]
		at := limitPath.Key(string(n))
		errs = append(errs, name(n, at)...)
		errs = append(errs, quantity(n, q, at)...)
		if hugePages(n) {
			errs = append(errs, hugePageSize(n, q, at)...)
		}
		note(n, q)
	}
	for _, n := range sortedNames(requests) {
		q := requests[n]
		at := requestPath.Key(string(n))
		errs = append(errs, name(n, at)...)
		errs = append(errs, quantity(n, q, at)...)
		limit, limited := limits[n]
		switch {
		case !limited && !overcommits(n):
			errs = append(errs, field.Required(limitPath, "Limit must be set for non overcommitable resources"))
		case limited && !overcommits(n) && q.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(requestPath, q.String(), fmt.Sprintf("must be equal to %s limit of %s", n, limit.String())))
		case limited && overcommits(n) && q.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(requestPath, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", n, limit.String())))
		}
		if hugePages(n) {
			errs = append(errs, hugePageSize(n, q, at)...)
		}
		note(n, q)
	}
	if huge && !cpuOrMemory {
		errs = append(errs, field.Forbidden(p, "HugePages require cpu or memory"))
	}
	return errs
}

func hugePageSize(n corev1.ResourceName, q resource.Quantity, p *field.Path) errors {
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(n), corev1.ResourceHugePagesPrefix))
	if err != nil || size.Sign() <= 0 {
		return errors{field.Invalid(p, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), strings.TrimPrefix(string(n), corev1.ResourceHugePagesPrefix)))}
	}
	if q.Value()%size.Value() != 0 {
		return errors{field.Invalid(p, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), n))}
	}
	return nil
}

func claimRefs(list []corev1.ResourceClaim, known sets.Set[string], p *field.Path) errors {
	var errs errors
	seen := sets.New[string]()
	for i, c := range list {
		at := p.Index(i)
		if c.Name == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		key := c.Name
		if c.Request != "" {
			errs = append(errs, dnsLabel(at.Child("request"), c.Request)...)
			key += "/" + c.Request
		}
		if seen.Has(key) || seen.Has(c.Name) {
			errs = append(errs, field.Duplicate(at, key))
		} else {
			seen.Insert(key)
		}
		if !known.Has(c.Name) {
			detail := "must be one of the names in pod.spec.resourceClaims which is empty"
			if len(known) > 0 {
				detail = "must be one of the names in pod.spec.resourceClaims: " + strings.Join(sets.List(known), ", ")
			}
			e := field.NotFound(at, c.Name)
			e.Detail = detail
			errs = append(errs, e)
		}
	}
	return errs
}

// podResources checks what the pod as a whole requests.
func podResources(s *corev1.PodSpec, p *field.Path) errors {
	r := s.Resources
	if r == nil {
		return nil
	}
	var errs errors
	if len(r.Claims) > 0 {
		errs = append(errs, field.Forbidden(p.Child("claims"), "claims can not be set for Resources at pod-level"))
	}
	errs = append(errs, requirements(r.Limits, r.Requests, podResourceName, p)...)
	sums := corev1.ResourceList{}
	for i := range s.Containers {
		for n, q := range s.Containers[i].Resources.Requests {
			t := sums[n]
			t.Add(q)
			sums[n] = t
		}
		for n, q := range s.Containers[i].Resources.Limits {
			if limit, ok := r.Limits[n]; ok && q.Cmp(limit) > 0 {
				at := field.NewPath("spec", "containers").Index(i).Child("resources", "limits").Key(string(n))
				errs = append(errs, field.Invalid(at, q.String(), fmt.Sprintf("must be less than or equal to pod limits of %s", limit.String())))
			}
		}
	}
	for _, n := range sortedNames(sums) {
		if request, ok := r.Requests[n]; ok {
			if sum := sums[n]; request.Cmp(sum) < 0 {
				errs = append(errs, field.Invalid(p.Child("requests").Key(string(n)), request.String(), fmt.Sprintf("must be greater than or equal to aggregate container requests of %s", sum.String())))
			}
		}
	}
	return errs
}

func podResourceName(n corev1.ResourceName, p *field.Path) errors {
	if errs := resourceName(n, p); len(errs) > 0 {
		return errs
	}
	if n != corev1.ResourceCPU && n != corev1.ResourceMemory && !hugePages(n) {
		return errors{field.NotSupported(p, n, []string{"cpu", "hugepages-", "memory"})}
	}
	return nil
}
