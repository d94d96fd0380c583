// Package volume makes the directories that a pod's volumes are and says how a container sees them. kubelet/podrun calls
// it: Setup before the sandbox, Refresh when a ConfigMap, Secret, label or token changed, Mounts for each container,
// TearDown at the end. It owns everything below <root>/pods/<uid>/volumes and volume-subpaths, and never removes
// anything behind a mount. It binds no claims and speaks to no storage driver: a claim is the host path of its volume.
package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"karve/kubelet/criconfig"
)

// Lookup reads what volumes refer to, in the pod's namespace.
type Lookup interface {
	criconfig.Lookup
	// Path returns the host path behind a bound claim and whether it is read only.
	Path(claim string) (string, bool, error)
	// Token asks for a token of the pod's service account.
	Token(p *corev1.ServiceAccountTokenProjection) (token string, expires time.Time, err error)
}

// Mounter is the part that needs root.
type Mounter interface {
	Tmpfs(path string, size int64) error
	// Bind mounts what fd, an O_PATH descriptor, stands for.
	Bind(fd int, path string) error
	Unmount(path string) error
	// Below returns the mount points below a directory, the innermost first.
	Below(dir string) ([]string, error)
}

// Volumes makes volumes below Root. It is safe for concurrent use by different pods.
type Volumes struct {
	root  string
	mount Mounter
	now   func() time.Time

	mu     sync.Mutex
	tokens map[string]token
}

type token struct {
	value   string
	renewAt time.Time
}

// New returns the volumes below root, the kubelet's directory.
func New(root string, m Mounter, now func() time.Time) *Volumes {
	return &Volumes{root: root, mount: m, now: now, tokens: map[string]token{}}
}

// PodDir returns the directory of all that belongs to a pod.
func (v *Volumes) PodDir(uid types.UID) string { return filepath.Join(v.root, "pods", string(uid)) }

var plugins = []struct {
	name string
	is   func(*corev1.VolumeSource) bool
}{
	{"empty-dir", func(s *corev1.VolumeSource) bool { return s.EmptyDir != nil }},
	{"configmap", func(s *corev1.VolumeSource) bool { return s.ConfigMap != nil }},
	{"secret", func(s *corev1.VolumeSource) bool { return s.Secret != nil }},
	{"projected", func(s *corev1.VolumeSource) bool { return s.Projected != nil }},
	{"downward-api", func(s *corev1.VolumeSource) bool { return s.DownwardAPI != nil }},
	{"host-path", func(s *corev1.VolumeSource) bool { return s.HostPath != nil }},
	{"claim", func(s *corev1.VolumeSource) bool { return s.PersistentVolumeClaim != nil || s.Ephemeral != nil }},
}

func plugin(vol *corev1.Volume) string {
	for _, p := range plugins {
		if p.is(&vol.VolumeSource) {
			return p.name
		}
	}
	return ""
}

func (v *Volumes) dir(uid types.UID, vol *corev1.Volume) string {
	return filepath.Join(v.PodDir(uid), "volumes", "kubernetes.io~"+plugin(vol), vol.Name)
}

func volumeError(pod *corev1.Pod, name string, err error) error {
	return &Error{Volume: name, err: fmt.Errorf("set up volume %q of pod %s/%s: %w", name, pod.Namespace, pod.Name, err)}
}

