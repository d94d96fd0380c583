package local

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"karve/client"
	"karve/pki"
)

func tlsFor(r *pki.Renewing) *tls.Config { return &tls.Config{GetCertificate: r.GetCertificate} }

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root, for namespaces and network devices: run it with sudo")
	}
}

// testName is a cluster name no other run uses: cgroups are the machine's.
func testName(suffix string) string { return fmt.Sprintf("t%d%s", os.Getpid(), suffix) }

// options are those of a cluster of stand-ins that is removed when the test ends.
func options(t *testing.T, name string, nodes int) UpOptions {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "kube", "config"))
	t.Setenv("SUDO_UID", "")
	o := UpOptions{Name: name, Dir: filepath.Join(t.TempDir(), "data"), Nodes: nodes, Timeout: 30 * time.Second}
	o.Command = standInCommand("")
	t.Cleanup(func() {
		if err := Down(DownOptions{Name: name, Dir: o.Dir}); err != nil {
			t.Errorf("down: %v", err)
		}
	})
	return o
}

func standInCommand(mode string) func(s *State, i int, file string) []string {
	return func(s *State, i int, file string) []string {
		exe, _ := os.Executable()
		role, m := "agent", mode
		if i == 0 {
			role = "server"
		}
		if m == "" {
			var names []string
			for _, n := range s.Nodes {
				names = append(names, n.Name)
			}
			m = strings.Join(names, ",")
		}
		return []string{exe, "standin", role, file, m}
	}
}

// traces lists everything a cluster could leave on the machine.
func traces(t *testing.T) []string {
	t.Helper()
	var out []string
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		out = append(out, "link "+l.Attrs().Name)
	}
	tables, err := (&nftables.Conn{}).ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range tables {
		out = append(out, "table "+x.Name)
	}
	all, err := mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		out = append(out, "mount "+m.point)
	}
	hs, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hs {
		dirs, _ := filepath.Glob(filepath.Join(h.root, "karve", fmt.Sprintf("t%d*", os.Getpid())))
		for _, d := range dirs {
			out = append(out, "cgroup "+d)
		}
	}
	_ = filepath.WalkDir("/run", func(p string, _ fs.DirEntry, _ error) error { out = append(out, "file "+p); return nil })
	exe, _ := os.Executable()
	procs, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, p := range procs {
		if to, err := os.Readlink(p); err == nil && to == exe && startTimeOf(p) {
			data, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline"))
			if strings.Contains(string(data), "standin") {
				out = append(out, "process "+p)
			}
		}
	}
	routes, err := usedSubnets()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		out = append(out, "route "+r.String())
	}
	slices.Sort(out)
	return out
}

func startTimeOf(p string) bool {
	var pid int
	_, err := fmt.Sscanf(p, "/proc/%d/exe", &pid)
	return err == nil && startTime(pid) != 0
}

func sameTraces(t *testing.T, before []string) {
	t.Helper()
	after := traces(t)
	for _, x := range after {
		if !slices.Contains(before, x) {
			t.Errorf("left behind: %s", x)
		}
	}
	for _, x := range before {
		if !slices.Contains(after, x) {
			t.Errorf("lost: %s", x)
		}
	}
}

