package local

import (
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

	"karve/config"
)

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
	if err := ours(dir, os.Stat); err != nil {
		return nil, fmt.Errorf("take the data directory: %w", err)
	}
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
