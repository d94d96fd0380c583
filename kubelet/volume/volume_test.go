package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"karve/kubelet/criconfig"
)

// noMounts remembers mounts instead of making them.
type noMounts struct{ points map[string]string }

func (m *noMounts) Tmpfs(path string, _ int64) error { m.points[path] = "tmpfs"; return nil }
func (m *noMounts) Bind(_ int, path string) error    { m.points[path] = "bind"; return nil }
func (m *noMounts) Unmount(path string) error        { delete(m.points, path); return nil }
func (m *noMounts) Below(dir string) ([]string, error) {
	var out []string
	for p := range m.points {
		if strings.HasPrefix(p, dir+"/") {
			out = append(out, p)
		}
	}
	return out, nil
}

type objects struct {
	maps    map[string]map[string]string
	secrets map[string]map[string][]byte
	paths   map[string]string
	tokens  int
	life    time.Duration
	now     func() time.Time
}

func (o *objects) ConfigMap(name string) (*corev1.ConfigMap, error) {
	if d, ok := o.maps[name]; ok {
		return &corev1.ConfigMap{Data: d}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmap"}, name)
}

func (o *objects) Secret(name string) (*corev1.Secret, error) {
	if d, ok := o.secrets[name]; ok {
		return &corev1.Secret{Data: d}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secret"}, name)
}

func (o *objects) Path(claim string) (string, bool, error) {
	if p, ok := o.paths[claim]; ok {
		return p, false, nil
	}
	return "", false, errors.New("not bound")
}

func (o *objects) Token(*corev1.ServiceAccountTokenProjection) (string, time.Time, error) {
	o.tokens++
	return "token" + string(rune('0'+o.tokens)), o.now().Add(o.life), nil
}

func pod(volumes ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Labels: map[string]string{"b": "2", "a": "1"}},
		Spec: corev1.PodSpec{Volumes: volumes, Containers: []corev1.Container{{Name: "c"}}}}
}

func configMapVolume(name string, items ...corev1.KeyToPath) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items}}}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func TestContentIsReplacedAtOnce(t *testing.T) {
	root := t.TempDir()
	m := &noMounts{map[string]string{}}
	v := New(root, m, time.Now)
	look := &objects{maps: map[string]map[string]string{"cm": {"a": "1", "b": "2"}}, now: time.Now}
	p := pod(configMapVolume("cm"))
	ctx, facts := context.Background(), &criconfig.Facts{}
	if _, err := v.Setup(ctx, p, look, facts); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "pods/u/volumes/kubernetes.io~configmap/cm")
	if read(t, dir+"/a") != "1" || read(t, dir+"/b") != "2" {
		t.Error("content")
	}
	first, err := os.Readlink(dir + "/..data")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Refresh(ctx, p, look, facts); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.Readlink(dir + "/..data"); again != first {
		t.Error("written anew though nothing changed")
	}
	look.maps["cm"] = map[string]string{"b": "3", "c": "4"}
	if _, err := v.Refresh(ctx, p, look, facts); err != nil {
		t.Fatal(err)
	}
	if read(t, dir+"/b") != "3" || read(t, dir+"/c") != "4" {
		t.Error("new content")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 4 { // ..stamp ..data b c
		t.Errorf("left over: %v", entries)
	}
	if err := v.TearDown("u"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("not removed")
	}
}

func TestItemsModesAndErrors(t *testing.T) {
	mode, def := int32(0o400), int32(0o640)
	yes := true
	for _, tc := range []struct {
		name  string
		vol   corev1.VolumeSource
		file  string
		text  string
		mode  os.FileMode
		error string
	}{
		{"item in a folder", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: []corev1.KeyToPath{{Key: "k", Path: "d/e", Mode: &mode}}}}, "d/e", "v", 0o400, ""},
		{"default mode", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: &def}}, "k", "v", 0o640, ""},
		{"missing key", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: []corev1.KeyToPath{{Key: "x", Path: "e"}}}}, "", "", 0, "references non-existent key: x"},
		{"missing object", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "none"}}, "", "", 0, `secret "none" not found`},
		{"optional object", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "none", Optional: &yes}}, "", "", 0, ""},
		{"path that leaves", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: []corev1.KeyToPath{{Key: "k", Path: "../../e"}}}}, "", "", 0, "leaves the volume"},
		{"labels", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "l", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}, "l", "a=\"1\"\nb=\"2\"", 0o644, ""},
		{"unbound claim", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "x"}}, "", "", 0, "not bound"},
		{"unknown type", corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}, "", "", 0, "knows no volumes of its type"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := New(t.TempDir(), &noMounts{map[string]string{}}, time.Now)
			p := pod(corev1.Volume{Name: "v", VolumeSource: tc.vol})
			_, err := v.Setup(context.Background(), p, &objects{secrets: map[string]map[string][]byte{"s": {"k": []byte("v")}}}, &criconfig.Facts{})
			if tc.error != "" {
				var bad *Error
				if err == nil || !strings.Contains(err.Error(), tc.error) || !errors.As(err, &bad) || bad.Volume != "v" {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tc.file == "" {
				return
			}
			path := filepath.Join(v.dir("u", &p.Spec.Volumes[0]), tc.file)
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if read(t, path) != tc.text || st.Mode().Perm() != tc.mode {
				t.Errorf("%q %v", read(t, path), st.Mode())
			}
		})
	}
}

