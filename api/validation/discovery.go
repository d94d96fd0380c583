package validation

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func addDiscovery(t table) {
	rule(t, "", "v1", "Endpoints", true, subdomain, endpoints, nil)
	rule(t, "discovery.k8s.io", "v1", "EndpointSlice", true, subdomain, endpointSlice, func(o, old *discoveryv1.EndpointSlice) errors {
		return immutable(field.NewPath("addressType"), o.AddressType, old.AddressType)
	})
}

func endpoints(o *corev1.Endpoints) errors {
	var errs errors
	p := field.NewPath("subsets")
	for i := range o.Subsets {
		s, at := &o.Subsets[i], p.Index(i)
		if len(s.Addresses) == 0 && len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(at, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range s.Addresses {
			errs = append(errs, endpointAddress(&s.Addresses[j], at.Child("addresses").Index(j))...)
		}
		for j := range s.NotReadyAddresses {
			errs = append(errs, endpointAddress(&s.NotReadyAddresses[j], at.Child("notReadyAddresses").Index(j))...)
		}
		for j := range s.Ports {
			errs = append(errs, endpointPort(&s.Ports[j], len(s.Ports) > 1, at.Child("ports").Index(j))...)
		}
	}
	return errs
}

func endpointAddress(a *corev1.EndpointAddress, p *field.Path) errors {
	errs := validation.IsValidIPForLegacyField(p.Child("ip"), a.IP, false, nil)
	if a.Hostname != "" {
		errs = append(errs, dnsLabel(p.Child("hostname"), a.Hostname)...)
	}
	if a.NodeName != nil {
		errs = append(errs, invalid(p.Child("nodeName"), *a.NodeName, subdomain(*a.NodeName, false))...)
	}
	return append(errs, notSpecial(a.IP, p.Child("ip"))...)
}

func endpointPort(c *corev1.EndpointPort, named bool, p *field.Path) errors {
	var errs errors
	if named && c.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), ""))
	} else if c.Name != "" {
		errs = append(errs, dnsLabel(p.Child("name"), c.Name)...)
	}
	errs = append(errs, portNumber(p.Child("port"), c.Port)...)
	errs = append(errs, oneOfRequired(p.Child("protocol"), c.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
	if c.AppProtocol != nil {
		errs = append(errs, qualifiedName(p.Child("appProtocol"), *c.AppProtocol)...)
	}
	return errs
}

func endpointSlice(o *discoveryv1.EndpointSlice) errors {
	errs := oneOfRequired(field.NewPath("addressType"), o.AddressType, discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)
	errs = append(errs, slicePorts(o)...)
	p := field.NewPath("endpoints")
	if len(o.Endpoints) > 1000 {
		return append(errs, field.TooMany(p, len(o.Endpoints), 1000))
	}
	for i := range o.Endpoints {
		errs = append(errs, sliceEndpoint(&o.Endpoints[i], o.AddressType, p.Index(i))...)
	}
	return errs
}

func slicePorts(o *discoveryv1.EndpointSlice) errors {
	var errs errors
	ports := field.NewPath("ports")
	if len(o.Ports) > 20000 {
		return errors{field.TooMany(ports, len(o.Ports), 20000)}
	}
	names := sets.New[string]()
	for i := range o.Ports {
		c, at := &o.Ports[i], ports.Index(i)
		name := deref(c.Name, "")
		if name != "" {
			errs = append(errs, dnsLabel(at.Child("name"), name)...)
		}
		if names.Has(name) {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		names.Insert(name)
		if c.Protocol == nil {
			errs = append(errs, field.Required(at.Child("protocol"), ""))
		} else {
			errs = append(errs, oneOf(at.Child("protocol"), *c.Protocol, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		}
		if c.AppProtocol != nil {
			errs = append(errs, qualifiedName(at.Child("appProtocol"), *c.AppProtocol)...)
		}
	}
	return errs
}

func sliceEndpoint(e *discoveryv1.Endpoint, t discoveryv1.AddressType, p *field.Path) errors {
	var errs errors
	at := p.Child("addresses")
	if len(e.Addresses) == 0 {
		errs = append(errs, field.Required(at, "must contain at least 1 address"))
	} else if len(e.Addresses) > 100 {
		errs = append(errs, field.TooMany(at, len(e.Addresses), 100))
	}
	for i, a := range e.Addresses {
		errs = append(errs, sliceAddress(a, t, at, i)...)
	}
	if e.NodeName != nil {
		errs = append(errs, invalid(p.Child("nodeName"), *e.NodeName, subdomain(*e.NodeName, false))...)
	}
	if h := e.Hints; h != nil {
		errs = append(errs, hints(h, p.Child("hints"))...)
	}
	if e.Hostname != nil {
		errs = append(errs, dnsLabel(p.Child("hostname"), *e.Hostname)...)
	}
	return errs
}

func sliceAddress(a string, t discoveryv1.AddressType, list *field.Path, i int) errors {
	p := list.Index(i)
	switch t {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
		errs := validation.IsValidIPForLegacyField(p, a, true, nil)
		if len(errs) > 0 {
			return errs
		}
		if six := strings.Contains(a, ":"); six != (t == discoveryv1.AddressTypeIPv6) {
			errs = append(errs, field.Invalid(list, a, fmt.Sprintf("must be an %s address", t)))
		}
		return append(errs, notSpecial(a, p)...)
	case discoveryv1.AddressTypeFQDN:
		return validation.IsFullyQualifiedDomainName(p, a)
	}
	return nil
}

func hints(h *discoveryv1.EndpointHints, p *field.Path) errors {
	var errs errors
	zones, nodes := sets.New[string](), sets.New[string]()
	if len(h.ForZones) > 8 {
		return errors{field.TooMany(p.Child("forZones"), len(h.ForZones), 8)}
	}
	for i, z := range h.ForZones {
		at := p.Child("forZones").Index(i).Child("name")
		if zones.Has(z.Name) {
			errs = append(errs, field.Duplicate(at, z.Name))
		} else {
			zones.Insert(z.Name)
			errs = append(errs, invalid(at, z.Name, validation.IsValidLabelValue(z.Name))...)
		}
	}
	if len(h.ForNodes) > 8 {
		return append(errs, field.TooMany(p.Child("forNodes"), len(h.ForNodes), 8))
	}
	for i, n := range h.ForNodes {
		at := p.Child("forNodes").Index(i).Child("name")
		if nodes.Has(n.Name) {
			errs = append(errs, field.Duplicate(at, n.Name))
		} else {
			nodes.Insert(n.Name)
			errs = append(errs, invalid(at, n.Name, subdomain(n.Name, false))...)
		}
	}
	return errs
}
