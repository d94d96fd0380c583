package shim

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// KillGroup kills every process of a cgroup: at once where the kernel can, else repeatedly until the list is empty.
// dirs are directories of the group in one or more hierarchies, the one best suited first.
func KillGroup(dirs []string) {
	for _, dir := range dirs {
		if f, err := os.OpenFile(dir+"/cgroup.kill", os.O_WRONLY, 0); err == nil {
			_, err = f.WriteString("1")
			f.Close()
			if err == nil {
				return
			}
		}
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir + "/cgroup.procs"); err != nil {
			continue
		}
		// Frozen processes cannot fork while the list is read; they die when thawed.
		freezer := dir + "/freezer.state"
		frozen := writeFile(freezer, "FROZEN")
		for range 20 {
			if !killListed(dir) {
				break
			}
			if frozen {
				writeFile(freezer, "THAWED")
				frozen = false
			}
			time.Sleep(5 * time.Millisecond)
		}
		if frozen {
			writeFile(freezer, "THAWED")
		}
		return
	}
}

func writeFile(path, s string) bool {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.WriteString(s)
	return err == nil
}

// killListed reports whether there was anything to kill, in dir or below it.
func killListed(dir string) bool {
	found := false
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		b, _ := os.ReadFile(path + "/cgroup.procs")
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
				found = true
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return nil
	})
	return found
}
