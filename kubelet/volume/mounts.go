package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Mounts returns how a container sees the pod's volumes. expand resolves the variables of a subPathExpr.
func (v *Volumes) Mounts(pod *corev1.Pod, c *corev1.Container, look Lookup, expand func(string) (string, error)) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		var vol *corev1.Volume
		for j := range pod.Spec.Volumes {
			if pod.Spec.Volumes[j].Name == m.Name {
				vol = &pod.Spec.Volumes[j]
			}
		}
		if vol == nil {
			return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, c.Name)
		}
		host, readonly, err := v.hostPath(pod, vol, look)
		if err != nil {
			return nil, err
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			if sub, err = expand(m.SubPathExpr); err != nil {
				return nil, err
			}
		}
		if sub != "" {
			if host, err = v.subPath(pod, vol, host, sub, c.Name, i); err != nil {
				return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", m.Name, c.Name, err)
			}
		}
		path := m.MountPath
		if !filepath.IsAbs(path) {
			path = "/" + path
		}
		mount := &runtimeapi.Mount{ContainerPath: path, HostPath: host, Readonly: m.ReadOnly || readonly, Propagation: propagation(m.MountPropagation)}
		if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled && mount.Readonly {
			mount.RecursiveReadOnly = *m.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled
		}
		out = append(out, mount)
	}
	return out, nil
}

func propagation(p *corev1.MountPropagationMode) runtimeapi.MountPropagation {
	switch {
	case p == nil:
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
	case *p == corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case *p == corev1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}

func (v *Volumes) hostPath(pod *corev1.Pod, vol *corev1.Volume, look Lookup) (path string, readonly bool, err error) {
	switch s := &vol.VolumeSource; {
	case s.HostPath != nil:
		return s.HostPath.Path, false, nil
	case s.PersistentVolumeClaim != nil, s.Ephemeral != nil:
		path, readonly, err = look.Path(claimName(pod, vol))
		if s.PersistentVolumeClaim != nil && s.PersistentVolumeClaim.ReadOnly {
			readonly = true
		}
		return path, readonly, err
	case s.ConfigMap != nil, s.Secret != nil, s.Projected != nil, s.DownwardAPI != nil:
		return v.dir(pod.UID, vol), true, nil
	}
	return v.dir(pod.UID, vol), false, nil
}

// subPath binds what lies at sub below host to a place that the pod's containers cannot change, so that a link they swap
// in later leads nowhere else. Links that leave the volume are refused by the kernel.
func (v *Volumes) subPath(pod *corev1.Pod, vol *corev1.Volume, host, sub, container string, index int) (string, error) {
	sub = filepath.Clean(sub)
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q must be a path inside the volume", sub)
	}
	root, err := unix.Open(host, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open volume: %w", err)
	}
	defer unix.Close(root)
	fd, err := openBelow(root, sub)
	if errors.Is(err, unix.ENOENT) {
		if err = makeBelow(root, sub); err == nil {
			fd, err = openBelow(root, sub)
		}
	}
	if err != nil {
		return "", fmt.Errorf("open %q in the volume: %w", sub, err)
	}
	defer unix.Close(fd)
	target := filepath.Join(v.PodDir(pod.UID), "volume-subpaths", vol.Name, container, strconv.Itoa(index))
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return "", err
	}
	have, err := v.mount.Below(filepath.Dir(target))
	if err != nil {
		return "", err
	}
	for _, m := range have {
		if m == target { // of an earlier run of the container: what it shows may be out of date
			if err := v.mount.Unmount(m); err != nil {
				return "", err
			}
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if err := os.RemoveAll(target); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(target, 0o750)
	} else {
		err = os.WriteFile(target, nil, 0o640)
	}
	if err != nil {
		return "", err
	}
	return target, v.mount.Bind(fd, target)
}

func openBelow(root int, path string) (int, error) {
	return unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
}

// makeBelow makes the missing directories of path, each below one that was opened without leaving root.
func makeBelow(root int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return err
	}
	done := ""
	for _, part := range strings.Split(path, "/") {
		parent := root
		if done != "" {
			fd, err := openBelow(root, done)
			if err != nil {
				return err
			}
			parent = fd
		}
		err := unix.Mkdirat(parent, part, st.Mode&0o7777)
		if err == nil && parent != root {
			err = chmodBelow(parent, part, st.Mode&0o7777)
		} else if err == nil {
			err = chmodBelow(root, part, st.Mode&0o7777)
		}
		if parent != root {
			unix.Close(parent)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		done = filepath.Join(done, part)
	}
	return nil
}

func chmodBelow(dir int, name string, mode uint32) error {
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fchmod(fd, mode)
}
