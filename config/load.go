package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// key is one value that environment and flags can set. Its name in the environment is KARVE_ and its path in capitals
// (api.extraSANs: KARVE_API_EXTRA_SANS); its flag is the path with dashes (--api-extra-sans) unless shortFlags has one.
type key struct {
	path  string
	at    func(c *Config) any // a *string, *int, *bool, *[]string or *map[string]string
	usage string
}

var keys = []key{
	{"name", func(c *Config) any { return &c.Name }, "name of the cluster"},
	{"dataDir", func(c *Config) any { return &c.DataDir }, "directory of what must survive a reboot"},
	{"stateDir", func(c *Config) any { return &c.StateDir }, "directory of sockets and mounts"},
	{"node.name", func(c *Config) any { return &c.Node.Name }, "name of this node (default: the host name)"},
	{"node.ip", func(c *Config) any { return &c.Node.IP }, "address of this node (default: that of the default route)"},
	{"node.labels", func(c *Config) any { return &c.Node.Labels }, "labels of this node, key=value,…"},
	{"node.taints", func(c *Config) any { return &c.Node.Taints }, "taints of this node, key=value:Effect,…"},
	{"node.cgroupRoot", func(c *Config) any { return &c.Node.CgroupRoot }, "cgroup below which pods are put"},
	{"node.pullNetns", func(c *Config) any { return &c.Node.PullNetns }, "network namespace from which registries are dialled"},
	{"node.maxPods", func(c *Config) any { return &c.Node.MaxPods }, "how many pods this node takes"},
	{"api.listen", func(c *Config) any { return &c.API.Listen }, "host:port the API is served on"},
	{"api.advertise", func(c *Config) any { return &c.API.Advertise }, "address others reach the API at (default: the node's)"},
	{"api.anonymousAuth", func(c *Config) any { return &c.API.AnonymousAuth }, "what may be asked without credentials: none, health or all"},
	{"api.extraSANs", func(c *Config) any { return &c.API.ExtraSANs }, "further names and addresses in the API's certificate"},
	{"api.maxRequestsInflight", func(c *Config) any { return &c.API.MaxRequestsInflight }, "how many requests the API server works on at a time, the next added"},
	{"api.maxMutatingRequestsInflight", func(c *Config) any { return &c.API.MaxMutatingRequestsInflight }, "see the one before"},
	{"api.eventTTL", func(c *Config) any { return &c.API.EventTTL }, "how long an event is kept after it was last written"},
	{"api.historyTime", func(c *Config) any { return &c.API.HistoryTime }, "for how long changes are kept for watches to begin at"},
	{"api.historyEvents", func(c *Config) any { return &c.API.HistoryEvents }, "how many changes of a resource are kept at most"},
	{"api.historyMiB", func(c *Config) any { return &c.API.HistoryMiB }, "how big the changes of a resource that are kept may be, in MiB"},
	{"etcd.servers", func(c *Config) any { return &c.Etcd.Servers }, "etcd to keep objects in instead of the data directory, https://host:port,…; several API servers may share it"},
	{"etcd.caFile", func(c *Config) any { return &c.Etcd.CAFile }, "file that holds the authority of etcd's certificates"},
	{"etcd.certFile", func(c *Config) any { return &c.Etcd.CertFile }, "file that holds the certificate to show to etcd"},
	{"etcd.keyFile", func(c *Config) any { return &c.Etcd.KeyFile }, "file that holds the key of that certificate"},
	{"etcd.prefix", func(c *Config) any { return &c.Etcd.Prefix }, "what keys in etcd begin with"},
	{"etcd.compactionInterval", func(c *Config) any { return &c.Etcd.CompactionInterval }, "how often etcd's history is compacted, 0 for never"},
	{"network.podCIDR", func(c *Config) any { return &c.Network.PodCIDR }, "addresses of pods"},
	{"network.serviceCIDR", func(c *Config) any { return &c.Network.ServiceCIDR }, "addresses of Services"},
	{"network.nodePortRange", func(c *Config) any { return &c.Network.NodePortRange }, "ports of NodePort Services"},
	{"network.clusterDomain", func(c *Config) any { return &c.Network.ClusterDomain }, "DNS domain of the cluster"},
	{"network.dns", func(c *Config) any { return &c.Network.DNS }, "address of the cluster's name server"},
	{"network.upstreamDNS", func(c *Config) any { return &c.Network.UpstreamDNS }, "name servers for names outside the cluster"},
	{"network.mode", func(c *Config) any { return &c.Network.Mode }, "how nodes carry pod traffic: route or vxlan"},
	{"components.apiserver", func(c *Config) any { return &c.Components.APIServer }, "run the API server"},
	{"components.controllers", func(c *Config) any { return &c.Components.Controllers }, "run the controllers"},
	{"components.scheduler", func(c *Config) any { return &c.Components.Scheduler }, "run the scheduler"},
	{"components.kubelet", func(c *Config) any { return &c.Components.Kubelet }, "run the kubelet"},
	{"components.proxy", func(c *Config) any { return &c.Components.Proxy }, "run the Service proxy"},
	{"components.dns", func(c *Config) any { return &c.Components.DNS }, "run the name server"},
	{"join.server", func(c *Config) any { return &c.Join.Server }, "API server to join, https://host:port"},
	{"join.tokenFile", func(c *Config) any { return &c.Join.TokenFile }, "file that holds the bootstrap token"},
	{"join.caFile", func(c *Config) any { return &c.Join.CAFile }, "file that holds the cluster's authority"},
	{"join.kubeconfig", func(c *Config) any { return &c.Join.Kubeconfig }, "kubeconfig to join with"},
	{"log.level", func(c *Config) any { return &c.Log.Level }, "what is logged: debug, info, warn or error"},
	{"log.format", func(c *Config) any { return &c.Log.Format }, "text or json"},
}

