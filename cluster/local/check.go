package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Finding is the outcome of one check of this machine.
type Finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"` // what to do, when not OK
}

type check struct {
	name   string
	run    func(dir string) (found string, err error)
	remedy string
}

var checks = []check{
	{"kernel", checkKernel, "run Linux 5.8 or newer"},
	{"root", checkRoot, "run as root (sudo), and in a container with --privileged"},
	{"cgroups", checkCgroups, "mount cgroup v2 with the controllers cpu, memory and pids, or boot without cgroup_disable"},
	{"overlayfs", checkOverlay, "load the module (modprobe overlay), and keep the data on ext4, xfs or btrfs"},
	{"network namespaces", checkNetns, "use a kernel with CONFIG_NET_NS"},
	{"bridge and veth", checkLinks, "load the modules (modprobe bridge veth)"},
	{"vxlan", checkVxlan, "load the module (modprobe vxlan); it is needed for nodes on several machines only"},
	{"nftables", checkNftables, "load the modules (modprobe nf_tables nft_chain_nat nf_conntrack nft_ct nft_masq)"},
	{"seccomp", checkSeccomp, "use a kernel with CONFIG_SECCOMP_FILTER"},
	{"port 6443", checkPort, "free some ports of 127.0.0.1"},
	{"disk", checkDisk, "free some space, or choose another disk with --data"},
	{"limits", checkLimits, "sysctl -w fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=65536; ulimit -Hn 65536"},
}

// Check tries out what a cluster with its data in dir needs of this machine. It changes nothing outside namespaces and a
// directory that it makes and removes.
func Check(dir string) []Finding {
	var out []Finding
	for _, c := range checks {
		found, err := c.run(dir)
		f := Finding{Name: c.name, OK: err == nil, Found: found}
		if err != nil {
			f.Found, f.Remedy = err.Error(), c.remedy
		}
		out = append(out, f)
	}
	return out
}

func checkKernel(string) (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	release := unix.ByteSliceToString(u.Release[:])
	if !newerKernel(release, 5, 8) {
		return "", fmt.Errorf("Linux %s is too old", release)
	}
	return "Linux " + release, nil
}

func newerKernel(release string, major, minor int) bool {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, err := strconv.Atoi(parts[0])
	digits := parts[1]
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i] // 10-rc1
	}
	b, berr := strconv.Atoi(digits)
	return err == nil && berr == nil && (a > major || a == major && b >= minor)
}

var capabilities = map[string]uint{"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7, "NET_ADMIN": 12,
	"SYS_CHROOT": 18, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "MKNOD": 27}

func checkRoot(string) (string, error) {
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("the user is number %d", os.Geteuid())
	}
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(data), "CapEff:")
	set, err := strconv.ParseUint(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]), 16, 64)
	if err != nil {
		return "", fmt.Errorf("read capabilities: %w", err)
	}
	var missing []string
	for name, bit := range capabilities {
		if set&(1<<bit) == 0 {
			missing = append(missing, "CAP_"+name)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return "", fmt.Errorf("root lacks %s", strings.Join(missing, ", "))
	}
	return "with every capability needed", nil
}

func checkCgroups(string) (string, error) {
	hs, err := hierarchies()
	if err != nil {
		return "", err
	}
	where := map[string]string{}
	for _, h := range hs {
		if h.v2 && len(h.controllers) > 0 {
			if err := checkRootCgroup(h.root); err != nil {
				return "", err
			}
		}
		for _, c := range h.controllers {
			if where[c] = "v1"; h.v2 {
				where[c] = "v2"
			}
		}
	}
	var missing []string
	for _, c := range []string{"cpu", "memory", "pids"} {
		if where[c] == "" {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("no controller %s", strings.Join(missing, ", "))
	}
	return where["memory"] + " with cpu, memory and pids", nil
}

// checkRootCgroup sees whether the mounted root of v2 can hand controllers down. In a container it is an ordinary cgroup,
// and one with processes in it cannot.
func checkRootCgroup(root string) error {
	if _, err := os.Stat(filepath.Join(root, "cgroup.type")); err != nil {
		return nil // the real root, which can always
	}
	procs, err := os.ReadFile(filepath.Join(root, "cgroup.procs"))
	if err != nil {
		return err
	}
	handed, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if len(strings.Fields(string(procs))) > 0 && !slices.Contains(strings.Fields(string(handed)), c) {
			return fmt.Errorf("the container's own cgroup has processes and does not hand down %s: move them to a cgroup below it (mkdir %s/init, write each pid to its cgroup.procs)", c, root)
		}
	}
	return nil
}

