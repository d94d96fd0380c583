package endpointslice

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"karve/controller/pods"
)

// Most is how many endpoints a slice holds.
const Most = 100

const managedBy = "endpointslice-controller.k8s.io"

// Zones tells the zone of a node; "" when it has none.
type Zones func(node string) string

// Plan is the slices to write so that a Service's slices list exactly its endpoints.
type Plan struct {
	Create, Update, Delete []*discoveryv1.EndpointSlice
}

// group is the endpoints of one address family that share a list of ports.
type group struct {
	family discoveryv1.AddressType
	ports  []discoveryv1.EndpointPort
	ends   []discoveryv1.Endpoint
}

// plan compares the slices of svc with what its pods ask for. Slices are changed as little as possible: an endpoint stays
// where it is, new ones fill slices that change anyway, and a slice is deleted only when it would be empty.
func plan(svc *corev1.Service, list []*corev1.Pod, zones Zones, have []*discoveryv1.EndpointSlice, trigger time.Time) Plan {
	var out Plan
	groups := wanted(svc, list, zones)
	left := slices.Clone(have)
	slices.SortFunc(left, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		g := groups[key]
		var mine []*discoveryv1.EndpointSlice
		left = slices.DeleteFunc(left, func(s *discoveryv1.EndpointSlice) bool {
			if s.AddressType != g.family || portsKey(s.Ports) != portsKey(g.ports) {
				return false
			}
			mine = append(mine, s)
			return true
		})
		fill(&out, svc, g, mine, trigger)
	}
	out.Delete = append(out.Delete, left...)
	reuse(&out)
	return out
}

// reuse turns a create and a delete of one address family into an update: half the writes, and one event for readers.
func reuse(p *Plan) {
	p.Create = slices.DeleteFunc(p.Create, func(c *discoveryv1.EndpointSlice) bool {
		i := slices.IndexFunc(p.Delete, func(d *discoveryv1.EndpointSlice) bool {
			return d.AddressType == c.AddressType && d.DeletionTimestamp == nil
		})
		if i < 0 {
			return false
		}
		u := p.Delete[i].DeepCopy()
		u.Endpoints, u.Ports, u.Labels, u.Annotations, u.OwnerReferences = c.Endpoints, c.Ports, c.Labels, c.Annotations, c.OwnerReferences
		p.Update = append(p.Update, u)
		p.Delete = slices.Delete(p.Delete, i, i+1)
		return true
	})
}

func fill(out *Plan, svc *corev1.Service, g *group, have []*discoveryv1.EndpointSlice, trigger time.Time) {
	missing := map[string]discoveryv1.Endpoint{}
	order := make([]string, 0, len(g.ends))
	for _, e := range g.ends {
		id := identity(&e)
		if _, double := missing[id]; !double {
			order = append(order, id)
		}
		missing[id] = e
	}
	labels := sliceLabels(svc)
	type work struct {
		was, now *discoveryv1.EndpointSlice
		touched  bool
	}
	var all []*work
	for _, s := range have {
		w := &work{was: s, now: s.DeepCopy()}
		w.now.Endpoints = nil
		for _, e := range s.Endpoints {
			id := identity(&e)
			want, ok := missing[id]
			if !ok {
				w.touched = true
				continue
			}
			delete(missing, id)
			if !apiequality.Semantic.DeepEqual(e, want) {
				w.touched = true
			}
			w.now.Endpoints = append(w.now.Endpoints, want)
		}
		if !maps.Equal(w.now.Labels, labels) {
			w.touched, w.now.Labels = true, labels
		}
		all = append(all, w)
	}
	var add []discoveryv1.Endpoint
	for _, id := range order {
		if e, ok := missing[id]; ok {
			add = append(add, e)
		}
	}
	slices.SortStableFunc(all, func(a, b *work) int { // those written anyway first, then the fullest
		if a.touched != b.touched {
			return boolFirst(a.touched)
		}
		return cmp.Compare(len(b.now.Endpoints), len(a.now.Endpoints))
	})
	for _, w := range all {
		n := min(Most-len(w.now.Endpoints), len(add))
		if n > 0 {
			w.now.Endpoints, add, w.touched = append(w.now.Endpoints, add[:n]...), add[n:], true
		}
	}
	kept := 0
	for i, w := range all {
		last := kept == 0 && len(add) == 0 && i == len(all)-1
		switch {
		case len(w.now.Endpoints) == 0 && !last:
			out.Delete = append(out.Delete, w.was)
		case w.touched:
			kept++
			stamp(w.now, trigger)
			out.Update = append(out.Update, w.now)
		default:
			kept++
		}
	}
	for first := true; len(add) > 0 || first && kept == 0; first = false {
		n := min(Most, len(add))
		s := newSlice(svc, g)
		s.Endpoints, add = slices.Clone(add[:n]), add[n:]
		stamp(s, trigger)
		out.Create = append(out.Create, s)
	}
}

func boolFirst(a bool) int {
	if a {
		return -1
	}
	return 1
}

func stamp(s *discoveryv1.EndpointSlice, trigger time.Time) {
	if trigger.IsZero() {
		delete(s.Annotations, corev1.EndpointsLastChangeTriggerTime)
		return
	}
	s.Annotations = maps.Clone(s.Annotations)
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[corev1.EndpointsLastChangeTriggerTime] = trigger.UTC().Format(time.RFC3339Nano)
}

func identity(e *discoveryv1.Endpoint) string {
	id := strings.Join(e.Addresses, ",")
	if e.TargetRef != nil {
		id += "/" + string(e.TargetRef.UID)
	}
	return id
}

