package validation

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func userID(p *field.Path, v *int64) errors {
	if v == nil {
		return nil
	}
	return invalid(p, *v, validation.IsValidUserID(*v))
}

func groupID(p *field.Path, v *int64) errors {
	if v == nil {
		return nil
	}
	return invalid(p, *v, validation.IsValidGroupID(*v))
}

func seccomp(s *corev1.SeccompProfile, p *field.Path) errors {
	if s == nil {
		return nil
	}
	var errs errors
	if s.Type == "" {
		errs = append(errs, field.Required(p.Child("type"), "type is required when seccompProfile is set"))
	} else {
		errs = append(errs, oneOf(p.Child("type"), s.Type, corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)...)
	}
	at := p.Child("localhostProfile")
	if s.Type == corev1.SeccompProfileTypeLocalhost {
		if s.LocalhostProfile == nil {
			return append(errs, field.Required(at, "must be set when seccomp type is Localhost"))
		}
		return append(errs, descending(at, *s.LocalhostProfile)...)
	}
	if s.LocalhostProfile != nil {
		errs = append(errs, field.Invalid(at, s, "can only be set when seccomp type is Localhost"))
	}
	return errs
}

func appArmor(a *corev1.AppArmorProfile, p *field.Path) errors {
	if a == nil {
		return nil
	}
	at := p.Child("localhostProfile")
	switch a.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		if a.LocalhostProfile == nil {
			return errors{field.Required(at, "must be set when AppArmor type is Localhost")}
		}
		profile := strings.TrimSpace(*a.LocalhostProfile)
		if profile != *a.LocalhostProfile {
			return errors{field.Invalid(at, *a.LocalhostProfile, "must not be padded with whitespace")}
		}
		if profile == "" {
			return errors{field.Required(at, "must be set when AppArmor type is Localhost")}
		}
		if len(profile) > 4095 {
			return errors{field.TooLong(at, *a.LocalhostProfile, 4095)}
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if a.LocalhostProfile != nil {
			return errors{field.Invalid(at, a.LocalhostProfile, "can only be set when AppArmor type is Localhost")}
		}
	case "":
		return errors{field.Required(p.Child("type"), "type is required when appArmorProfile is set")}
	default:
		return oneOf(p.Child("type"), a.Type, corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
	return nil
}

// securityContext checks a container's.
func securityContext(ctx *podContext, s *corev1.SecurityContext, p *field.Path) errors {
	if s == nil {
		return nil
	}
	errs := userID(p.Child("runAsUser"), s.RunAsUser)
	errs = append(errs, groupID(p.Child("runAsGroup"), s.RunAsGroup)...)
	if s.ProcMount != nil {
		errs = append(errs, oneOf(p.Child("procMount"), *s.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
		if *s.ProcMount == corev1.UnmaskedProcMount && (ctx.spec.HostUsers == nil || *ctx.spec.HostUsers) {
			errs = append(errs, field.Invalid(p.Child("procMount"), s.ProcMount, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	errs = append(errs, seccomp(s.SeccompProfile, p.Child("seccompProfile"))...)
	if s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation {
		if s.Privileged != nil && *s.Privileged {
			errs = append(errs, field.Invalid(p, s, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if s.Capabilities != nil {
			for _, c := range s.Capabilities.Add {
				if c == "CAP_SYS_ADMIN" {
					errs = append(errs, field.Invalid(p, s, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
				}
			}
		}
	}
	errs = append(errs, windows(s.WindowsOptions, p.Child("windowsOptions"))...)
	return append(errs, appArmor(s.AppArmorProfile, p.Child("appArmorProfile"))...)
}

func windows(w *corev1.WindowsSecurityContextOptions, p *field.Path) errors {
	if w == nil {
		return nil
	}
	var errs errors
	if n := w.GMSACredentialSpecName; n != nil {
		errs = append(errs, invalid(p.Child("gmsaCredentialSpecName"), *n, validation.IsDNS1123Subdomain(*n))...)
	}
	if s := w.GMSACredentialSpec; s != nil {
		if *s == "" {
			errs = append(errs, field.Invalid(p.Child("gmsaCredentialSpec"), *s, "gmsaCredentialSpec cannot be an empty string"))
		} else if len(*s) > 64*1024 {
			errs = append(errs, field.Invalid(p.Child("gmsaCredentialSpec"), "", "gmsaCredentialSpec size must be under 64 KiB"))
		}
	}
	if u := w.RunAsUserName; u != nil {
		if *u == "" {
			errs = append(errs, field.Invalid(p.Child("runAsUserName"), *u, "runAsUserName cannot be an empty string"))
		} else {
			errs = append(errs, windowsUser(*u, p.Child("runAsUserName"))...)
		}
	}
	return errs
}

var (
	controlRE = regexp.MustCompile(`[[:cntrl:]]+`)
	netBiosRE = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`)
	domainRE  = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)
	dotsRE    = regexp.MustCompile(`^[\. ]+$`)
)

// windowsUser checks DOMAIN\user, of which the domain may be left out.
func windowsUser(u string, p *field.Path) errors {
	refuse := func(detail string) *field.Error { return field.Invalid(p, u, detail) }
	if controlRE.MatchString(u) {
		return errors{refuse("runAsUserName cannot contain control characters")}
	}
	parts := strings.Split(u, `\`)
	if len(parts) > 2 {
		return errors{refuse("runAsUserName cannot contain more than one backslash")}
	}
	var errs errors
	user := parts[len(parts)-1]
	if len(parts) == 2 {
		if len(parts[0]) >= 256 {
			errs = append(errs, refuse("runAsUserName's Domain length must be under 256 characters"))
		}
		if !netBiosRE.MatchString(parts[0]) && !domainRE.MatchString(parts[0]) {
			errs = append(errs, refuse("runAsUserName's Domain doesn't match the NetBios nor the DNS format"))
		}
	}
	if user == "" {
		errs = append(errs, refuse("runAsUserName's User cannot be empty"))
	} else if len(user) > 104 {
		errs = append(errs, refuse("runAsUserName's User length must not be longer than 104 characters"))
	}
	if dotsRE.MatchString(user) {
		errs = append(errs, refuse("runAsUserName's User cannot contain only periods or spaces"))
	}
	if strings.ContainsAny(user, `"/\:;|=,+*?<>@[]`) {
		errs = append(errs, refuse(`runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]`))
	}
	return errs
}

// hostProcess checks that a pod with processes of its Windows host has nothing else, and the host's network.
func hostProcess(s *corev1.PodSpec, p *field.Path) errors {
	var errs errors
	var whole *bool
	if c := s.SecurityContext; c != nil && c.WindowsOptions != nil {
		whole = c.WindowsOptions.HostProcess
	}
	all, hosts := 0, 0
	eachContainer(s, p, func(c *corev1.Container, p *field.Path) {
		all++
		var own *bool
		if c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil {
			own = c.SecurityContext.WindowsOptions.HostProcess
		}
		if whole != nil && own != nil && *whole != *own {
			errs = append(errs, field.Invalid(p.Child("securityContext", "windowsOptions", "hostProcess"), *own, fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *whole)))
		}
		if own != nil && *own || own == nil && whole != nil && *whole {
			hosts++
		}
	})
	if hosts == 0 {
		return errs
	}
	if hosts != all {
		errs = append(errs, field.Invalid(p, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"))
	}
	if !s.HostNetwork {
		errs = append(errs, field.Invalid(p.Child("hostNetwork"), s.HostNetwork, "hostNetwork must be true if pod contains any hostProcess containers"))
	}
	return errs
}

var sysctlRE = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

func sysctls(list []corev1.Sysctl, spec *corev1.PodSpec, p *field.Path) errors {
	var errs errors
	seen := sets.New[string]()
	for i, s := range list {
		at := p.Index(i).Child("name")
		switch {
		case s.Name == "":
			errs = append(errs, field.Required(at, ""))
		case len(s.Name) > 253 || !sysctlRE.MatchString(s.Name):
			errs = append(errs, field.Invalid(at, s.Name, "must have at most 253 characters and match regex "+sysctlRE.String()))
		case seen.Has(s.Name):
			errs = append(errs, field.Duplicate(at, s.Name))
		}
		seen.Insert(s.Name)
		switch ns := sysctlNamespace(s.Name); {
		case spec.HostNetwork && ns == "net":
			errs = append(errs, field.Invalid(at, s.Name, "may not be specified when 'hostNetwork' is true"))
		case spec.HostIPC && ns == "ipc":
			errs = append(errs, field.Invalid(at, s.Name, "may not be specified when 'hostIPC' is true"))
		}
	}
	return errs
}

// sysctlNamespace returns the kernel namespace a parameter belongs to, "" for none.
func sysctlNamespace(name string) string {
	name = strings.ReplaceAll(name, "/", ".")
	switch {
	case name == "kernel.sem", strings.HasPrefix(name, "kernel.shm"), strings.HasPrefix(name, "kernel.msg"), strings.HasPrefix(name, "fs.mqueue."):
		return "ipc"
	case strings.HasPrefix(name, "net."):
		return "net"
	}
	return ""
}

// podSecurity checks the security context of the pod and what the pod shares with its host.
func podSecurity(s *corev1.PodSpec, pod bool, specPath *field.Path) errors {
	var errs errors
	p := specPath.Child("securityContext")
	if s.HostUsers != nil && !*s.HostUsers {
		for _, f := range []struct {
			set  bool
			name string
		}{{s.HostNetwork, "hostNetwork"}, {s.HostPID, "HostPID"}, {s.HostIPC, "HostIPC"}} {
			if f.set {
				errs = append(errs, field.Forbidden(specPath.Child(f.name), "when `hostUsers` is false"))
			}
		}
	}
	if s.HostNetwork {
		errs = append(errs, hostPorts(s.Containers, pod, specPath.Child("containers"))...)
	}
	errs = append(errs, hostProcess(s, specPath)...)
	c := s.SecurityContext
	if c == nil {
		return errs
	}
	errs = append(errs, groupID(p.Child("fsGroup"), c.FSGroup)...)
	errs = append(errs, userID(p.Child("runAsUser"), c.RunAsUser)...)
	errs = append(errs, groupID(p.Child("runAsGroup"), c.RunAsGroup)...)
	for i := range c.SupplementalGroups {
		errs = append(errs, groupID(p.Child("supplementalGroups").Index(i), &c.SupplementalGroups[i])...)
	}
	if s.ShareProcessNamespace != nil && *s.ShareProcessNamespace && s.HostPID {
		errs = append(errs, field.Invalid(p.Child("shareProcessNamespace"), *s.ShareProcessNamespace, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	if len(c.Sysctls) > 0 {
		errs = append(errs, sysctls(c.Sysctls, s, p.Child("sysctls"))...)
	}
	if c.FSGroupChangePolicy != nil {
		errs = append(errs, oneOf(p.Child("fsGroupChangePolicy"), *c.FSGroupChangePolicy, corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)...)
	}
	errs = append(errs, seccomp(c.SeccompProfile, p.Child("seccompProfile"))...)
	errs = append(errs, windows(c.WindowsOptions, p.Child("windowsOptions"))...)
	errs = append(errs, appArmor(c.AppArmorProfile, p.Child("appArmorProfile"))...)
	if c.SupplementalGroupsPolicy != nil {
		errs = append(errs, oneOf(p.Child("supplementalGroupsPolicy"), *c.SupplementalGroupsPolicy, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)...)
	}
	if v := c.SELinuxChangePolicy; v != nil {
		errs = append(errs, oneOf(p.Child("seLinuxChangePolicy"), *v, corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)...)
	}
	return errs
}

func hostPorts(cs []corev1.Container, pod bool, p *field.Path) errors {
	var errs errors
	for i := range cs {
		for j := range cs[i].Ports {
			if c := &cs[i].Ports[j]; (pod || c.HostPort != 0) && c.HostPort != c.ContainerPort {
				errs = append(errs, field.Invalid(p.Index(i).Child("ports").Index(j).Child("hostPort"), c.HostPort, "must match `containerPort` when `hostNetwork` is true"))
			}
		}
	}
	return errs
}
