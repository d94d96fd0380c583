package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"
)

// Kubeconfig is the user's file a cluster is entered in. Under sudo it is that of the user who called, and is touched with
// that user's rights.
type Kubeconfig struct {
	Path     string `json:"path"`
	UID      int    `json:"uid"`
	GID      int    `json:"gid"`
	Context  string `json:"context"`
	Previous string `json:"previous,omitempty"` // the current context before ours
	// Created and CreatedDir say that the file and its directory were not there before.
	Created    bool `json:"created,omitempty"`
	CreatedDir bool `json:"createdDir,omitempty"`
}

// UserKubeconfig chooses the file: of $KUBECONFIG the first that exists, else its last; without it ~/.kube/config.
// getenv is os.Getenv.
func UserKubeconfig(getenv func(string) string, home func(uid string) (string, error)) (Kubeconfig, error) {
	k := Kubeconfig{UID: os.Geteuid(), GID: os.Getegid()}
	uid, gid := getenv("SUDO_UID"), getenv("SUDO_GID")
	dir := getenv("HOME")
	if u, err := strconv.Atoi(uid); err == nil && u > 0 && k.UID == 0 {
		if g, err := strconv.Atoi(gid); err == nil {
			h, err := home(uid)
			if err != nil {
				return k, fmt.Errorf("find the home of user %s: %w", uid, err)
			}
			k.UID, k.GID, dir = u, g, h
		}
	}
	list := filepath.SplitList(getenv("KUBECONFIG"))
	for _, p := range list {
		if p == "" {
			continue
		}
		k.Path = p
		if _, err := os.Stat(p); err == nil {
			break
		}
	}
	if k.Path == "" {
		if dir == "" {
			return k, errors.New("find the kubeconfig: neither HOME nor KUBECONFIG is set")
		}
		k.Path = filepath.Join(dir, ".kube", "config")
	}
	abs, err := filepath.Abs(k.Path)
	k.Path = abs
	return k, err
}

// edit reads the file, lets fn change it, and replaces it whole, mode 0600, under the lock kubectl also takes. fn returns
// true to have the file removed.
func (k *Kubeconfig) edit(fn func(doc map[string]any, missing bool) (remove bool)) error {
	return onThread(func() error {
		// As the user: a link of theirs must not make root write elsewhere. The thread ends here, so nothing is set back.
		if err := unix.Setfsgid(k.GID); err != nil {
			return err
		}
		if err := unix.Setfsuid(k.UID); err != nil {
			return err
		}
		path := k.Path
		if p, err := filepath.EvalSymlinks(path); err == nil {
			path = p
		}
		dir := filepath.Dir(path)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		unlock, err := lockFile(path + ".lock")
		if err != nil {
			return err
		}
		defer unlock()
		data, err := os.ReadFile(path)
		missing := errors.Is(err, fs.ErrNotExist)
		if err != nil && !missing {
			return err
		}
		doc := map[string]any{}
		if err := yaml.Unmarshal(data, &doc); err != nil {
			return fmt.Errorf("%s is not YAML: correct it or move it away", path) // not the parser's words, which quote keys
		}
		if doc == nil {
			doc = map[string]any{}
		}
		if fn(doc, missing) {
			if missing {
				return nil
			}
			return os.Remove(path)
		}
		out, err := yaml.Marshal(doc)
		if err != nil {
			return err
		}
		return writeFile(path, out)
	})
}

