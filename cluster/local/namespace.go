package local

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// onThread runs fn on an operating system thread that ends with it, so that fn may change the thread's namespaces. It is
// never the process's first thread: /proc/self speaks for that one.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread dies with the goroutine
		if unix.Gettid() != os.Getpid() {
			done <- fn()
			return
		}
		done <- onThread(fn) // while this one sits on the first thread, the next cannot
		runtime.UnlockOSThread()
	}()
	return <-done
}

type mount struct{ point, kind string }

// mounts returns the calling thread's mounts, oldest first.
func mounts() ([]mount, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []mount
	for sc := bufio.NewScanner(f); sc.Scan(); {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		fields, rest := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(rest) < 1 {
			continue
		}
		out = append(out, mount{point: unescape.Replace(fields[4]), kind: rest[0]})
	}
	return out, nil
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func isMount(path string) (bool, error) {
	all, err := mounts()
	if err != nil {
		return false, err
	}
	for _, m := range all {
		if m.point == path {
			return true, nil
		}
	}
	return false, nil
}

// isPinned reports whether a namespace is bound to path.
func isPinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// ensurePinDir makes the directory pins are mounted in, a private mount: mount namespaces cannot be pinned on a shared one.
func ensurePinDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if yes, err := isMount(dir); err != nil || yes {
		return err
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", dir, err)
	}
	return nil
}

func pinTo(source, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin namespace on %s: %w", path, err)
	}
	return nil
}

// ensureNetns pins a new network namespace on path unless one is there.
func ensureNetns(path string) error {
	if isPinned(path) {
		return nil
	}
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		return pinTo("/proc/thread-self/ns/net", path)
	})
}

// ensureWorld pins a node's mount and UTS namespaces unless they are there.
func ensureWorld(mnt, uts, hostname string) error {
	if isPinned(mnt) && isPinned(uts) {
		return nil
	}
	for _, p := range []string{mnt, uts} { // half of a pair is worth nothing
		if isPinned(p) {
			if err := unix.Unmount(p, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("drop pin %s: %w", p, err)
			}
		}
	}
	err := pinWorld(mnt, uts, hostname, -1)
	var cpus unix.CPUSet
	if !errors.Is(err, unix.EINVAL) || unix.SchedGetaffinity(0, &cpus) != nil {
		return err
	}
	// A mount namespace can be pinned only in an older one, and Linux 6.18 tells age by numbers that each CPU draws from a
	// stock of its own. Unless ours is the first of the machine, the new one may look older: made on the CPU that made
	// ours, it does not.
	for cpu := 0; cpu < len(cpus)*64 && errors.Is(err, unix.EINVAL); cpu++ {
		if cpus.IsSet(cpu) {
			err = pinWorld(mnt, uts, hostname, cpu)
		}
	}
	return err
}

// pinWorld makes and pins mount and UTS namespaces, on the given CPU unless that is negative. It pins both or none.
func pinWorld(mnt, uts, hostname string, cpu int) error {
	thread, pinned := make(chan int, 1), make(chan error, 1)
	made := make(chan error, 1)
	go func() {
		made <- onThread(func() error {
			if cpu >= 0 {
				var one unix.CPUSet
				one.Set(cpu)
				if err := unix.SchedSetaffinity(0, &one); err != nil {
					return fmt.Errorf("move to CPU %d: %w", cpu, err)
				}
			}
			if err := makeWorld(hostname); err != nil {
				return err
			}
			thread <- unix.Gettid()
			return <-pinned
		})
	}()
	select {
	case err := <-made:
		return err
	case tid := <-thread:
		ns := fmt.Sprintf("/proc/%d/task/%d/ns/", os.Getpid(), tid)
		err := pinTo(ns+"mnt", mnt)
		if err == nil {
			if err = pinTo(ns+"uts", uts); err != nil {
				_ = unix.Unmount(mnt, unix.MNT_DETACH)
			}
		}
		pinned <- err
		return <-made
	}
}

// makeWorld gives the calling thread mount and UTS namespaces of its own. Mounts of the host go on appearing and, what
// matters more, disappearing in it; those of the node stay in it, and are shared among its containers.
func makeWorld(hostname string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("part mounts from the host's: %w", err)
	}
	all, err := mounts()
	if err != nil {
		return err
	}
	// A copy of somebody's pin would keep their namespace alive for as long as this node is.
	for i := len(all) - 1; i >= 0; i-- {
		p := all[i].point
		if all[i].kind == "nsfs" || (filepath.Base(p) == "ns" && filepath.Dir(filepath.Dir(p)) == runRoot) {
			if err := unix.Unmount(p, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("drop copy of %s: %w", p, err)
			}
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts inside the node: %w", err)
	}
	return unix.Sethostname([]byte(hostname))
}

// enter moves the calling thread, which must be one of onThread, into pinned namespaces.
func enter(net, uts, mnt string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // a thread that shares its root cannot change mount namespace
		return fmt.Errorf("part from the process's root: %w", err)
	}
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, p := range []string{net, uts, mnt} { // opened before the first is entered, where these paths may not exist
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", p, err)
		}
		fds = append(fds, fd)
	}
	for i, flag := range []int{unix.CLONE_NEWNET, unix.CLONE_NEWUTS, unix.CLONE_NEWNS} {
		if err := unix.Setns(fds[i], flag); err != nil {
			return fmt.Errorf("enter namespace: %w", err)
		}
	}
	return nil
}

// dropPins takes away a pin directory with every pin in it.
func dropPins(dir string) error {
	for range 64 { // a crash between mount and check may have stacked some
		yes, err := isMount(dir)
		if err != nil {
			return err
		}
		if !yes {
			return nil
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	return fmt.Errorf("unmount %s: too many mounts on it", dir)
}