func portsKey(list []discoveryv1.EndpointPort) string {
	keys := make([]string, len(list))
	for i, p := range list {
		keys[i] = deref(p.Name) + "\x00" + string(deref(p.Protocol)) + "\x00" + strconv.Itoa(int(deref(p.Port))) + "\x00" + deref(p.AppProtocol)
	}
	slices.Sort(keys)
	return strings.Join(keys, "\x01")
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// wanted computes the groups of endpoints. A family without endpoints has one empty group, so that readers can tell a
// Service without endpoints from one not looked at yet.
func wanted(svc *corev1.Service, list []*corev1.Pod, zones Zones) map[string]*group {
	out := map[string]*group{}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	for _, family := range Families(svc) {
		found := false
		for _, p := range list {
			ip := Address(p, family)
			if pods.Finished(p) || ip == "" {
				continue
			}
			found = true
			ports := podPorts(svc, p)
			key := string(family) + "\x02" + portsKey(ports)
			g := out[key]
			if g == nil {
				g = &group{family: family, ports: ports}
				out[key] = g
			}
			g.ends = append(g.ends, endpoint(svc, p, ip, zones))
		}
		if !found {
			out[string(family)+"\x02"] = &group{family: family}
		}
	}
	return out
}

// Families returns the address families that svc has endpoints of.
func Families(svc *corev1.Service) (out []discoveryv1.AddressType) {
	for _, f := range svc.Spec.IPFamilies {
		if f == corev1.IPv6Protocol {
			out = append(out, discoveryv1.AddressTypeIPv6)
		} else {
			out = append(out, discoveryv1.AddressTypeIPv4)
		}
	}
	if len(out) == 0 {
		out = append(out, discoveryv1.AddressTypeIPv4)
		if a, err := netip.ParseAddr(svc.Spec.ClusterIP); err == nil && a.Is6() {
			out[0] = discoveryv1.AddressTypeIPv6
		}
	}
	return out
}

// Address returns the pod's address of that family, or "".
func Address(p *corev1.Pod, family discoveryv1.AddressType) string {
	list := p.Status.PodIPs
	if len(list) == 0 && p.Status.PodIP != "" {
		list = []corev1.PodIP{{IP: p.Status.PodIP}}
	}
	for _, ip := range list {
		if a, err := netip.ParseAddr(ip.IP); err == nil && a.Is6() == (family == discoveryv1.AddressTypeIPv6) {
			return ip.IP
		}
	}
	return ""
}

func podPorts(svc *corev1.Service, p *corev1.Pod) (out []discoveryv1.EndpointPort) {
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		if n, ok := TargetPort(p, sp); ok {
			name, proto := sp.Name, sp.Protocol
			out = append(out, discoveryv1.EndpointPort{Name: &name, Port: &n, Protocol: &proto, AppProtocol: sp.AppProtocol})
		}
	}
	return out
}

// TargetPort resolves a Service port on a pod; a name is looked up among the ports of its containers and sidecars.
func TargetPort(p *corev1.Pod, sp *corev1.ServicePort) (int32, bool) {
	if sp.TargetPort.Type == intstr.Int {
		if sp.TargetPort.IntVal == 0 {
			return sp.Port, true
		}
		return sp.TargetPort.IntVal, true
	}
	find := func(c *corev1.Container) (int32, bool) {
		for _, cp := range c.Ports {
			if cp.Name == sp.TargetPort.StrVal && cp.Protocol == sp.Protocol {
				return cp.ContainerPort, true
			}
		}
		return 0, false
	}
	for i := range p.Spec.Containers {
		if n, ok := find(&p.Spec.Containers[i]); ok {
			return n, true
		}
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			continue
		}
		if n, ok := find(c); ok {
			return n, true
		}
	}
	return 0, false
}

func endpoint(svc *corev1.Service, p *corev1.Pod, ip string, zones Zones) discoveryv1.Endpoint {
	serving, terminating := pods.Ready(p), p.DeletionTimestamp != nil
	ready := svc.Spec.PublishNotReadyAddresses || serving && !terminating
	e := discoveryv1.Endpoint{
		Addresses:  []string{ip},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
	if h := p.Spec.Hostname; h != "" && p.Spec.Subdomain == svc.Name {
		e.Hostname = &h
	}
	if node := p.Spec.NodeName; node != "" {
		e.NodeName = &node
		if z := zones(node); z != "" {
			e.Zone = &z
		}
	}
	if ready && svc.Spec.TrafficDistribution != nil {
		e.Hints = hints(*svc.Spec.TrafficDistribution, e.Zone, e.NodeName)
	}
	return e
}

func hints(distribution string, zone, node *string) *discoveryv1.EndpointHints {
	h := &discoveryv1.EndpointHints{}
	switch distribution {
	case corev1.ServiceTrafficDistributionPreferSameNode:
		if node != nil {
			h.ForNodes = []discoveryv1.ForNode{{Name: *node}}
		}
		fallthrough
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
		if zone != nil {
			h.ForZones = []discoveryv1.ForZone{{Name: *zone}}
		}
	}
	if h.ForNodes == nil && h.ForZones == nil {
		return nil
	}
	return h
}

func sliceLabels(svc *corev1.Service) map[string]string {
	out := map[string]string{}
	for k, v := range svc.Labels {
		switch k {
		case discoveryv1.LabelServiceName, discoveryv1.LabelManagedBy, corev1.IsHeadlessService:
		default:
			out[k] = v
		}
	}
	out[discoveryv1.LabelServiceName], out[discoveryv1.LabelManagedBy] = svc.Name, managedBy
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		out[corev1.IsHeadlessService] = ""
	}
	return out
}

func newSlice(svc *corev1.Service, g *group) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{GenerateName: svc.Name + "-", Namespace: svc.Namespace, Labels: sliceLabels(svc),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, corev1.SchemeGroupVersion.WithKind("Service"))}},
		AddressType: g.family, Ports: g.ports,
	}
}
