package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	coordv1 "k8s.io/api/coordination/v1"

	"karve/client"
	"karve/config"
)

// apiPort is where the API server listens inside the first node.
const apiPort = 6443

// poll is how often Up looks for what it waits for.
const poll = 25 * time.Millisecond

// UpOptions say what cluster is wanted.
type UpOptions struct {
	Name string
	// Dir is the data directory; empty means where the cluster is already, or DefaultDir.
	Dir string
	// Nodes is how many nodes; 0 means as many as there are already, or one.
	Nodes int
	// Publish is nil to keep what is published already.
	Publish []Publish
	// Timeout bounds the wait for the nodes; 0 means two minutes.
	Timeout  time.Duration
	Progress *Progress
	// Command returns the program that runs node i of s with the configuration in file; nil means this program as server
	// and agent.
	Command func(s *State, i int, file string) []string
}

// Up brings a cluster to life, or back to life, and returns once every node is Ready. On an error everything made so far
// stays for a look at it, for another Up, or for Down.
func Up(ctx context.Context, o UpOptions) (*State, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("karve up makes namespaces and network devices and must be root: run it with sudo")
	}
	if err := CheckName(o.Name); err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = NewProgress(nil)
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.Command == nil {
		exe, err := os.Executable()
		if err != nil {
			return nil, err
		}
		o.Command = func(_ *State, i int, file string) []string {
			role := "agent"
			if i == 0 {
				role = "server"
			}
			return []string{exe, role, "--config", file}
		}
	}
	dir := findDir(o.Name, o.Dir)
	unlock, err := lock(dir, 0o700)
	if err != nil {
		return nil, fmt.Errorf("take the data directory: %w", err)
	}
	defer unlock()
	s, again, err := plan(o, dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if err := o.Progress.Step("Network and namespaces", func(func(string)) error { return s.ensureHost() }); err != nil {
		return s, err
	}
	return s, s.bring(ctx, o, again)
}

// plan decides what the cluster looks like and writes it down before anything of it is made.
func plan(o UpOptions, dir string) (s *State, again bool, err error) {
	unlock, err := lock(runRoot, 0o700) // subnets and ports of other clusters must not be chosen meanwhile
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	s, err = Load(o.Name, dir)
	switch {
	case err == nil:
		again = true
	case errors.Is(err, errNone):
		if s, err = newState(o.Name, dir); err != nil {
			return nil, false, err
		}
	default:
		return nil, false, err
	}
	if err := s.wantNodes(o.Nodes); err != nil {
		return nil, false, err
	}
	if o.Publish != nil {
		for _, p := range o.Publish {
			if slices.Contains(s.Publish, p) {
				continue
			}
			if err := portFree(p.Host, p.Protocol, o.Name); err != nil {
				return nil, false, err
			}
		}
		s.Publish = o.Publish
	}
	if err := s.save(); err != nil {
		return nil, false, err
	}
	for _, d := range []string{s.runDir(), filepath.Join(dir, "nodes"), filepath.Join(dir, "logs")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, false, err
		}
	}
	ptr := filepath.Join(s.runDir(), "dir")
	if err := os.Symlink(dir, ptr); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, false, err
	}
	return s, again, nil
}

func newState(name, dir string) (*State, error) {
	left, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		if !strings.HasPrefix(e.Name(), stateTemp) { // half a state from a crash is ours
			return nil, fmt.Errorf("%s holds something else than a cluster: choose another with --data, or empty it", dir)
		}
	}
	taken, err := usedSubnets()
	if err != nil {
		return nil, err
	}
	net := config.Default().Network
	for _, p := range []string{net.PodCIDR, net.ServiceCIDR} {
		taken = append(taken, netip.MustParsePrefix(p))
	}
	for _, other := range running(name) {
		if p, err := netip.ParsePrefix(other.Subnet); err == nil {
			taken = append(taken, p)
		}
	}
	subnet, err := chooseSubnet(taken)
	if err != nil {
		return nil, err
	}
	api, err := freePort(apiPort, name)
	if err != nil {
		return nil, err
	}
	kube, err := UserKubeconfig(os.Getenv, func(uid string) (string, error) {
		u, err := user.LookupId(uid)
		if err != nil {
			return "", err
		}
		return u.HomeDir, nil
	})
	if err != nil {
		return nil, err
	}
	kube.Context = contextName(name)
	return &State{Name: name, Dir: dir, Subnet: subnet.String(), HostLink: "karve" + strconv.Itoa(int(subnet.Addr().As4()[1])),
		APIPort: api, Kubeconfig: kube}, nil
}

