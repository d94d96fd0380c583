package criconfig

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DNS is what a node knows about name resolution.
type DNS struct {
	Servers []string
	Domain  string
	// Host is the text of the node's own resolv.conf.
	Host string
}

const (
	maxServers     = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// Resolver returns the pod's resolver configuration.
func (d *DNS) Resolver(pod *corev1.Pod) *runtimeapi.DNSConfig {
	host := ParseResolv(d.Host)
	out := &runtimeapi.DNSConfig{}
	switch policy := pod.Spec.DNSPolicy; {
	case policy == corev1.DNSNone:
	case policy == corev1.DNSDefault, len(d.Servers) == 0, policy != corev1.DNSClusterFirstWithHostNet && pod.Spec.HostNetwork:
		out = host
	default:
		out.Servers = slices.Clone(d.Servers)
		if d.Domain != "" {
			out.Searches = []string{pod.Namespace + ".svc." + d.Domain, "svc." + d.Domain, d.Domain}
		}
		for _, s := range host.Searches {
			if !slices.Contains(out.Searches, s) {
				out.Searches = append(out.Searches, s)
			}
		}
		out.Options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		out.Servers = union(out.Servers, c.Nameservers)
		out.Searches = union(out.Searches, c.Searches)
		for _, o := range c.Options {
			text := o.Name
			if o.Value != nil && *o.Value != "" {
				text += ":" + *o.Value
			}
			out.Options = slices.DeleteFunc(out.Options, func(have string) bool {
				name, _, _ := strings.Cut(have, ":")
				return name == o.Name
			})
			out.Options = append(out.Options, text)
		}
	}
	out.Servers = out.Servers[:min(len(out.Servers), maxServers)]
	out.Searches = out.Searches[:min(len(out.Searches), maxSearches)]
	for len(strings.Join(out.Searches, " ")) > maxSearchChars {
		out.Searches = out.Searches[:len(out.Searches)-1]
	}
	return out
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// ParseResolv reads a resolv.conf.
func ParseResolv(text string) *runtimeapi.DNSConfig {
	out := &runtimeapi.DNSConfig{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			out.Servers = append(out.Servers, fields[1])
		case "search":
			out.Searches = slices.DeleteFunc(slices.Clone(fields[1:]), func(s string) bool { return s == "." })
		case "options":
			out.Options = union(out.Options, fields[1:])
		}
	}
	return out
}

// Hostname returns the pod's host name and, when it has a subdomain, its domain.
func Hostname(pod *corev1.Pod, node, clusterDomain string) (host, domain string) {
	if pod.Spec.HostNetwork {
		return node, ""
	}
	host = pod.Spec.Hostname
	if host == "" {
		host = pod.Name
		if len(host) > 63 {
			host = strings.TrimRight(host[:63], "-.")
		}
	}
	if pod.Spec.HostnameOverride != nil {
		host = *pod.Spec.HostnameOverride
		return host, ""
	}
	if pod.Spec.Subdomain != "" {
		domain = pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + clusterDomain
	}
	return host, domain
}

// SandboxHostname is the name the sandbox is given.
func SandboxHostname(pod *corev1.Pod, node, clusterDomain string) string {
	host, domain := Hostname(pod, node, clusterDomain)
	if pod.Spec.SetHostnameAsFQDN != nil && *pod.Spec.SetHostnameAsFQDN && domain != "" {
		return host + "." + domain
	}
	return host
}

// Hosts returns the text of the pod's /etc/hosts. hostFile is the node's own, used on the host network.
func Hosts(pod *corev1.Pod, ips []string, hostName, domain, hostFile string) string {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.WriteString(hostFile)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		for _, ip := range ips {
			if domain != "" {
				fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, hostName, domain, hostName)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, hostName)
			}
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return b.String()
}
