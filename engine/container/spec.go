// Package container turns what CRI says about a container into an OCI runtime specification.
//
// The engine calls it when a container is created or its exec starts. It is pure but for User, which reads files below a
// container's root; it owns nothing, mounts nothing and runs nothing.
package container

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sandbox is what a container takes from its pod. Empty namespace paths mean the host's namespace.
type Sandbox struct {
	Hostname     string
	NetNS        string
	IPCNS        string
	UTSNS        string
	PIDNS        string // shared by the pod, or that of a target container
	HostPID      bool
	Shm          string // directory to mount at /dev/shm
	ResolvConf   string // files to mount below /etc, "" for none
	HostnameFile string
	UserNS       *runtimeapi.UserNamespace // nil for the host's
	UserNSPath   string
}

// Host is what this machine can do.
type Host struct {
	Unified      bool // cgroup version 2 only
	Hugetlb      bool // huge pages can be limited
	Swap         bool // swap can be limited
	AppArmor     bool
	Capabilities []string            // all that can be granted, as CAP_NAME
	Devices      []specs.LinuxDevice // for privileged containers
}

// Input is everything a specification is made from.
type Input struct {
	Config   *runtimeapi.ContainerConfig
	Image    v1.Config
	Rootfs   string
	User     User
	Sandbox  Sandbox
	Host     Host
	Cgroup   string                      // absolute path of the container's cgroup
	Seccomp  *specs.LinuxSeccomp         // content of a localhost profile
	Devices  []specs.LinuxDevice         // host devices named in the configuration, resolved
	Defaults *runtimeapi.SecurityProfile // nil, or the seccomp profile of containers that ask for none
}

// Spec makes the specification. It fails for configurations that make no sense, and for lack of a host feature only where
// going on without it would leave the container less confined than it asks for.
func Spec(in Input) (*specs.Spec, error) {
	sc := in.Config.GetLinux().GetSecurityContext()
	args, err := arguments(in.Config, in.Image)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(sc, in.Host.Capabilities)
	if err != nil {
		return nil, err
	}
	cwd := in.Config.WorkingDir
	if cwd == "" {
		cwd = in.Image.WorkingDir
	}
	if cwd == "" {
		cwd = "/"
	}
	if !filepath.IsAbs(cwd) {
		return nil, fmt.Errorf("working directory %q is not absolute", cwd)
	}
	oom := int(in.Config.GetLinux().GetResources().GetOomScoreAdj())
	if !slices.Contains(in.Host.Capabilities, "CAP_SYS_RESOURCE") { // without it no process gets below the score it inherits
		oom = max(oom, 0)
	}
	s := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: in.Rootfs, Readonly: sc.GetReadonlyRootfs()},
		Process: &specs.Process{
			Terminal:        in.Config.Tty,
			Args:            args,
			Env:             environment(in),
			Cwd:             cwd,
			User:            specs.User{UID: in.User.UID, GID: in.User.GID, AdditionalGids: in.User.Groups},
			Capabilities:    caps,
			NoNewPrivileges: sc.GetNoNewPrivs(),
			OOMScoreAdj:     &oom,
		},
		Linux: &specs.Linux{CgroupsPath: in.Cgroup, Namespaces: namespaces(in), Resources: Resources(in.Config.GetLinux().GetResources(), in.Host)},
	}
	if in.Sandbox.UTSNS == "" && in.Sandbox.NetNS != "" {
		s.Hostname = in.Sandbox.Hostname
	}
	if s.Mounts, err = mounts(in); err != nil {
		return nil, err
	}
	for _, m := range in.Config.Mounts {
		switch m.Propagation {
		case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
			s.Linux.RootfsPropagation = "rshared"
		case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
			if s.Linux.RootfsPropagation == "" {
				s.Linux.RootfsPropagation = "rslave"
			}
		}
	}
	userNamespace(s, in.Sandbox)
	devices(s, in)
	return s, security(s, in)
}

func security(s *specs.Spec, in Input) error {
	sc := in.Config.GetLinux().GetSecurityContext()
	if sc.GetPrivileged() {
		return nil
	}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = sc.GetMaskedPaths(), sc.GetReadonlyPaths()
	profile := sc.GetSeccomp()
	if profile == nil {
		profile = in.Defaults
	}
	switch {
	case profile == nil || profile.ProfileType == runtimeapi.SecurityProfile_Unconfined:
	case profile.ProfileType == runtimeapi.SecurityProfile_Localhost:
		if in.Seccomp == nil {
			return fmt.Errorf("seccomp profile %q was not read", profile.LocalhostRef)
		}
		s.Linux.Seccomp = in.Seccomp
	default:
		s.Linux.Seccomp = DefaultSeccomp(s.Process.Capabilities.Bounding)
	}
	if a := sc.GetApparmor(); a.GetProfileType() == runtimeapi.SecurityProfile_Localhost {
		if !in.Host.AppArmor || a.LocalhostRef == "" {
			return fmt.Errorf("AppArmor profile %q cannot be enforced on this machine", a.LocalhostRef)
		}
		s.Process.ApparmorProfile = strings.TrimPrefix(a.LocalhostRef, "localhost/")
	}
	return nil
}