func (s *State) wantNodes(n int) error {
	if n == 0 {
		n = max(1, len(s.Nodes))
	}
	if n < len(s.Nodes) {
		return fmt.Errorf("the cluster %s has %d nodes and cannot be made smaller: remove it with karve down%s and start it anew", s.Name, len(s.Nodes), nameFlag(s.Name))
	}
	if n > lastNode {
		return fmt.Errorf("%d nodes are too many for one machine: ask for at most %d", n, lastNode)
	}
	subnet, err := netip.ParsePrefix(s.Subnet)
	if err != nil {
		return err
	}
	for i := len(s.Nodes); i < n; i++ {
		s.Nodes = append(s.Nodes, Node{Name: fmt.Sprintf("%s-%d", s.Name, i+1), IP: hostAddr(subnet, byte(i+1)).String()})
	}
	return nil
}

// portFree reports whether 127.0.0.1:port can be published by the cluster named.
func portFree(port int, proto, name string) error {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for _, other := range running(name) {
		if other.APIPort == port && proto == "tcp" || slices.ContainsFunc(other.Publish, func(p Publish) bool { return p.Host == port && p.Protocol == proto }) {
			return fmt.Errorf("%s is published by the cluster %s: choose another port", addr, other.Name)
		}
	}
	var err error
	if proto == "udp" {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp4", addr); err == nil {
			c.Close()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen("tcp4", addr); err == nil {
			l.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("%s is in use by another program: choose another port", addr)
	}
	return nil
}

func freePort(preferred int, name string) (int, error) {
	if portFree(preferred, "tcp", name) == nil {
		return preferred, nil
	}
	for range 20 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if portFree(port, "tcp", name) == nil {
			return port, nil
		}
	}
	return 0, errors.New("find a free port: none on 127.0.0.1")
}

// ensureHost makes what lies outside the processes. The firewall stands before the link it guards.
func (s *State) ensureHost() error {
	subnet, err := netip.ParsePrefix(s.Subnet)
	if err != nil {
		return err
	}
	if err := ensurePinDir(s.pinDir()); err != nil {
		return err
	}
	if err := s.ensureFirewall(); err != nil {
		return err
	}
	if err := s.ensureFabric(subnet); err != nil {
		return err
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if err := s.ensureNodeNet(i, subnet); err != nil {
			return err
		}
		if err := ensureWorld(s.pin(n.Name, "mnt"), s.pin(n.Name, "uts"), n.Name); err != nil {
			return fmt.Errorf("make the world of node %s: %w", n.Name, err)
		}
		for _, d := range []string{s.NodeDir(n.Name), s.NodeStateDir(n.Name)} {
			if err := os.MkdirAll(d, 0o700); err != nil {
				return err
			}
		}
	}
	return nil
}

// nodeConfig is what node i is told.
func (s *State) nodeConfig(i int) config.Config {
	n := s.Nodes[i]
	c := config.Default()
	c.Name, c.DataDir, c.StateDir = s.Name, s.NodeDir(n.Name), s.NodeStateDir(n.Name)
	c.Node.Name, c.Node.IP = n.Name, n.IP
	c.Node.CgroupRoot = filepath.Join(s.cgroup(), n.Name)
	c.Node.PullNetns = "/proc/self/fd/3"
	if i == 0 {
		c.API.Listen, c.API.Advertise = net.JoinHostPort("0.0.0.0", strconv.Itoa(apiPort)), n.IP
		c.API.ExtraSANs = []string{"localhost", "127.0.0.1"}
		return c
	}
	c.Components = config.Agent()
	first := config.Config{DataDir: s.NodeDir(s.Nodes[0].Name)}
	c.Join.Kubeconfig = first.JoinKubeconfig()
	return c
}

// ensureProcess starts the process of node i unless it is alive.
func (s *State) ensureProcess(i int, o UpOptions) (*process, error) {
	n := &s.Nodes[i]
	file := filepath.Join(s.NodeDir(n.Name), "config.yaml")
	argv := o.Command(s, i, file)
	if !n.alive() {
		if err := s.adopt(n, argv); err != nil {
			return nil, err
		}
	}
	if n.alive() {
		return s.follow(*n), s.save()
	}
	c := s.nodeConfig(i)
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure node %s: %w", n.Name, err)
	}
	data, err := c.YAML()
	if err != nil {
		return nil, err
	}
	if err := writeFile(file, data); err != nil {
		return nil, err
	}
	p, err := s.start(n, argv)
	if err != nil {
		return nil, err
	}
	return p, s.save()
}

