package container

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mounts lists what is mounted in a container: the kernel's file systems, the pod's files, then the configuration's
// mounts, parents before what is below them. A mount of the configuration replaces ours at the same place.
func mounts(in Input) ([]specs.Mount, error) {
	privileged := in.Config.GetLinux().GetSecurityContext().GetPrivileged()
	sysMode := "ro"
	if privileged {
		sysMode = "rw"
	}
	base := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", sysMode}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", sysMode}},
	}
	if in.Sandbox.HostPID && in.Sandbox.UserNS != nil {
		base[0] = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind", "nosuid", "noexec", "nodev"}}
	}
	if in.Sandbox.Shm != "" {
		base = append(base, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.Sandbox.Shm, Options: []string{"rbind", "rprivate", "nosuid", "noexec", "nodev"}})
	}
	fileMode := "rw"
	if in.Config.GetLinux().GetSecurityContext().GetReadonlyRootfs() {
		fileMode = "ro"
	}
	for _, f := range [][2]string{{in.Sandbox.ResolvConf, "/etc/resolv.conf"}, {in.Sandbox.HostnameFile, "/etc/hostname"}} {
		if f[0] != "" {
			base = append(base, specs.Mount{Destination: f[1], Type: "bind", Source: f[0], Options: []string{"rbind", "rprivate", fileMode}})
		}
	}
	var own []specs.Mount
	for _, m := range in.Config.Mounts {
		om, err := bindMount(m)
		if err != nil {
			return nil, err
		}
		own = append(own, om)
	}
	slices.SortStableFunc(own, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	base = slices.DeleteFunc(base, func(b specs.Mount) bool {
		return slices.ContainsFunc(own, func(o specs.Mount) bool { return o.Destination == b.Destination })
	})
	return append(base, own...), nil
}

func bindMount(m *runtimeapi.Mount) (specs.Mount, error) {
	dst := filepath.Clean(m.ContainerPath)
	if m.ContainerPath == "" || dst == "/" {
		return specs.Mount{}, fmt.Errorf("mount of %q has no place in the container", m.HostPath)
	}
	if !filepath.IsAbs(dst) {
		dst = filepath.Join("/", dst)
	}
	if !filepath.IsAbs(m.HostPath) {
		return specs.Mount{}, fmt.Errorf("mount at %q: host path %q is not absolute", dst, m.HostPath)
	}
	propagation, ok := map[runtimeapi.MountPropagation]string{
		runtimeapi.MountPropagation_PROPAGATION_PRIVATE:           "rprivate",
		runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER: "rslave",
		runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:     "rshared",
	}[m.Propagation]
	if !ok {
		return specs.Mount{}, fmt.Errorf("mount at %q: unknown propagation", dst)
	}
	mode := "rw"
	switch {
	case m.RecursiveReadOnly && !m.Readonly:
		return specs.Mount{}, fmt.Errorf("mount at %q: recursively read-only but not read-only", dst)
	case m.RecursiveReadOnly && propagation != "rprivate":
		return specs.Mount{}, fmt.Errorf("mount at %q: recursively read-only needs private propagation", dst)
	case m.RecursiveReadOnly:
		mode = "rro"
	case m.Readonly:
		mode = "ro"
	}
	return specs.Mount{Destination: dst, Type: "bind", Source: m.HostPath, Options: []string{"rbind", propagation, mode},
		UIDMappings: Mappings(m.UidMappings), GIDMappings: Mappings(m.GidMappings)}, nil
}
