package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestDefaultIsValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestValidateNamesTheKey(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"name", func(c *Config) { c.Name = "A_b" }, []string{"name:", "lower-case"}},
		{"data dir", func(c *Config) { c.DataDir = "data" }, []string{"dataDir:", "absolute"}},
		{"node name", func(c *Config) { c.Node.Name = "-x" }, []string{"node.name:"}},
		{"node ip", func(c *Config) { c.Node.IP = "127.0.0.1" }, []string{"node.ip:"}},
		{"node ip in pods", func(c *Config) { c.Node.IP = "10.244.1.1" }, []string{"node.ip:", "network.podCIDR"}},
		{"taint", func(c *Config) { c.Node.Taints = []string{"a=b"} }, []string{"node.taints:", "NoSchedule"}},
		{"cgroup", func(c *Config) { c.Node.CgroupRoot = "/a/../b" }, []string{"node.cgroupRoot:"}},
		{"pods", func(c *Config) { c.Node.MaxPods = 0 }, []string{"node.maxPods:"}},
		{"listen", func(c *Config) { c.API.Listen = "6443" }, []string{"api.listen:", "0.0.0.0:6443"}},
		{"listen port", func(c *Config) { c.API.Listen = "0.0.0.0:x" }, []string{"api.listen:", "port"}},
		{"advertise", func(c *Config) { c.API.Advertise = "0.0.0.0" }, []string{"api.advertise:"}},
		{"anonymous", func(c *Config) { c.API.AnonymousAuth = "yes" }, []string{"api.anonymousAuth:", "none, health, all"}},
		{"san", func(c *Config) { c.API.ExtraSANs = []string{"a b"} }, []string{"api.extraSANs:"}},
		{"in flight", func(c *Config) { c.API.MaxRequestsInflight = -1 }, []string{"api.maxRequestsInflight:", "between 0 and"}},
		{"nothing in flight", func(c *Config) { c.API.MaxRequestsInflight, c.API.MaxMutatingRequestsInflight = 0, 0 }, []string{"api.maxRequestsInflight:", "no request would ever run"}},
		{"event ttl", func(c *Config) { c.API.EventTTL = "soon" }, []string{"api.eventTTL:", "1h30m"}},
		{"history time", func(c *Config) { c.API.HistoryTime = "long" }, []string{"api.historyTime:", "1h30m"}},
		{"history of no time", func(c *Config) { c.API.HistoryTime = "10ms" }, []string{"api.historyTime:", "a second"}},
		{"history of no events", func(c *Config) { c.API.HistoryEvents = 0 }, []string{"api.historyEvents:", "between 1"}},
		{"history of no size", func(c *Config) { c.API.HistoryMiB = -1 }, []string{"api.historyMiB:", "between 1"}},
		{"event ttl of nothing", func(c *Config) { c.API.EventTTL = "0s" }, []string{"api.eventTTL:", "a second"}},
		{"compaction", func(c *Config) { c.Etcd.CompactionInterval = "-5m" }, []string{"etcd.compactionInterval:", "5m"}},
		{"etcd prefix", func(c *Config) { c.Etcd.Prefix = "registry" }, []string{"etcd.prefix:", "/registry"}},
		{"etcd key", func(c *Config) { c.Etcd.Servers, c.Etcd.CertFile = []string{"https://a:2379"}, "/cert" }, []string{"etcd.certFile:", "together"}},
		{"etcd nowhere", func(c *Config) { c.Etcd.CAFile = "/ca" }, []string{"etcd.servers:", "no server"}},
		{"etcd address", func(c *Config) { c.Etcd.Servers = []string{"a:2379"} }, []string{"etcd.servers:", "https://host:port"}},
		{"pod cidr", func(c *Config) { c.Network.PodCIDR = "10.244.0.1/16" }, []string{"network.podCIDR:", "10.244.0.0/16"}},
		{"pod cidr size", func(c *Config) { c.Network.PodCIDR = "10.244.0.0/28" }, []string{"network.podCIDR:", "size"}},
		{"overlap", func(c *Config) { c.Network.ServiceCIDR, c.Network.DNS = "10.244.5.0/24", "10.244.5.9" }, []string{"network.serviceCIDR:", "overlaps"}},
		{"dns outside", func(c *Config) { c.Network.DNS = "10.97.0.10" }, []string{"network.dns:"}},
		{"dns is the API", func(c *Config) { c.Network.DNS = "10.96.0.1" }, []string{"network.dns:", "kubernetes Service"}},
		{"ports", func(c *Config) { c.Network.NodePortRange = "9-1" }, []string{"network.nodePortRange:"}},
		{"low ports", func(c *Config) { c.Network.NodePortRange = "22-80" }, []string{"network.nodePortRange:", "1024"}},
		{"domain", func(c *Config) { c.Network.ClusterDomain = "x_y" }, []string{"network.clusterDomain:"}},
		{"upstream", func(c *Config) { c.Network.UpstreamDNS = []string{"1.1.1.1:0", "dns.test"} }, []string{`network.upstreamDNS: "1.1.1.1:0"`, `network.upstreamDNS: "dns.test"`}},
		{"mode", func(c *Config) { c.Network.Mode = "mesh" }, []string{"network.mode:", "route, vxlan"}},
		{"nothing to join", func(c *Config) { c.Components = Agent() }, []string{"join.kubeconfig:"}},
		{"no token", func(c *Config) { c.Components = Agent(); c.Join.Server = "https://a:1" }, []string{"join.tokenFile:", "join.caFile:"}},
		{"plain server", func(c *Config) { c.Join.Server = "http://a" }, []string{"join.server:"}},
		{"log", func(c *Config) { c.Log.Level, c.Log.Format = "loud", "xml" }, []string{"log.level:", "log.format:"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Default()
			tt.change(&c)
			err := c.Validate()
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
		})
	}
}

