package node

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/client"
)

// Runtime is what a node report asks the container runtime.
type Runtime interface {
	Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error)
	ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error)
}

// Events records what happened to the node.
type Events interface {
	EventRef(ref corev1.ObjectReference, eventType, reason, format string, args ...any)
}

// Config is what an Agent is made of.
type Config struct {
	Transport client.Transport
	Runtime   Runtime
	Name      string
	IPs       []netip.Addr
	Root      string
	Port      int32
	MaxPods   int
	Labels    map[string]string
	Taints    []corev1.Taint
	// RuntimeVersion is "name://version"; Version that of the kubelet.
	RuntimeVersion, Version string
	// Lease is how often the lease is renewed, Report how often an unchanged status is written.
	Lease, Report time.Duration
	// OnPodCIDR is told each address range of the node, once.
	OnPodCIDR func(netip.Prefix)
	// OnNetwork is told when pods can be given addresses, and when no longer.
	OnNetwork func()
	Events    Events
	Log       *slog.Logger
}

// Agent keeps the Node object. It is safe for concurrent use.
type Agent struct {
	Config
	poke chan struct{}

	mu      sync.Mutex
	machine Machine
	network error
	node    *corev1.Node
	cidrs   map[string]bool
	last    []byte
	wrote   time.Time
	images  []corev1.ContainerImage
	looked  time.Time
	ready   chan struct{}
	once    sync.Once
}

// New returns an agent that does nothing until Run.
func New(c Config) *Agent {
	if c.Lease == 0 {
		c.Lease = 10 * time.Second
	}
	if c.Report == 0 {
		c.Report = 5 * time.Minute
	}
	return &Agent{Config: c, poke: make(chan struct{}, 1), machine: Read(c.Root), network: fmt.Errorf("the network has not been looked at"),
		cidrs: map[string]bool{}, ready: make(chan struct{})}
}

// Machine returns what the machine has.
func (a *Agent) Machine() Machine {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.machine
}

// Node returns the Node object as last read, or nil.
func (a *Agent) Node() *corev1.Node {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node
}

// Network is nil while pods can be given addresses.
func (a *Agent) Network() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.network
}

// Registered is closed once the API has the Node.
func (a *Agent) Registered() <-chan struct{} { return a.ready }

// Changed makes the node be looked at now.
func (a *Agent) Changed() {
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// Run registers the node and reports until ctx ends.
func (a *Agent) Run(ctx context.Context) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := a.register(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		a.Log.Warn("node not registered", "node", a.Name, "err", err)
		if !sleep(ctx, pause) {
			return
		}
	}
	a.once.Do(func() { close(a.ready) })
	cache := client.NewCache[*corev1.Node](a.Transport, a.Log, client.CacheOptions[*corev1.Node]{FieldSelector: "metadata.name=" + a.Name})
	cache.Handle(func(_, n *corev1.Node) { a.seen(n) })
	var wg sync.WaitGroup
	wg.Go(func() { cache.Run(ctx) })
	wg.Go(func() { a.lease(ctx) })
	a.report(ctx)
	wg.Wait()
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *Agent) seen(n *corev1.Node) {
	if n == nil {
		a.Changed() // deleted: register anew
		a.mu.Lock()
		a.node = nil
		a.mu.Unlock()
		return
	}
	list := n.Spec.PodCIDRs
	if len(list) == 0 && n.Spec.PodCIDR != "" {
		list = []string{n.Spec.PodCIDR}
	}
	a.mu.Lock()
	a.node = n
	var fresh []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil && !a.cidrs[s] {
			a.cidrs[s] = true
			fresh = append(fresh, p)
		}
	}
	a.mu.Unlock()
	if a.OnPodCIDR == nil {
		return
	}
	for _, p := range fresh {
		a.OnPodCIDR(p)
	}
	if len(fresh) > 0 {
		a.Changed()
	}
}

func (a *Agent) labels() map[string]string {
	out := map[string]string{"kubernetes.io/hostname": a.Name, "kubernetes.io/os": runtime.GOOS, "kubernetes.io/arch": runtime.GOARCH,
		"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH}
	for k, v := range a.Labels {
		out[k] = v
	}
	return out
}

// register creates the Node or adopts the one that is there.
func (a *Agent) register(ctx context.Context) error {
	a.look(ctx)
	nodes := client.Of[*corev1.Node](a.Transport)
	want := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.Name, Labels: a.labels(),
		Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
		Spec: corev1.NodeSpec{Taints: a.Taints}}
	want.Status = a.status(nil, time.Now())
	got, err := nodes.Create(ctx, want)
	if apierrors.IsAlreadyExists(err) {
		if got, err = nodes.Get(ctx, "", a.Name); err != nil {
			return fmt.Errorf("read node: %w", err)
		}
		return a.adopt(ctx, got)
	}
	if err != nil {
		return fmt.Errorf("create node: %w", err)
	}
	a.seen(got)
	return nil
}

