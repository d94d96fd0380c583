package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/client"
	"karve/kubelet/cgroup"
	"karve/kubelet/criconfig"
	"karve/kubelet/image"
	"karve/kubelet/node"
	"karve/kubelet/podrun"
	"karve/kubelet/volume"
)

// Kubelet runs the pods of one node. Make it with New; Run it once.
type Kubelet struct {
	opts     Options
	agent    *node.Agent
	pods     *client.Cache[*corev1.Pod]
	services *client.Cache[*corev1.Service]
	set      *podrun.Set
	puller   *image.Puller
	listener net.Listener
	mirrors  *static
}

// New makes a kubelet. It listens at once (so that Addr is known) and does nothing else until Run.
func New(opts Options) (*Kubelet, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	for dir, mode := range map[string]os.FileMode{filepath.Join(opts.Root, "pods"): 0o750, opts.LogRoot: 0o755} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, fmt.Errorf("make kubelet: %w", err)
		}
	}
	k := &Kubelet{opts: opts, puller: image.New(opts.Runtime, opts.Log, 4)}
	k.pods = client.NewCache[*corev1.Pod](opts.Transport, opts.Log, client.CacheOptions[*corev1.Pod]{FieldSelector: "spec.nodeName=" + opts.NodeName})
	k.services = client.NewCache[*corev1.Service](opts.Transport, opts.Log, client.CacheOptions[*corev1.Service]{})
	k.services.Index("namespace", func(s *corev1.Service) []string { return []string{s.Namespace} })
	if opts.TLS != nil {
		l, err := net.Listen("tcp", net.JoinHostPort(opts.Address, fmt.Sprint(opts.Port)))
		if err != nil {
			return nil, fmt.Errorf("make kubelet: %w", err)
		}
		k.listener = l
	}
	return k, nil
}

// Addr is where the HTTPS server listens, or nil without one.
func (k *Kubelet) Addr() net.Addr {
	if k.listener == nil {
		return nil
	}
	return k.listener.Addr()
}

// Run runs the node until ctx ends, and then returns nil: its containers go on, and a kubelet started later takes them
// over. It returns an error when it cannot begin.
func (k *Kubelet) Run(ctx context.Context) error {
	version, err := k.opts.Runtime.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return fmt.Errorf("run kubelet: ask the runtime for its version: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	port := k.opts.Port
	if k.listener != nil {
		port = k.listener.Addr().(*net.TCPAddr).Port
	}
	k.agent = node.New(node.Config{Transport: k.opts.Transport, Runtime: k.opts.Runtime, Name: k.opts.NodeName, IPs: k.opts.NodeIPs, Root: k.opts.Root,
		Port: int32(port), MaxPods: k.opts.MaxPods, Labels: k.opts.Labels, Taints: k.opts.Taints,
		RuntimeVersion: version.RuntimeName + "://" + version.RuntimeVersion, Version: k.opts.Version, Lease: k.opts.Lease, Report: k.opts.Report,
		OnPodCIDR: k.opts.OnPodCIDR, OnNetwork: func() { k.set.TouchAll(false) }, Events: k.opts.Recorder, Log: k.opts.Log})
	k.set = podrun.New(ctx, k.config(version.RuntimeName))
	k.pods.Handle(k.changed)
	if k.opts.StaticPodDir != "" {
		k.mirrors = newStatic(k)
	}
	events := k.opts.Runtime.Events(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { k.agent.Run(ctx) })
	wg.Go(func() { k.services.Run(ctx) })
	wg.Go(func() { k.run(ctx, events) })
	if k.listener != nil {
		wg.Go(func() { k.serve(ctx) })
	}
	if k.mirrors != nil {
		wg.Go(func() { k.mirrors.run(ctx) })
	}
	wg.Go(func() { k.house(ctx) })
	<-ctx.Done()
	wg.Wait()
	k.set.Wait()
	return nil
}

func (k *Kubelet) config(scheme string) podrun.Config {
	resolv, err := os.ReadFile(k.opts.ResolvConf)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.opts.Log.Warn("resolver configuration not read", "path", k.opts.ResolvConf, "err", err)
	}
	dns := criconfig.DNS{Domain: k.opts.ClusterDomain, Host: string(resolv)}
	for _, ip := range k.opts.ClusterDNS {
		dns.Servers = append(dns.Servers, ip.String())
	}
	tree := cgroup.Tree{}
	if k.opts.CgroupMount != "none" {
		tree = cgroup.Open(k.opts.CgroupMount)
	}
	return podrun.Config{Runtime: k.opts.Runtime, Transport: k.opts.Transport, Images: k.puller, Volumes: volume.New(k.opts.Root, volume.Kernel{}, time.Now),
		Cgroups: tree, Facts: (*facts)(k), Events: k.opts.Recorder, Scheme: scheme, HostsFile: k.opts.HostsFile, Log: k.opts.Log,
		Node: criconfig.Node{Name: k.opts.NodeName, CgroupRoot: k.opts.CgroupRoot, LogRoot: k.opts.LogRoot, Memory: k.agent.Machine().Memory, DNS: dns,
			SeccompRoot: filepath.Join(k.opts.Root, "seccomp")}}
}

// changed takes a change of a pod from the watch.
func (k *Kubelet) changed(old, pod *corev1.Pod) {
	if pod != nil && isMirror(pod) || old != nil && isMirror(old) {
		if k.mirrors != nil {
			k.mirrors.mirrored(old, pod)
		}
		return
	}
	if old != nil && (pod == nil || pod.UID != old.UID) {
		k.set.Remove(old)
	}
	if pod != nil {
		k.set.Update(pod)
	}
}

// run feeds the pods: from the API once services are known, since a container's environment tells of them.
func (k *Kubelet) run(ctx context.Context, events <-chan *runtimeapi.ContainerEventResponse) {
	select {
	case <-k.services.Synced():
	case <-ctx.Done():
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { k.pods.Run(ctx) })
	wg.Go(func() {
		select {
		case <-k.pods.Synced():
			k.orphans(ctx)
		case <-ctx.Done():
		}
	})
	relist := time.NewTicker(k.opts.Relist)
	defer relist.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-events:
			if !ok {
				if ctx.Err() == nil {
					k.opts.Log.Warn("the runtime ended its events; pods are looked at from time to time only")
				}
				events = nil
				continue
			}
			k.set.Event(ev)
		case <-relist.C:
			k.set.TouchAll(true)
		}
	}
}

// orphans ends the pods that the API no longer has, which it can tell once the list is known.
func (k *Kubelet) orphans(ctx context.Context) {
	var onDisk []types.UID
	entries, err := os.ReadDir(filepath.Join(k.opts.Root, "pods"))
	if err != nil {
		k.opts.Log.Warn("pod directories not read", "err", err)
	}
	for _, e := range entries {
		onDisk = append(onDisk, types.UID(e.Name()))
	}
	if k.mirrors != nil {
		select {
		case <-k.mirrors.read:
		case <-ctx.Done():
			return
		}
	}
	k.set.Orphans(ctx, onDisk)
}

// isMirror tells the API's image of a static pod from a pod of the API.
func isMirror(pod *corev1.Pod) bool {
	return strings.TrimSpace(pod.Annotations[mirrorAnnotation]) != ""
}