// bring starts the processes and waits for the nodes. again says that the cluster has run before.
func (s *State) bring(ctx context.Context, o UpOptions, again bool) error {
	since := time.Now()
	var procs []*process
	restarted := map[string]bool{}
	ensure := func(i int) error {
		if !s.Nodes[i].alive() {
			restarted[s.Nodes[i].Name] = again
		}
		p, err := s.ensureProcess(i, o)
		if err == nil {
			procs = append(procs, p)
		}
		return err
	}
	var api client.Transport
	err := o.Progress.Step("API server on https://127.0.0.1:"+strconv.Itoa(s.APIPort), func(say func(string)) error {
		if err := ensure(0); err != nil {
			return err
		}
		return wait(ctx, procs, "the API server answers", func() (bool, string) {
			t, err := s.Transport()
			if err == nil {
				_, err = client.Of[*corev1.Namespace](t).Get(ctx, "", "kube-system")
			}
			if err != nil {
				return false, err.Error()
			}
			api = t
			return true, ""
		})
	})
	if err != nil {
		return err
	}
	if err := s.enterKubeconfig(); err != nil {
		return err
	}
	what := "Node Ready"
	if len(s.Nodes) > 1 {
		what = fmt.Sprintf("%d nodes Ready", len(s.Nodes))
	}
	return o.Progress.Step(what, func(say func(string)) error {
		for i := 1; i < len(s.Nodes); i++ {
			if err := ensure(i); err != nil {
				return err
			}
		}
		return wait(ctx, procs, "every node is Ready", func() (bool, string) {
			missing, why := s.notReady(ctx, api, restarted, since)
			say(why)
			return missing == 0, why
		})
	})
}

// wait polls until done, and fails early when one of the processes ends.
func wait(ctx context.Context, procs []*process, what string, done func() (bool, string)) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		ok, why := done()
		if ok {
			return nil
		}
		for _, p := range procs {
			select {
			case <-p.done:
				return p.failure()
			default:
			}
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("waited in vain until %s (%s): look into %s", what, why, filepath.Dir(procs[0].log))
			}
			return fmt.Errorf("interrupted before %s: run karve up again to go on, or karve down", what)
		case <-tick.C:
		}
	}
}

// notReady counts the nodes that are not Ready and says what is wrong with the first of them. A node whose process was
// restarted counts only when it has renewed its lease since: until then its status speaks of the process before.
func (s *State) notReady(ctx context.Context, api client.Transport, restarted map[string]bool, since time.Time) (int, string) {
	nodes, _, err := client.Of[*corev1.Node](api).List(ctx, "", metav1.ListOptions{})
	if err != nil {
		return len(s.Nodes), err.Error()
	}
	missing, why := 0, ""
	for _, n := range s.Nodes {
		w := readiness(n.Name, nodes)
		if w == "" && restarted[n.Name] {
			l, err := client.Of[*coordv1.Lease](api).Get(ctx, corev1.NamespaceNodeLease, n.Name)
			if err != nil || l.Spec.RenewTime == nil || l.Spec.RenewTime.Time.Before(since) {
				w = n.Name + " has not reported since it was restarted"
			}
		}
		if w != "" {
			missing++
			if why == "" {
				why = w
			}
		}
	}
	return missing, why
}

func readiness(name string, nodes []*corev1.Node) string {
	for _, n := range nodes {
		if n.Name != name {
			continue
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady {
				if c.Status == corev1.ConditionTrue {
					return ""
				}
				return name + ": " + c.Message
			}
		}
		return name + " has not reported"
	}
	return name + " has not joined"
}

// Transport returns a transport to the cluster's API as administrator, by way of the host's loopback.
func (s *State) Transport() (client.Transport, error) {
	o, err := client.KubeconfigOptions(s.AdminKubeconfig(), "")
	if err != nil {
		return nil, err
	}
	o.Server = s.server()
	return client.NewHTTP(o)
}

func (s *State) server() string { return "https://127.0.0.1:" + strconv.Itoa(s.APIPort) }

func (s *State) enterKubeconfig() error {
	cluster, user, err := adminEntries(s.AdminKubeconfig(), s.server())
	if err != nil {
		return fmt.Errorf("read the administrator's kubeconfig: %w", err)
	}
	s.Kubeconfig.look()
	if err := s.save(); err != nil {
		return err
	}
	if err := s.Kubeconfig.add(cluster, user); err != nil {
		return err
	}
	return s.save()
}
