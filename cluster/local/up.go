package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

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