func get(t *testing.T, url string) (string, error) {
	t.Helper()
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return strings.TrimSpace(string(b)), err
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// The whole life: up, used, killed, up again in the same namespaces, kept, up again, down.
func TestLife(t *testing.T) {
	needRoot(t)
	before := traces(t)
	name := testName("")
	o := options(t, name, 2)
	o.Publish = []Publish{{Host: 18080, NodePort: 30080, Protocol: "tcp"}}
	s, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := get(t, "http://127.0.0.1:18080"); got != "shop on "+name+"-1" {
		t.Errorf("published port: %q, %v", got, err)
	}
	kube := os.Getenv("KUBECONFIG")
	if fi, err := os.Stat(kube); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig: %v, %v", fi, err)
	}
	if _, err := client.FromKubeconfig(kube, contextName(name)); err != nil {
		t.Error(err)
	}
	r, err := Status(t.Context(), name, "")
	if err != nil || !r.Healthy || len(r.Nodes) != 2 || len(r.Processes) != 2 || r.Memory == 0 || r.Nodes[1].Version != "v0-test" {
		t.Errorf("status: %+v, %v", r, err)
	}
	worlds := map[string]uint64{}
	for _, n := range s.Nodes {
		for _, k := range []string{"net", "uts", "mnt"} {
			worlds[s.pin(n.Name, k)] = inode(t, s.pin(n.Name, k))
			if got := inode(t, fmt.Sprintf("/proc/%d/ns/%s", n.PID, k)); got != worlds[s.pin(n.Name, k)] {
				t.Errorf("%s runs in another %s namespace", n.Name, k)
			}
		}
	}
	if worlds[s.pin(s.Nodes[0].Name, "net")] == worlds[s.pin(s.Nodes[1].Name, "net")] {
		t.Error("both nodes share a network")
	}

	again, err := Up(t.Context(), UpOptions{Name: name, Command: o.Command})
	if err != nil || again.Nodes[0] != s.Nodes[0] || again.Nodes[1] != s.Nodes[1] {
		t.Errorf("a second up changed what runs: %+v, %v", again, err)
	}

	s.killNodes()
	if _, err := get(t, "http://127.0.0.1:18080"); err == nil {
		t.Error("the port answers though every process was killed")
	}
	again, err = Up(t.Context(), UpOptions{Name: name, Command: o.Command})
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range worlds {
		if got := inode(t, p); got != want {
			t.Errorf("%s is another namespace than before the kill", p)
		}
	}
	if got, err := get(t, "http://127.0.0.1:18080"); got != "shop on "+name+"-1" {
		t.Errorf("after the kill: %q, %v", got, err)
	}

	// Forgotten by the state, found by its cgroup.
	pid := again.Nodes[0].PID
	again.Nodes[0].PID, again.Nodes[0].Start = 0, 0
	if err := again.save(); err != nil {
		t.Fatal(err)
	}
	if again, err = Up(t.Context(), UpOptions{Name: name, Command: o.Command}); err != nil || again.Nodes[0].PID != pid {
		t.Errorf("the process was not adopted: %+v, %v", again, err)
	}

	if err := Down(DownOptions{Name: name, KeepData: true}); err != nil {
		t.Fatal(err)
	}
	sameTraces(t, before)
	if _, err := Up(t.Context(), UpOptions{Name: name, Dir: o.Dir, Command: o.Command}); err != nil {
		t.Fatal(err)
	}
	if err := Down(DownOptions{Name: name}); err != nil {
		t.Fatal(err)
	}
	sameTraces(t, before)
	for _, p := range []string{o.Dir, kube, filepath.Dir(kube)} {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", p, err)
		}
	}
	if err := Down(DownOptions{Name: name, Dir: o.Dir}); err != nil {
		t.Errorf("down of nothing: %v", err)
	}
}

