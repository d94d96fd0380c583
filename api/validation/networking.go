package validation

import (
	"fmt"
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addNetworking(t table) {
	const g = "networking.k8s.io"
	rule(t, g, "v1", "Ingress", true, subdomain, ingress, nil, onSub("status", func(o, _ *netv1.Ingress) errors {
		s := corev1.LoadBalancerStatus{}
		for _, i := range o.Status.LoadBalancer.Ingress {
			s.Ingress = append(s.Ingress, corev1.LoadBalancerIngress{IP: i.IP, Hostname: i.Hostname})
		}
		return loadBalancer(&s, nil, field.NewPath("status", "loadBalancer"))
	}))
	rule(t, g, "v1", "IngressClass", false, subdomain, ingressClass, func(o, old *netv1.IngressClass) errors {
		return immutable(field.NewPath("spec", "controller"), o.Spec.Controller, old.Spec.Controller)
	})
	rule(t, g, "v1", "NetworkPolicy", true, subdomain, networkPolicy, nil)
	rule(t, g, "v1", "IPAddress", false, ipAddressName, ipAddress, func(o, old *netv1.IPAddress) errors {
		return immutable(field.NewPath("spec", "parentRef"), o.Spec.ParentRef, old.Spec.ParentRef)
	})
	rule(t, g, "v1", "ServiceCIDR", false, subdomain, serviceCIDR, nil, ownUpdate(serviceCIDRUpdate))
}

func ingress(o *netv1.Ingress) errors {
	p, s := field.NewPath("spec"), &o.Spec
	var errs errors
	if len(s.Rules) == 0 && s.DefaultBackend == nil {
		errs = append(errs, field.Invalid(p, s.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if s.DefaultBackend != nil {
		errs = append(errs, backend(s.DefaultBackend, p.Child("defaultBackend"))...)
	}
	for i := range s.Rules {
		errs = append(errs, ingressRule(&s.Rules[i], p.Child("rules").Index(i))...)
	}
	for i, tls := range s.TLS {
		at := p.Child("tls").Index(i)
		for j, h := range tls.Hosts {
			if strings.Contains(h, "*") {
				errs = append(errs, invalid(at.Child("hosts").Index(j), h, validation.IsWildcardDNS1123Subdomain(h))...)
				continue
			}
			errs = append(errs, dnsSubdomain(at.Child("hosts").Index(j), h)...)
		}
		if tls.SecretName != "" {
			errs = append(errs, invalid(at.Child("secretName"), tls.SecretName, subdomain(tls.SecretName, false))...)
		}
	}
	if c := s.IngressClassName; c != nil {
		errs = append(errs, invalid(p.Child("ingressClassName"), *c, subdomain(*c, false))...)
		if a, ok := o.Annotations["kubernetes.io/ingress.class"]; ok && o.ResourceVersion == "" && a != *c {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "annotations").Child("kubernetes.io/ingress.class"), a, "must match `ingressClassName` when both are specified"))
		}
	}
	return errs
}

func ingressRule(r *netv1.IngressRule, p *field.Path) errors {
	var errs errors
	if r.Host != "" {
		at := p.Child("host")
		if net.ParseIP(r.Host) != nil {
			errs = append(errs, field.Invalid(at, r.Host, "must be a DNS name, not an IP address"))
		}
		if strings.Contains(r.Host, "*") {
			errs = append(errs, invalid(at, r.Host, validation.IsWildcardDNS1123Subdomain(r.Host))...)
		} else {
			errs = append(errs, dnsSubdomain(at, r.Host)...)
		}
	}
	if r.HTTP == nil {
		return errs
	}
	at := p.Child("http", "paths")
	if len(r.HTTP.Paths) == 0 {
		errs = append(errs, field.Required(at, ""))
	}
	for i := range r.HTTP.Paths {
		errs = append(errs, ingressPath(&r.HTTP.Paths[i], at.Index(i))...)
	}
	return errs
}

func ingressPath(h *netv1.HTTPIngressPath, p *field.Path) errors {
	var errs errors
	if h.PathType == nil {
		return errors{field.Required(p.Child("pathType"), "pathType must be specified")}
	}
	switch *h.PathType {
	case netv1.PathTypeExact, netv1.PathTypePrefix:
		if !strings.HasPrefix(h.Path, "/") {
			errs = append(errs, field.Invalid(p.Child("path"), h.Path, "must be an absolute path"))
		}
		if h.Path != "" {
			for _, bad := range []string{"//", "/./", "/../", "%2f", "%2F"} {
				if strings.Contains(h.Path, bad) {
					errs = append(errs, field.Invalid(p.Child("path"), h.Path, fmt.Sprintf("must not contain '%s'", bad)))
				}
			}
			for _, bad := range []string{"/..", "/."} {
				if strings.HasSuffix(h.Path, bad) {
					errs = append(errs, field.Invalid(p.Child("path"), h.Path, fmt.Sprintf("cannot end with '%s'", bad)))
				}
			}
		}
	case netv1.PathTypeImplementationSpecific:
		if h.Path != "" && !strings.HasPrefix(h.Path, "/") {
			errs = append(errs, field.Invalid(p.Child("path"), h.Path, "must be an absolute path"))
		}
	default:
		errs = append(errs, oneOf(p.Child("pathType"), *h.PathType, netv1.PathTypeExact, netv1.PathTypeImplementationSpecific, netv1.PathTypePrefix)...)
	}
	return append(errs, backend(&h.Backend, p.Child("backend"))...)
}

func backend(b *netv1.IngressBackend, p *field.Path) errors {
	switch {
	case b.Resource != nil && b.Service != nil:
		return errors{field.Invalid(p, "", "cannot set both resource and service backends")}
	case b.Resource != nil:
		return typedRef(b.Resource, p.Child("resource"))
	case b.Service == nil:
		return errors{field.Invalid(p, "", "resource or service backend is required")}
	}
	var errs errors
	at := p.Child("service")
	if b.Service.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else {
		errs = append(errs, invalid(at.Child("name"), b.Service.Name, label1035Or1123(b.Service.Name))...)
	}
	port := b.Service.Port
	switch {
	case port.Name != "" && port.Number != 0:
		errs = append(errs, field.Invalid(p, "", "cannot set both port name & port number"))
	case port.Name != "":
		errs = append(errs, invalid(at.Child("port", "name"), port.Name, validation.IsValidPortName(port.Name))...)
	case port.Number != 0:
		errs = append(errs, portNumber(at.Child("port", "number"), port.Number)...)
	default:
		errs = append(errs, field.Required(p, "port name or number is required"))
	}
	return errs
}

func label1035Or1123(name string) []string { return validation.IsDNS1123Label(name) }

func typedRef(r *corev1.TypedLocalObjectReference, p *field.Path) errors {
	var errs errors
	if r.APIGroup != nil {
		errs = append(errs, dnsSubdomain(p.Child("apiGroup"), *r.APIGroup)...)
	}
	errs = append(errs, plainSegment(p.Child("kind"), r.Kind, "kind is required")...)
	return append(errs, plainSegment(p.Child("name"), r.Name, "name is required")...)
}

func ingressClass(o *netv1.IngressClass) errors {
	at := field.NewPath("spec", "controller")
	var errs errors
	if len(o.Spec.Controller) > 250 {
		errs = append(errs, field.TooLong(at, "", 250))
	}
	errs = append(errs, validation.IsDomainPrefixedPath(at, o.Spec.Controller)...)
	return append(errs, classParameters(o.Spec.Parameters)...)
}

func classParameters(r *netv1.IngressClassParametersReference) errors {
	if r == nil {
		return nil
	}
	p := field.NewPath("spec", "parameters")
	errs := typedRef(&corev1.TypedLocalObjectReference{APIGroup: r.APIGroup, Kind: r.Kind, Name: r.Name}, p)
	if r.Scope == nil {
		return append(errs, field.Required(p.Child("scope"), ""))
	}
	errs = append(errs, oneOf(p.Child("scope"), *r.Scope, netv1.IngressClassParametersReferenceScopeCluster, netv1.IngressClassParametersReferenceScopeNamespace)...)
	at := p.Child("namespace")
	if *r.Scope == netv1.IngressClassParametersReferenceScopeNamespace {
		if r.Namespace == nil {
			return append(errs, field.Required(at, "`parameters.scope` is set to 'Namespace'"))
		}
		return append(errs, dnsLabel(at, *r.Namespace)...)
	}
	if *r.Scope == netv1.IngressClassParametersReferenceScopeCluster && r.Namespace != nil {
		errs = append(errs, field.Forbidden(at, "`parameters.scope` is set to 'Cluster'"))
	}
	return errs
}

func networkPolicy(o *netv1.NetworkPolicy) errors {
	p, s := field.NewPath("spec"), &o.Spec
	errs := labelSelector(p.Child("podSelector"), &s.PodSelector)
	for i := range s.Ingress {
		at := p.Child("ingress").Index(i)
		errs = append(errs, policyPorts(s.Ingress[i].Ports, at.Child("ports"))...)
		errs = append(errs, peers(s.Ingress[i].From, at.Child("from"))...)
	}
	for i := range s.Egress {
		at := p.Child("egress").Index(i)
		errs = append(errs, policyPorts(s.Egress[i].Ports, at.Child("ports"))...)
		errs = append(errs, peers(s.Egress[i].To, at.Child("to"))...)
	}
	if len(s.PolicyTypes) > 2 {
		return append(errs, field.Invalid(p.Child("policyTypes"), &s.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range s.PolicyTypes {
		errs = append(errs, oneOf(p.Child("policyTypes").Index(i), t, netv1.PolicyTypeIngress, netv1.PolicyTypeEgress)...)
	}
	return errs
}

func policyPorts(list []netv1.NetworkPolicyPort, p *field.Path) errors {
	var errs errors
	for i := range list {
		c, at := &list[i], p.Index(i)
		if c.Protocol != nil {
			errs = append(errs, oneOf(at.Child("protocol"), *c.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)...)
		}
		if c.Port == nil {
			if c.EndPort != nil {
				errs = append(errs, field.Invalid(at.Child("endPort"), *c.EndPort, "may not be specified when `port` is not specified"))
			}
			continue
		}
		errs = append(errs, portNumOrName(at.Child("port"), *c.Port)...)
		if c.EndPort == nil {
			continue
		}
		if c.Port.Type == intstr.String {
			errs = append(errs, field.Invalid(at.Child("endPort"), *c.EndPort, "may not be specified when `port` is non-numeric"))
			continue
		}
		if *c.EndPort < c.Port.IntVal {
			errs = append(errs, field.Invalid(at.Child("endPort"), *c.EndPort, "must be greater than or equal to `port`"))
		}
		errs = append(errs, portNumber(at.Child("endPort"), *c.EndPort)...)
	}
	return errs
}

func peers(list []netv1.NetworkPolicyPeer, p *field.Path) errors {
	var errs errors
	for i := range list {
		r, at := &list[i], p.Index(i)
		count := 0
		if r.PodSelector != nil {
			count++
			errs = append(errs, labelSelector(at.Child("podSelector"), r.PodSelector)...)
		}
		if r.NamespaceSelector != nil {
			count++
			errs = append(errs, labelSelector(at.Child("namespaceSelector"), r.NamespaceSelector)...)
		}
		if r.IPBlock != nil {
			if count > 0 {
				errs = append(errs, field.Forbidden(at, "may not specify both ipBlock and another peer"))
			}
			count++
			errs = append(errs, ipBlock(r.IPBlock, at.Child("ipBlock"))...)
		}
		if count == 0 {
			errs = append(errs, field.Required(at, "must specify a peer"))
		}
	}
	return errs
}

func ipBlock(b *netv1.IPBlock, p *field.Path) errors {
	if b.CIDR == "" {
		return errors{field.Required(p.Child("cidr"), "")}
	}
	errs := validation.IsValidCIDRForLegacyField(p.Child("cidr"), b.CIDR, false, nil)
	_, whole, err := net.ParseCIDR(b.CIDR)
	if err != nil {
		return errs
	}
	for i, e := range b.Except {
		at := p.Child("except").Index(i)
		errs = append(errs, validation.IsValidCIDRForLegacyField(at, e, false, nil)...)
		_, part, err := net.ParseCIDR(e)
		if err != nil {
			continue
		}
		wide, _ := whole.Mask.Size()
		narrow, _ := part.Mask.Size()
		if !whole.Contains(part.IP) || wide >= narrow {
			errs = append(errs, field.Invalid(at, e, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}

func ipAddressName(name string, prefix bool) []string {
	ip := net.ParseIP(name)
	if ip == nil {
		return []string{"must be a valid IP address"}
	}
	if ip.String() != name {
		return []string{"must be in canonical form (\"" + ip.String() + "\")"}
	}
	return nil
}

func ipAddress(o *netv1.IPAddress) errors {
	p, r := field.NewPath("spec", "parentRef"), o.Spec.ParentRef
	if r == nil {
		return errors{field.Required(p, "")}
	}
	var errs errors
	if r.Group != "" {
		errs = append(errs, dnsSubdomain(p.Child("group"), r.Group)...)
	}
	errs = append(errs, plainSegment(p.Child("resource"), r.Resource, "")...)
	errs = append(errs, plainSegment(p.Child("name"), r.Name, "")...)
	if r.Namespace != "" {
		errs = append(errs, invalid(p.Child("namespace"), r.Namespace, segment(r.Namespace, false))...)
	}
	return errs
}

func serviceCIDR(o *netv1.ServiceCIDR) errors {
	p := field.NewPath("spec", "cidrs")
	if len(o.Spec.CIDRs) == 0 {
		return errors{field.Required(p, "at least one CIDR required")}
	}
	var errs errors
	if len(o.Spec.CIDRs) > 2 {
		errs = append(errs, field.Invalid(p, o.Spec.CIDRs, "may only hold up to 2 values"))
	}
	if len(o.Spec.CIDRs) == 2 && sameFamily(o.Spec.CIDRs) && parseable(o.Spec.CIDRs) {
		errs = append(errs, field.Invalid(p, o.Spec.CIDRs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"))
	}
	for i, c := range o.Spec.CIDRs {
		errs = append(errs, validation.IsValidCIDR(p.Index(i), c)...)
	}
	return errs
}

func parseable(cidrs []string) bool {
	for _, c := range cidrs {
		if _, _, err := net.ParseCIDR(c); err != nil {
			return false
		}
	}
	return true
}

func serviceCIDRUpdate(o, old *netv1.ServiceCIDR) errors {
	p := field.NewPath("spec", "cidrs")
	a, b := o.Spec.CIDRs, old.Spec.CIDRs
	switch {
	case len(b) == 1 && len(a) == 2:
		// a second family may be added
		var errs errors
		if a[0] != b[0] {
			errs = append(errs, field.Invalid(p.Index(0), a[0], "field is immutable"))
		}
		return append(errs, serviceCIDR(o)...)
	case len(a) == len(b):
		var errs errors
		for i := range a {
			if a[i] != b[i] {
				errs = append(errs, field.Invalid(p.Index(i), a[i], "field is immutable"))
			}
		}
		return errs
	}
	return errors{field.Invalid(p, a, "field is immutable")}
}
