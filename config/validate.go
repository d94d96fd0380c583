package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	label     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	taint     = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9_./]*(=[-A-Za-z0-9_.]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$`)
)

// Validate returns every mistake joined, each with the key it is at and what to do about it; nil when there is none.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if !label.MatchString(c.Name) {
		bad("name", "%q is no cluster name: use lower-case letters, digits and -, at most 63", c.Name)
	}
	for key, dir := range map[string]string{"dataDir": c.DataDir, "stateDir": c.StateDir} {
		if !filepath.IsAbs(dir) {
			bad(key, "%q is not an absolute path: write it from /", dir)
		}
	}
	c.validateNode(bad)
	c.validateAPI(bad)
	c.validateEtcd(bad)
	c.validateNetwork(bad)
	c.validateJoin(bad)
	oneOf(bad, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(bad, "log.format", c.Log.Format, "text", "json")
	return errors.Join(errs...)
}

type report func(key, format string, args ...any)

func oneOf(bad report, key, value string, choices ...string) {
	for _, s := range choices {
		if value == s {
			return
		}
	}
	bad(key, "%q is not known: choose one of %s", value, strings.Join(choices, ", "))
}

func (c *Config) validateNode(bad report) {
	n := &c.Node
	if n.Name != "" && (!subdomain.MatchString(n.Name) || len(n.Name) > 253) {
		bad("node.name", "%q is no node name: use lower-case letters, digits, - and .", n.Name)
	}
	if n.IP != "" {
		if ip, err := netip.ParseAddr(n.IP); err != nil || ip.IsUnspecified() || ip.IsLoopback() || ip.Zone() != "" {
			bad("node.ip", "%q is no address other nodes can reach: give one of this machine's own", n.IP)
		}
	}
	for _, t := range n.Taints {
		if !taint.MatchString(t) {
			bad("node.taints", "%q is no taint: write key=value:NoSchedule (or PreferNoSchedule, NoExecute)", t)
		}
	}
	if !filepath.IsAbs(n.CgroupRoot) || filepath.Clean(n.CgroupRoot) != n.CgroupRoot {
		bad("node.cgroupRoot", "%q is not a clean absolute path: write it from the root of the hierarchy, like /karve", n.CgroupRoot)
	}
	if n.MaxPods < 1 || n.MaxPods > 10000 {
		bad("node.maxPods", "%d is not between 1 and 10000", n.MaxPods)
	}
}

// duration reads a Go duration that must not be negative.
func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no length of time: write it like 90s, 5m or 1h30m", s)
	}
	return d, nil
}

// EventLifetime is EventTTL.
func (a API) EventLifetime() (time.Duration, error) { return duration(a.EventTTL) }

// History is HistoryTime.
func (a API) History() (time.Duration, error) { return duration(a.HistoryTime) }

// Compaction is CompactionInterval.
func (e Etcd) Compaction() (time.Duration, error) { return duration(e.CompactionInterval) }

func (c *Config) validateEtcd(bad report) {
	if d, err := c.API.EventLifetime(); err != nil {
		bad("api.eventTTL", "%v", err)
	} else if d < time.Second {
		bad("api.eventTTL", "%s is too short: give a second at least", d)
	}
	if d, err := c.API.History(); err != nil {
		bad("api.historyTime", "%v", err)
	} else if d < time.Second {
		bad("api.historyTime", "%s is too short: clients that reconnect would begin anew; give a second at least", d)
	}
	for key, n := range map[string]int{"api.historyEvents": c.API.HistoryEvents, "api.historyMiB": c.API.HistoryMiB} {
		if n < 1 || n > 1_000_000 {
			bad(key, "%d is not between 1 and 1000000", n)
		}
	}
	e := &c.Etcd
	if _, err := e.Compaction(); err != nil {
		bad("etcd.compactionInterval", "%v", err)
	}
	if !strings.HasPrefix(e.Prefix, "/") || strings.Trim(e.Prefix, "/") == "" {
		bad("etcd.prefix", "%q is no prefix: write it from /, like /registry", e.Prefix)
	}
	if (e.CertFile == "") != (e.KeyFile == "") {
		bad("etcd.certFile", "a certificate and its key (etcd.keyFile) are given together or not at all")
	}
	if len(e.Servers) == 0 && (e.CAFile != "" || e.CertFile != "") {
		bad("etcd.servers", "files for etcd are given, but no server of it")
	}
	for _, s := range e.Servers {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix" || u.Host == "" && u.Path == "" {
			bad("etcd.servers", "%q is no address: write https://host:port", s)
		}
	}
}

func (c *Config) validateAPI(bad report) {
	if !c.Components.APIServer {
		return
	}
	if host, port, err := net.SplitHostPort(c.API.Listen); err != nil {
		bad("api.listen", "%q is not host:port: write it like 0.0.0.0:6443", c.API.Listen)
	} else {
		if _, err := netip.ParseAddr(host); host != "" && err != nil {
			bad("api.listen", "%q is no address: give an address of this machine, or 0.0.0.0", host)
		}
		if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
			bad("api.listen", "%q is no port: choose one from 1 to 65535", port)
		}
	}
	if c.API.Advertise != "" {
		if ip, err := netip.ParseAddr(c.API.Advertise); err != nil || ip.IsUnspecified() {
			bad("api.advertise", "%q is no address others can reach: give one of this machine's own", c.API.Advertise)
		}
	}
	for key, n := range map[string]int{"api.maxRequestsInflight": c.API.MaxRequestsInflight, "api.maxMutatingRequestsInflight": c.API.MaxMutatingRequestsInflight} {
		if n < 0 || n > 1_000_000 {
			bad(key, "%d is not between 0 and 1000000", n)
		}
	}
	if c.API.MaxRequestsInflight+c.API.MaxMutatingRequestsInflight == 0 {
		bad("api.maxRequestsInflight", "with this and api.maxMutatingRequestsInflight both 0 no request would ever run: set one of them")
	}
	oneOf(bad, "api.anonymousAuth", c.API.AnonymousAuth, "none", "health", "all")
	for _, s := range c.API.ExtraSANs {
		if _, err := netip.ParseAddr(s); err != nil && !subdomain.MatchString(strings.TrimPrefix(s, "*.")) {
			bad("api.extraSANs", "%q is neither a DNS name nor an address: drop it or correct it", s)
		}
	}
}

func (c *Config) validateNetwork(bad report) {
	n := &c.Network
	pods := prefix(bad, "network.podCIDR", n.PodCIDR, 24)
	services := prefix(bad, "network.serviceCIDR", n.ServiceCIDR, 30)
	if pods.IsValid() && services.IsValid() && pods.Overlaps(services) {
		bad("network.serviceCIDR", "%s overlaps network.podCIDR %s: choose two ranges that share no address", services, pods)
	}
	if ip, err := netip.ParseAddr(c.Node.IP); err == nil {
		if (pods.IsValid() && pods.Contains(ip)) || (services.IsValid() && services.Contains(ip)) {
			bad("node.ip", "%s lies inside the pod or service range: choose other ranges in network.podCIDR and network.serviceCIDR", ip)
		}
	}
	if ip, err := netip.ParseAddr(n.DNS); err != nil || (services.IsValid() && !services.Contains(ip)) {
		bad("network.dns", "%q is no address inside network.serviceCIDR: choose one, such as the tenth", n.DNS)
	} else if services.IsValid() && ip == services.Masked().Addr().Next() {
		bad("network.dns", "%s is the address of the kubernetes Service: choose another in network.serviceCIDR", ip)
	}
	if from, to, err := n.NodePorts(); err != nil {
		bad("network.nodePortRange", "%v: write it like 30000-32767", err)
	} else if from < 1024 {
		bad("network.nodePortRange", "%d-%d reaches below 1024, where system services live: start at 1024 or above", from, to)
	}
	if !subdomain.MatchString(n.ClusterDomain) {
		bad("network.clusterDomain", "%q is no DNS domain: use one like cluster.local", n.ClusterDomain)
	}
	for _, s := range n.UpstreamDNS {
		host := s
		if h, port, err := net.SplitHostPort(s); err == nil {
			host = h
			if p, err := strconv.Atoi(port); err != nil || p < 1 || p > 65535 {
				bad("network.upstreamDNS", "%q has no port in it that exists: leave it out for 53", s)
			}
		}
		if _, err := netip.ParseAddr(host); err != nil {
			bad("network.upstreamDNS", "%q is no address: give a name server as address or address:port", s)
		}
	}
	oneOf(bad, "network.mode", n.Mode, "route", "vxlan")
}

func prefix(bad report, key, s string, most int) netip.Prefix {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		bad(key, "%q is no IPv4 range: write it like 10.244.0.0/16", s)
		return netip.Prefix{}
	}
	if p != p.Masked() {
		bad(key, "%s does not start at its first address: write %s", s, p.Masked())
	}
	if p.Bits() > most || p.Bits() < 8 {
		bad(key, "%s has an unusable size: choose a prefix length from 8 to %d", s, most)
	}
	return p.Masked()
}

// NodePorts returns the first and last port of NodePortRange.
func (n Network) NodePorts() (from, to int, err error) {
	a, b, ok := strings.Cut(n.NodePortRange, "-")
	from, errA := strconv.Atoi(a)
	to, errB := strconv.Atoi(b)
	if !ok || errA != nil || errB != nil || from > to || from < 1 || to > 65535 {
		return 0, 0, fmt.Errorf("%q is no range of ports", n.NodePortRange)
	}
	return from, to, nil
}

func (c *Config) validateJoin(bad report) {
	j := &c.Join
	if j.Server != "" {
		if u, err := url.Parse(j.Server); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			bad("join.server", "%q is no server: write it like https://10.0.0.1:6443", j.Server)
		}
	}
	if c.Components.APIServer || j.Kubeconfig != "" {
		return
	}
	if j.Server == "" {
		bad("join.kubeconfig", "there is no API server here and none to join: name a kubeconfig file, or join.server with join.tokenFile and join.caFile")
		return
	}
	if j.TokenFile == "" {
		bad("join.tokenFile", "it is needed to join %s: name a file that holds the token (on the server: join.kubeconfig in its data directory)", j.Server)
	}
	if j.CAFile == "" {
		bad("join.caFile", "it is needed to know %s: name a file that holds the cluster's authority", j.Server)
	}
}
