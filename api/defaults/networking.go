package defaults

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netv1 "k8s.io/api/networking/v1"
)

func addNetworking(t table) {
	set(t, "networking.k8s.io", "v1", "NetworkPolicy", networkPolicy)
	set(t, "networking.k8s.io", "v1", "IngressClass", func(o *netv1.IngressClass) {
		if o.Spec.Parameters != nil {
			unset(&o.Spec.Parameters.Scope, netv1.IngressClassParametersReferenceScopeCluster)
		}
	})
	set(t, "discovery.k8s.io", "v1", "EndpointSlice", func(o *discoveryv1.EndpointSlice) {
		for i := range o.Ports {
			unset(&o.Ports[i].Name, "")
			unset(&o.Ports[i].Protocol, corev1.ProtocolTCP)
		}
	})
}

func networkPolicy(o *netv1.NetworkPolicy) {
	for i := range o.Spec.Ingress {
		policyPorts(o.Spec.Ingress[i].Ports)
	}
	for i := range o.Spec.Egress {
		policyPorts(o.Spec.Egress[i].Ports)
	}
	if len(o.Spec.PolicyTypes) == 0 {
		o.Spec.PolicyTypes = []netv1.PolicyType{netv1.PolicyTypeIngress}
		if len(o.Spec.Egress) > 0 {
			o.Spec.PolicyTypes = append(o.Spec.PolicyTypes, netv1.PolicyTypeEgress)
		}
	}
}

func policyPorts(ports []netv1.NetworkPolicyPort) {
	for i := range ports {
		unset(&ports[i].Protocol, corev1.ProtocolTCP)
	}
}