// existing returns dir or the nearest directory above it that is there.
func existing(dir string) string {
	for dir != "/" {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func checkOverlay(dir string) (string, error) {
	at := existing(dir)
	tmp, err := os.MkdirTemp(at, ".karve-check-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(tmp, "lower", "file"), []byte("x"), 0o644); err != nil {
		return "", err
	}
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		merged := filepath.Join(tmp, "merged")
		options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", tmp, tmp, tmp)
		if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
			return fmt.Errorf("mount overlay in %s: %w", at, err)
		}
		defer unix.Unmount(merged, unix.MNT_DETACH)
		return os.Remove(filepath.Join(merged, "file")) // needs a whiteout, which some file systems cannot hold
	})
	return "works in " + at, err
}

func inNetns(fn func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		return fn()
	})
}

func checkNetns(string) (string, error) {
	return "can be made", inNetns(func() error { return nil })
}

func checkLinks(string) (string, error) {
	return "can be made", inNetns(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "check"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		attrs.Name = "check0"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "check1"}); err != nil {
			return fmt.Errorf("add veth: %w", err)
		}
		return nil
	})
}

func checkVxlan(string) (string, error) {
	return "can be made", inNetns(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "check"
		if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: 8472}); err != nil {
			return fmt.Errorf("add vxlan: %w", err)
		}
		return nil
	})
}

func checkNftables(string) (string, error) {
	return "filter, NAT and connection tracking work", inNetns(func() error {
		c := &nftables.Conn{}
		t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "check"})
		nat := c.AddChain(&nftables.Chain{Name: "nat", Table: t, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		in := c.AddChain(&nftables.Chain{Name: "in", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: t, Chain: nat, Exprs: []expr.Any{&expr.Masq{}}})
		c.AddRule(&nftables.Rule{Table: t, Chain: in, Exprs: append(answers(), &expr.Verdict{Kind: expr.VerdictAccept})})
		return c.Flush()
	})
}

func checkSeccomp(string) (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil || !strings.Contains(string(data), "errno") {
		return "", errors.New("the kernel filters no system calls")
	}
	return "filters are available", nil
}

func checkPort(string) (string, error) {
	if err := portFree(apiPort, "tcp", ""); err != nil {
		port, err := freePort(apiPort, "")
		return fmt.Sprintf("taken; another would be chosen, such as %d", port), err
	}
	return "free", nil
}

func checkDisk(dir string) (string, error) {
	at := existing(dir)
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return "", err
	}
	free, files := st.Bavail*uint64(st.Bsize), st.Ffree
	if free < 1<<30 {
		return "", fmt.Errorf("%d MiB free in %s, less than 1 GiB", free>>20, at)
	}
	if st.Files > 0 && files < 10000 {
		return "", fmt.Errorf("%d inodes free in %s, less than 10000", files, at)
	}
	return fmt.Sprintf("%d GiB free in %s", free>>30, at), nil
}

func checkLimits(string) (string, error) {
	var low []string
	for _, l := range []struct {
		key  string
		want int
	}{{"fs/inotify/max_user_instances", 64}, {"fs/inotify/max_user_watches", 8192}, {"kernel/pid_max", 4096}, {"fs/file-max", 65536}} {
		data, err := os.ReadFile(filepath.Join("/proc/sys", l.key))
		if err != nil {
			return "", err
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
		if err != nil || n < uint64(l.want) {
			low = append(low, fmt.Sprintf("%s is %s, less than %d", strings.ReplaceAll(l.key, "/", "."), strings.TrimSpace(string(data)), l.want))
		}
	}
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return "", err
	}
	if r.Max < 4096 {
		low = append(low, fmt.Sprintf("a process may open %d files, less than 4096", r.Max))
	}
	if len(low) > 0 {
		return "", errors.New(strings.Join(low, "; "))
	}
	return fmt.Sprintf("inotify, processes and %d open files are enough", r.Max), nil
}
