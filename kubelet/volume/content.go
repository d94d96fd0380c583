package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"karve/kubelet/criconfig"
)

// File is one file of a volume whose content the API decides.
type File struct {
	Data []byte
	Mode os.FileMode
	// Owner is a user id, or -1.
	Owner int
}

type payload map[string]File

// Refresh writes the files of the volumes that come from the API as they are now, each volume at once or not at all, and
// returns when a token is due for renewal, or zero.
func (v *Volumes) Refresh(ctx context.Context, pod *corev1.Pod, look Lookup, facts *criconfig.Facts) (time.Time, error) {
	var next time.Time
	for i := range pod.Spec.Volumes {
		if err := ctx.Err(); err != nil {
			return next, err
		}
		vol := &pod.Spec.Volumes[i]
		c := &content{v: v, pod: pod, vol: vol, look: look, facts: facts, files: payload{}}
		ours, err := c.fill()
		if err != nil {
			return next, volumeError(pod, vol.Name, err)
		}
		if !ours {
			continue
		}
		if err := write(v.dir(pod.UID, vol), c.files, group(pod), v.now()); err != nil {
			return next, volumeError(pod, vol.Name, err)
		}
		if !c.renew.IsZero() && (next.IsZero() || c.renew.Before(next)) {
			next = c.renew
		}
	}
	return next, nil
}

func group(pod *corev1.Pod) int {
	if sc := pod.Spec.SecurityContext; sc != nil && sc.FSGroup != nil {
		return int(*sc.FSGroup)
	}
	return -1
}

type content struct {
	v     *Volumes
	pod   *corev1.Pod
	vol   *corev1.Volume
	look  Lookup
	facts *criconfig.Facts
	files payload
	renew time.Time
}

func (c *content) fill() (bool, error) {
	switch s := &c.vol.VolumeSource; {
	case s.ConfigMap != nil:
		return true, c.configMap(s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.DefaultMode, s.ConfigMap.Optional)
	case s.Secret != nil:
		return true, c.secret(s.Secret.SecretName, s.Secret.Items, s.Secret.DefaultMode, s.Secret.Optional)
	case s.DownwardAPI != nil:
		return true, c.downward(s.DownwardAPI.Items, s.DownwardAPI.DefaultMode)
	case s.Projected != nil:
		for i := range s.Projected.Sources {
			src := &s.Projected.Sources[i]
			var err error
			switch mode := s.Projected.DefaultMode; {
			case src.ConfigMap != nil:
				err = c.configMap(src.ConfigMap.Name, src.ConfigMap.Items, mode, src.ConfigMap.Optional)
			case src.Secret != nil:
				err = c.secret(src.Secret.Name, src.Secret.Items, mode, src.Secret.Optional)
			case src.DownwardAPI != nil:
				err = c.downward(src.DownwardAPI.Items, mode)
			case src.ServiceAccountToken != nil:
				err = c.token(i, src.ServiceAccountToken, mode)
			default:
				err = errors.New("a projected source is of a kind that this node does not know")
			}
			if err != nil {
				return true, err
			}
		}
		return true, nil
	}
	return false, nil
}

func mode(own, def *int32) os.FileMode {
	switch {
	case own != nil:
		return os.FileMode(*own) & 0o777
	case def != nil:
		return os.FileMode(*def) & 0o777
	}
	return 0o644
}

