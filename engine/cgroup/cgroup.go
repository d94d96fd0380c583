// Package cgroup finds, measures and removes control groups, in version 1, version 2 and mixed hierarchies.
//
// The engine calls it for what the OCI runtime does not do: statistics, the files the shim watches, clean-up. Limits are
// set by the runtime. It owns no state; a Tree is a description of where hierarchies are mounted.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Tree is where the cgroup hierarchies are mounted. It is immutable and safe for concurrent use.
type Tree struct {
	v2 string            // mount point of version 2, with or without controllers; "" if absent
	v1 map[string]string // controller, or name= for a named hierarchy → mount point
}

// Detect reads the mounts of this process.
func Detect() (Tree, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Tree{}, fmt.Errorf("find cgroups: %w", err)
	}
	t := parse(string(b))
	if t.v2 == "" && len(t.v1) == 0 {
		return t, errors.New("find cgroups: none mounted")
	}
	return t, nil
}

func parse(mountinfo string) Tree {
	t := Tree{v1: map[string]string{}}
	for line := range strings.Lines(mountinfo) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			continue
		}
		switch r[0] {
		case "cgroup2":
			if t.v2 == "" {
				t.v2 = l[4]
			}
		case "cgroup":
			for _, o := range strings.Split(r[2], ",") {
				if o == "rw" || o == "ro" || strings.HasPrefix(o, "release_agent") || o == "clone_children" || o == "xattr" {
					continue
				}
				if _, dup := t.v1[o]; !dup {
					t.v1[o] = l[4]
				}
			}
		}
	}
	return t
}

// Unified tells whether version 2 alone is in charge.
func (t Tree) Unified() bool { return len(t.v1) == 0 }

func (t Tree) dir(controller, path string) string {
	if t.Unified() {
		return filepath.Join(t.v2, path)
	}
	if m, ok := t.v1[controller]; ok {
		return filepath.Join(m, path)
	}
	return ""
}

// OOMFile is the file that counts OOM kills in the group, under the key oom_kill.
func (t Tree) OOMFile(path string) string {
	if t.Unified() {
		return filepath.Join(t.v2, path, "memory.events")
	}
	if d := t.dir("memory", path); d != "" {
		return filepath.Join(d, "memory.oom_control")
	}
	return ""
}

// KillDirs are directories that list the group's processes, best suited for killing first.
func (t Tree) KillDirs(path string) []string {
	if t.Unified() {
		return []string{filepath.Join(t.v2, path)}
	}
	var dirs []string
	for _, c := range []string{"freezer", "pids", "memory", "cpu"} {
		if d := t.dir(c, path); d != "" {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// mounts are all distinct mount points.
func (t Tree) mounts() []string {
	var out []string
	for _, m := range t.v1 {
		if !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	if t.v2 != "" {
		out = append(out, t.v2)
	}
	return out
}

// Remove removes the group and the empty groups below it in every hierarchy. A group that is absent is no error, one
// that still has processes is.
func (t Tree) Remove(path string) error {
	if filepath.Clean("/"+path) == "/" {
		return errors.New("remove cgroup: refusing the root")
	}
	var errs []error
	for _, m := range t.mounts() {
		if err := removeTree(filepath.Join(m, path)); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	if err := unix.Rmdir(dir); err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// Exists tells whether the group is there in the hierarchy that limits memory.
func (t Tree) Exists(path string) bool {
	d := t.dir("memory", path)
	if d == "" {
		return false
	}
	_, err := os.Stat(d)
	return err == nil
}

// OpenLeaf makes a group for processes in the version 2 hierarchy and returns a descriptor to start processes in it, or
// -1 when there is no such hierarchy. The caller closes it.
func (t Tree) OpenLeaf(path string) (int, error) {
	if t.v2 == "" {
		return -1, nil
	}
	dir := filepath.Join(t.v2, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return -1, fmt.Errorf("make cgroup: %w", err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open cgroup: %w", err)
	}
	return fd, nil
}

// JoinNamed moves a process into the group of the named version 1 hierarchy that service managers use to find what
// belongs to a service. It does nothing where there is none.
func (t Tree) JoinNamed(path string, pid int) error {
	m, ok := t.v1["name=systemd"]
	if !ok {
		return nil
	}
	dir := filepath.Join(m, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
		return fmt.Errorf("join cgroup: %w", err)
	}
	return nil
}

// HasHugetlb tells whether the kernel limits huge pages.
func (t Tree) HasHugetlb() bool { return t.has("hugetlb") }

// HasPids tells whether the kernel limits the number of processes.
func (t Tree) HasPids() bool { return t.has("pids") }

func (t Tree) has(controller string) bool {
	if !t.Unified() {
		_, ok := t.v1[controller]
		return ok
	}
	b, err := os.ReadFile(filepath.Join(t.v2, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(b)), controller)
}

// HasSwap tells whether swap can be limited.
func (t Tree) HasSwap() bool {
	if t.Unified() {
		b, err := os.ReadFile("/proc/swaps")
		return err == nil && strings.Count(string(b), "\n") > 1
	}
	_, err := os.Stat(filepath.Join(t.v1["memory"], "memory.memsw.limit_in_bytes"))
	return t.v1["memory"] != "" && err == nil
}
