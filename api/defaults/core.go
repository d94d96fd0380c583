package defaults

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func addCore(t table) {
	set(t, "", "v1", "Pod", pod)
	set(t, "", "v1", "PodTemplate", func(o *corev1.PodTemplate) { podSpec(&o.Template.Spec) })
	set(t, "", "v1", "ReplicationController", replicationController)
	set(t, "", "v1", "Service", service)
	set(t, "", "v1", "Namespace", namespace)
	set(t, "", "v1", "Node", node)
	set(t, "", "v1", "Secret", secret)
	set(t, "", "v1", "Endpoints", endpoints)
	set(t, "", "v1", "LimitRange", limitRange)
	set(t, "", "v1", "ResourceQuota", func(o *corev1.ResourceQuota) {
		resourceList(o.Spec.Hard)
		resourceList(o.Status.Hard)
		resourceList(o.Status.Used)
	})
	set(t, "", "v1", "PersistentVolume", persistentVolume)
	set(t, "", "v1", "PersistentVolumeClaim", func(o *corev1.PersistentVolumeClaim) { claim(o) })
}

func replicationController(o *corev1.ReplicationController) {
	if tpl := o.Spec.Template; tpl != nil {
		if len(tpl.Labels) > 0 {
			if len(o.Spec.Selector) == 0 {
				o.Spec.Selector = maps.Clone(tpl.Labels)
			}
			if len(o.Labels) == 0 {
				o.Labels = maps.Clone(tpl.Labels)
			}
		}
		podSpec(&tpl.Spec)
	}
	unset(&o.Spec.Replicas, int32(1))
}

func service(o *corev1.Service) {
	s := &o.Spec
	zero(&s.SessionAffinity, corev1.ServiceAffinityNone)
	if s.SessionAffinity == corev1.ServiceAffinityNone {
		s.SessionAffinityConfig = nil
	}
	if s.SessionAffinity == corev1.ServiceAffinityClientIP {
		if s.SessionAffinityConfig == nil || s.SessionAffinityConfig.ClientIP == nil || s.SessionAffinityConfig.ClientIP.TimeoutSeconds == nil {
			seconds := corev1.DefaultClientIPServiceAffinitySeconds
			s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
		}
	}
	zero(&s.Type, corev1.ServiceTypeClusterIP)
	for i := range s.Ports {
		p := &s.Ports[i]
		zero(&p.Protocol, corev1.ProtocolTCP)
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	outside := s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer
	if outside || s.Type == corev1.ServiceTypeClusterIP && len(s.ExternalIPs) > 0 {
		zero(&s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	if outside || s.Type == corev1.ServiceTypeClusterIP {
		unset(&s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	}
	if s.Type == corev1.ServiceTypeLoadBalancer {
		unset(&s.AllocateLoadBalancerNodePorts, true)
		for i := range o.Status.LoadBalancer.Ingress {
			if in := &o.Status.LoadBalancer.Ingress[i]; in.IP != "" {
				unset(&in.IPMode, corev1.LoadBalancerIPModeVIP)
			}
		}
	}
}

func namespace(o *corev1.Namespace) {
	if o.Name != "" {
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[corev1.LabelMetadataName] = o.Name
	}
	zero(&o.Status.Phase, corev1.NamespaceActive)
}

func node(o *corev1.Node) {
	resourceList(o.Status.Capacity)
	resourceList(o.Status.Allocatable)
	if o.Status.Allocatable == nil && o.Status.Capacity != nil {
		o.Status.Allocatable = o.Status.Capacity.DeepCopy()
	}
	// the single and the plural form of the pod range are one fact
	if len(o.Spec.PodCIDRs) == 0 && o.Spec.PodCIDR != "" {
		o.Spec.PodCIDRs = []string{o.Spec.PodCIDR}
	} else if len(o.Spec.PodCIDRs) > 0 && o.Spec.PodCIDR != "" && o.Spec.PodCIDR != o.Spec.PodCIDRs[0] {
		o.Spec.PodCIDRs = []string{o.Spec.PodCIDR}
	} else if len(o.Spec.PodCIDRs) > 0 {
		o.Spec.PodCIDR = o.Spec.PodCIDRs[0]
	}
}

func secret(o *corev1.Secret) {
	zero(&o.Type, corev1.SecretTypeOpaque)
	// stringData is write-only: it wins over data and is never kept
	if len(o.StringData) > 0 {
		if o.Data == nil {
			o.Data = make(map[string][]byte, len(o.StringData))
		}
		for k, v := range o.StringData {
			o.Data[k] = []byte(v)
		}
	}
	o.StringData = nil
}

func endpoints(o *corev1.Endpoints) {
	for i := range o.Subsets {
		for j := range o.Subsets[i].Ports {
			zero(&o.Subsets[i].Ports[j].Protocol, corev1.ProtocolTCP)
		}
	}
}

func limitRange(o *corev1.LimitRange) {
	for i := range o.Spec.Limits {
		l := &o.Spec.Limits[i]
		for _, r := range []corev1.ResourceList{l.Max, l.Min, l.Default, l.DefaultRequest, l.MaxLimitRequestRatio} {
			resourceList(r)
		}
		if l.Type != corev1.LimitTypeContainer {
			continue
		}
		if l.Default == nil {
			l.Default = corev1.ResourceList{}
		}
		if l.DefaultRequest == nil {
			l.DefaultRequest = corev1.ResourceList{}
		}
		inherit(l.Default, l.Max)
		inherit(l.DefaultRequest, l.Default)
		inherit(l.DefaultRequest, l.Min)
	}
}

func inherit(to, from corev1.ResourceList) {
	for k, v := range from {
		if _, ok := to[k]; !ok {
			to[k] = v.DeepCopy()
		}
	}
}

func persistentVolume(o *corev1.PersistentVolume) {
	zero(&o.Status.Phase, corev1.VolumePending)
	s := &o.Spec
	zero(&s.PersistentVolumeReclaimPolicy, corev1.PersistentVolumeReclaimRetain)
	unset(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
	resourceList(s.Capacity)
	if s.HostPath != nil {
		unset(&s.HostPath.Type, corev1.HostPathUnset)
	}
	if s.ISCSI != nil {
		zero(&s.ISCSI.ISCSIInterface, "default")
	}
	if s.RBD != nil {
		zero(&s.RBD.RBDPool, "rbd")
		zero(&s.RBD.RadosUser, "admin")
		zero(&s.RBD.Keyring, "/etc/ceph/keyring")
	}
	azureDisk(s.AzureDisk)
	if s.ScaleIO != nil {
		zero(&s.ScaleIO.StorageMode, "ThinProvisioned")
		zero(&s.ScaleIO.FSType, "xfs")
	}
}

func claim(o *corev1.PersistentVolumeClaim) {
	zero(&o.Status.Phase, corev1.ClaimPending)
	claimSpec(&o.Spec)
	resourceList(o.Status.Capacity)
	resourceList(o.Status.AllocatedResources)
}

func claimSpec(s *corev1.PersistentVolumeClaimSpec) {
	unset(&s.VolumeMode, corev1.PersistentVolumeFilesystem)
	resourceList(s.Resources.Limits)
	resourceList(s.Resources.Requests)
}
