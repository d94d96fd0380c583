package criconfig

import (
	"fmt"
	"hash/fnv"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/kubelet/cri"
)

// Node is what configurations say about the node.
type Node struct {
	Name, CgroupRoot, LogRoot string
	Memory                    int64
	DNS                       DNS
	// SeccompRoot is where Localhost profiles lie.
	SeccompRoot string
}

// Hash identifies what of a container's spec cannot change while it runs: its name and image.
func Hash(c *corev1.Container) string {
	h := fnv.New32a()
	h.Write([]byte(c.Name + "\x00" + c.Image))
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// LogDir returns the directory of the pod's logs.
func LogDir(root string, pod *corev1.Pod) string {
	return root + "/" + pod.Namespace + "_" + pod.Name + "_" + string(pod.UID)
}

func podLabels(pod *corev1.Pod) map[string]string {
	return map[string]string{cri.PodName: pod.Name, cri.PodNamespace: pod.Namespace, cri.PodUID: string(pod.UID)}
}

// Sandbox returns the configuration of the pod's sandbox.
func Sandbox(pod *corev1.Pod, node *Node, attempt uint32) *runtimeapi.PodSandboxConfig {
	labels := podLabels(pod)
	for k, v := range pod.Labels {
		if _, ours := labels[k]; !ours {
			labels[k] = v
		}
	}
	out := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		Hostname:     SandboxHostname(pod, node.Name, node.DNS.Domain),
		LogDirectory: LogDir(node.LogRoot, pod),
		DnsConfig:    node.DNS.Resolver(pod),
		Labels:       labels,
		Annotations:  pod.Annotations,
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: CgroupParent(node.CgroupRoot, pod), Resources: PodResources(pod),
			Overhead: &runtimeapi.LinuxContainerResources{}},
	}
	if !pod.Spec.HostNetwork {
		for i := range pod.Spec.Containers {
			out.PortMappings = append(out.PortMappings, ports(&pod.Spec.Containers[i])...)
		}
		for i := range pod.Spec.InitContainers {
			if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
				out.PortMappings = append(out.PortMappings, ports(c)...)
			}
		}
	}
	sec := &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: namespaces(pod), Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}}
	if sc := pod.Spec.SecurityContext; sc != nil {
		if sc.RunAsUser != nil && sc.RunAsGroup != nil {
			sec.RunAsUser = &runtimeapi.Int64Value{Value: *sc.RunAsUser}
			sec.RunAsGroup = &runtimeapi.Int64Value{Value: *sc.RunAsGroup}
		}
		sec.SupplementalGroups = groups(pod)
		sec.SupplementalGroupsPolicy = groupsPolicy(sc)
		if len(sc.Sysctls) > 0 {
			out.Linux.Sysctls = map[string]string{}
			for _, s := range sc.Sysctls {
				out.Linux.Sysctls[s.Name] = s.Value
			}
		}
	}
	for i := range pod.Spec.Containers {
		if s := pod.Spec.Containers[i].SecurityContext; s != nil && s.Privileged != nil && *s.Privileged {
			sec.Privileged = true
		}
	}
	out.Linux.SecurityContext = sec
	return out
}

func ports(c *corev1.Container) []*runtimeapi.PortMapping {
	var out []*runtimeapi.PortMapping
	for _, p := range c.Ports {
		if p.HostPort == 0 {
			continue
		}
		proto := runtimeapi.Protocol_TCP
		switch p.Protocol {
		case corev1.ProtocolUDP:
			proto = runtimeapi.Protocol_UDP
		case corev1.ProtocolSCTP:
			proto = runtimeapi.Protocol_SCTP
		}
		out = append(out, &runtimeapi.PortMapping{Protocol: proto, ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP})
	}
	return out
}

func namespaces(pod *corev1.Pod) *runtimeapi.NamespaceOption {
	out := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_POD, Pid: runtimeapi.NamespaceMode_CONTAINER, Ipc: runtimeapi.NamespaceMode_POD}
	if pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace {
		out.Pid = runtimeapi.NamespaceMode_POD
	}
	if pod.Spec.HostPID {
		out.Pid = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostNetwork {
		out.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		out.Ipc = runtimeapi.NamespaceMode_NODE
	}
	return out
}

func groups(pod *corev1.Pod) []int64 {
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return nil
	}
	out := append([]int64(nil), sc.SupplementalGroups...)
	if sc.FSGroup != nil {
		out = append(out, *sc.FSGroup)
	}
	return out
}

func groupsPolicy(sc *corev1.PodSecurityContext) runtimeapi.SupplementalGroupsPolicy {
	if sc.SupplementalGroupsPolicy != nil && *sc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
		return runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return runtimeapi.SupplementalGroupsPolicy_Merge
}

// ContainerInput is what a container's configuration is made of.
type ContainerInput struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	Node      *Node
	Attempt   uint32
	Image     *runtimeapi.Image
	ImageRef  string
	Env       []Var
	Mounts    []*runtimeapi.Mount
	Devices   []*runtimeapi.Device
	// TargetID is the container whose processes an ephemeral container shares, or empty.
	TargetID string
}