func (a *Agent) adopt(ctx context.Context, got *corev1.Node) error {
	missing := map[string]string{}
	for k, v := range a.labels() {
		if got.Labels[k] != v {
			missing[k] = v
		}
	}
	if len(missing) > 0 {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": missing}})
		if err != nil {
			return fmt.Errorf("encode labels: %w", err)
		}
		if got, err = client.Of[*corev1.Node](a.Transport).Patch(ctx, "", a.Name, types.StrategicMergePatchType, patch); err != nil {
			return fmt.Errorf("label node: %w", err)
		}
	}
	a.seen(got)
	return nil
}

// look reads the machine and the runtime.
func (a *Agent) look(ctx context.Context) {
	a.mu.Lock()
	a.machine.Refresh(a.Root)
	stale := time.Since(a.looked) > a.Report
	a.mu.Unlock()
	network := fmt.Errorf("container runtime is down")
	st, err := a.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err == nil {
		network = nil
		for _, c := range st.GetStatus().GetConditions() {
			if !c.Status {
				network = fmt.Errorf("container runtime network not ready: %s=false reason:%s message:%s", c.Type, or(c.Reason, "NetworkPluginNotReady"), or(c.Message, "Network plugin returns error: cni plugin not initialized"))
			}
		}
	}
	var images []corev1.ContainerImage
	if stale {
		images = a.list(ctx)
	}
	a.mu.Lock()
	turned := (a.network == nil) != (network == nil)
	a.network = network
	if stale {
		a.images, a.looked = images, time.Now()
	}
	a.mu.Unlock()
	if turned && a.OnNetwork != nil {
		a.OnNetwork()
	}
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

const maxImages = 50

func (a *Agent) list(ctx context.Context) []corev1.ContainerImage {
	got, err := a.Runtime.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil
	}
	var out []corev1.ContainerImage
	for _, i := range got.Images {
		names := append(slices.Clone(i.RepoDigests), i.RepoTags...)
		if len(names) > 5 {
			names = names[:5]
		}
		out = append(out, corev1.ContainerImage{Names: names, SizeBytes: int64(i.Size)})
	}
	slices.SortFunc(out, func(x, y corev1.ContainerImage) int {
		if x.SizeBytes != y.SizeBytes {
			return cmp.Compare(y.SizeBytes, x.SizeBytes)
		}
		return slices.Compare(x.Names, y.Names)
	})
	return out[:min(len(out), maxImages)]
}

func (a *Agent) report(ctx context.Context) {
	tick := time.NewTicker(a.Lease)
	defer tick.Stop()
	quick := 20 * time.Millisecond
	for ctx.Err() == nil {
		a.look(ctx)
		if err := a.write(ctx, time.Now()); err != nil && ctx.Err() == nil {
			a.Log.Warn("node status not written", "node", a.Name, "err", err)
			if apierrors.IsNotFound(err) {
				if err := a.register(ctx); err != nil {
					a.Log.Warn("node not registered", "node", a.Name, "err", err)
				}
			}
		}
		var soon <-chan time.Time
		if a.Network() != nil { // a node that could be ready is looked at more often
			soon = time.After(quick)
			quick = min(2*quick, time.Second)
		} else {
			quick = 20 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-soon:
		case <-a.poke:
		}
	}
}

// write patches the status when it changed, or when it was last written long ago.
func (a *Agent) write(ctx context.Context, now time.Time) error {
	old := a.Node()
	var before *corev1.NodeStatus
	if old != nil {
		before = &old.Status
	}
	st := a.status(before, now)
	plain := st.DeepCopy()
	for i := range plain.Conditions {
		plain.Conditions[i].LastHeartbeatTime, plain.Conditions[i].LastTransitionTime = metav1.Time{}, metav1.Time{}
	}
	key, err := json.Marshal(plain)
	if err != nil {
		return fmt.Errorf("encode node status: %w", err)
	}
	a.mu.Lock()
	same := bytes.Equal(key, a.last) && now.Sub(a.wrote) < a.Report
	first := a.last == nil
	a.mu.Unlock()
	if same {
		return nil
	}
	body, err := patch(&st, before)
	if err != nil {
		return err
	}
	got, err := client.Of[*corev1.Node](a.Transport).Patch(ctx, "", a.Name, types.StrategicMergePatchType, body, "status")
	if err != nil {
		return fmt.Errorf("write node status: %w", err)
	}
	a.events(before, &st, first)
	a.seen(got)
	a.mu.Lock()
	a.last, a.wrote = key, now
	a.mu.Unlock()
	return nil
}

