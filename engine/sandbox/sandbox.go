// Package sandbox makes and removes what the containers of a pod share: namespaces, /dev/shm, resolv.conf.
//
// The engine calls it. Namespaces are kept by bind mounts, so no process is needed to hold them. It owns the directory
// of one sandbox below the engine's volatile state and the mounts in it; it knows no containers and does not set up the
// network inside the namespace.
package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Options describe the namespaces of a sandbox.
type Options struct {
	HostNetwork bool
	HostIPC     bool
	Hostname    string
	Sysctls     map[string]string
}

// shmSize bounds a pod's /dev/shm; it counts as its memory anyway.
const shmSize = "64m"

// Paths are the places of a sandbox in its directories. Namespaces taken from the host are "".
type Paths struct{ Net, IPC, UTS, Shm, ResolvConf, Hostname, Empty string }

// At returns the places for a sandbox in dir, which is volatile, and in disk. On the disk is what containers may write to:
// without a bound of its own, it would fill the memory of the machine's /run.
func At(dir, disk string, o Options) Paths {
	p := Paths{
		Net: filepath.Join(dir, "ns-net"), IPC: filepath.Join(dir, "ns-ipc"), UTS: filepath.Join(dir, "ns-uts"),
		Shm: filepath.Join(dir, "shm"), ResolvConf: filepath.Join(disk, "resolv.conf"), Hostname: filepath.Join(disk, "hostname"),
		Empty: filepath.Join(dir, "empty"),
	}
	if o.HostNetwork {
		p.Net, p.UTS = "", ""
	}
	if o.HostIPC {
		p.IPC, p.Shm = "", "/dev/shm"
	}
	return p
}

// Make creates everything at p, whose directories exist. When it fails, Remove cleans up; what is on the disk is the
// caller's to remove.
func Make(p Paths, o Options, dns *runtimeapi.DNSConfig) error {
	if err := writeFiles(p, o, dns); err != nil {
		return fmt.Errorf("make sandbox: %w", err)
	}
	if !o.HostIPC {
		if err := os.Mkdir(p.Shm, 0o1777); err != nil {
			return fmt.Errorf("make sandbox: %w", err)
		}
		if err := unix.Mount("shm", p.Shm, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size="+shmSize); err != nil {
			return fmt.Errorf("make sandbox: mount shm: %w", err)
		}
	}
	if err := pin(p, o); err != nil {
		return fmt.Errorf("make sandbox: %w", err)
	}
	return nil
}

func writeFiles(p Paths, o Options, dns *runtimeapi.DNSConfig) error {
	if err := os.Mkdir(p.Empty, 0o755); err != nil {
		return err
	}
	name := o.Hostname
	if name == "" {
		name, _ = os.Hostname()
	}
	if err := os.WriteFile(p.Hostname, []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	conf, err := resolvConf(dns)
	if err != nil {
		return err
	}
	return os.WriteFile(p.ResolvConf, conf, 0o644)
}

// resolvConf renders a DNS configuration; none means the host's.
func resolvConf(dns *runtimeapi.DNSConfig) ([]byte, error) {
	if dns == nil {
		b, err := os.ReadFile("/etc/resolv.conf")
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return b, err
	}
	var b strings.Builder
	for _, l := range [][]string{append([]string{"search"}, dns.Searches...), append([]string{"options"}, dns.Options...)} {
		for _, w := range l {
			if strings.ContainsAny(w, "\n\r") {
				return nil, fmt.Errorf("DNS configuration: %q has a line break", w)
			}
		}
	}
	if len(dns.Searches) > 0 {
		b.WriteString("search " + strings.Join(dns.Searches, " ") + "\n")
	}
	for _, s := range dns.Servers {
		if _, err := netip.ParseAddr(s); err != nil {
			return nil, fmt.Errorf("DNS configuration: %w", err)
		}
		b.WriteString("nameserver " + s + "\n")
	}
	if len(dns.Options) > 0 {
		b.WriteString("options " + strings.Join(dns.Options, " ") + "\n")
	}
	return []byte(b.String()), nil
}

// pin makes the namespaces on a thread that is thrown away and binds them to files.
func pin(p Paths, o Options) error {
	flags := 0
	var pins [][2]string
	for _, n := range []struct {
		path, name string
		flag       int
	}{{p.Net, "net", unix.CLONE_NEWNET}, {p.IPC, "ipc", unix.CLONE_NEWIPC}, {p.UTS, "uts", unix.CLONE_NEWUTS}} {
		if n.path == "" {
			continue
		}
		if err := os.WriteFile(n.path, nil, 0o400); err != nil {
			return err
		}
		flags |= n.flag
		pins = append(pins, [2]string{"/proc/thread-self/ns/" + n.name, n.path})
	}
	sysctls, err := checkSysctls(o)
	if err != nil {
		return err
	}
	if flags == 0 {
		return nil
	}
	return OnThread(func() error {
		if err := unix.Unshare(flags); err != nil {
			return fmt.Errorf("make namespaces: %w", err)
		}
		if p.UTS != "" && o.Hostname != "" {
			if err := unix.Sethostname([]byte(o.Hostname)); err != nil {
				return fmt.Errorf("set hostname: %w", err)
			}
		}
		if p.Net != "" {
			if err := LoopbackUp(); err != nil {
				return fmt.Errorf("bring loopback up: %w", err)
			}
		}
		for _, s := range sysctls {
			if err := os.WriteFile(s.path, []byte(s.value), 0); err != nil {
				if s.optional {
					continue
				}
				return fmt.Errorf("set sysctl %s: %w", s.name, err)
			}
		}
		for _, n := range pins {
			if err := unix.Mount(n[0], n[1], "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("keep namespace %s: %w", filepath.Base(n[1]), err)
			}
		}
		return nil
	})
}

// OnThread runs f on an operating system thread of its own that ends with it, so f may change the thread's namespaces.
func OnThread(f func() error) error {
	ch := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot be thrown away; held here, the next goroutine gets another.
			ch <- OnThread(f)
			runtime.UnlockOSThread()
			return
		}
		ch <- f()
	}()
	return <-ch
}