// Container returns the configuration of one container. An error is one of the spec: CreateContainerConfigError.
func Container(in *ContainerInput) (*runtimeapi.ContainerConfig, error) {
	c, pod := in.Container, in.Pod
	values := make(map[string]string, len(in.Env))
	for _, v := range in.Env {
		values[v.Name] = v.Value
	}
	known := func(n string) (string, bool) { v, ok := values[n]; return v, ok }
	expand := func(list []string) []string {
		var out []string
		for _, s := range list {
			out = append(out, Expand(s, known))
		}
		return out
	}
	sec, err := security(in)
	if err != nil {
		return nil, err
	}
	out := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: in.Attempt},
		Image:       &runtimeapi.ImageSpec{Image: in.ImageRef, UserSpecifiedImage: c.Image},
		Command:     expand(c.Command),
		Args:        expand(c.Args),
		WorkingDir:  c.WorkingDir,
		Mounts:      in.Mounts,
		Devices:     in.Devices,
		Labels:      podLabels(pod),
		Annotations: containerAnnotations(in),
		LogPath:     fmt.Sprintf("%s/%d.log", c.Name, in.Attempt),
		Stdin:       c.Stdin, StdinOnce: c.StdinOnce, Tty: c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{Resources: ContainerResources(pod, c, in.Node.Memory), SecurityContext: sec},
	}
	out.Labels[cri.ContainerName] = c.Name
	for _, v := range in.Env {
		out.Envs = append(out.Envs, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		if n, ok := runtimeapi.Signal_value[string(*c.Lifecycle.StopSignal)]; ok {
			out.StopSignal = runtimeapi.Signal(n)
		}
	}
	return out, nil
}

func containerAnnotations(in *ContainerInput) map[string]string {
	c := in.Container
	out := map[string]string{cri.Hash: Hash(c), cri.RestartCount: strconv.Itoa(int(in.Attempt)), cri.MessagePath: c.TerminationMessagePath,
		cri.MessagePolicy: string(c.TerminationMessagePolicy)}
	if g := in.Pod.Spec.TerminationGracePeriodSeconds; g != nil {
		out[cri.PodGrace] = strconv.FormatInt(*g, 10)
	}
	return out
}

var (
	maskedPaths = []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

func security(in *ContainerInput) (*runtimeapi.LinuxContainerSecurityContext, error) {
	c, pod := in.Container, in.Pod
	sc, psc := c.SecurityContext, pod.Spec.SecurityContext
	if sc == nil {
		sc = &corev1.SecurityContext{}
	}
	if psc == nil {
		psc = &corev1.PodSecurityContext{}
	}
	out := &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: namespaces(pod), SupplementalGroups: groups(pod), SupplementalGroupsPolicy: groupsPolicy(psc)}
	if in.TargetID != "" {
		out.NamespaceOptions.Pid, out.NamespaceOptions.TargetId = runtimeapi.NamespaceMode_TARGET, in.TargetID
	}
	out.Privileged = sc.Privileged != nil && *sc.Privileged
	out.ReadonlyRootfs = sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem
	out.NoNewPrivs = sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation
	if sc.Capabilities != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, v := range sc.Capabilities.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(v))
		}
		for _, v := range sc.Capabilities.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(v))
		}
	}
	if !out.Privileged && (sc.ProcMount == nil || *sc.ProcMount == corev1.DefaultProcMount) {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	out.Seccomp = seccomp(sc, psc, out.Privileged, in.Node.SeccompRoot)
	out.Apparmor = apparmor(sc, psc, out.Privileged)
	selinux := sc.SELinuxOptions
	if selinux == nil {
		selinux = psc.SELinuxOptions
	}
	if selinux != nil {
		out.SelinuxOptions = &runtimeapi.SELinuxOption{User: selinux.User, Role: selinux.Role, Type: selinux.Type, Level: selinux.Level}
	}
	return out, users(in, sc, psc, out)
}

// users sets the user and group and refuses root where the spec does.
func users(in *ContainerInput, sc *corev1.SecurityContext, psc *corev1.PodSecurityContext, out *runtimeapi.LinuxContainerSecurityContext) error {
	user, group, nonRoot := sc.RunAsUser, sc.RunAsGroup, sc.RunAsNonRoot
	if user == nil {
		user = psc.RunAsUser
	}
	if group == nil {
		group = psc.RunAsGroup
	}
	if nonRoot == nil {
		nonRoot = psc.RunAsNonRoot
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", in.Pod.Name+"_"+in.Pod.Namespace+"("+string(in.Pod.UID)+")", in.Container.Name)
	must := nonRoot != nil && *nonRoot
	switch {
	case user != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *user}
		if must && *user == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy %s", where)
		}
	case in.Image.GetUid() != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: in.Image.Uid.Value}
		if must && in.Image.Uid.Value == 0 {
			return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
		}
	case in.Image.GetUsername() != "":
		out.RunAsUsername = in.Image.Username
		if must {
			return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", in.Image.Username, where)
		}
	case must:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", where)
	}
	if group != nil {
		if out.RunAsUser == nil && out.RunAsUsername == "" {
			out.RunAsUser = &runtimeapi.Int64Value{}
		}
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *group}
	}
	return nil
}

func seccomp(sc *corev1.SecurityContext, psc *corev1.PodSecurityContext, privileged bool, root string) *runtimeapi.SecurityProfile {
	p := sc.SeccompProfile
	if p == nil {
		p = psc.SeccompProfile
	}
	switch {
	case privileged, p != nil && p.Type == corev1.SeccompProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	case p != nil && p.Type == corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: root + "/" + *p.LocalhostProfile}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
}

func apparmor(sc *corev1.SecurityContext, psc *corev1.PodSecurityContext, privileged bool) *runtimeapi.SecurityProfile {
	p := sc.AppArmorProfile
	if p == nil {
		p = psc.AppArmorProfile
	}
	switch {
	case p == nil && !privileged:
		return nil
	case p == nil, p.Type == corev1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	case p.Type == corev1.AppArmorProfileTypeLocalhost && p.LocalhostProfile != nil:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *p.LocalhostProfile}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
}
