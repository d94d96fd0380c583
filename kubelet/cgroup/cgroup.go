// Package cgroup makes and removes the cgroups of pods, above those the runtime makes for containers. kubelet/podrun
// calls it. It knows both hierarchies: one tree per controller (v1) and the single one (v2). It measures nothing.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Tree is the cgroup file system of the machine. The zero value does nothing.
type Tree struct {
	mount   string
	unified bool
}

// Open looks at a cgroup mount, usually /sys/fs/cgroup.
func Open(mount string) Tree {
	b, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
	return Tree{mount: mount, unified: err == nil && len(strings.TrimSpace(string(b))) > 0}
}

// controllers of v1 that get limits of a pod.
var limited = []string{"cpu", "memory"}

// Ensure makes the cgroup at path, an absolute path in cgroupfs style, with its parents, and sets its limits.
func (t Tree) Ensure(path string, r *runtimeapi.LinuxContainerResources) error {
	if t.mount == "" {
		return nil
	}
	if t.unified {
		return t.ensureUnified(path, r)
	}
	for _, c := range limited {
		dir := filepath.Join(t.mount, c, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup %s: %w", path, err)
		}
	}
	cpu, memory := filepath.Join(t.mount, "cpu", path), filepath.Join(t.mount, "memory", path)
	if err := set(cpu, "cpu.shares", r.CpuShares); err != nil {
		return err
	}
	if r.CpuQuota > 0 {
		if err := set(cpu, "cpu.cfs_quota_us", r.CpuQuota); err != nil {
			return err
		}
	}
	if r.MemoryLimitInBytes > 0 {
		return set(memory, "memory.limit_in_bytes", r.MemoryLimitInBytes)
	}
	return nil
}

func (t Tree) ensureUnified(path string, r *runtimeapi.LinuxContainerResources) error {
	dir := t.mount
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		if err := enable(dir); err != nil {
			return err
		}
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup %s: %w", path, err)
		}
	}
	if err := enable(dir); err != nil {
		return err
	}
	if r.CpuShares > 0 {
		if err := set(dir, "cpu.weight", 1+(r.CpuShares-2)*9999/262142); err != nil {
			return err
		}
	}
	if r.CpuQuota > 0 {
		if err := put(dir, "cpu.max", fmt.Sprintf("%d %d", r.CpuQuota, r.CpuPeriod)); err != nil {
			return err
		}
	}
	if r.MemoryLimitInBytes > 0 {
		return set(dir, "memory.max", r.MemoryLimitInBytes)
	}
	return nil
}

// enable hands the controllers that dir has down to its children.
func enable(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read controllers of %s: %w", dir, err)
	}
	on, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("read controllers of %s: %w", dir, err)
	}
	have := strings.Fields(string(on))
	for _, c := range strings.Fields(string(b)) {
		if !slices.Contains([]string{"cpu", "memory", "pids", "io", "cpuset", "hugetlb"}, c) || slices.Contains(have, c) {
			continue
		}
		if err := put(dir, "cgroup.subtree_control", "+"+c); err != nil {
			return err
		}
	}
	return nil
}

func set(dir, file string, n int64) error { return put(dir, file, strconv.FormatInt(n, 10)) }

func put(dir, file, value string) error {
	if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s of cgroup: %w", file, err)
	}
	return nil
}

// Remove removes the cgroup at path with all below it, in every hierarchy. It fails while a process is in one.
func (t Tree) Remove(path string) error {
	if t.mount == "" {
		return nil
	}
	roots := []string{t.mount}
	if !t.unified {
		entries, err := os.ReadDir(t.mount)
		if err != nil {
			return fmt.Errorf("read cgroups: %w", err)
		}
		roots = nil
		for _, e := range entries {
			if e.IsDir() {
				roots = append(roots, filepath.Join(t.mount, e.Name()))
			}
		}
	}
	for _, root := range roots {
		if err := removeTree(filepath.Join(root, path)); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", path, err)
		}
	}
	return nil
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