// lockFile makes a file that must not be there, as client-go does, and waits while another program has it.
func lockFile(path string) (func(), error) {
	for range 500 {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0)
		if err == nil {
			f.Close()
			return func() { os.Remove(path) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("%s has been there for 5 s: if no kubectl is at work, remove it", path)
}

// look notes whether the file and its directory are there, before the first add.
func (k *Kubeconfig) look() {
	if _, err := os.Stat(k.Path); errors.Is(err, fs.ErrNotExist) {
		k.Created = true
	}
	if _, err := os.Stat(filepath.Dir(k.Path)); errors.Is(err, fs.ErrNotExist) {
		k.CreatedDir = true
	}
}

// add enters a cluster, a user and a context, all called k.Context, and makes it the current one.
func (k *Kubeconfig) add(cluster, user map[string]any) error {
	err := k.edit(func(doc map[string]any, missing bool) bool {
		if missing {
			doc["apiVersion"], doc["kind"] = "v1", "Config"
		}
		put(doc, "clusters", k.Context, "cluster", cluster)
		put(doc, "users", k.Context, "user", user)
		put(doc, "contexts", k.Context, "context", map[string]any{"cluster": k.Context, "user": k.Context})
		if now, _ := doc["current-context"].(string); now != k.Context {
			k.Previous = now
		}
		doc["current-context"] = k.Context
		return false
	})
	if err != nil {
		return fmt.Errorf("enter the cluster in %s: %w", k.Path, err)
	}
	return nil
}

// remove takes out what add entered. A file that add made and that nobody else has used goes, too.
func (k *Kubeconfig) remove() error {
	if k.Path == "" {
		return nil
	}
	if _, err := os.Stat(k.Path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	gone := false
	err := k.edit(func(doc map[string]any, _ bool) bool {
		left := 0
		for _, list := range []string{"clusters", "users", "contexts"} {
			left += drop(doc, list, k.Context)
		}
		if now, _ := doc["current-context"].(string); now == k.Context {
			doc["current-context"] = ""
			if has(doc, "contexts", k.Previous) {
				doc["current-context"] = k.Previous
			}
		}
		gone = k.Created && left == 0
		return gone
	})
	if err != nil {
		return fmt.Errorf("take the cluster out of %s: %w", k.Path, err)
	}
	if gone && k.CreatedDir {
		_ = os.Remove(filepath.Dir(k.Path)) // stays when something else has come into it
	}
	return nil
}

func entries(doc map[string]any, list string) []any {
	all, _ := doc[list].([]any)
	return all
}

func named(e any, name string) bool {
	m, _ := e.(map[string]any)
	return m != nil && m["name"] == name
}

func put(doc map[string]any, list, name, key string, value map[string]any) {
	entry := map[string]any{"name": name, key: value}
	all := entries(doc, list)
	for i := range all {
		if named(all[i], name) {
			all[i] = entry
			return
		}
	}
	doc[list] = append(all, any(entry))
}

func drop(doc map[string]any, list, name string) (left int) {
	var out []any
	for _, e := range entries(doc, list) {
		if !named(e, name) {
			out = append(out, e)
		}
	}
	if out == nil {
		out = []any{}
	}
	doc[list] = out
	return len(out)
}

func has(doc map[string]any, list, name string) bool {
	for _, e := range entries(doc, list) {
		if named(e, name) {
			return true
		}
	}
	return false
}

// adminEntries reads the administrator's kubeconfig and returns its cluster, with the address changed to server, and user.
func adminEntries(path, server string) (cluster, user map[string]any, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	doc := map[string]any{}
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, nil, fmt.Errorf("%s is not YAML", path)
	}
	first := func(list, key string) map[string]any {
		for _, e := range entries(doc, list) {
			if m, ok := e.(map[string]any); ok {
				v, _ := m[key].(map[string]any)
				return v
			}
		}
		return nil
	}
	cluster, user = first("clusters", "cluster"), first("users", "user")
	if cluster == nil || user == nil {
		return nil, nil, fmt.Errorf("%s names no cluster or no user", path)
	}
	cluster["server"] = server
	return cluster, user, nil
}

// contextName is what a cluster is called in kubeconfigs.
func contextName(cluster string) string {
	if cluster == "karve" {
		return cluster
	}
	return "karve-" + strings.TrimPrefix(cluster, "karve-")
}