// Down must clear whatever there is: after every step of up, and also when the state file is lost.
func TestDownAfterHalfAnUp(t *testing.T) {
	needRoot(t)
	before := traces(t)
	subnet := netip.MustParsePrefix("10.90.0.0/24")
	steps := []struct {
		name string
		do   func(s *State) error
	}{
		{"pins", func(s *State) error { return ensurePinDir(s.pinDir()) }},
		{"firewall", func(s *State) error { return s.ensureFirewall() }},
		{"fabric", func(s *State) error { return s.ensureFabric(subnet) }},
		{"node", func(s *State) error { return s.ensureNodeNet(0, subnet) }},
		{"world", func(s *State) error {
			return ensureWorld(s.pin(s.Nodes[0].Name, "mnt"), s.pin(s.Nodes[0].Name, "uts"), "x")
		}},
		{"process", func(s *State) error {
			exe, _ := os.Executable()
			_, err := s.start(&s.Nodes[0], []string{exe, "standin", "agent", "/dev/null", "child"})
			return err
		}},
	}
	for n := range steps {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/lost=%v", steps[n].name, lost), func(t *testing.T) {
				o := options(t, testName("half"), 1)
				if err := os.MkdirAll(o.Dir, 0o700); err != nil {
					t.Fatal(err)
				}
				s, _, err := plan(o, o.Dir)
				if err != nil {
					t.Fatal(err)
				}
				subnet = netip.MustParsePrefix(s.Subnet)
				for _, step := range steps[:n+1] {
					if err := step.do(s); err != nil {
						t.Fatalf("%s: %v", step.name, err)
					}
				}
				if lost {
					if err := os.Remove(filepath.Join(o.Dir, "cluster.json")); err != nil {
						t.Fatal(err)
					}
				}
				if err := Down(DownOptions{Name: o.Name, Dir: o.Dir}); err != nil {
					t.Fatal(err)
				}
				sameTraces(t, before)
			})
		}
	}
}

func TestUpTellsWhyANodeDied(t *testing.T) {
	needRoot(t)
	o := options(t, testName("fail"), 1)
	o.Command = standInCommand("fail")
	_, err := Up(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "the engine is on fire") || !strings.Contains(err.Error(), ".log") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.Command = func(*State, int, string) []string { cancel(); return []string{"/bin/sleep", "3600"} }
	if _, err := Up(ctx, o); err == nil || !strings.Contains(err.Error(), "karve down") {
		t.Errorf("interrupted: %v", err)
	}
}

func TestSideBySide(t *testing.T) {
	needRoot(t)
	before := traces(t)
	a, b := options(t, testName("a"), 1), options(t, testName("b"), 1)
	a.Publish = []Publish{{18081, 30080, "tcp"}}
	one, err := Up(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	b.Publish = a.Publish
	if _, err := Up(t.Context(), b); err == nil || !strings.Contains(err.Error(), a.Name) {
		t.Errorf("a port was published twice: %v", err)
	}
	b.Publish = []Publish{{18082, 30080, "tcp"}}
	two, err := Up(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if one.Subnet == two.Subnet || one.APIPort == two.APIPort {
		t.Errorf("shared: %+v %+v", one, two)
	}
	for port, want := range map[string]string{"18081": one.Nodes[0].Name, "18082": two.Nodes[0].Name} {
		if got, err := get(t, "http://127.0.0.1:"+port); got != "shop on "+want {
			t.Errorf("%s: %q, %v", port, got, err)
		}
	}
	// The younger cluster's nodes must not keep the elder's networks alive.
	pin := inode(t, one.pin("fabric", "net"))
	if err := Down(DownOptions{Name: a.Name}); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("/bin/cat", fmt.Sprintf("/proc/%d/mountinfo", two.Nodes[0].PID)).Output(); err != nil || strings.Contains(string(out), fmt.Sprintf("net:[%d]", pin)) {
		t.Errorf("a copy of %d is mounted in the other cluster: %v", pin, err)
	}
	if got, err := get(t, "http://127.0.0.1:18082"); got != "shop on "+two.Nodes[0].Name {
		t.Errorf("the other cluster: %q, %v", got, err)
	}
	if err := Down(DownOptions{Name: b.Name}); err != nil {
		t.Fatal(err)
	}
	sameTraces(t, before)
}

// A node must not reach what the host listens on, nor its loopback by a forged route. Without the firewall both work, or
// this test would prove nothing.
func TestNodeCannotReachTheHost(t *testing.T) {
	needRoot(t)
	o := options(t, testName("iso"), 1)
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, _, err := plan(o, o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ensureHost(); err != nil {
		t.Fatal(err)
	}
	host := hostAddr(netip.MustParsePrefix(s.Subnet), 254).String()
	open, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	inner, err := net.Listen("tcp4", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	node := s.pin(s.Nodes[0].Name, "net")
	if err := within(node, func() error {
		if _, err := netlink.RouteGet(net.ParseIP("10.96.0.1")); err != nil {
			return fmt.Errorf("no way to Services: %w", err)
		}
		if r, err := netlink.RouteGet(net.ParseIP("192.0.2.1")); err == nil {
			return fmt.Errorf("there is a way out: %v", r)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := within(node, func() error { return forgeLoopback(host) }); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(open.Addr().String())
	for _, addr := range []string{net.JoinHostPort(host, port), inner.Addr().String()} {
		if reaches(node, addr) {
			t.Errorf("the node reaches %s", addr)
		}
	}
	if err := s.dropFirewall(); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{net.JoinHostPort(host, port), inner.Addr().String()} {
		if !reaches(node, addr) {
			t.Errorf("without firewall the node does not reach %s: the test shows nothing", addr)
		}
	}
}

func within(pin string, fn func() error) error {
	return onThread(func() error {
		fd, err := unix.Open(pin, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return err
		}
		return fn()
	})
}

func forgeLoopback(host string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	eth, err := netlink.LinkByName(nodeLink)
	if err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+nodeLink+"/route_localnet", []byte("1"), 0o644); err != nil {
		return err
	}
	_, all, _ := net.ParseCIDR("127.0.0.0/8")
	_, one, _ := net.ParseCIDR("127.0.0.9/32")
	if err := netlink.RouteDel(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST}); err != nil {
		return fmt.Errorf("delete route: %w", err)
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: one, Gw: net.ParseIP(host)})
}

func reaches(pin, addr string) bool {
	ap := netip.MustParseAddrPort(addr)
	return within(pin, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 500000}); err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()})
	}) == nil
}