// words splits a path at dots and capitals: api.extraSANs → api extra sans, network.podCIDR → network pod cidr.
func words(path string) []string {
	var out []string
	for _, part := range strings.Split(path, ".") {
		start, capital := 0, true
		for i, r := range part {
			upper := r >= 'A' && r <= 'Z'
			if upper && !capital {
				out = append(out, strings.ToLower(part[start:i]))
				start = i
			}
			capital = upper
		}
		out = append(out, strings.ToLower(part[start:]))
	}
	return out
}

func (k key) env() string { return "KARVE_" + strings.ToUpper(strings.Join(words(k.path), "_")) }

// shortFlags are the flags that have a name of their own, because people type them or know them from upstream.
var shortFlags = map[string]string{"dataDir": "data", "stateDir": "state", "api.listen": "listen", "api.advertise": "advertise", "api.anonymousAuth": "anonymous-auth",
	"api.maxRequestsInflight": "max-requests-inflight", "api.maxMutatingRequestsInflight": "max-mutating-requests-inflight",
	"api.eventTTL": "event-ttl", "etcd.caFile": "etcd-cafile", "etcd.certFile": "etcd-certfile", "etcd.keyFile": "etcd-keyfile"}

func (k key) flag() string {
	if s := shortFlags[k.path]; s != "" {
		return s
	}
	return strings.Join(words(k.path), "-")
}

// Flags are the command line's part of a configuration.
type Flags struct {
	file string
	set  map[string]string
}

// BindFlags adds --config and a flag for every key to fs.
func BindFlags(fs *pflag.FlagSet) *Flags {
	f := &Flags{set: map[string]string{}}
	long := map[string]string{}
	for _, k := range keys {
		long[strings.Join(words(k.path), "-")] = k.flag()
	}
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if short := long[name]; short != "" { // the path with dashes works for every key
			name = short
		}
		return pflag.NormalizedName(name)
	})
	fs.StringVar(&f.file, "config", "", "configuration file (YAML); also KARVE_CONFIG")
	defaults := Default()
	for _, k := range keys {
		v := &flagValue{key: k, set: f.set, text: show(k.at(&defaults))}
		flag := fs.VarPF(v, k.flag(), "", k.usage)
		if v.Type() == "bool" {
			flag.NoOptDefVal = "true"
		}
		if k.path == "api.anonymousAuth" {
			flag.NoOptDefVal = "all" // the bare flag is upstream's default
		}
	}
	return f
}

type flagValue struct {
	key  key
	set  map[string]string
	text string
}

func (v *flagValue) String() string { return v.text }

