package printcolumns

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
)

func lower(s string) string { return strings.ToLower(s) }

func groupOf(apiVersion string) string {
	if i := strings.IndexByte(apiVersion, '/'); i >= 0 {
		return apiVersion[:i]
	}
	return ""
}

func addNetwork(t table) {
	const g = "networking.k8s.io"
	add(t, "", "v1", "Service", serviceRow, func() columns {
		s := corev1.ServiceSpec{}
		return columns{nameColumn(), text("Type", doc(s, "type")), text("Cluster-IP", doc(s, "clusterIP")), text("External-IP", doc(s, "externalIPs")), text("Port(s)", doc(s, "ports")), ageColumn(),
			wide(text("Selector", doc(s, "selector")))}
	})
	add(t, "", "v1", "Endpoints", func(o *corev1.Endpoints, now time.Time) []any {
		return []any{o.Name, endpoints(o), age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("Endpoints", doc(corev1.Endpoints{}, "subsets")), ageColumn()}
	})
	add(t, "discovery.k8s.io", "v1", "EndpointSlice", sliceRow, func() columns {
		s := discoveryv1.EndpointSlice{}
		return columns{nameColumn(), text("AddressType", doc(s, "addressType")), text("Ports", doc(s, "ports")), text("Endpoints", doc(s, "endpoints")), ageColumn()}
	})
	add(t, g, "v1", "Ingress", ingressRow, func() columns {
		return columns{nameColumn(), text("Class", "The name of the IngressClass resource that should be used for additional configuration"),
			text("Hosts", "Hosts that incoming requests are matched against before the ingress rule"), text("Address", "Address is a list containing ingress points for the load-balancer"),
			text("Ports", "Ports of TLS configurations that open"), ageColumn()}
	})
	add(t, g, "v1", "IngressClass", func(o *netv1.IngressClass, now time.Time) []any {
		parameters := "<none>"
		if p := o.Spec.Parameters; p != nil {
			parameters = p.Kind
			if p.APIGroup != nil {
				parameters += "." + *p.APIGroup
			}
			parameters += "/" + p.Name
		}
		name := o.Name
		if o.Annotations[netv1.AnnotationIsDefaultIngressClass] == "true" {
			name += " (default)"
		}
		return []any{name, o.Spec.Controller, parameters, age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("Controller", "Controller that is responsible for handling this class"), text("Parameters", "A reference to a resource with additional parameters"), ageColumn()}
	})
	add(t, g, "v1", "NetworkPolicy", func(o *netv1.NetworkPolicy, now time.Time) []any {
		return []any{o.Name, selector(&o.Spec.PodSelector), age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("Pod-Selector", doc(netv1.NetworkPolicySpec{}, "podSelector")), ageColumn()}
	})
	add(t, g, "v1", "ServiceCIDR", func(o *netv1.ServiceCIDR, now time.Time) []any {
		return []any{o.Name, strings.Join(o.Spec.CIDRs, ","), age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("CIDRs", doc(netv1.ServiceCIDRSpec{}, "cidrs")), ageColumn()}
	})
	// upstream names two columns and fills three
	add(t, g, "v1", "IPAddress", func(o *netv1.IPAddress, now time.Time) []any {
		parent := "<none>"
		if r := o.Spec.ParentRef; r != nil {
			parts := []string{r.Resource}
			if r.Group != "" {
				parts[0] += "." + r.Group
			}
			if r.Namespace != "" {
				parts = append(parts, r.Namespace)
			}
			parts[0] = strings.ToLower(parts[0])
			parent = strings.Join(append(parts, r.Name), "/")
		}
		return []any{o.Name, parent, age(o.CreationTimestamp, now)}
	}, func() columns {
		return columns{nameColumn(), text("ParentRef", doc(netv1.IPAddressSpec{}, "parentRef"))}
	})
}

func serviceRow(o *corev1.Service, now time.Time) []any {
	internal, external := "<none>", externalIP(o)
	if len(o.Spec.ClusterIPs) > 0 {
		internal = o.Spec.ClusterIPs[0]
	} else if o.Spec.ClusterIP != "" {
		internal = o.Spec.ClusterIP
	}
	ports := make([]string, len(o.Spec.Ports))
	for i, p := range o.Spec.Ports {
		ports[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
		if p.NodePort > 0 {
			ports[i] = fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol)
		}
	}
	return []any{o.Name, string(o.Spec.Type), internal, external, orNone(strings.Join(ports, ",")), age(o.CreationTimestamp, now), labels.FormatLabels(o.Spec.Selector)}
}