func load(t *testing.T, file string, env []string, args ...string) (Config, error) {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	f := BindFlags(fs)
	if file != "" {
		p := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(p, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", p)
	}
	if err := fs.Parse(args); err != nil {
		return Config{}, err
	}
	return Load(Default(), env, f)
}

func TestPrecedence(t *testing.T) {
	file := "api: {listen: '1.1.1.1:1', extraSANs: [f]}\nnode: {name: file, labels: {a: b}}\nnetwork: {mode: vxlan}\n"
	env := []string{"KARVE_API_LISTEN=2.2.2.2:2", "KARVE_NODE_NAME=env", "KARVE_API_EXTRA_SANS=e, g", "OTHER=x", "KARVE_NODE_MAX_PODS=7"}
	c, err := load(t, file, env, "--listen=3.3.3.3:3", "--components-dns=false")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.API.Listen, want.API.ExtraSANs = "3.3.3.3:3", []string{"e", "g"}
	want.Node.Name, want.Node.Labels, want.Node.MaxPods = "env", map[string]string{"a": "b"}, 7
	want.Network.Mode, want.Components.DNS = "vxlan", false
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestBadSources(t *testing.T) {
	tests := []struct {
		name, file string
		env, args  []string
		want       string
	}{
		{"unknown key", "network: {podCidr: 10.0.0.0/8}", nil, nil, "unknown key network.podCidr"},
		{"unknown top", "nets: 1", nil, nil, "unknown key nets"},
		{"twice", "name: a\nname: b", nil, nil, "name"},
		{"wrong type", "node: {maxPods: many}", nil, nil, "maxPods"},
		{"environment", "", []string{"KARVE_NODE_MAX_PODS=x"}, nil, "KARVE_NODE_MAX_PODS"},
		{"flag", "", nil, []string{"--node-labels=x"}, "key=value"},
		{"no file", "", []string{"KARVE_CONFIG=/nonexistent"}, nil, "/nonexistent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := load(t, tt.file, tt.env, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
		})
	}
}

// Every leaf of Config must be settable by environment and flag, or it is forgotten when one is added.
func TestEveryFieldHasAKey(t *testing.T) {
	data, err := json.Marshal(Config{})
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, k := range keys {
		have[k.path] = true
	}
	var walk func(map[string]any, string)
	walk = func(m map[string]any, at string) {
		for name, v := range m {
			if sub, ok := v.(map[string]any); ok {
				walk(sub, at+name+".")
			} else if !have[at+name] {
				t.Errorf("no key for %s", at+name)
			}
		}
	}
	walk(tree, "")
}

func TestYAMLReadsBack(t *testing.T) {
	c := Default()
	c.Node.Labels, c.Node.Taints, c.Network.UpstreamDNS = map[string]string{"a": "b"}, []string{"a:NoSchedule"}, []string{"9.9.9.9"}
	c.Components, c.Join.Kubeconfig = Agent(), "/x"
	data, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	got, err := load(t, string(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, c) {
		t.Errorf("got  %+v\nwant %+v", got, c)
	}
}

func TestNames(t *testing.T) {
	for path, want := range map[string]string{"api.extraSANs": "api-extra-sans", "network.podCIDR": "network-pod-cidr", "node.ip": "node-ip", "network.upstreamDNS": "network-upstream-dns", "api.anonymousAuth": "anonymous-auth", "api.maxMutatingRequestsInflight": "max-mutating-requests-inflight",
		"etcd.servers": "etcd-servers", "etcd.caFile": "etcd-cafile", "etcd.certFile": "etcd-certfile", "etcd.keyFile": "etcd-keyfile", "etcd.prefix": "etcd-prefix",
		"etcd.compactionInterval": "etcd-compaction-interval", "api.eventTTL": "event-ttl", "dataDir": "data"} {
		if got := (key{path: path}).flag(); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}