func (v *flagValue) Set(s string) error {
	var c Config
	if err := put(v.key.at(&c), s); err != nil {
		return err
	}
	v.set[v.key.path], v.text = s, s
	return nil
}

func (v *flagValue) Type() string {
	switch v.key.at(&Config{}).(type) {
	case *bool:
		return "bool"
	case *int:
		return "int"
	case *[]string:
		return "list"
	case *map[string]string:
		return "map"
	}
	return "string"
}

// Load fills a configuration: base, then the file, then the environment (os.Environ's form), then flags (nil for none).
// It does not validate.
func Load(base Config, environ []string, flags *Flags) (Config, error) {
	c := base
	env := map[string]string{}
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, "KARVE_") {
			env[name] = value
		}
	}
	file := env["KARVE_CONFIG"]
	if flags != nil && flags.file != "" {
		file = flags.file
	}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return Config{}, fmt.Errorf("read configuration: %w", err)
		}
		if err := c.merge(data); err != nil {
			return Config{}, fmt.Errorf("read configuration %s: %w", file, err)
		}
	}
	for _, k := range keys {
		if s, ok := env[k.env()]; ok {
			if err := put(k.at(&c), s); err != nil {
				return Config{}, fmt.Errorf("%s: %w", k.env(), err)
			}
		}
		if flags == nil {
			continue
		}
		if s, ok := flags.set[k.path]; ok {
			if err := put(k.at(&c), s); err != nil {
				return Config{}, fmt.Errorf("--%s: %w", k.flag(), err)
			}
		}
	}
	return c, nil
}

// merge lays a YAML document over c. A key nobody reads is an error that names it.
func (c *Config) merge(data []byte) error {
	var tree map[string]any
	if err := yaml.UnmarshalStrict(data, &tree); err != nil {
		return err
	}
	known, err := json.Marshal(Config{})
	if err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(known, &all); err != nil {
		return err
	}
	if unknown := unknownKeys(tree, all, ""); len(unknown) > 0 {
		slices.Sort(unknown)
		return fmt.Errorf("unknown key %s: correct or remove it", strings.Join(unknown, ", "))
	}
	// Maps and lists of the file take the place of the default, as the other two sources have it.
	for _, k := range keys {
		if m, ok := k.at(c).(*map[string]string); ok && lookup(tree, k.path) {
			*m = nil
		}
	}
	return yaml.Unmarshal(data, c)
}

func lookup(tree map[string]any, path string) bool {
	head, rest, more := strings.Cut(path, ".")
	v, ok := tree[head]
	if !ok || !more {
		return ok
	}
	sub, _ := v.(map[string]any)
	return lookup(sub, rest)
}

func unknownKeys(tree, known map[string]any, at string) []string {
	var out []string
	for name, v := range tree {
		k, ok := known[name]
		if !ok {
			out = append(out, at+name)
			continue
		}
		sub, isMap := v.(map[string]any)
		if knownSub, group := k.(map[string]any); group && isMap {
			out = append(out, unknownKeys(sub, knownSub, at+name+".")...)
		}
	}
	return out
}

// put parses s into what p points to. Lists are separated by commas, maps are key=value pairs separated by commas.
func put(p any, s string) error {
	switch p := p.(type) {
	case *string:
		*p = s
	case *bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		*p = b
	case *int:
		n, err := strconv.Atoi(s)
		if err != nil {
			return fmt.Errorf("%q is no whole number", s)
		}
		*p = n
	case *[]string:
		*p = split(s)
	case *map[string]string:
		m := map[string]string{}
		for _, pair := range split(s) {
			k, v, ok := strings.Cut(pair, "=")
			if !ok || k == "" {
				return fmt.Errorf("%q is not key=value", pair)
			}
			m[k] = v
		}
		*p = m
	default:
		return errors.New("a key of no known type")
	}
	return nil
}

func split(s string) []string {
	var out []string
	for _, v := range strings.Split(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}

func show(p any) string {
	switch p := p.(type) {
	case *string:
		return *p
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *[]string:
		return strings.Join(*p, ",")
	}
	return ""
}

// YAML returns c as a file that Load reads back to the same.
func (c Config) YAML() ([]byte, error) { return yaml.Marshal(c) }