func externalIP(o *corev1.Service) string {
	switch o.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return orNone(strings.Join(o.Spec.ExternalIPs, ","))
	case corev1.ServiceTypeLoadBalancer:
		points := ingressPoints(o.Status.LoadBalancer.Ingress)
		if len(o.Spec.ExternalIPs) > 0 {
			all := append([]string{}, o.Spec.ExternalIPs...)
			if points != "" {
				all = append([]string{points}, all...)
			}
			return strings.Join(all, ",")
		}
		if points != "" {
			return points
		}
		return "<pending>"
	case corev1.ServiceTypeExternalName:
		return o.Spec.ExternalName
	}
	return "<unknown>"
}

func ingressPoints(list []corev1.LoadBalancerIngress) string {
	set := sets.New[string]()
	for _, i := range list {
		if i.IP != "" {
			set.Insert(i.IP)
		} else if i.Hostname != "" {
			set.Insert(i.Hostname)
		}
	}
	return strings.Join(sets.List(set), ",")
}

const shown = 3

func more(list []string, total int) string {
	if len(list) == 0 {
		return "<none>"
	}
	s := strings.Join(list, ",")
	if total > len(list) {
		s = fmt.Sprintf("%s + %d more...", s, total-len(list))
	}
	return s
}

func endpoints(o *corev1.Endpoints) string {
	if len(o.Subsets) == 0 {
		return "<none>"
	}
	var list []string
	total := 0
	for i := range o.Subsets {
		s := &o.Subsets[i]
		if len(s.Ports) == 0 {
			for j := range s.Addresses {
				if total++; len(list) < shown {
					list = append(list, s.Addresses[j].IP)
				}
			}
			continue
		}
		for j := range s.Ports {
			for k := range s.Addresses {
				if total++; len(list) < shown {
					list = append(list, joinPort(s.Addresses[k].IP, s.Ports[j].Port))
				}
			}
		}
	}
	return more(list, total)
}

func joinPort(ip string, port int32) string {
	if strings.Contains(ip, ":") {
		ip = "[" + ip + "]"
	}
	return ip + ":" + strconv.Itoa(int(port))
}

func sliceRow(o *discoveryv1.EndpointSlice, now time.Time) []any {
	var ports, addresses []string
	total := 0
	if len(o.Ports) == 0 {
		ports = []string{"<unset>"}
	}
	for _, p := range o.Ports {
		if len(ports) == shown {
			break
		}
		s := "*"
		if p.Port != nil {
			s = strconv.Itoa(int(*p.Port))
		} else if p.Name != nil && *p.Name != "" {
			s = *p.Name
		}
		ports = append(ports, s)
	}
	for i := range o.Endpoints {
		for _, a := range o.Endpoints[i].Addresses {
			if total++; len(addresses) < shown {
				addresses = append(addresses, a)
			}
		}
	}
	portCell := more(ports, max(len(o.Ports), len(ports)))
	addressCell := "<unset>"
	if total > 0 {
		addressCell = more(addresses, total)
	}
	return []any{o.Name, string(o.AddressType), portCell, addressCell, age(o.CreationTimestamp, now)}
}

func ingressRow(o *netv1.Ingress, now time.Time) []any {
	class := "<none>"
	if c, ok := o.Annotations["kubernetes.io/ingress.class"]; ok {
		class = c
	}
	if o.Spec.IngressClassName != nil {
		class = *o.Spec.IngressClassName
	}
	var hosts []string
	for i, r := range o.Spec.Rules {
		if i >= shown {
			break
		}
		if r.Host != "" {
			hosts = append(hosts, r.Host)
		}
	}
	host := "*"
	if len(hosts) > 0 {
		host = more(hosts, max(len(o.Spec.Rules), len(hosts)))
	}
	ports := "80"
	if len(o.Spec.TLS) > 0 {
		ports = "80, 443"
	}
	set := sets.New[string]()
	for _, i := range o.Status.LoadBalancer.Ingress {
		if i.IP != "" {
			set.Insert(i.IP)
		} else if i.Hostname != "" {
			set.Insert(i.Hostname)
		}
	}
	return []any{o.Name, class, host, strings.Join(sets.List(set), ","), ports, age(o.CreationTimestamp, now)}
}