func TestRefusals(t *testing.T) {
	needRoot(t)
	o := options(t, testName("ref"), 1)
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	bad := o
	bad.Dir = foreign
	if _, err := Up(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("foreign directory: %v", err)
	}
	if err := Down(DownOptions{Name: o.Name, Dir: foreign}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(foreign, "thesis.tex")); err != nil {
		t.Errorf("down removed what was not its own: %v", err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	bad = o
	bad.Publish = []Publish{{l.Addr().(*net.TCPAddr).Port, 30080, "tcp"}}
	if _, err := Up(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("used port: %v", err)
	}
	bad.Name = "No"
	if _, err := Up(t.Context(), bad); err == nil {
		t.Error("a bad name was taken")
	}
}

// Under sudo the file is the user's, and so are the rights it is written with.
func TestKubeconfigUnderSudo(t *testing.T) {
	needRoot(t)
	const user = 65534
	home, err := os.MkdirTemp("/tmp", "home-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	if err := os.Chown(home, user, user); err != nil {
		t.Fatal(err)
	}
	k := Kubeconfig{Path: filepath.Join(home, ".kube", "config"), UID: user, GID: user, Context: "karve"}
	k.look()
	if err := k.add(map[string]any{"server": "https://x"}, map[string]any{}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{k.Path, filepath.Dir(k.Path)} {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil || st.Uid != user || st.Gid != user {
			t.Errorf("%s belongs to %d:%d (%v)", p, st.Uid, st.Gid, err)
		}
	}
	if err := k.remove(); err != nil {
		t.Fatal(err)
	}
	secret := t.TempDir()
	if err := os.Symlink(secret, filepath.Join(home, ".kube")); err != nil {
		t.Fatal(err)
	}
	if err := k.add(map[string]any{"server": "https://x"}, map[string]any{}); err == nil {
		t.Error("a link led root's pen into a directory the user cannot write")
	}
}

func TestCheckFindsThisMachineFit(t *testing.T) {
	needRoot(t)
	before := traces(t)
	dir := t.TempDir()
	for _, f := range Check(filepath.Join(dir, "none", "yet")) {
		t.Logf("%s: %v %s", f.Name, f.OK, f.Found)
		if f.OK != (f.Remedy == "") || f.Found == "" {
			t.Errorf("%+v", f)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	sameTraces(t, before)
}
