// Package kubelet runs the pods that the API assigns to one node: it registers the node, watches its pods, and drives a
// container runtime through an interface of its own (kubelet/cri). The composition root makes one with New and calls Run.
// It owns its directory, the pods' log directory, the pods' cgroups, the Node object and the node's lease. It is not a
// container engine, does no Service routing, and speaks to other parts of the system through the API alone.
package kubelet

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"

	"karve/client"
	"karve/kubelet/cri"
)

// Events records events; *client.Recorder does.
type Events interface {
	EventRef(ref corev1.ObjectReference, eventType, reason, format string, args ...any)
}

// Options is what a Kubelet is made of. Transport, Runtime, NodeName, Root, LogRoot, Log and Recorder are needed; the rest
// has defaults.
type Options struct {
	Transport client.Transport
	Runtime   cri.Runtime
	NodeName  string
	// NodeIPs are the addresses of the node, the preferred one first.
	NodeIPs []netip.Addr
	// Root holds what the kubelet keeps (pods/<uid>/…); LogRoot the logs of containers (NS_NAME_UID/CONTAINER/N.log).
	Root, LogRoot string
	// ClusterDNS and ClusterDomain are given to pods; ResolvConf and HostsFile are the node's own files.
	ClusterDNS            []netip.Addr
	ClusterDomain         string
	ResolvConf, HostsFile string
	// CgroupRoot is the cgroup below which pods lie ("/" by default), CgroupMount where cgroups are mounted
	// ("/sys/fs/cgroup"); "none" makes no pod cgroups.
	CgroupRoot, CgroupMount string
	MaxPods                 int
	// Address and Port are where the HTTPS server listens; it does not when TLS is nil. Port 0 means 10250, a negative
	// one any free port.
	Address string
	Port    int
	TLS     *tls.Config
	// ClientCA signs the certificates of callers; Authorize replaces the default check of each request.
	ClientCA  *x509.CertPool
	Authorize func(r *http.Request, verb, subresource string) error
	// StaticPodDir holds manifests of pods that run whatever the API says; empty for none.
	StaticPodDir string
	Labels       map[string]string
	Taints       []corev1.Taint
	// OnPodCIDR is told each address range of the node, once.
	OnPodCIDR func(netip.Prefix)
	// Version is what the Node reports as the kubelet's version.
	Version string
	// Lease, Report and Relist are how often the node lease is renewed (10 s), an unchanged node status is written (5 min)
	// and the runtime is listed as a safety net (60 s).
	Lease, Report, Relist time.Duration
	// LogSize and LogFiles bound the log of a container: bytes of one file (10 MiB) and files (5).
	LogSize  int64
	LogFiles int
	Recorder Events
	Log      *slog.Logger
}

func (o *Options) fill() error {
	if o.Transport == nil || o.Runtime == nil || o.NodeName == "" || o.Root == "" || o.LogRoot == "" || o.Log == nil || o.Recorder == nil {
		return errors.New("make kubelet: Transport, Runtime, NodeName, Root, LogRoot, Log and Recorder are needed")
	}
	text := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	span := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	text(&o.ClusterDomain, "cluster.local")
	text(&o.ResolvConf, "/etc/resolv.conf")
	text(&o.HostsFile, "/etc/hosts")
	text(&o.CgroupRoot, "/")
	text(&o.CgroupMount, "/sys/fs/cgroup")
	text(&o.Version, "v1.36.6")
	span(&o.Lease, 10*time.Second)
	span(&o.Report, 5*time.Minute)
	span(&o.Relist, time.Minute)
	if o.MaxPods == 0 {
		o.MaxPods = 110
	}
	switch {
	case o.Port == 0:
		o.Port = 10250
	case o.Port < 0:
		o.Port = 0
	}
	if o.LogSize == 0 {
		o.LogSize = 10 << 20
	}
	if o.LogFiles == 0 {
		o.LogFiles = 5
	}
	return nil
}
