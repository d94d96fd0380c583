package validation

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addPods(t table) {
	rule(t, "", "v1", "Pod", true, subdomain, pod, podUpdate, onSub("status", podStatus),
		onSub("ephemeralcontainers", podEphemeral), onSub("resize", podResize))
	rule(t, "", "v1", "PodTemplate", true, subdomain, func(o *corev1.PodTemplate) errors { return podTemplate(&o.Template, field.NewPath("template")) }, nil)
}

func annotations(p *field.Path, a map[string]string) errors {
	return apivalidation.ValidateAnnotations(a, p)
}

func pod(o *corev1.Pod) errors {
	p := field.NewPath("spec")
	errs := podSpec(&o.Spec, &o.ObjectMeta, p)
	if o.Spec.ServiceAccountName == "" {
		for i := range o.Spec.Volumes {
			if v := &o.Spec.Volumes[i]; v.Projected != nil {
				for j := range v.Projected.Sources {
					if v.Projected.Sources[j].ServiceAccountToken != nil {
						errs = append(errs, field.Forbidden(p.Child("volumes").Index(i).Child("projected", "sources").Index(j).Child("serviceAccountToken"), "must not be specified when serviceAccountName is not set"))
					}
				}
			}
		}
	}
	if o.ResourceVersion != "" { // the rest is judged once, and annotations with what they were before
		return errs
	}
	errs = append(errs, podAnnotations(o.Annotations, &o.Spec, field.NewPath("metadata", "annotations"))...)
	if len(o.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(p.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if o.Spec.NodeName != "" && len(o.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(p.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return append(errs, profilesAgree(o.Annotations, &o.Spec, p)...)
}

func unpadded(image string, p *field.Path) errors {
	if strings.TrimSpace(image) != image {
		return errors{field.Invalid(p, image, "must not have leading or trailing whitespace")}
	}
	return nil
}

// podSpec checks the spec of a pod or of a template, which has no metadata of a pod.
func podSpec(s *corev1.PodSpec, meta *metav1.ObjectMeta, p *field.Path) errors {
	ctx := &podContext{spec: s, grace: deref(s.TerminationGracePeriodSeconds, 0), pod: meta != nil}
	name := ""
	if meta != nil {
		name = meta.Name
	}
	vols, errs := volumes(s.Volumes, name, p.Child("volumes"))
	if s.TerminationGracePeriodSeconds == nil {
		errs = append(errs, field.Required(p.Child("terminationGracePeriodSeconds"), ""))
	}
	ctx.volumes = vols
	var claimErrs errors
	ctx.claims, claimErrs = podClaims(s.ResourceClaims, p.Child("resourceClaims"))
	errs = append(errs, claimErrs...)
	errs = append(errs, containerLists(ctx, p)...)
	errs = append(errs, podResources(s, p.Child("resources"))...)
	errs = append(errs, oneOfRequired(p.Child("restartPolicy"), s.RestartPolicy, corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)...)
	if s.DNSPolicy == "" {
		errs = append(errs, field.Required(p.Child("dnsPolicy"), ""))
	} else {
		errs = append(errs, oneOf(p.Child("dnsPolicy"), s.DNSPolicy, corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)...)
	}
	errs = append(errs, labels(p.Child("nodeSelector"), s.NodeSelector)...)
	errs = append(errs, podSecurity(s, ctx.pod, p)...)
	errs = append(errs, affinity(s.Affinity, p.Child("affinity"))...)
	errs = append(errs, dnsConfig(s.DNSConfig, s.DNSPolicy, p.Child("dnsConfig"))...)
	for i, g := range s.ReadinessGates {
		errs = append(errs, qualifiedName(p.Child("readinessGates").Index(i).Child("conditionType"), string(g.ConditionType))...)
	}
	errs = append(errs, gates(s.SchedulingGates, p.Child("schedulingGates"))...)
	errs = append(errs, spread(s.TopologySpreadConstraints, p.Child("topologySpreadConstraints"))...)
	for _, f := range []struct{ name, value string }{{"serviceAccountName", s.ServiceAccountName}, {"nodeName", s.NodeName}} {
		if f.value != "" {
			errs = append(errs, invalid(p.Child(f.name), f.value, subdomain(f.value, false))...)
		}
	}
	if n := s.ActiveDeadlineSeconds; n != nil && (*n < 1 || *n > maxInt32) {
		errs = append(errs, field.Invalid(p.Child("activeDeadlineSeconds"), *n, validation.InclusiveRangeError(1, maxInt32)))
	}
	if s.Hostname != "" {
		errs = append(errs, dnsLabel(p.Child("hostname"), s.Hostname)...)
	}
	if s.Subdomain != "" {
		errs = append(errs, dnsLabel(p.Child("subdomain"), s.Subdomain)...)
	}
	if h := s.HostnameOverride; h != nil {
		errs = append(errs, hostnameOverride(s, *h, p.Child("hostnameOverride"))...)
	}
	errs = append(errs, tolerations(s.Tolerations, p.Child("tolerations"))...)
	for i, h := range s.HostAliases {
		at := p.Child("hostAliases").Index(i)
		errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), h.IP, false, nil)...)
		for j, name := range h.Hostnames {
			errs = append(errs, dnsSubdomain(at.Child("hostnames").Index(j), name)...)
		}
	}
	if s.PriorityClassName != "" {
		errs = append(errs, invalid(p.Child("priorityClassName"), s.PriorityClassName, subdomain(s.PriorityClassName, false))...)
	}
	if r := s.RuntimeClassName; r != nil {
		errs = append(errs, invalid(p.Child("runtimeClassName"), *r, subdomain(*r, false))...)
	}
	if s.PreemptionPolicy != nil {
		errs = append(errs, preemption(*s.PreemptionPolicy, p.Child("preemptionPolicy"))...)
	}
	if s.Overhead != nil {
		for _, n := range sortedNames(s.Overhead) {
			at := p.Child("overhead").Key(string(n))
			errs = append(errs, containerResourceName(n, at)...)
			errs = append(errs, quantity(n, s.Overhead[n], at)...)
		}
	}
	if s.OS != nil {
		if s.OS.Name == "" {
			errs = append(errs, field.Required(p.Child("os", "name"), "cannot be empty"))
		} else {
			errs = append(errs, oneOf(p.Child("os"), s.OS.Name, corev1.Linux, corev1.Windows)...)
			errs = append(errs, osFields(s, p)...)
		}
	}
	return errs
}

func hostnameOverride(s *corev1.PodSpec, h string, p *field.Path) errors {
	var errs errors
	if s.SetHostnameAsFQDN != nil && *s.SetHostnameAsFQDN {
		errs = append(errs, field.Forbidden(p, "may not be set when `setHostnameAsFQDN` is true"))
	}
	if s.HostNetwork {
		errs = append(errs, field.Forbidden(p, "may not be set when `hostNetwork` is true"))
	}
	errs = append(errs, dnsSubdomain(p, h)...)
	if len(h) > 64 {
		errs = append(errs, field.TooLong(p, h, 64))
	}
	return errs
}

// osFields refuses what the pod's operating system does not have.
func osFields(s *corev1.PodSpec, p *field.Path) errors {
	var errs errors
	c := s.SecurityContext
	at := p.Child("securityContext")
	switch s.OS.Name {
	case corev1.Linux:
		const no = "windows options cannot be set for a linux pod"
		if c != nil && c.WindowsOptions != nil {
			errs = append(errs, field.Forbidden(at.Child("windowsOptions"), no))
		}
		eachContainer(s, p, func(c *corev1.Container, p *field.Path) {
			if sc := c.SecurityContext; sc != nil && sc.WindowsOptions != nil {
				errs = append(errs, field.Forbidden(p.Child("securityContext", "windowsOptions"), no))
			}
		})
	case corev1.Windows:
		deny := func(at *field.Path, fields map[string]bool) {
			for _, name := range sortedKeys(fields) {
				if fields[name] {
					errs = append(errs, field.Forbidden(at.Child(name), "cannot be set for a windows pod"))
				}
			}
		}
		deny(p, map[string]bool{"hostPID": s.HostPID, "hostIPC": s.HostIPC, "hostUsers": s.HostUsers != nil, "shareProcessNamespace": s.ShareProcessNamespace != nil})
		if c != nil {
			deny(at, map[string]bool{"seLinuxOptions": c.SELinuxOptions != nil, "seccompProfile": c.SeccompProfile != nil, "fsGroup": c.FSGroup != nil,
				"fsGroupChangePolicy": c.FSGroupChangePolicy != nil, "sysctls": len(c.Sysctls) > 0, "runAsUser": c.RunAsUser != nil, "runAsGroup": c.RunAsGroup != nil,
				"supplementalGroups": c.SupplementalGroups != nil, "supplementalGroupsPolicy": c.SupplementalGroupsPolicy != nil, "appArmorProfile": c.AppArmorProfile != nil,
				"seLinuxChangePolicy": c.SELinuxChangePolicy != nil})
		}
		eachContainer(s, p, func(c *corev1.Container, p *field.Path) {
			if sc := c.SecurityContext; sc != nil {
				deny(p.Child("securityContext"), map[string]bool{"seLinuxOptions": sc.SELinuxOptions != nil, "seccompProfile": sc.SeccompProfile != nil,
					"capabilities": sc.Capabilities != nil, "readOnlyRootFilesystem": sc.ReadOnlyRootFilesystem != nil, "privileged": sc.Privileged != nil,
					"allowPrivilegeEscalation": sc.AllowPrivilegeEscalation != nil, "procMount": sc.ProcMount != nil, "runAsUser": sc.RunAsUser != nil,
					"runAsGroup": sc.RunAsGroup != nil, "appArmorProfile": sc.AppArmorProfile != nil})
			}
		})
	}
	return errs
}

func podClaims(list []corev1.PodResourceClaim, p *field.Path) (sets.Set[string], errors) {
	var errs errors
	names := sets.New[string]()
	for i := range list {
		c, at := &list[i], p.Index(i)
		if names.Has(c.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		names.Insert(c.Name)
		if c.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else {
			errs = append(errs, dnsLabel(at.Child("name"), c.Name)...)
		}
		set := 0
		for _, f := range []struct {
			name string
			v    *string
		}{{"resourceClaimName", c.ResourceClaimName}, {"resourceClaimTemplateName", c.ResourceClaimTemplateName}} {
			if f.v != nil {
				set++
				errs = append(errs, invalid(at.Child(f.name), *f.v, subdomain(*f.v, false))...)
			}
		}
		switch set {
		case 0:
			errs = append(errs, field.Invalid(at, c, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"))
		case 2:
			errs = append(errs, field.Invalid(at, c, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"))
		}
	}
	return names, errs
}

func gates(list []corev1.PodSchedulingGate, p *field.Path) errors {
	var errs errors
	seen := sets.New[string]()
	for i, g := range list {
		errs = append(errs, qualifiedName(p.Index(i), g.Name)...)
		if seen.Has(g.Name) {
			errs = append(errs, field.Duplicate(p.Index(i), g.Name))
		}
		seen.Insert(g.Name)
	}
	return errs
}

func dnsConfig(c *corev1.PodDNSConfig, policy corev1.DNSPolicy, p *field.Path) errors {
	if policy == corev1.DNSNone {
		if c == nil {
			return errors{field.Required(p, "must provide `dnsConfig` when `dnsPolicy` is None")}
		}
		if len(c.Nameservers) == 0 {
			return errors{field.Required(p.Child("nameservers"), "must provide at least one DNS nameserver when `dnsPolicy` is None")}
		}
	}
	if c == nil {
		return nil
	}
	var errs errors
	if len(c.Nameservers) > 3 {
		errs = append(errs, field.Invalid(p.Child("nameservers"), c.Nameservers, "must not have more than 3 nameservers"))
	}
	for i, ns := range c.Nameservers {
		errs = append(errs, validation.IsValidIPForLegacyField(p.Child("nameservers").Index(i), ns, false, nil)...)
	}
	if len(c.Searches) > 32 {
		errs = append(errs, field.Invalid(p.Child("searches"), c.Searches, "must not have more than 32 search paths"))
	}
	if len(strings.Join(c.Searches, " ")) > 2048 {
		errs = append(errs, field.Invalid(p.Child("searches"), c.Searches, "must not have more than 2048 characters (including spaces) in the search list"))
	}
	for i, s := range c.Searches {
		if s != "." {
			s = strings.TrimSuffix(s, ".")
			errs = append(errs, invalid(p.Child("searches").Index(i), s, validation.IsDNS1123SubdomainWithUnderscore(s))...)
		}
	}
	for i, o := range c.Options {
		if o.Name == "" {
			errs = append(errs, field.Required(p.Child("options").Index(i), "must not be empty"))
		}
	}
	return errs
}

// podTemplate checks a template: metadata that is passed on, and the spec.
func podTemplate(t *corev1.PodTemplateSpec, p *field.Path) errors {
	errs := labels(p.Child("labels"), t.Labels)
	errs = append(errs, annotations(p.Child("annotations"), t.Annotations)...)
	errs = append(errs, podAnnotations(t.Annotations, &t.Spec, p.Child("annotations"))...)
	errs = append(errs, podSpec(&t.Spec, nil, p.Child("spec"))...)
	errs = append(errs, profilesAgree(t.Annotations, &t.Spec, p.Child("spec"))...)
	if len(t.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(p.Child("spec", "ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}