func (c *content) configMap(name string, items []corev1.KeyToPath, def *int32, opt *bool) error {
	cm, err := c.look.ConfigMap(name)
	if err != nil {
		if apierrors.IsNotFound(err) && opt != nil && *opt {
			return nil
		}
		return err
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, s := range cm.Data {
		data[k] = []byte(s)
	}
	for k, b := range cm.BinaryData {
		data[k] = b
	}
	return c.add(data, items, def, opt, "configmap")
}

func (c *content) secret(name string, items []corev1.KeyToPath, def *int32, opt *bool) error {
	s, err := c.look.Secret(name)
	if err != nil {
		if apierrors.IsNotFound(err) && opt != nil && *opt {
			return nil
		}
		return err
	}
	return c.add(s.Data, items, def, opt, "secret")
}

func (c *content) add(data map[string][]byte, items []corev1.KeyToPath, def *int32, opt *bool, what string) error {
	if len(items) == 0 {
		for k, b := range data {
			c.files[k] = File{Data: b, Mode: mode(nil, def), Owner: -1}
		}
		return nil
	}
	for _, it := range items {
		b, ok := data[it.Key]
		if !ok {
			if opt != nil && *opt {
				continue
			}
			return fmt.Errorf("%s references non-existent key: %s", what, it.Key)
		}
		c.files[it.Path] = File{Data: b, Mode: mode(it.Mode, def), Owner: -1}
	}
	return nil
}

func (c *content) downward(items []corev1.DownwardAPIVolumeFile, def *int32) error {
	for _, it := range items {
		var value string
		var err error
		switch {
		case it.FieldRef != nil:
			value, err = criconfig.Field(c.pod, it.FieldRef.FieldPath, c.facts)
		case it.ResourceFieldRef != nil:
			value, err = criconfig.ResourceField(container(c.pod, it.ResourceFieldRef.ContainerName), it.ResourceFieldRef, c.facts.Allocatable)
		}
		if err != nil {
			return err
		}
		c.files[it.Path] = File{Data: []byte(value), Mode: mode(it.Mode, def), Owner: -1}
	}
	return nil
}

func container(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// token keeps a token until four fifths of its life have passed, or a day.
func (c *content) token(index int, p *corev1.ServiceAccountTokenProjection, def *int32) error {
	key := fmt.Sprintf("%s/%s/%d", c.pod.UID, c.vol.Name, index)
	now := c.v.now()
	c.v.mu.Lock()
	t, ok := c.v.tokens[key]
	c.v.mu.Unlock()
	if !ok || !now.Before(t.renewAt) {
		value, expires, err := c.look.Token(p)
		if err != nil {
			return fmt.Errorf("failed to fetch token: %w", err)
		}
		life := max(expires.Sub(now)*4/5, 10*time.Second)
		t = token{value: value, renewAt: now.Add(min(life, 24*time.Hour))}
		c.v.mu.Lock()
		c.v.tokens[key] = t
		c.v.mu.Unlock()
	}
	if c.renew.IsZero() || t.renewAt.Before(c.renew) {
		c.renew = t.renewAt
	}
	f := File{Data: []byte(t.value), Mode: mode(nil, def), Owner: -1}
	if group(c.pod) >= 0 {
		f.Mode = 0o600
	} else if uid, same := oneUser(c.pod); same {
		f.Mode, f.Owner = 0o600, int(uid)
	}
	c.files[p.Path] = f
	return nil
}

// oneUser returns the user that all containers of the pod run as, when the spec names it.
func oneUser(pod *corev1.Pod) (int64, bool) {
	var user *int64
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			var u *int64
			if pod.Spec.SecurityContext != nil {
				u = pod.Spec.SecurityContext.RunAsUser
			}
			if sc := list[i].SecurityContext; sc != nil && sc.RunAsUser != nil {
				u = sc.RunAsUser
			}
			if u == nil || user != nil && *user != *u {
				return 0, false
			}
			user = u
		}
	}
	if user == nil {
		return 0, false
	}
	return *user, true
}

const (
	dataLink = "..data"
	tempLink = "..data_tmp"
)

// write makes dir show exactly files: they are written into a directory of their own, and one rename makes it current.
func write(dir string, files payload, gid int, now time.Time) error {
	for name := range files {
		if !filepath.IsLocal(name) || strings.HasPrefix(filepath.Clean(name), "..") {
			return fmt.Errorf("path %q leaves the volume", name)
		}
	}
	if same(dir, files) {
		return nil
	}
	stamp, err := os.MkdirTemp(dir, now.UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := os.Chmod(stamp, 0o755); err != nil {
		return err
	}
	for name, f := range files {
		if err := writeFile(filepath.Join(stamp, name), f, gid); err != nil {
			os.RemoveAll(stamp)
			return err
		}
	}
	old, _ := os.Readlink(filepath.Join(dir, dataLink))
	os.Remove(filepath.Join(dir, tempLink))
	if err := os.Symlink(filepath.Base(stamp), filepath.Join(dir, tempLink)); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, tempLink), filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	if err := links(dir, files); err != nil {
		return err
	}
	if old != "" && filepath.IsLocal(old) {
		return os.RemoveAll(filepath.Join(dir, old))
	}
	return nil
}

func writeFile(path string, f File, gid int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, f.Data, 0o600); err != nil {
		return err
	}
	m := f.Mode
	if gid >= 0 {
		m |= 0o440
	}
	if f.Owner >= 0 || gid >= 0 {
		if err := os.Chown(path, f.Owner, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, m)
}

// links makes one link per first path element and removes those of files that went.
func links(dir string, files payload) error {
	want := map[string]bool{}
	for name := range files {
		first, _, _ := strings.Cut(filepath.Clean(name), "/")
		want[first] = true
	}
	have, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range have {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		if want[e.Name()] {
			delete(want, e.Name())
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	for name := range want {
		if err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// same reports whether dir already shows exactly files.
func same(dir string, files payload) bool {
	if _, err := os.Lstat(filepath.Join(dir, dataLink)); err != nil {
		return false
	}
	base := filepath.Join(dir, dataLink)
	root, err := filepath.EvalSymlinks(base)
	if err != nil {
		return false
	}
	count := 0
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		f, ok := files[rel]
		if !ok {
			return errors.New("another file")
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(b, f.Data) {
			return errors.New("other content")
		}
		count++
		return nil
	})
	return err == nil && count == len(files)
}
