package strategy

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
)

func createNamespace(n *corev1.Namespace) {
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
		n.Spec.Finalizers = append(slices.Clone(n.Spec.Finalizers), corev1.FinalizerKubernetes)
	}
}

func updateNamespace(n, old *corev1.Namespace) { n.Spec.Finalizers = old.Spec.Finalizers }

func finalizeNamespace(n, old *corev1.Namespace) { n.Status = old.Status }

func createService(s *corev1.Service) {
	if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
}

func updateService(s, old *corev1.Service) {
	patchAllocated(s, old)
	normalizeIPs(&s.Spec, &old.Spec)
	dropTypeFields(s, old)
}

// normalizeIPs follows a client that knows only one of the single address and the list of addresses.
func normalizeIPs(s, old *corev1.ServiceSpec) {
	if len(old.ClusterIPs) > 0 && len(s.ClusterIPs) == 0 && s.ClusterIP == old.ClusterIP {
		s.ClusterIPs = old.ClusterIPs
	}
	if s.ClusterIP == old.ClusterIP || !slices.Equal(s.ClusterIPs, old.ClusterIPs) {
		return
	}
	s.ClusterIPs = nil
	if s.ClusterIP != "" {
		s.ClusterIPs = []string{s.ClusterIP}
	}
}

// patchAllocated fills what was allocated to old into an update that leaves it out, so that a client may put back the
// manifest it created the Service from. Ports are the same by their names.
func patchAllocated(s, old *corev1.Service) {
	a, b := &s.Spec, &old.Spec
	if b.Type != corev1.ServiceTypeExternalName && a.Type != corev1.ServiceTypeExternalName {
		if a.ClusterIP == "" {
			a.ClusterIP = b.ClusterIP
		}
		if len(a.ClusterIPs) == 0 && a.ClusterIP == b.ClusterIP {
			a.ClusterIPs = b.ClusterIPs
		}
	}
	ports := func(t corev1.ServiceType) bool {
		return t == corev1.ServiceTypeNodePort || t == corev1.ServiceTypeLoadBalancer
	}
	if ports(a.Type) && ports(b.Type) {
		was, taken := map[string]int32{}, map[int32]bool{}
		for i := range b.Ports {
			was[b.Ports[i].Name] = b.Ports[i].NodePort
		}
		for i := range a.Ports {
			taken[a.Ports[i].NodePort] = true
		}
		for i := range a.Ports {
			if p := &a.Ports[i]; p.NodePort == 0 && !taken[was[p.Name]] {
				p.NodePort = was[p.Name]
			}
		}
	}
	if healthChecked(a) && healthChecked(b) && a.HealthCheckNodePort == 0 {
		a.HealthCheckNodePort = b.HealthCheckNodePort
	}
}

