package validation

import (
	"fmt"
	"net"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addServices(t table) {
	rule(t, "", "v1", "Service", true, serviceName, service, serviceUpdate, onSub("status", func(o, _ *corev1.Service) errors {
		return loadBalancer(&o.Status.LoadBalancer, &o.Spec, field.NewPath("status", "loadBalancer"))
	}))
}

func service(o *corev1.Service) errors {
	p, s := field.NewPath("spec"), &o.Spec
	var errs errors
	hints, hinted := o.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	if mode, ok := o.Annotations[corev1.AnnotationTopologyMode]; ok && hinted && mode != hints {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "annotations").Key(corev1.AnnotationTopologyMode), mode,
			fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints)))
	}
	if len(s.Ports) == 0 && !headless(s) && s.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(p.Child("ports"), ""))
	}
	if s.Type == corev1.ServiceTypeLoadBalancer {
		for i := range s.Ports {
			// the kubelet's own port cannot be published
			if s.Ports[i].Port == 10250 {
				errs = append(errs, field.Invalid(p.Child("ports").Index(i), s.Ports[i].Port, "may not expose port 10250 externally since it is used by kubelet"))
			}
		}
	}
	if s.Type == corev1.ServiceTypeLoadBalancer && headless(s) {
		errs = append(errs, field.Invalid(p.Child("clusterIPs").Index(0), s.ClusterIP, "may not be set to 'None' for LoadBalancer services"))
	}
	if s.Type == corev1.ServiceTypeNodePort && headless(s) {
		errs = append(errs, field.Invalid(p.Child("clusterIPs").Index(0), s.ClusterIP, "may not be set to 'None' for NodePort services"))
	}
	if s.Type == corev1.ServiceTypeExternalName {
		errs = append(errs, externalName(s, p)...)
	}
	errs = append(errs, servicePorts(s, p.Child("ports"))...)
	errs = append(errs, labels(p.Child("selector"), s.Selector)...)
	errs = append(errs, sessionAffinity(s, p)...)
	errs = append(errs, ServiceAddresses(o)...)
	for i, ip := range s.ExternalIPs {
		at := p.Child("externalIPs").Index(i)
		if e := validation.IsValidIPForLegacyField(at, ip, false, nil); len(e) > 0 {
			errs = append(errs, e...)
		} else {
			errs = append(errs, notSpecial(ip, at)...)
		}
	}
	errs = append(errs, oneOfRequired(p.Child("type"), s.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)...)
	errs = append(errs, portKeys(s, p.Child("ports"))...)
	errs = append(errs, loadBalancerFields(o, p)...)
	errs = append(errs, trafficPolicies(s, p)...)
	return append(errs, loadBalancer(&o.Status.LoadBalancer, s, field.NewPath("status", "loadBalancer"))...)
}

func externalName(s *corev1.ServiceSpec, p *field.Path) errors {
	var errs errors
	if len(s.ClusterIPs) > 0 {
		errs = append(errs, field.Forbidden(p.Child("clusterIPs"), "may not be set for ExternalName services"))
	}
	if len(s.IPFamilies) > 0 {
		errs = append(errs, field.Forbidden(p.Child("ipFamilies"), "may not be set for ExternalName services"))
	}
	if s.IPFamilyPolicy != nil {
		errs = append(errs, field.Forbidden(p.Child("ipFamilyPolicy"), "may not be set for ExternalName services"))
	}
	name := strings.TrimSuffix(s.ExternalName, ".")
	if name == "" {
		return append(errs, field.Required(p.Child("externalName"), ""))
	}
	return append(errs, dnsSubdomain(p.Child("externalName"), name)...)
}

