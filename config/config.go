// Package config is the one description of what a karve process is to be: Config, its defaults, where its values come from
// (file, environment, flags) and what is wrong with them. cmd/karve fills it, cluster reads it and builds from it, and
// cluster/local writes one for every node it starts. It holds no state, and it never holds a secret: only paths of files
// that do.
package config

import (
	"path/filepath"
)

// Config describes one karve process. Start from Default.
type Config struct {
	// Name is the cluster's name, a DNS label.
	Name string `json:"name"`
	// DataDir keeps what must survive a reboot; StateDir what lives as long as the machine is up (sockets, mounts).
	DataDir  string `json:"dataDir"`
	StateDir string `json:"stateDir"`

	Node       Node       `json:"node"`
	API        API        `json:"api"`
	Etcd       Etcd       `json:"etcd"`
	Network    Network    `json:"network"`
	Components Components `json:"components"`
	Join       Join       `json:"join"`
	Log        Log        `json:"log"`
}

// Node describes this machine as a node.
type Node struct {
	// Name is the node's name; empty means the host name.
	Name string `json:"name"`
	// IP is the node's address; empty means the address of the interface that has the default route.
	IP     string            `json:"ip"`
	Labels map[string]string `json:"labels"`
	// Taints are written key=value:Effect or key:Effect.
	Taints []string `json:"taints"`
	// CgroupRoot is the cgroup below which pods are put, as a path from the root of each hierarchy.
	CgroupRoot string `json:"cgroupRoot"`
	// PullNetns is the network namespace from which image registries are dialled; empty means the process's own.
	PullNetns string `json:"pullNetns"`
	// MaxPods is how many pods the node takes.
	MaxPods int `json:"maxPods"`
}

// API describes the API server.
type API struct {
	// Listen is the host:port it serves on, Advertise the address others reach it at (empty: the node's address).
	Listen    string `json:"listen"`
	Advertise string `json:"advertise"`
	// AnonymousAuth says what may be asked without credentials: none, health (/livez, /readyz and /healthz) or all (whatever
	// the rules allow to system:anonymous, as upstream).
	AnonymousAuth string `json:"anonymousAuth"`
	// ExtraSANs are further names and addresses its certificate is good for.
	ExtraSANs []string `json:"extraSANs"`
	// MaxRequestsInflight and MaxMutatingRequestsInflight, added up, are about how many requests it works on at a time; flow
	// schemas and priority levels say whose.
	MaxRequestsInflight         int `json:"maxRequestsInflight"`
	MaxMutatingRequestsInflight int `json:"maxMutatingRequestsInflight"`
	// EventTTL is how long an event is kept after it was last written, as a Go duration.
	EventTTL string `json:"eventTTL"`
	// HistoryTime, a Go duration, HistoryEvents and HistoryMiB bound how far back a watch may begin: changes of a resource are
	// kept for at least that time, unless they are more than so many or bigger than that. It is memory.
	HistoryTime   string `json:"historyTime"`
	HistoryEvents int    `json:"historyEvents"`
	HistoryMiB    int    `json:"historyMiB"`
}

// Etcd describes the etcd that several API servers keep their objects in. Without servers the API server, which is then the
// only one, keeps them below DataDir.
type Etcd struct {
	// Servers are the members' client addresses, as https://host:port.
	Servers []string `json:"servers"`
	// CAFile is the authority of the members' certificates; CertFile and KeyFile are what the API server shows them.
	CAFile   string `json:"caFile"`
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
	// Prefix is where in etcd the objects lie.
	Prefix string `json:"prefix"`
	// CompactionInterval is how often etcd's history is compacted, as a Go duration; 0 for never.
	CompactionInterval string `json:"compactionInterval"`
}

// Network describes the cluster's addresses. Every node must be told the same.
type Network struct {
	PodCIDR       string `json:"podCIDR"`
	ServiceCIDR   string `json:"serviceCIDR"`
	NodePortRange string `json:"nodePortRange"`
	ClusterDomain string `json:"clusterDomain"`
	// DNS is the address of the cluster's name server, inside ServiceCIDR.
	DNS string `json:"dns"`
	// UpstreamDNS are the servers asked for names outside the cluster, host or host:port; empty: those of /etc/resolv.conf.
	UpstreamDNS []string `json:"upstreamDNS"`
	// Mode is how pods of different nodes reach each other: route (the nodes share a link) or vxlan.
	Mode string `json:"mode"`
}

// Components are the parts this process runs.
type Components struct {
	APIServer   bool `json:"apiserver"`
	Controllers bool `json:"controllers"`
	Scheduler   bool `json:"scheduler"`
	Kubelet     bool `json:"kubelet"`
	Proxy       bool `json:"proxy"`
	DNS         bool `json:"dns"`
}

// Join says how to reach a control plane that runs elsewhere.
type Join struct {
	// Server is its address, https://host:port.
	Server string `json:"server"`
	// TokenFile holds a bootstrap token; CAFile the authority the server's certificate must come from.
	TokenFile string `json:"tokenFile"`
	CAFile    string `json:"caFile"`
	// Kubeconfig is a file that holds all three; it takes the place of the others.
	Kubeconfig string `json:"kubeconfig"`
}

// Log says what is logged and how.
type Log struct {
	Level  string `json:"level"`  // debug, info, warn or error
	Format string `json:"format"` // text or json
}

// Default returns the configuration of `karve server` with nothing set.
func Default() Config {
	return Config{
		Name:    "karve",
		DataDir: "/var/lib/karve/karve", StateDir: "/run/karve/karve",
		Node: Node{CgroupRoot: "/karve", MaxPods: 110},
		API: API{Listen: "0.0.0.0:6443", AnonymousAuth: "health", MaxRequestsInflight: 400, MaxMutatingRequestsInflight: 200, EventTTL: "1h0m0s",
			HistoryTime: "5m0s", HistoryEvents: 4096, HistoryMiB: 32},
		Etcd: Etcd{Prefix: "/registry", CompactionInterval: "5m0s"},
		Network: Network{PodCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/16", NodePortRange: "30000-32767",
			ClusterDomain: "cluster.local", DNS: "10.96.0.10", Mode: "route"},
		Components: Server(),
		Log:        Log{Level: "info", Format: "text"},
	}
}

// Server is every component.
func Server() Components {
	return Components{APIServer: true, Controllers: true, Scheduler: true, Kubelet: true, Proxy: true, DNS: true}
}

// Agent is what a machine without a control plane runs.
func Agent() Components { return Components{Kubelet: true, Proxy: true, DNS: true} }

// OnNode reports whether any part runs that makes this machine a node.
func (c Components) OnNode() bool { return c.Kubelet || c.Proxy || c.DNS }

// AdminKubeconfig is the file a process with an API server writes for the cluster's administrator, mode 0600.
func (c Config) AdminKubeconfig() string { return filepath.Join(c.DataDir, "admin.kubeconfig") }

// JoinKubeconfig is the file a process with an API server writes for nodes that are to join, mode 0600.
func (c Config) JoinKubeconfig() string { return filepath.Join(c.DataDir, "join.kubeconfig") }

// ControlSocket is the socket through which `karve image` and `karve status` ask this process, open to root alone.
func (c Config) ControlSocket() string { return filepath.Join(c.StateDir, "control.sock") }