func TestTokenIsRenewedInTime(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	v := New(t.TempDir(), &noMounts{map[string]string{}}, clock)
	look := &objects{life: time.Hour, now: clock}
	p := pod(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}}}})
	next, err := v.Setup(context.Background(), p, look, &criconfig.Facts{})
	if err != nil || !next.Equal(now.Add(48*time.Minute)) {
		t.Fatalf("%v %v", next, err)
	}
	now = now.Add(47 * time.Minute)
	if _, err := v.Refresh(context.Background(), p, look, &criconfig.Facts{}); err != nil || look.tokens != 1 {
		t.Errorf("%d tokens, %v", look.tokens, err)
	}
	now = now.Add(time.Minute)
	if _, err := v.Refresh(context.Background(), p, look, &criconfig.Facts{}); err != nil || look.tokens != 2 {
		t.Errorf("%d tokens, %v", look.tokens, err)
	}
	if got := read(t, filepath.Join(v.dir("u", &p.Spec.Volumes[0]), "token")); got != "token2" {
		t.Error(got)
	}
}

func TestHostPathTypes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path string
		kind corev1.HostPathType
		ok   bool
	}{
		{dir, corev1.HostPathDirectory, true}, {file, corev1.HostPathDirectory, false}, {file, corev1.HostPathFile, true}, {dir, corev1.HostPathFile, false},
		{dir + "/new", corev1.HostPathDirectoryOrCreate, true}, {dir + "/newfile", corev1.HostPathFileOrCreate, true}, {dir + "/none", corev1.HostPathFile, false},
		{dir + "/none", corev1.HostPathUnset, true}, {"/dev/null", corev1.HostPathCharDev, true}, {"/dev/null", corev1.HostPathBlockDev, false}, {file, corev1.HostPathSocket, false},
	} {
		err := checkHostPath(&corev1.HostPathVolumeSource{Path: tc.path, Type: &tc.kind})
		if (err == nil) != tc.ok {
			t.Errorf("%s %q: %v", filepath.Base(tc.path), tc.kind, err)
		}
	}
}

func TestSubPathStaysInTheVolume(t *testing.T) {
	host := t.TempDir()
	outside := t.TempDir()
	if err := os.Mkdir(filepath.Join(host, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"evil": outside, "dots": "../../../etc", "fine": "in"} {
		if err := os.Symlink(to, filepath.Join(host, name)); err != nil {
			t.Fatal(err)
		}
	}
	m := &noMounts{map[string]string{}}
	v := New(t.TempDir(), m, time.Now)
	vol := corev1.Volume{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}}
	for _, tc := range []struct {
		sub string
		ok  bool
	}{{"in", true}, {"fine", true}, {"new/deep", true}, {"evil", false}, {"evil/x", false}, {"dots", false}, {"../x", false}, {"/etc", false}} {
		p := pod(vol)
		c := &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "h", MountPath: "/m", SubPath: tc.sub}}}
		got, err := v.Mounts(p, c, &objects{}, nil)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.sub, err)
		}
		if err == nil && (m.points[got[0].HostPath] != "bind" || !strings.HasPrefix(got[0].HostPath, v.PodDir("u"))) {
			t.Errorf("%s: %v", tc.sub, got)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("written outside: %v %v", entries, err)
	}
}

func TestKernelMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: mounting needs root")
	}
	done := make(chan error, 1)
	go func() { done <- inMountNamespace(t) }()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// inMountNamespace mounts and unmounts a pod's volumes where nobody else sees it; its thread is not used again.
func inMountNamespace(t *testing.T) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	root := t.TempDir()
	v := New(root, Kernel{}, time.Now)
	p := pod(corev1.Volume{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}})
	look := &objects{}
	for range 2 { // the second time finds it
		if _, err := v.Setup(context.Background(), p, look, &criconfig.Facts{}); err != nil {
			return err
		}
	}
	c := &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "m", MountPath: "/m", SubPath: "a/b"}}}
	if _, err := v.Mounts(p, c, look, nil); err != nil {
		return err
	}
	below, err := Kernel{}.Below(root)
	if err != nil || len(below) != 2 {
		return errors.Join(err, errors.New("mounts: "+strings.Join(below, " ")))
	}
	if err := v.TearDown("u"); err != nil {
		return err
	}
	if below, err = (Kernel{}).Below(root); err != nil || len(below) != 0 {
		return errors.Join(err, errors.New("left: "+strings.Join(below, " ")))
	}
	return nil
}