// LoopbackUp brings up the loopback interface of the calling thread's network namespace.
func LoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

type sysctl struct {
	name, path, value string
	optional          bool
}

// checkSysctls accepts only settings that belong to one of the sandbox's own namespaces, and adds the defaults.
func checkSysctls(o Options) ([]sysctl, error) {
	var out []sysctl
	if !o.HostNetwork {
		// A pod's ports below 1024 and its pings harm nobody else, so no privilege is needed for them.
		for _, d := range [][2]string{{"net.ipv4.ip_unprivileged_port_start", "0"}, {"net.ipv4.ping_group_range", "0 2147483647"}} {
			if _, own := o.Sysctls[d[0]]; !own {
				out = append(out, sysctl{d[0], sysctlPath(d[0]), d[1], true})
			}
		}
	}
	for name, v := range o.Sysctls {
		name = strings.ReplaceAll(name, "/", ".")
		switch {
		case strings.Contains(name, "..") || strings.HasPrefix(name, "."):
			return nil, fmt.Errorf("sysctl %q is not a name", name)
		case strings.HasPrefix(name, "net."):
			if o.HostNetwork {
				return nil, fmt.Errorf("sysctl %s would change the host's network", name)
			}
		case strings.HasPrefix(name, "fs.mqueue.") || strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || name == "kernel.sem":
			if o.HostIPC {
				return nil, fmt.Errorf("sysctl %s would change the host's IPC", name)
			}
		case name == "kernel.domainname" || name == "kernel.hostname":
			if o.HostNetwork {
				return nil, fmt.Errorf("sysctl %s would change the host's name", name)
			}
		default:
			return nil, fmt.Errorf("sysctl %s is not in a separate kernel namespace", name)
		}
		out = append(out, sysctl{name, sysctlPath(name), v, false})
	}
	return out, nil
}

func sysctlPath(name string) string { return "/proc/sys/" + strings.ReplaceAll(name, ".", "/") }

// Remove unmounts and deletes everything of a sandbox. What is not there is no error.
func Remove(dir string) error {
	var errs []error
	for _, n := range []string{"ns-net", "ns-ipc", "ns-uts", "ns-pid", "shm"} {
		for range 4 {
			err := unix.Unmount(filepath.Join(dir, n), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
				break
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("unmount %s: %w", n, err))
				break
			}
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("remove sandbox: %w", errors.Join(errs...))
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove sandbox: %w", err)
	}
	return nil
}

// Pinned tells whether a file still keeps a namespace, which it does not after a restart of the machine.
func Pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Keep binds a namespace of another process to a file.
func Keep(from, path string) error {
	if err := os.WriteFile(path, nil, 0o400); err != nil {
		return err
	}
	if err := unix.Mount(from, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("keep namespace: %w", err)
	}
	return nil
}

// In runs f on a thread that is in the network namespace kept at path. Sockets f opens stay in that namespace.
func In(path string, f func() error) error {
	if path == "" {
		return f()
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer unix.Close(fd)
	return OnThread(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}
