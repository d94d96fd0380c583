package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"karve/client"
	"karve/cluster/control"
)

// Report is what `karve status` shows.
type Report struct {
	Name      string          `json:"name"`
	API       string          `json:"api"`
	Healthy   bool            `json:"healthy"`
	Problem   string          `json:"problem,omitempty"`
	Context   string          `json:"context"`
	Config    string          `json:"kubeconfig"`
	Dir       string          `json:"dir"`
	Subnet    string          `json:"subnet"`
	Publish   []Publish       `json:"publish"`
	Nodes     []NodeReport    `json:"nodes"`
	Processes []ProcessReport `json:"processes"`
	// Memory is what all processes have in memory, in bytes; pages they share count once for each.
	Memory int64 `json:"memory"`
}

// NodeReport is one node.
type NodeReport struct {
	Name       string              `json:"name"`
	IP         string              `json:"ip"`
	Ready      bool                `json:"ready"`
	Problem    string              `json:"problem,omitempty"`
	Version    string              `json:"version,omitempty"`
	PID        int                 `json:"pid,omitempty"`
	Components []control.Component `json:"components"`
}

// ProcessReport is one process of a cluster.
type ProcessReport struct {
	PID    int    `json:"pid"`
	Name   string `json:"name"`
	Node   string `json:"node"`
	Cgroup string `json:"cgroup"` // below the node's
	Memory int64  `json:"memory"` // resident, bytes
}

// Status looks at a cluster. What cannot be asked is reported as a problem, not as an error.
func Status(ctx context.Context, name, dir string) (*Report, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("karve status reads what belongs to root: run it with sudo")
	}
	s, err := Load(name, dir)
	if err != nil {
		return nil, err
	}
	r := &Report{Name: s.Name, API: s.server(), Context: s.Kubeconfig.Context, Config: s.Kubeconfig.Path, Dir: s.Dir, Subnet: s.Subnet, Publish: s.Publish}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var nodes []*corev1.Node
	api, err := s.Transport()
	if err == nil {
		nodes, _, err = client.Of[*corev1.Node](api).List(ctx, "", metav1.ListOptions{})
	}
	r.Healthy = err == nil
	if err != nil {
		r.Problem = "the API does not answer: " + err.Error()
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		nr := NodeReport{Name: n.Name, IP: n.IP, Components: []control.Component{}}
		if n.alive() {
			nr.PID = n.PID
		}
		if api != nil && r.Problem == "" {
			nr.Problem = readiness(n.Name, nodes)
			for _, o := range nodes {
				if o.Name == n.Name {
					nr.Version = o.Status.NodeInfo.KubeletVersion
				}
			}
		}
		if nr.PID == 0 {
			nr.Problem = "its process is not running: run karve up" + nameFlag(s.Name)
		}
		nr.Ready = nr.Problem == "" && r.Problem == ""
		r.Healthy = r.Healthy && nr.Ready
		if c, err := control.Dial(s.ControlSocket(n.Name)).Components(ctx); err == nil {
			nr.Components = c
			for _, one := range c {
				r.Healthy = r.Healthy && one.Healthy
			}
		}
		r.Nodes = append(r.Nodes, nr)
	}
	if r.Processes, err = s.processes(); err != nil {
		return nil, err
	}
	for _, p := range r.Processes {
		r.Memory += p.Memory
	}
	return r, nil
}

func (s *State) processes() ([]ProcessReport, error) {
	pids, err := processesIn(s.cgroup())
	if err != nil {
		return nil, err
	}
	var out []ProcessReport
	for pid, at := range pids {
		node, below, _ := strings.Cut(at, "/")
		name, memory, ok := describe(pid)
		if ok {
			out = append(out, ProcessReport{PID: pid, Name: name, Node: node, Cgroup: below, Memory: memory})
		}
	}
	slices.SortFunc(out, func(a, b ProcessReport) int {
		if c := strings.Compare(a.Node, b.Node); c != 0 {
			return c
		}
		return a.PID - b.PID
	})
	return out, nil
}

func describe(pid int) (name string, memory int64, ok bool) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return "", 0, false
	}
	for _, line := range strings.Split(string(data), "\n") {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Name":
			name = value
		case "State":
			if strings.HasPrefix(value, "Z") {
				return "", 0, false
			}
		case "VmRSS":
			n, _ := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
			memory = n << 10
		}
	}
	return name, memory, true
}

// Nodes returns the control sockets of a cluster's nodes by node name, in order.
func Nodes(name, dir string) (names, sockets []string, err error) {
	if os.Geteuid() != 0 {
		return nil, nil, fmt.Errorf("the nodes' sockets belong to root: run it with sudo")
	}
	s, err := Load(name, dir)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range s.Nodes {
		names, sockets = append(names, n.Name), append(sockets, s.ControlSocket(n.Name))
	}
	return names, sockets, nil
}
