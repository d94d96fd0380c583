package defaults

import (
	"regexp"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const defaultMode int32 = 0o644

// pod sets what only a Pod gets; a pod template gets podSpec alone.
func pod(p *corev1.Pod) {
	podSpec(&p.Spec)
	s := &p.Spec
	for i := range s.Containers {
		requestsFromLimits(&s.Containers[i].Resources)
	}
	for i := range s.InitContainers {
		requestsFromLimits(&s.InitContainers[i].Resources)
	}
	podRequests(s)
	unset(&s.EnableServiceLinks, true)
	if s.HostNetwork {
		hostPorts(s.Containers)
		hostPorts(s.InitContainers)
	}
}

func requestsFromLimits(r *corev1.ResourceRequirements) {
	if r.Limits == nil {
		return
	}
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	for k, v := range r.Limits {
		if _, ok := r.Requests[k]; !ok {
			r.Requests[k] = v.DeepCopy()
		}
	}
}

// podRequests fills pod-level requests: from the containers' sum where every container names the resource, else from the
// pod-level limit.
func podRequests(s *corev1.PodSpec) {
	r := s.Resources
	if r == nil || len(r.Limits) == 0 && len(r.Requests) == 0 {
		return
	}
	sums := containerRequests(s)
	if r.Requests == nil {
		r.Requests = corev1.ResourceList{}
	}
	for k, v := range sums {
		if _, ok := r.Requests[k]; ok || !podLevel(k) {
			continue
		}
		if _, limited := r.Limits[k]; limited || !strings.HasPrefix(string(k), corev1.ResourceHugePagesPrefix) {
			r.Requests[k] = v
		}
	}
	for k, v := range r.Limits {
		if _, ok := r.Requests[k]; !ok && podLevel(k) {
			r.Requests[k] = v.DeepCopy()
		}
	}
	if len(r.Requests) == 0 {
		r.Requests = nil
	}
}

func podLevel(k corev1.ResourceName) bool {
	return k == corev1.ResourceCPU || k == corev1.ResourceMemory || strings.HasPrefix(string(k), corev1.ResourceHugePagesPrefix)
}

// containerRequests is the pod's effective request per resource: the running containers and sidecars added up, or the
// largest init step where that is more.
func containerRequests(s *corev1.PodSpec) corev1.ResourceList {
	total, sidecars, peak := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	add := func(to, l corev1.ResourceList) {
		for k, v := range l {
			q := to[k]
			q.Add(v)
			to[k] = q
		}
	}
	raise := func(to, l corev1.ResourceList) {
		for k, v := range l {
			if q, ok := to[k]; !ok || q.Cmp(v) < 0 {
				to[k] = v.DeepCopy()
			}
		}
	}
	for i := range s.Containers {
		add(total, s.Containers[i].Resources.Requests)
	}
	for i := range s.InitContainers {
		c := &s.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(total, c.Resources.Requests)
			add(sidecars, c.Resources.Requests)
			raise(peak, sidecars)
			continue
		}
		step := corev1.ResourceList{}
		add(step, sidecars)
		add(step, c.Resources.Requests)
		raise(peak, step)
	}
	raise(total, peak)
	return total
}

func hostPorts(cs []corev1.Container) {
	for i := range cs {
		for j := range cs[i].Ports {
			zero(&cs[i].Ports[j].HostPort, cs[i].Ports[j].ContainerPort)
		}
	}
}

