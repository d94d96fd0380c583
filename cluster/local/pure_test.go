package local

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestParsePublish(t *testing.T) {
	for in, want := range map[string]Publish{"8080:30080": {8080, 30080, "tcp"}, "53:30053/udp": {53, 30053, "udp"}, "1:2/tcp": {1, 2, "tcp"}} {
		if got, err := ParsePublish(in); err != nil || got != want {
			t.Errorf("%s: got %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "80", "0:1", "1:70000", "a:b", "1:2/sctp", "1:2:3"} {
		if got, err := ParsePublish(in); err == nil {
			t.Errorf("%s: got %v", in, got)
		}
	}
}

func TestChooseSubnet(t *testing.T) {
	tests := []struct{ taken, want string }{
		{"", "10.89.0.0/24"},
		{"192.168.0.0/16 10.89.0.0/24", "10.90.0.0/24"},
		{"10.88.0.0/14 10.96.0.0/16", "10.92.0.0/24"},
		{"10.0.0.0/8", ""},
		{"10.0.0.0/9 10.128.0.0/10", "10.192.0.0/24"},
	}
	for _, tt := range tests {
		var taken []netip.Prefix
		for _, p := range strings.Fields(tt.taken) {
			taken = append(taken, netip.MustParsePrefix(p))
		}
		got, err := chooseSubnet(taken)
		if (err == nil) != (tt.want != "") || (err == nil && got.String() != tt.want) {
			t.Errorf("%q: got %v, %v, want %s", tt.taken, got, err, tt.want)
		}
	}
}

func TestNewerKernel(t *testing.T) {
	for in, want := range map[string]bool{"5.8.0": true, "5.7.19": false, "6.1.0-13-amd64": true, "4.19": false, "5.10-rc1": true, "x": false} {
		if got := newerKernel(in, 5, 8); got != want {
			t.Errorf("%s: got %v", in, got)
		}
	}
}

const users = `apiVersion: v1
kind: Config
current-context: work
preferences: {colors: true}
extensions: [{name: mine, extension: {a: 1}}]
clusters: [{name: work, cluster: {server: "https://work", proxy-url: "http://p"}}]
users: [{name: work, user: {exec: {command: login, args: [a]}}}]
contexts: [{name: work, context: {cluster: work, user: work, namespace: n}}]
`

func TestKubeconfigMerge(t *testing.T) {
	mine := Kubeconfig{UID: os.Geteuid(), GID: os.Getegid(), Context: "karve"}
	cluster, user := map[string]any{"server": "https://127.0.0.1:6443"}, map[string]any{"client-key-data": "a"}
	parse := func(path string) map[string]any {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		doc := map[string]any{}
		if err := yaml.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		return doc
	}
	t.Run("keeps what is there", func(t *testing.T) {
		k := mine
		real := filepath.Join(t.TempDir(), "real")
		if err := os.WriteFile(real, []byte(users), 0o644); err != nil {
			t.Fatal(err)
		}
		k.Path = filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(real, k.Path); err != nil {
			t.Fatal(err)
		}
		before := parse(real)
		for range 2 { // twice: the second replaces
			if err := k.add(cluster, user); err != nil {
				t.Fatal(err)
			}
		}
		doc := parse(real)
		if doc["current-context"] != "karve" || len(entries(doc, "clusters")) != 2 || !has(doc, "users", "karve") || k.Previous != "work" {
			t.Errorf("after add: %v (%+v)", doc, k)
		}
		if fi, _ := os.Stat(real); fi.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", fi.Mode())
		}
		if fi, _ := os.Lstat(k.Path); fi.Mode()&os.ModeSymlink == 0 {
			t.Error("the link was replaced")
		}
		if err := k.remove(); err != nil {
			t.Fatal(err)
		}
		a, _ := yaml.Marshal(before)
		b, _ := yaml.Marshal(parse(real))
		if string(a) != string(b) {
			t.Errorf("after remove:\n%s\nwant\n%s", b, a)
		}
	})
	t.Run("makes and removes", func(t *testing.T) {
		k := mine
		k.Path = filepath.Join(t.TempDir(), "kube", "config")
		k.look()
		if err := k.add(cluster, user); err != nil || !k.Created {
			t.Fatal(err, k)
		}
		if err := k.remove(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Dir(k.Path)); err == nil {
			t.Errorf("%s is still there", filepath.Dir(k.Path))
		}
	})
	t.Run("another context was chosen", func(t *testing.T) {
		k := mine
		k.Path = filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(k.Path, []byte(users), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := k.add(cluster, user); err != nil {
			t.Fatal(err)
		}
		data, _ := os.ReadFile(k.Path)
		if err := os.WriteFile(k.Path, []byte(strings.Replace(string(data), "current-context: karve", "current-context: work", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := k.remove(); err != nil {
			t.Fatal(err)
		}
		if doc := parse(k.Path); doc["current-context"] != "work" || has(doc, "contexts", "karve") {
			t.Errorf("got %v", doc)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		k := mine
		k.Path = filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(k.Path, []byte("users: [{token: secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := k.add(cluster, user); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
		if data, _ := os.ReadFile(k.Path); string(data) != "users: [{token: secret" {
			t.Errorf("it was changed to %q", data)
		}
	})
}

func TestUserKubeconfig(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		env  map[string]string
		want string
		uid  int
	}{
		{"home", map[string]string{"HOME": "/h"}, "/h/.kube/config", os.Geteuid()},
		{"variable", map[string]string{"HOME": "/h", "KUBECONFIG": "/a"}, "/a", os.Geteuid()},
		{"first that exists", map[string]string{"KUBECONFIG": "/none:" + there + ":/b"}, there, os.Geteuid()},
		{"none exists", map[string]string{"KUBECONFIG": "/none:/b"}, "/b", os.Geteuid()},
	}
	if os.Geteuid() == 0 {
		tests = append(tests, struct {
			name string
			env  map[string]string
			want string
			uid  int
		}{"sudo", map[string]string{"HOME": "/root", "SUDO_UID": "1000", "SUDO_GID": "1000"}, "/home/1000/.kube/config", 1000})
	}
	for _, tt := range tests {
		k, err := UserKubeconfig(func(n string) string { return tt.env[n] }, func(uid string) (string, error) { return "/home/" + uid, nil })
		if err != nil || k.Path != tt.want || k.UID != tt.uid {
			t.Errorf("%s: got %+v, %v", tt.name, k, err)
		}
	}
}

func TestHierarchyV2(t *testing.T) {
	// Plain files stand for the kernel's: what matters is which are written.
	root := t.TempDir()
	h := hierarchy{root: root, v2: true, controllers: []string{"cpu", "memory"}}
	for _, d := range []string{"", "karve", "karve/c"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, d, "cgroup.subtree_control"), []byte("cpu\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.ensure("/karve/c/leaf"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"", "karve", "karve/c"} {
		if data, _ := os.ReadFile(filepath.Join(root, d, "cgroup.subtree_control")); string(data) != "+memory" {
			t.Errorf("%s: %q", d, data)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "karve/c/leaf")); err != nil {
		t.Error(err)
	}
}

func TestCheckRootCgroup(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"real root", map[string]string{"cgroup.procs": "1", "cgroup.subtree_control": ""}, ""},
		{"container", map[string]string{"cgroup.type": "domain", "cgroup.procs": "1\n", "cgroup.subtree_control": "cpu pids"}, "memory"},
		{"emptied", map[string]string{"cgroup.type": "domain", "cgroup.procs": "", "cgroup.subtree_control": ""}, ""},
		{"handed down", map[string]string{"cgroup.type": "domain", "cgroup.procs": "1", "cgroup.subtree_control": "cpu memory pids"}, ""},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		for name, text := range tt.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := checkRootCgroup(dir)
		if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

// Down does as root what cluster.json says. Nobody else may be able to write it, nor to put another in its place.
func TestStateOfOthersIsNotBelieved(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "cluster.json")
	s := &State{Name: "c", Dir: dir, Nodes: []Node{{Name: "n", PID: 1}}}
	set := func(dirMode, fileMode os.FileMode) {
		t.Helper()
		if err := errors.Join(s.save(), os.Chmod(file, fileMode), os.Chmod(dir, dirMode)); err != nil {
			t.Fatal(err)
		}
	}
	load := func() error { _, err := Load("c", dir); return err }
	set(0o755, 0o600)
	if err := load(); err != nil {
		t.Errorf("own state: %v", err)
	}
	for _, m := range [][2]os.FileMode{{0o755, 0o620}, {0o755, 0o602}, {0o775, 0o600}, {0o757, 0o600}} {
		set(m[0], m[1])
		if err := load(); err == nil || !strings.Contains(err.Error(), "others may write") {
			t.Errorf("directory %o, file %o: %v", m[0], m[1], err)
		}
	}
	set(0o755, 0o600)
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if err := load(); err == nil || !strings.Contains(err.Error(), "another user") {
			t.Errorf("file of another user: %v", err)
		}
		if err := errors.Join(os.Chown(file, 0, 0), os.Chown(dir, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		if _, err := newState("c", dir); err == nil || !strings.Contains(err.Error(), "another user") {
			t.Errorf("directory of another user: %v", err)
		}
	}
	if err := errors.Join(os.Rename(file, file+".real"), os.Symlink(file+".real", file)); err != nil {
		t.Fatal(err)
	}
	if err := load(); err == nil {
		t.Error("followed a link")
	}
}
