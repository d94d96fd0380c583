package local

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted cgroup tree.
type hierarchy struct {
	root        string
	v2          bool
	controllers []string // empty for a named v1 hierarchy
}

// hierarchies returns every mounted cgroup tree once.
func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []hierarchy
	seen := map[string]bool{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		fields, rest := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(rest) < 3 || seen[fields[2]] || (rest[0] != "cgroup" && rest[0] != "cgroup2") {
			continue
		}
		seen[fields[2]] = true // the device number: the same tree may be mounted twice
		h := hierarchy{root: unescape.Replace(fields[4]), v2: rest[0] == "cgroup2"}
		if h.v2 {
			data, err := os.ReadFile(filepath.Join(h.root, "cgroup.controllers"))
			if err != nil {
				return nil, fmt.Errorf("read cgroup controllers: %w", err)
			}
			h.controllers = strings.Fields(string(data))
		} else {
			for _, o := range strings.Split(rest[2], ",") {
				if o != "rw" && o != "ro" && !strings.Contains(o, "=") && o != "xattr" && o != "none" && o != "clone_children" {
					h.controllers = append(h.controllers, o)
				}
			}
		}
		out = append(out, h)
	}
	return out, nil
}

// ensure makes path in the hierarchy, ready for processes; in v2 every controller is handed down as far as path.
func (h hierarchy) ensure(path string) error {
	dir := h.root
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		if h.v2 {
			if err := h.handDown(dir); err != nil {
				return err
			}
		}
		parent := dir
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup: %w", err)
		}
		if slices.Contains(h.controllers, "cpuset") && !h.v2 {
			if err := inheritCpuset(parent, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h hierarchy) handDown(dir string) error {
	path := filepath.Join(dir, "cgroup.subtree_control")
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read cgroup: %w", err)
	}
	for _, c := range h.controllers {
		if slices.Contains(strings.Fields(string(data)), c) {
			continue
		}
		if err := os.WriteFile(path, []byte("+"+c), 0o644); err != nil {
			// Only these are needed; a kernel may refuse others (cpu with real-time processes, rdma, misc).
			if slices.Contains([]string{"cpu", "memory", "pids"}, c) {
				return fmt.Errorf("hand down cgroup controller %s in %s: %w", c, dir, err)
			}
		}
	}
	return nil
}

// inheritCpuset fills a new v1 cpuset, which starts empty and then takes no process.
func inheritCpuset(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		now, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("read cpuset: %w", err)
		}
		if len(bytes.TrimSpace(now)) > 0 {
			continue
		}
		from, err := os.ReadFile(filepath.Join(parent, name))
		if err != nil {
			return fmt.Errorf("read cpuset: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), from, 0o644); err != nil {
			return fmt.Errorf("fill cpuset: %w", err)
		}
	}
	return nil
}

// cgroupDirs returns path in every hierarchy that has it.
func cgroupDirs(path string) ([]string, error) {
	hs, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, h := range hs {
		dir := filepath.Join(h.root, path)
		if _, err := os.Stat(dir); err == nil {
			out = append(out, dir)
		}
	}
	return out, nil
}

// processesIn returns the processes in path or below, in any hierarchy, in ascending order, and the path each is at.
func processesIn(path string) (map[int]string, error) {
	dirs, err := cgroupDirs(path)
	if err != nil {
		return nil, err
	}
	out := map[int]string{}
	for _, top := range dirs {
		err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}
			data, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
			if err != nil { // gone since, or a threaded cgroup, whose processes show at its top
				return nil
			}
			for _, line := range strings.Fields(string(data)) {
				pid, err := strconv.Atoi(line)
				at := strings.TrimPrefix(strings.TrimPrefix(p, top), "/")
				if err == nil && pid > 0 && len(at) >= len(out[pid]) { // 0: a process of another pid namespace
					out[pid] = at
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list processes of %s: %w", path, err)
		}
	}
	return out, nil
}

// killIn kills every process in path or below and waits until none is left.
func killIn(path string) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		procs, err := processesIn(path)
		if err != nil {
			return err
		}
		if len(procs) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill the processes of %s: %d are still there", path, len(procs))
		}
		for pid := range procs {
			killMember(pid, path)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// killMember kills pid if it is, by now, still in the cgroup: a number may be given anew, a pidfd names one process.
func killMember(pid int, path string) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return
	}
	for _, line := range strings.Split(string(data), "\n") {
		parts := strings.SplitN(line, ":", 3)
		// Anywhere in it: this process may itself be below the root that the kernel counts from.
		if len(parts) == 3 && strings.Contains(parts[2]+"/", path+"/") {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			return
		}
	}
}

// dropCgroups removes path and everything below, which must be empty of processes, and /karve when nothing is left in it.
func dropCgroups(path string) error {
	dirs, err := cgroupDirs(path)
	if err != nil {
		return err
	}
	var errs []error
	for _, top := range dirs {
		var all []string
		_ = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, p)
			}
			return nil
		})
		slices.Reverse(all) // deepest first: a directory comes after its parent in the walk
		for _, p := range all {
			errs = append(errs, rmdirSoon(p))
		}
		_ = os.Remove(filepath.Dir(top)) // stays while another cluster is in it
	}
	return errors.Join(errs...)
}

// rmdirSoon waits a little for the kernel to let go of processes that have just died.
func rmdirSoon(dir string) error {
	var err error
	for range 500 {
		if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("remove cgroup: %w", err)
}