func servicePorts(s *corev1.ServiceSpec, p *field.Path) errors {
	var errs errors
	names := sets.New[string]()
	for i := range s.Ports {
		c, at := &s.Ports[i], p.Index(i)
		if len(s.Ports) > 1 && c.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else if c.Name != "" {
			errs = append(errs, dnsLabel(at.Child("name"), c.Name)...)
			if names.Has(c.Name) {
				errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
			}
			names.Insert(c.Name)
		}
		errs = append(errs, portNumber(at.Child("port"), c.Port)...)
		errs = append(errs, oneOfRequired(at.Child("protocol"), c.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		errs = append(errs, portNumOrName(at.Child("targetPort"), c.TargetPort)...)
		if c.AppProtocol != nil {
			errs = append(errs, qualifiedName(at.Child("appProtocol"), *c.AppProtocol)...)
		}
	}
	return errs
}

// portKey is what two ports of a Service may not share.
type portKey struct {
	protocol corev1.Protocol
	port     int32
}

// internalPort prints a port the way causes show it.
type internalPort struct {
	Name        string
	Protocol    corev1.Protocol
	AppProtocol *string
	Port        int32
	TargetPort  intstr.IntOrString
	NodePort    int32
}

func portKeys(s *corev1.ServiceSpec, p *field.Path) errors {
	var errs errors
	if s.Type == corev1.ServiceTypeClusterIP || s.Type == "" {
		for i := range s.Ports {
			if s.Ports[i].NodePort != 0 {
				errs = append(errs, field.Forbidden(p.Index(i).Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
			}
		}
	}
	nodePorts := map[portKey]bool{}
	ports := map[portKey]bool{}
	for i := range s.Ports {
		c, at := &s.Ports[i], p.Index(i)
		if c.NodePort != 0 {
			k := portKey{c.Protocol, c.NodePort}
			if nodePorts[k] {
				errs = append(errs, field.Duplicate(at.Child("nodePort"), c.NodePort))
			}
			nodePorts[k] = true
		}
		k := portKey{c.Protocol, c.Port}
		if ports[k] {
			errs = append(errs, field.Duplicate(at, internalPort{Protocol: c.Protocol, Port: c.Port}))
		}
		ports[k] = true
	}
	return errs
}

func sessionAffinity(s *corev1.ServiceSpec, p *field.Path) errors {
	errs := oneOfRequired(p.Child("sessionAffinity"), s.SessionAffinity, corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	switch s.SessionAffinity {
	case corev1.ServiceAffinityClientIP:
		at := p.Child("sessionAffinityConfig")
		if s.SessionAffinityConfig == nil || s.SessionAffinityConfig.ClientIP == nil {
			return append(errs, field.Required(at.Child("clientIP"), "when session affinity type is ClientIP"))
		}
		t := s.SessionAffinityConfig.ClientIP.TimeoutSeconds
		if t == nil {
			return append(errs, field.Required(at.Child("clientIP", "timeoutSeconds"), "when session affinity type is ClientIP"))
		}
		if *t <= 0 || *t > 86400 {
			errs = append(errs, field.Invalid(at.Child("clientIP", "timeoutSeconds"), *t, "must be greater than 0 and less than 86400"))
		}
	case corev1.ServiceAffinityNone:
		if s.SessionAffinityConfig != nil {
			errs = append(errs, field.Forbidden(p.Child("sessionAffinityConfig"), "must not be set when session affinity is None"))
		}
	}
	return errs
}

func headless(s *corev1.ServiceSpec) bool {
	return len(s.ClusterIPs) == 1 && s.ClusterIPs[0] == corev1.ClusterIPNone
}

// ServiceAddresses checks a Service's addresses and their families, against each other. It is exported because they have to
// be in order before addresses are given out.
func ServiceAddresses(o *corev1.Service) field.ErrorList {
	s, p := &o.Spec, field.NewPath("spec")
	if s.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var errs errors
	at := p.Child("clusterIPs")
	switch {
	case s.ClusterIP != "" && len(s.ClusterIPs) == 0:
		errs = append(errs, field.Required(at, ""))
	case s.ClusterIP != "" && s.ClusterIPs[0] != s.ClusterIP:
		errs = append(errs, field.Invalid(at, s.ClusterIPs, "first value must match `clusterIP`"))
	case s.ClusterIP == "" && len(s.ClusterIPs) > 0:
		errs = append(errs, field.Invalid(at, s.ClusterIPs, "must be empty when `clusterIP` is not specified"))
	}
	for i, f := range s.IPFamilies {
		q := p.Child("ipFamilies").Index(i)
		errs = append(errs, oneOf(q, f, corev1.IPv4Protocol, corev1.IPv6Protocol)...)
		if slices.Contains(s.IPFamilies[:i], f) {
			errs = append(errs, field.Duplicate(q, f))
		}
	}
	if f := s.IPFamilyPolicy; f != nil {
		errs = append(errs, oneOf(p.Child("ipFamilyPolicy"), *f, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)...)
	}
	wrong := false
	for i, ip := range s.ClusterIPs {
		var e errors
		if i > 0 || ip != corev1.ClusterIPNone {
			e = validation.IsValidIPForLegacyField(at.Index(i), ip, false, nil)
		} else if len(s.ClusterIPs) > 1 {
			e = errors{field.Invalid(at, s.ClusterIPs, "'None' must be the first and only value")}
		}
		errs = append(errs, e...)
		wrong = wrong || len(e) > 0
	}
	if len(s.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(at, s.ClusterIPs, "may only hold up to 2 values"))
	}
	if wrong {
		return errs
	}
	if len(s.ClusterIPs) > 1 && sameFamily(s.ClusterIPs) {
		errs = append(errs, field.Invalid(at, s.ClusterIPs, "may specify no more than one IP for each IP family"))
	}
	for i, ip := range s.ClusterIPs {
		if i >= len(s.IPFamilies) || headless(s) {
			break
		}
		f := s.IPFamilies[i]
		if six := strings.Contains(ip, ":"); six && f == corev1.IPv4Protocol || !six && f == corev1.IPv6Protocol {
			errs = append(errs, field.Invalid(at.Index(i), ip, fmt.Sprintf("expected an %v value as indicated by `ipFamilies[%v]`", f, i)))
		}
	}
	return errs
}

// sameFamily reports whether addresses are all of one family.
func sameFamily(ips []string) bool {
	return !slices.ContainsFunc(ips, func(ip string) bool { return strings.Contains(ip, ":") != strings.Contains(ips[0], ":") })
}

// notSpecial refuses addresses that no endpoint or external address can have.
func notSpecial(s string, p *field.Path) errors {
	ip := net.ParseIP(s)
	if ip == nil {
		return errors{field.Invalid(p, s, "must be a valid IP address")}
	}
	var errs errors
	for _, c := range []struct {
		special bool
		detail  string
	}{
		{ip.IsUnspecified(), fmt.Sprintf("may not be unspecified (%v)", s)},
		{ip.IsLoopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"},
		{ip.IsLinkLocalUnicast(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)"},
		{ip.IsLinkLocalMulticast(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"},
	} {
		if c.special {
			errs = append(errs, field.Invalid(p, s, c.detail))
		}
	}
	return errs
}

const onlyLoadBalancer = "may only be used when `type` is 'LoadBalancer'"

func loadBalancerFields(o *corev1.Service, p *field.Path) errors {
	var errs errors
	s := &o.Spec
	ranges := p.Child("LoadBalancerSourceRanges")
	if len(s.LoadBalancerSourceRanges) > 0 {
		if s.Type != corev1.ServiceTypeLoadBalancer {
			errs = append(errs, field.Forbidden(ranges, onlyLoadBalancer))
		}
		for i, r := range s.LoadBalancerSourceRanges {
			errs = append(errs, validation.IsValidCIDRForLegacyField(ranges.Index(i), strings.TrimSpace(r), false, nil)...)
		}
	} else if v, ok := o.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]; ok {
		at := field.NewPath("metadata", "annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
		if s.Type != corev1.ServiceTypeLoadBalancer {
			errs = append(errs, field.Forbidden(at, onlyLoadBalancer))
		}
		if v = strings.TrimSpace(v); v != "" {
			for _, c := range strings.Split(v, ",") {
				errs = append(errs, validation.IsValidCIDRForLegacyField(at, strings.TrimSpace(c), false, nil)...)
			}
		}
	}
	if s.Type != corev1.ServiceTypeLoadBalancer && s.AllocateLoadBalancerNodePorts != nil {
		errs = append(errs, field.Forbidden(p.Child("allocateLoadBalancerNodePorts"), onlyLoadBalancer))
	}
	if s.Type == corev1.ServiceTypeLoadBalancer && s.AllocateLoadBalancerNodePorts == nil {
		errs = append(errs, field.Required(field.NewPath("allocateLoadBalancerNodePorts"), ""))
	}
	if s.LoadBalancerClass != nil {
		if s.Type != corev1.ServiceTypeLoadBalancer {
			errs = append(errs, field.Forbidden(p.Child("loadBalancerClass"), onlyLoadBalancer))
		} else {
			errs = append(errs, qualifiedName(p.Child("loadBalancerClass"), *s.LoadBalancerClass)...)
		}
	}
	return errs
}

func trafficPolicies(s *corev1.ServiceSpec, p *field.Path) errors {
	var errs errors
	external := s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer || s.Type == corev1.ServiceTypeClusterIP && len(s.ExternalIPs) > 0
	at := p.Child("externalTrafficPolicy")
	switch {
	case !external:
		if s.ExternalTrafficPolicy != "" {
			errs = append(errs, field.Invalid(at, s.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
		}
	case s.ExternalTrafficPolicy == "":
		errs = append(errs, field.Required(at, ""))
	default:
		errs = append(errs, oneOf(at, s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	}
	checked := s.Type == corev1.ServiceTypeLoadBalancer && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	if !checked && s.HealthCheckNodePort != 0 {
		errs = append(errs, field.Invalid(p.Child("healthCheckNodePort"), s.HealthCheckNodePort, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	}
	if checked && s.HealthCheckNodePort == 0 {
		errs = append(errs, field.Required(p.Child("healthCheckNodePort"), ""))
	} else if checked {
		errs = append(errs, portNumber(p.Child("healthCheckNodePort"), s.HealthCheckNodePort)...)
	}
	if i := s.InternalTrafficPolicy; i != nil {
		errs = append(errs, oneOf(p.Child("internalTrafficPolicy"), *i, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	} else if s.Type != corev1.ServiceTypeExternalName && (s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer || s.Type == corev1.ServiceTypeClusterIP) {
		errs = append(errs, field.Required(p.Child("internalTrafficPolicy"), ""))
	}
	if d := s.TrafficDistribution; d != nil {
		errs = append(errs, oneOf(p.Child("trafficDistribution"), *d, corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)...)
	}
	return errs
}

func loadBalancer(s *corev1.LoadBalancerStatus, spec *corev1.ServiceSpec, p *field.Path) errors {
	var errs errors
	ingress := p.Child("ingress")
	if spec != nil && spec.Type != corev1.ServiceTypeLoadBalancer && len(s.Ingress) != 0 {
		return errors{field.Forbidden(ingress, "may only be used when `spec.type` is 'LoadBalancer'")}
	}
	for i, in := range s.Ingress {
		at := ingress.Index(i)
		if in.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), in.IP, false, nil)...)
		}
		if spec != nil {
			if in.IP != "" && in.IPMode == nil {
				errs = append(errs, field.Required(at.Child("ipMode"), "must be specified when `ip` is set"))
			}
			if in.IP == "" && in.IPMode != nil {
				errs = append(errs, field.Forbidden(at.Child("ipMode"), "may not be specified when `ip` is not set"))
			}
			if in.IPMode != nil {
				errs = append(errs, oneOf(at.Child("ipMode"), *in.IPMode, corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)...)
			}
		}
		if in.Hostname != "" {
			errs = append(errs, dnsSubdomain(at.Child("hostname"), in.Hostname)...)
			if net.ParseIP(in.Hostname) != nil {
				errs = append(errs, field.Invalid(at.Child("hostname"), in.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}

func serviceUpdate(o, old *corev1.Service) errors {
	p, a, b := field.NewPath("spec"), &o.Spec, &old.Spec
	var errs errors
	if a.Type != corev1.ServiceTypeExternalName && b.Type != corev1.ServiceTypeExternalName && (!headless(a) || !headless(b)) {
		errs = append(errs, addressChange(a, b, p)...)
		if !headless(a) && !headless(b) {
			errs = append(errs, familyChange(a, b, p)...)
		}
	}
	if a.Type == corev1.ServiceTypeLoadBalancer && b.Type == corev1.ServiceTypeLoadBalancer && !equality.Semantic.DeepEqual(a.LoadBalancerClass, b.LoadBalancerClass) {
		errs = append(errs, field.Invalid(p.Child("loadBalancerClass"), a.LoadBalancerClass, onceSet))
	}
	checked := func(s *corev1.ServiceSpec) bool {
		return s.Type == corev1.ServiceTypeLoadBalancer && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	}
	if checked(a) && checked(b) && a.HealthCheckNodePort != b.HealthCheckNodePort {
		errs = append(errs, field.Forbidden(p.Child("healthCheckNodePort"), "field is immutable"))
	}
	return errs
}

const onceSet = "may not change once set"

// addressChange holds the addresses still, and lets a second one come and go.
func addressChange(a, b *corev1.ServiceSpec, p *field.Path) errors {
	var errs errors
	at := p.Child("clusterIPs")
	switch is, was := a.ClusterIPs, b.ClusterIPs; {
	case len(is) == len(was):
		for i := range was {
			if is[i] != was[i] {
				errs = append(errs, field.Invalid(at.Index(i), is, onceSet))
			}
		}
	case len(is) == 0:
		errs = append(errs, field.Invalid(at.Index(0), is, "primary clusterIP can not be unset"))
	default:
		if len(was) > 0 && is[0] != was[0] {
			errs = append(errs, field.Invalid(at.Index(0), is, onceSet))
		}
		if len(is) == 1 && len(was) > 1 && !singleStack(a) {
			errs = append(errs, field.Invalid(p.Child("ipFamilyPolicy"), a.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary clusterIP"))
		}
	}
	return errs
}

func singleStack(s *corev1.ServiceSpec) bool {
	return s.IPFamilyPolicy != nil && *s.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack
}

// familyChange does for the families what addressChange does for the addresses.
func familyChange(a, b *corev1.ServiceSpec, p *field.Path) errors {
	var errs errors
	at := p.Child("ipFamilies").Index(0)
	switch is, was := a.IPFamilies, b.IPFamilies; {
	case len(is) == len(was):
		for i := range was {
			if is[i] != was[i] {
				errs = append(errs, field.Invalid(at, is, onceSet))
			}
		}
	default:
		if len(is) < len(was) && len(a.ClusterIPs) == 0 {
			errs = append(errs, field.Invalid(at, is, "primary ipFamily can not be unset"))
		}
		if len(is) > 0 && len(was) > 0 && is[0] != was[0] {
			errs = append(errs, field.Invalid(at, a.ClusterIPs, onceSet))
		}
		if len(is) == 1 && len(was) > 1 && !singleStack(a) {
			errs = append(errs, field.Invalid(p.Child("ipFamilyPolicy"), a.IPFamilyPolicy, "must be set to 'SingleStack' when releasing the secondary ipFamily"))
		}
	}
	return errs
}