func healthChecked(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeLoadBalancer && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// dropTypeFields wipes fields that belong to the type the Service had before, where the update carried them along.
func dropTypeFields(s, old *corev1.Service) {
	a, b := &s.Spec, &old.Spec
	if b.Type != corev1.ServiceTypeExternalName && a.Type == corev1.ServiceTypeExternalName {
		if a.ClusterIP == b.ClusterIP && slices.Equal(a.ClusterIPs, b.ClusterIPs) {
			a.ClusterIP, a.ClusterIPs = "", nil
		}
		if slices.Equal(a.IPFamilies, b.IPFamilies) {
			a.IPFamilies = nil
		}
		if a.IPFamilyPolicy != nil && b.IPFamilyPolicy != nil && *a.IPFamilyPolicy == *b.IPFamilyPolicy {
			a.IPFamilyPolicy = nil
		}
	}
	nodePorts := func(sp *corev1.ServiceSpec) bool {
		return sp.Type == corev1.ServiceTypeNodePort || sp.Type == corev1.ServiceTypeLoadBalancer && (sp.AllocateLoadBalancerNodePorts == nil || *sp.AllocateLoadBalancerNodePorts)
	}
	if nodePorts(b) && !nodePorts(a) && sameNodePorts(b.Ports, a.Ports) && a.Type != corev1.ServiceTypeLoadBalancer {
		for i := range a.Ports {
			a.Ports[i].NodePort = 0
		}
	}
	if healthChecked(b) && !healthChecked(a) && a.HealthCheckNodePort == b.HealthCheckNodePort {
		a.HealthCheckNodePort = 0
	}
	if b.Type == corev1.ServiceTypeLoadBalancer && a.Type != corev1.ServiceTypeLoadBalancer {
		if equalPtr(a.AllocateLoadBalancerNodePorts, b.AllocateLoadBalancerNodePorts) {
			a.AllocateLoadBalancerNodePorts = nil
		}
		if equalPtr(a.LoadBalancerClass, b.LoadBalancerClass) {
			a.LoadBalancerClass = nil
		}
		s.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	}
	external := func(sp *corev1.ServiceSpec) bool {
		return sp.Type == corev1.ServiceTypeNodePort || sp.Type == corev1.ServiceTypeLoadBalancer || sp.Type == corev1.ServiceTypeClusterIP && len(sp.ExternalIPs) > 0
	}
	if external(b) && !external(a) && a.ExternalTrafficPolicy == b.ExternalTrafficPolicy {
		a.ExternalTrafficPolicy = ""
	}
}

func sameNodePorts(old, new []corev1.ServicePort) bool {
	set := map[int32]bool{}
	for i := range old {
		set[old[i].NodePort] = true
	}
	for i := range new {
		if !set[new[i].NodePort] {
			return false
		}
	}
	return true
}

func equalPtr[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// createNode drops the configuration a kubelet once took from the API; the fields are still there, the feature is not.
func createNode(n *corev1.Node) {
	n.Spec.ConfigSource = nil
	n.Status.Config = nil
}

// canonNode fills in what may be allocated where nothing is said: an empty list is not kept, and then says nothing.
func canonNode(n *corev1.Node) {
	if len(n.Status.Allocatable) == 0 && len(n.Status.Capacity) > 0 {
		n.Status.Allocatable = maps.Clone(n.Status.Capacity)
	}
}

func updateNode(n, old *corev1.Node) {
	if old.Spec.ConfigSource == nil {
		n.Spec.ConfigSource = nil
	}
}

// createAccount keeps nothing of a reference but the name of the Secret.
func createAccount(a *corev1.ServiceAccount) {
	for i := range a.Secrets {
		a.Secrets[i] = corev1.ObjectReference{Name: a.Secrets[i].Name}
	}
}

// createSlice drops what an earlier version of the kind said about topology.
func createSlice(e *discoveryv1.EndpointSlice) {
	for i := range e.Endpoints {
		e.Endpoints[i].DeprecatedTopology = nil
	}
}

func nodeStatus(n, old *corev1.Node) {
	if n.Status.Config != nil && old.Status.Config == nil {
		n.Status.Config = nil
	}
}

func createVolume(v *corev1.PersistentVolume) {
	now := metav1.Now().Rfc3339Copy() // whole seconds, as it is stored
	v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: &now}
}

func updateVolume(v, old *corev1.PersistentVolume) { v.Status = old.Status }

func volumeStatus(v, old *corev1.PersistentVolume) {
	if v.Status.Phase != old.Status.Phase {
		if v.Status.LastPhaseTransitionTime == nil || old.Status.LastPhaseTransitionTime != nil && v.Status.LastPhaseTransitionTime.Equal(old.Status.LastPhaseTransitionTime) {
			now := metav1.Now().Rfc3339Copy() // whole seconds, as it is stored
			v.Status.LastPhaseTransitionTime = &now
		}
	} else if v.Status.LastPhaseTransitionTime == nil {
		v.Status.LastPhaseTransitionTime = old.Status.LastPhaseTransitionTime
	}
}

func createClaim(c *corev1.PersistentVolumeClaim) {
	c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
	if c.Spec.DataSourceRef != nil {
		c.Spec.DataSourceRef.Namespace = nil
	}
	if c.Spec.DataSourceRef == nil && !copyable(c.Spec.DataSource) {
		c.Spec.DataSource = nil
	}
	normalizeSource(&c.Spec)
}

func updateClaim(c, old *corev1.PersistentVolumeClaim) {
	if r := c.Spec.DataSourceRef; r != nil && (old.Spec.DataSourceRef == nil || old.Spec.DataSourceRef.Namespace == nil) {
		r.Namespace = nil
	}
	if old.Spec.DataSource == nil && c.Spec.DataSourceRef == nil && !copyable(c.Spec.DataSource) {
		c.Spec.DataSource = nil
	}
	normalizeSource(&c.Spec)
}

// copyable reports whether the older field may name a source: it knows claims and snapshots, and forgets anything else.
func copyable(s *corev1.TypedLocalObjectReference) bool {
	if s == nil {
		return false
	}
	group := ""
	if s.APIGroup != nil {
		group = *s.APIGroup
	}
	return group == "" && s.Kind == "PersistentVolumeClaim" || group == "snapshot.storage.k8s.io" && s.Kind == "VolumeSnapshot"
}

// normalizeSource keeps the older dataSource and the newer dataSourceRef in line.
func normalizeSource(s *corev1.PersistentVolumeClaimSpec) {
	if s.DataSourceRef != nil && s.DataSourceRef.Namespace != nil && *s.DataSourceRef.Namespace != "" {
		return
	}
	switch {
	case s.DataSource != nil && s.DataSourceRef == nil:
		s.DataSourceRef = &corev1.TypedObjectReference{APIGroup: s.DataSource.APIGroup, Kind: s.DataSource.Kind, Name: s.DataSource.Name}
	case s.DataSourceRef != nil && s.DataSource == nil:
		s.DataSource = &corev1.TypedLocalObjectReference{APIGroup: s.DataSourceRef.APIGroup, Kind: s.DataSourceRef.Kind, Name: s.DataSourceRef.Name}
	}
}

// createLimitRange names a LimitRange that came without a name.
func createLimitRange(l *corev1.LimitRange) {
	if l.Name == "" {
		l.Name = string(uuid.NewUUID())
	}
}

func updateSecret(s, old *corev1.Secret) {
	// an update that leaves the type out means the type it has
	if s.Type == "" {
		s.Type = old.Type
	}
}