// podSpec sets the defaults shared by pods and every pod template.
func podSpec(s *corev1.PodSpec) {
	zero(&s.DNSPolicy, corev1.DNSClusterFirst)
	zero(&s.RestartPolicy, corev1.RestartPolicyAlways)
	unset(&s.SecurityContext, corev1.PodSecurityContext{})
	unset(&s.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	zero(&s.SchedulerName, corev1.DefaultSchedulerName)
	if s.ServiceAccountName == "" {
		s.ServiceAccountName = s.DeprecatedServiceAccount
	}
	s.DeprecatedServiceAccount = s.ServiceAccountName
	for i := range s.Volumes {
		volume(&s.Volumes[i].VolumeSource)
	}
	for i := range s.InitContainers {
		container(&s.InitContainers[i])
	}
	for i := range s.Containers {
		container(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		c := corev1.Container(s.EphemeralContainers[i].EphemeralContainerCommon)
		container(&c)
		s.EphemeralContainers[i].EphemeralContainerCommon = corev1.EphemeralContainerCommon(c)
	}
	resourceList(s.Overhead)
	if s.Resources != nil {
		resourceList(s.Resources.Limits)
		resourceList(s.Resources.Requests)
	}
}

func container(c *corev1.Container) {
	zero(&c.ImagePullPolicy, pullPolicy(c.Image))
	zero(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	zero(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		zero(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			fieldRef(from.FieldRef)
			if from.FileKeyRef != nil {
				unset(&from.FileKeyRef.Optional, false)
			}
		}
	}
	resourceList(c.Resources.Limits)
	resourceList(c.Resources.Requests)
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		probe(p)
	}
	if l := c.Lifecycle; l != nil {
		for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
			if h != nil {
				httpGet(h.HTTPGet)
			}
		}
	}
}

func fieldRef(f *corev1.ObjectFieldSelector) {
	if f != nil {
		zero(&f.APIVersion, "v1")
	}
}

func httpGet(h *corev1.HTTPGetAction) {
	if h != nil {
		zero(&h.Path, "/")
		zero(&h.Scheme, corev1.URISchemeHTTP)
	}
}

func probe(p *corev1.Probe) {
	if p == nil {
		return
	}
	zero(&p.TimeoutSeconds, 1)
	zero(&p.PeriodSeconds, 10)
	zero(&p.SuccessThreshold, 1)
	zero(&p.FailureThreshold, 3)
	httpGet(p.HTTPGet)
	if p.GRPC != nil {
		unset(&p.GRPC.Service, "")
	}
}

// pullPolicy is Always for a reference that means :latest, IfNotPresent for any other.
func pullPolicy(image string) corev1.PullPolicy {
	if tag(image) == "latest" {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// reference reads name, tag and digest of an image reference whose registry was cut off.
var reference = sync.OnceValue(func() *regexp.Regexp {
	const (
		host   = `(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?`
		part   = `[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*`
		digest = `[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}`
	)
	return regexp.MustCompile(`^(?:` + host + `/)?(` + part + `(?:/` + part + `)*)(?::([\w][\w.-]{0,127}))?(?:@(` + digest + `))?$`)
})

// tag returns the tag of an image reference: "latest" where it has neither tag nor digest, empty where only a digest, or
// where the reference cannot be read.
func tag(image string) string {
	full := image
	// a first part that could not be a host belongs to the name
	if host, _, ok := strings.Cut(image, "/"); !ok || !strings.ContainsAny(host, ".:") && host != "localhost" && strings.ToLower(host) == host {
		full = "docker.io/" + image
	}
	m := reference().FindStringSubmatch(full)
	switch {
	case m == nil || len(full)-len(m[2])-len(m[3]) > 255:
		return ""
	case m[2] != "":
		return m[2]
	case m[3] != "":
		return ""
	}
	return "latest"
}

func volume(v *corev1.VolumeSource) {
	if *v == (corev1.VolumeSource{}) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	if v.EmptyDir != nil {
		if v.EmptyDir.SizeLimit != nil {
			roundUp(v.EmptyDir.SizeLimit)
		}
	}
	if v.Secret != nil {
		unset(&v.Secret.DefaultMode, defaultMode)
	}
	if v.ConfigMap != nil {
		unset(&v.ConfigMap.DefaultMode, defaultMode)
	}
	if v.DownwardAPI != nil {
		unset(&v.DownwardAPI.DefaultMode, defaultMode)
		downward(v.DownwardAPI.Items)
	}
	if v.Projected != nil {
		unset(&v.Projected.DefaultMode, defaultMode)
		for i := range v.Projected.Sources {
			src := &v.Projected.Sources[i]
			if src.DownwardAPI != nil {
				downward(src.DownwardAPI.Items)
			}
			if src.ServiceAccountToken != nil {
				unset(&src.ServiceAccountToken.ExpirationSeconds, int64(3600))
			}
		}
	}
	if v.HostPath != nil {
		unset(&v.HostPath.Type, corev1.HostPathUnset)
	}
	if v.ISCSI != nil {
		zero(&v.ISCSI.ISCSIInterface, "default")
	}
	if v.RBD != nil {
		zero(&v.RBD.RBDPool, "rbd")
		zero(&v.RBD.RadosUser, "admin")
		zero(&v.RBD.Keyring, "/etc/ceph/keyring")
	}
	azureDisk(v.AzureDisk)
	if v.ScaleIO != nil {
		zero(&v.ScaleIO.StorageMode, "ThinProvisioned")
		zero(&v.ScaleIO.FSType, "xfs")
	}
	if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
		claimSpec(&v.Ephemeral.VolumeClaimTemplate.Spec)
	}
	if v.Image != nil {
		zero(&v.Image.PullPolicy, pullPolicy(v.Image.Reference))
	}
}

func downward(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		fieldRef(items[i].FieldRef)
	}
}

func azureDisk(a *corev1.AzureDiskVolumeSource) {
	if a == nil {
		return
	}
	unset(&a.CachingMode, corev1.AzureDataDiskCachingReadWrite)
	unset(&a.Kind, corev1.AzureSharedBlobDisk)
	unset(&a.FSType, "ext4")
	unset(&a.ReadOnly, false)
}

// resourceList rounds every quantity up to thousandths, the finest unit the API keeps.
func resourceList(l corev1.ResourceList) {
	for k, q := range l {
		if roundUp(&q) {
			l[k] = q
		}
	}
}

func roundUp(q *resource.Quantity) bool { return !q.RoundUp(resource.Milli) }