func patch(st *corev1.NodeStatus, before *corev1.NodeStatus) ([]byte, error) {
	b, err := json.Marshal(st)
	if err != nil {
		return nil, fmt.Errorf("encode node status: %w", err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("encode node status: %w", err)
	}
	if list, ok := m["addresses"].([]any); ok && before != nil && len(before.Addresses) > 0 {
		m["addresses"] = append([]any{map[string]any{"$patch": "replace"}}, list...)
	}
	return json.Marshal(map[string]any{"status": m})
}

func (a *Agent) events(before, now *corev1.NodeStatus, first bool) {
	ref := corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: a.Name, UID: types.UID(a.Name)}
	if first {
		a.Events.EventRef(ref, corev1.EventTypeNormal, "Starting", "Starting kubelet.")
	}
	ready := func(st *corev1.NodeStatus) corev1.ConditionStatus {
		if st != nil {
			for i := range st.Conditions {
				if st.Conditions[i].Type == corev1.NodeReady {
					return st.Conditions[i].Status
				}
			}
		}
		return corev1.ConditionUnknown
	}
	if b, n := ready(before), ready(now); b != n {
		reason := "NodeNotReady"
		if n == corev1.ConditionTrue {
			reason = "NodeReady"
		}
		a.Events.EventRef(ref, corev1.EventTypeNormal, reason, "Node %s status is now: %s", a.Name, reason)
	}
}

// status is what the node is now. before keeps the times of conditions that did not change.
func (a *Agent) status(before *corev1.NodeStatus, now time.Time) corev1.NodeStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := &a.machine
	out := corev1.NodeStatus{Capacity: m.Capacity(a.MaxPods), Allocatable: m.Allocatable(a.MaxPods), Images: a.images,
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: a.Port}},
		NodeInfo: corev1.NodeSystemInfo{MachineID: m.MachineID, SystemUUID: m.SystemUUID, BootID: m.BootID, KernelVersion: m.Kernel, OSImage: m.OSImage,
			ContainerRuntimeVersion: a.RuntimeVersion, KubeletVersion: a.Version, OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH}}
	for _, ip := range a.IPs {
		out.Addresses = append(out.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
	}
	out.Addresses = append(out.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: a.Name})
	out.Conditions = Conditions(m, a.network, before, now)
	return out
}

// Conditions returns the conditions of a machine. It is pure.
func Conditions(m *Machine, network error, before *corev1.NodeStatus, now time.Time) []corev1.NodeCondition {
	cond := func(kind corev1.NodeConditionType, on bool, yes, no, yesText, noText string) corev1.NodeCondition {
		c := corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: no, Message: noText,
			LastHeartbeatTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now)}
		if on {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, yes, yesText
		}
		if before != nil {
			for i := range before.Conditions {
				if b := &before.Conditions[i]; b.Type == kind && b.Status == c.Status {
					c.LastTransitionTime = b.LastTransitionTime
				}
			}
		}
		return c
	}
	text := ""
	if network != nil {
		text = network.Error()
	}
	return []corev1.NodeCondition{
		cond(corev1.NodeMemoryPressure, m.MemoryPressure(), "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory",
			"kubelet has insufficient memory available", "kubelet has sufficient memory available"),
		cond(corev1.NodeDiskPressure, m.DiskPressure(), "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "kubelet has disk pressure", "kubelet has no disk pressure"),
		cond(corev1.NodePIDPressure, false, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "kubelet has insufficient PID available", "kubelet has sufficient PID available"),
		cond(corev1.NodeReady, network == nil, "KubeletReady", "KubeletNotReady", "kubelet is posting ready status", text),
	}
}

const leaseNamespace = "kube-node-lease"

func (a *Agent) lease(ctx context.Context) {
	leases := client.Of[*coordv1.Lease](a.Transport)
	var have *coordv1.Lease
	for ctx.Err() == nil {
		now := metav1.NewMicroTime(time.Now())
		holder, seconds := a.Name, int32(40)
		var err error
		if have == nil {
			have, err = leases.Get(ctx, leaseNamespace, a.Name)
		}
		switch {
		case apierrors.IsNotFound(err):
			l := &coordv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: leaseNamespace, Name: a.Name},
				Spec: coordv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now}}
			if n := a.Node(); n != nil {
				l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}}
			}
			have, err = leases.Create(ctx, l)
		case err == nil:
			l := have.DeepCopy()
			l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &holder, &seconds, &now
			have, err = leases.Update(ctx, l)
		}
		pause := a.Lease
		if err != nil {
			have, pause = nil, min(a.Lease, time.Second)
			if ctx.Err() == nil {
				a.Log.Warn("lease not renewed", "node", a.Name, "err", err)
			}
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}
