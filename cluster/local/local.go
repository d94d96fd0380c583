// Package local is `karve up`: a cluster whose nodes live on this one machine, each in network, mount, UTS and cgroup
// worlds of its own, behind one bridge. cmd/karve calls Up, Down, Status and Check. The package owns everything a cluster
// makes on the host outside its processes: the pinned namespaces below /run/karve/<name>, one veth and one nftables table
// in the host's network, cgroups, the data directory and a context in the user's kubeconfig. It is not the cluster: nodes
// are `karve server` and `karve agent` processes that are told, in a configuration file, where they live.
//
// Every step is an "ensure": Up after a crash, a kill or a reboot goes through the same list and fills what is missing, and
// Down takes away whatever of it there is. What is to be made is written to cluster.json before it is made.
package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// runRoot is below /run, so that a reboot forgets the pinned namespaces together with the kernel.
const runRoot = "/run/karve"

// State is cluster.json: everything that may exist of a cluster outside its data.
type State struct {
	Name     string    `json:"name"`
	Dir      string    `json:"dir"`
	Subnet   string    `json:"subnet"`   // of the fabric, 10.x.0.0/24
	HostLink string    `json:"hostLink"` // the host's veth
	APIPort  int       `json:"apiPort"`  // on 127.0.0.1
	Publish  []Publish `json:"publish,omitempty"`
	Nodes    []Node    `json:"nodes"`
	// Kubeconfig is where a context was (or is to be) added, and for whom.
	Kubeconfig Kubeconfig `json:"kubeconfig"`
}

// Node is one node of a local cluster.
type Node struct {
	Name string `json:"name"`
	IP   string `json:"ip"`
	// PID is the node's process and Start the time it started, in clock ticks since boot: together they name one process.
	PID   int    `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"`
}

// Publish makes a NodePort of the first node reachable on the host's loopback.
type Publish struct {
	Host     int    `json:"host"`
	NodePort int    `json:"nodePort"`
	Protocol string `json:"protocol"` // tcp or udp
}

// ParsePublish reads HOST:NODEPORT, optionally followed by /udp.
func ParsePublish(s string) (Publish, error) {
	ports, proto, _ := strings.Cut(s, "/")
	if proto == "" {
		proto = "tcp"
	}
	a, b, ok := strings.Cut(ports, ":")
	host, errA := strconv.Atoi(a)
	node, errB := strconv.Atoi(b)
	if !ok || errA != nil || errB != nil || host < 1 || host > 65535 || node < 1 || node > 65535 || (proto != "tcp" && proto != "udp") {
		return Publish{}, fmt.Errorf("%q is not HOST:NODEPORT: write it like 8080:30080 or 5353:30053/udp", s)
	}
	return Publish{Host: host, NodePort: node, Protocol: proto}, nil
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?$`)

// CheckName says what is wrong with a cluster name.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%q is no cluster name: use at most 30 lower-case letters, digits and -", name)
	}
	return nil
}

// DefaultDir is where a cluster keeps its data when nothing else is said.
func DefaultDir(name string) string { return filepath.Join("/var/lib/karve", name) }

func (s *State) runDir() string { return filepath.Join(runRoot, s.Name) }
func (s *State) pinDir() string { return filepath.Join(s.runDir(), "ns") }
func (s *State) pin(owner, kind string) string {
	return filepath.Join(s.pinDir(), owner+"."+kind)
}

// NodeStateDir is where a node's sockets are.
func (s *State) NodeStateDir(node string) string { return filepath.Join(s.runDir(), "nodes", node) }

// ControlSocket is where a node's process answers the karve command.
func (s *State) ControlSocket(node string) string {
	return filepath.Join(s.NodeStateDir(node), "control.sock")
}

// NodeDir is a node's data directory.
func (s *State) NodeDir(node string) string { return filepath.Join(s.Dir, "nodes", node) }

// LogFile is where a node's process writes.
func (s *State) LogFile(node string) string { return filepath.Join(s.Dir, "logs", node+".log") }

// AdminKubeconfig is the administrator's kubeconfig that the first node writes.
func (s *State) AdminKubeconfig() string {
	return filepath.Join(s.NodeDir(s.Nodes[0].Name), "admin.kubeconfig")
}

func (s *State) table() string { return "karve-" + s.Name }
func (s *State) alias() string { return "karve cluster " + s.Name }

// cgroup is the cluster's path in every hierarchy.
func (s *State) cgroup() string { return filepath.Join("/karve", s.Name) }

func (s *State) save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(s.Dir, "cluster.json"), append(data, '\n'))
}

// writeFile replaces a file whole, mode 0600, and on disk before it returns.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// stateTemp begins the names of what writeFile leaves of cluster.json when it is killed.
const stateTemp = ".cluster.json-"

// errNone means that there is no cluster of that name.
var errNone = errors.New("no such cluster")

// Load reads the state of a cluster. dir may be empty: then it is where Up of this boot put it, or the default.
func Load(name, dir string) (*State, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	dir = findDir(name, dir)
	f, err := os.OpenFile(filepath.Join(dir, "cluster.json"), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s (start it with karve up%s)", errNone, name, nameFlag(name))
	}
	if err != nil {
		return nil, fmt.Errorf("read cluster %s: %w", name, err)
	}
	defer f.Close()
	if err := errors.Join(ours(dir, os.Stat), ours(f.Name(), func(string) (os.FileInfo, error) { return f.Stat() })); err != nil {
		return nil, fmt.Errorf("read cluster %s: %w", name, err)
	}
	var s State
	if err := json.NewDecoder(f).Decode(&s); err != nil {
		return nil, fmt.Errorf("read cluster %s: %w", name, err)
	}
	if s.Name != name || s.Dir != dir || len(s.Nodes) == 0 {
		return nil, fmt.Errorf("read cluster %s: %s belongs to the cluster %q in %s", name, filepath.Join(dir, "cluster.json"), s.Name, s.Dir)
	}
	return &s, nil
}

// ours refuses what another user may write: the state says which processes Down kills and which files it removes, as root.
func ours(path string, stat func(string) (os.FileInfo, error)) error {
	fi, err := stat(path)
	if err != nil {
		return err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user: choose a directory of root's with --data, or give it to root with chown", path)
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s has mode %04o, with which others may write to it: choose another directory with --data, or run chmod go-w on it", path, fi.Mode().Perm())
	}
	return nil
}

func nameFlag(name string) string {
	if name == "karve" {
		return ""
	}
	return " --name " + name
}

func findDir(name, dir string) string {
	if dir == "" {
		if d, err := os.Readlink(filepath.Join(runRoot, name, "dir")); err == nil {
			return d
		}
		dir = DefaultDir(name)
	}
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	return dir
}

// running returns the states of all clusters started since boot but the one named.
func running(but string) []*State {
	entries, _ := os.ReadDir(runRoot)
	var out []*State
	for _, e := range entries {
		if e.Name() == but {
			continue
		}
		if s, err := Load(e.Name(), ""); err == nil {
			out = append(out, s)
		}
	}
	return out
}

// lock takes the lock of a directory, which it makes. The directory itself is locked, so that no lock file is left behind.
func lock(dir string, perm os.FileMode) (unlock func(), err error) {
	for {
		if err := os.MkdirAll(dir, perm); err != nil {
			return nil, err
		}
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		// It may have been removed while we waited.
		held, err := f.Stat()
		now, nerr := os.Stat(dir)
		if err == nil && nerr == nil && os.SameFile(held, now) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}