// arguments joins command and image: a command of one's own also drops the image's arguments.
func arguments(c *runtimeapi.ContainerConfig, img v1.Config) ([]string, error) {
	command, args := c.Command, c.Args
	if len(command) == 0 {
		command = img.Entrypoint
		if len(args) == 0 {
			args = img.Cmd
		}
	}
	out := slices.Concat(command, args)
	if len(out) == 0 || out[0] == "" {
		return nil, fmt.Errorf("no command specified")
	}
	return out, nil
}

func environment(in Input) []string {
	var out []string
	set := func(kv string) {
		k, _, _ := strings.Cut(kv, "=")
		for i, have := range out {
			if strings.HasPrefix(have, k+"=") {
				out[i] = kv
				return
			}
		}
		out = append(out, kv)
	}
	set("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if in.Sandbox.Hostname != "" {
		set("HOSTNAME=" + in.Sandbox.Hostname)
	}
	if in.Config.Tty {
		set("TERM=xterm")
	}
	for _, e := range in.Image.Env {
		set(e)
	}
	for _, e := range in.Config.Envs {
		set(e.Key + "=" + string(e.Value))
	}
	return out
}

func namespaces(in Input) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		path string
	}{{specs.NetworkNamespace, in.Sandbox.NetNS}, {specs.IPCNamespace, in.Sandbox.IPCNS}, {specs.UTSNamespace, in.Sandbox.UTSNS}} {
		if n.path != "" {
			ns = append(ns, specs.LinuxNamespace{Type: n.kind, Path: n.path})
		}
	}
	if !in.Sandbox.HostPID {
		ns = append(ns, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: in.Sandbox.PIDNS})
	}
	if in.Host.Unified && !in.Config.GetLinux().GetSecurityContext().GetPrivileged() {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return ns
}

func userNamespace(s *specs.Spec, sb Sandbox) {
	if sb.UserNS == nil || sb.UserNS.Mode != runtimeapi.NamespaceMode_POD {
		return
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: sb.UserNSPath})
	s.Linux.UIDMappings, s.Linux.GIDMappings = Mappings(sb.UserNS.Uids), Mappings(sb.UserNS.Gids)
}

// Mappings translates CRI's id mappings.
func Mappings(in []*runtimeapi.IDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range in {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.ContainerId, HostID: m.HostId, Size: m.Length})
	}
	return out
}

func devices(s *specs.Spec, in Input) {
	if in.Config.GetLinux().GetSecurityContext().GetPrivileged() {
		s.Linux.Devices = in.Host.Devices
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for i, d := range in.Devices {
		access := "rwm"
		if i < len(in.Config.Devices) && in.Config.Devices[i].Permissions != "" {
			access = in.Config.Devices[i].Permissions
		}
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: access})
		s.Linux.Devices = append(s.Linux.Devices, d)
	}
	s.Linux.Resources.Devices = rules
}

// Resources translates limits. What the host cannot limit is left out.
func Resources(r *runtimeapi.LinuxContainerResources, h Host) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if r == nil {
		return out
	}
	cpu := &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CpuShares > 0 {
		n := uint64(r.CpuShares)
		cpu.Shares = &n
	}
	if r.CpuPeriod > 0 {
		n := uint64(r.CpuPeriod)
		cpu.Period = &n
	}
	if r.CpuQuota != 0 {
		n := r.CpuQuota
		cpu.Quota = &n
	}
	out.CPU = cpu
	if r.MemoryLimitInBytes > 0 {
		n := r.MemoryLimitInBytes
		out.Memory = &specs.LinuxMemory{Limit: &n}
		if r.MemorySwapLimitInBytes > 0 && h.Swap {
			n := r.MemorySwapLimitInBytes
			out.Memory.Swap = &n
		}
	}
	if h.Hugetlb {
		for _, l := range r.HugepageLimits {
			out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: l.PageSize, Limit: l.Limit})
		}
	}
	if h.Unified && len(r.Unified) > 0 {
		out.Unified = r.Unified
	}
	return out
}