// Error is a volume that could not be made.
type Error struct {
	Volume string
	err    error
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

// Setup makes every volume of the pod that is not there yet and returns when Refresh is due, or zero. The error is an
// *Error.
func (v *Volumes) Setup(ctx context.Context, pod *corev1.Pod, look Lookup, facts *criconfig.Facts) (time.Time, error) {
	for i := range pod.Spec.Volumes {
		if err := ctx.Err(); err != nil {
			return time.Time{}, err
		}
		vol := &pod.Spec.Volumes[i]
		if err := v.make(pod, vol, look); err != nil {
			return time.Time{}, volumeError(pod, vol.Name, err)
		}
	}
	return v.Refresh(ctx, pod, look, facts)
}

func (v *Volumes) make(pod *corev1.Pod, vol *corev1.Volume, look Lookup) error {
	dir := v.dir(pod.UID, vol)
	switch s := &vol.VolumeSource; {
	case s.EmptyDir != nil:
		return v.emptyDir(pod, s.EmptyDir, dir)
	case s.ConfigMap != nil, s.DownwardAPI != nil:
		return os.MkdirAll(dir, 0o755)
	case s.Secret != nil, s.Projected != nil:
		return v.tmpfs(dir, 0)
	case s.HostPath != nil:
		return checkHostPath(s.HostPath)
	case s.PersistentVolumeClaim != nil, s.Ephemeral != nil:
		path, _, err := look.Path(claimName(pod, vol))
		if err != nil {
			return err
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("path %q does not exist: %w", path, err)
		}
		return nil
	}
	return fmt.Errorf("this node knows no volumes of its type")
}

func claimName(pod *corev1.Pod, vol *corev1.Volume) string {
	if vol.PersistentVolumeClaim != nil {
		return vol.PersistentVolumeClaim.ClaimName
	}
	return pod.Name + "-" + vol.Name
}

func (v *Volumes) tmpfs(dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	have, err := v.mount.Below(filepath.Dir(dir))
	if err != nil {
		return err
	}
	for _, m := range have {
		if m == dir {
			return nil
		}
	}
	return v.mount.Tmpfs(dir, size)
}

func (v *Volumes) emptyDir(pod *corev1.Pod, s *corev1.EmptyDirVolumeSource, dir string) error {
	if s.Medium == corev1.StorageMediumMemory {
		size := int64(0)
		if s.SizeLimit != nil {
			size = s.SizeLimit.Value()
		}
		if err := v.tmpfs(dir, size); err != nil {
			return err
		}
	} else if s.Medium != corev1.StorageMediumDefault {
		return fmt.Errorf("unknown storage medium %q", s.Medium)
	} else if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	mode := os.FileMode(0o777)
	if sc := pod.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
		if err := os.Chown(dir, -1, int(*sc.FSGroup)); err != nil {
			return err
		}
		mode |= os.ModeSetgid
	}
	return os.Chmod(dir, mode)
}

func checkHostPath(s *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if s.Type != nil {
		kind = *s.Type
	}
	switch kind {
	case corev1.HostPathUnset:
		return nil
	case corev1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(s.Path, 0o755); err != nil {
			return err
		}
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(s.Path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	}
	st, err := os.Stat(s.Path)
	if err != nil {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", s.Path, hostPathNames[kind])
	}
	mode := st.Mode()
	ok := map[corev1.HostPathType]bool{
		corev1.HostPathDirectoryOrCreate: mode.IsDir(), corev1.HostPathDirectory: mode.IsDir(),
		corev1.HostPathFileOrCreate: mode.IsRegular(), corev1.HostPathFile: mode.IsRegular(),
		corev1.HostPathSocket: mode&os.ModeSocket != 0, corev1.HostPathCharDev: mode&os.ModeCharDevice != 0,
		corev1.HostPathBlockDev: mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0,
	}[kind]
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", s.Path, hostPathNames[kind])
	}
	return nil
}

var hostPathNames = map[corev1.HostPathType]string{
	corev1.HostPathDirectoryOrCreate: "directory", corev1.HostPathDirectory: "directory", corev1.HostPathFileOrCreate: "file", corev1.HostPathFile: "file",
	corev1.HostPathSocket: "socket file", corev1.HostPathCharDev: "character device", corev1.HostPathBlockDev: "block device",
}

// TearDown unmounts and removes every volume of a pod. It may be called again after an error.
func (v *Volumes) TearDown(uid types.UID) error {
	dir := v.PodDir(uid)
	mounts, err := v.mount.Below(dir)
	if err != nil {
		return fmt.Errorf("tear down volumes of pod %s: %w", uid, err)
	}
	for _, m := range mounts {
		if err := v.mount.Unmount(m); err != nil {
			return fmt.Errorf("unmount %s: %w", m, err)
		}
	}
	if mounts, err = v.mount.Below(dir); err != nil || len(mounts) > 0 {
		return fmt.Errorf("tear down volumes of pod %s: %d mounts are left: %w", uid, len(mounts), err)
	}
	v.mu.Lock()
	for k := range v.tokens {
		if len(k) > len(uid) && k[:len(uid)] == string(uid) {
			delete(v.tokens, k)
		}
	}
	v.mu.Unlock()
	for _, sub := range []string{"volumes", "volume-subpaths"} {
		if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
			return fmt.Errorf("remove volumes of pod %s: %w", uid, err)
		}
	}
	return nil
}
