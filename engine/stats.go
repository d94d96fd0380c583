package engine

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine/cgroup"
	"karve/engine/sandbox"
)

// cpuRates turns totals into rates: what a group used between the last two looks at it that were far enough apart.
type cpuRates struct {
	mu   sync.Mutex
	last map[string]cpuLook
}

type cpuLook struct {
	at          time.Time
	total, rate uint64
}

// minLook is the shortest time a rate is computed over.
const minLook = time.Second

func (c *cpuRates) rate(id string, total uint64, now time.Time) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		c.last = map[string]cpuLook{}
	}
	l, ok := c.last[id]
	if d := now.Sub(l.at); ok && d < minLook {
		return l.rate
	} else if ok && total >= l.total {
		l.rate = uint64(float64(total-l.total) / d.Seconds())
	}
	c.last[id] = cpuLook{now, total, l.rate}
	return l.rate
}

func (c *cpuRates) forget(id string) {
	c.mu.Lock()
	delete(c.last, id)
	c.mu.Unlock()
}

// diskUsage remembers for a while how much directories hold, because finding out means to look at every file.
type diskUsage struct {
	mu   sync.Mutex
	last map[string]diskLook
}

type diskLook struct {
	at            time.Time
	took          time.Duration
	bytes, inodes uint64
}

// diskFresh is how long a look stays good; a slow one stays good longer.
const diskFresh = 30 * time.Second

func (d *diskUsage) of(id, dir string) (bytes, inodes uint64) {
	d.mu.Lock()
	l, ok := d.last[id]
	d.mu.Unlock()
	if ok && time.Since(l.at) < diskFresh+100*l.took {
		return l.bytes, l.inodes
	}
	l = diskLook{at: time.Now()}
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil {
			l.inodes++
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				l.bytes += uint64(st.Blocks) * 512
			}
		}
		return nil
	})
	l.took = time.Since(l.at)
	d.mu.Lock()
	if d.last == nil {
		d.last = map[string]diskLook{}
	}
	d.last[id] = l
	d.mu.Unlock()
	return l.bytes, l.inodes
}

func (d *diskUsage) forget(id string) {
	d.mu.Lock()
	delete(d.last, id)
	d.mu.Unlock()
}

func u64(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }

func pressure(p map[string]cgroup.Pressure, resource string) *runtimeapi.PsiStats {
	v, ok := p[resource]
	if !ok {
		return nil
	}
	line := func(l cgroup.PressureLine) *runtimeapi.PsiData {
		return &runtimeapi.PsiData{Total: l.Total, Avg10: l.Avg10, Avg60: l.Avg60, Avg300: l.Avg300}
	}
	return &runtimeapi.PsiStats{Full: line(v.Full), Some: line(v.Some)}
}

// usage translates what a group has used.
func (e *Engine) usage(id string, s cgroup.Stats, now time.Time) (*runtimeapi.CpuUsage, *runtimeapi.MemoryUsage, *runtimeapi.IoUsage) {
	ts := now.UnixNano()
	cpu := &runtimeapi.CpuUsage{Timestamp: ts, UsageCoreNanoSeconds: u64(s.CPUNanos), UsageNanoCores: u64(e.cpu.rate(id, s.CPUNanos, now)), Psi: pressure(s.PSI, "cpu")}
	mem := &runtimeapi.MemoryUsage{Timestamp: ts, WorkingSetBytes: u64(s.MemoryWorking), UsageBytes: u64(s.MemoryUsage), RssBytes: u64(s.MemoryRSS),
		PageFaults: u64(s.PageFaults), MajorPageFaults: u64(s.MajorPageFaults), Psi: pressure(s.PSI, "memory")}
	if s.MemoryLimit > s.MemoryWorking {
		mem.AvailableBytes = u64(s.MemoryLimit - s.MemoryWorking)
	}
	var io *runtimeapi.IoUsage
	if p := pressure(s.PSI, "io"); p != nil {
		io = &runtimeapi.IoUsage{Timestamp: ts, Psi: p}
	}
	return cpu, mem, io
}

func (e *Engine) containerStats(c *ctr) (*runtimeapi.ContainerStats, error) {
	s, err := e.cgroups.Read(c.rec.Cgroup)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	out := &runtimeapi.ContainerStats{Attributes: &runtimeapi.ContainerAttributes{Id: c.rec.ID, Metadata: c.config.Metadata,
		Labels: c.config.Labels, Annotations: c.config.Annotations}}
	out.Cpu, out.Memory, out.Io = e.usage(c.rec.ID, s, now)
	out.Swap = &runtimeapi.SwapUsage{Timestamp: now.UnixNano(), SwapUsageBytes: u64(s.SwapUsage)}
	if s.SwapLimit > s.SwapUsage {
		out.Swap.SwapAvailableBytes = u64(s.SwapLimit - s.SwapUsage)
	}
	bytes, inodes := e.disk.of(c.rec.ID, filepath.Join(e.ctrDir(c.rec.ID), "upper"))
	out.WritableLayer = &runtimeapi.FilesystemUsage{Timestamp: now.UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: e.rootDir("containers")},
		UsedBytes: u64(bytes), InodesUsed: u64(inodes)}
	return out, nil
}

// ContainerStats measures a running container.
func (e *Engine) ContainerStats(_ context.Context, r *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	c, err := e.findCtr(r.ContainerId)
	if err != nil {
		return nil, err
	}
	s, err := e.containerStats(c)
	if errors.Is(err, cgroup.ErrGone) {
		return nil, status.Errorf(codes.NotFound, "container %q has no processes to measure", r.ContainerId)
	}
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ContainerStatsResponse{Stats: s}, nil
}

// ListContainerStats measures the running containers a filter selects.
func (e *Engine) ListContainerStats(_ context.Context, r *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	f := r.GetFilter()
	resp := &runtimeapi.ListContainerStatsResponse{}
	e.mu.RLock()
	var list []*ctr
	for _, c := range e.ctrs {
		if (f.GetId() == "" || strings.HasPrefix(c.rec.ID, f.Id)) && (f.GetPodSandboxId() == "" || c.rec.SandboxID == f.PodSandboxId) && matches(c.config.Labels, f.GetLabelSelector()) {
			list = append(list, c)
		}
	}
	e.mu.RUnlock()
	for _, c := range list {
		if s, err := e.containerStats(c); err == nil {
			resp.Stats = append(resp.Stats, s)
		}
	}
	return resp, nil
}

func (e *Engine) podStats(p *pod) *runtimeapi.PodSandboxStats {
	now := time.Now()
	out := &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{Id: p.rec.ID, Metadata: p.config.Metadata, Labels: p.config.Labels, Annotations: p.config.Annotations},
		Linux:      &runtimeapi.LinuxPodSandboxStats{},
	}
	if s, err := e.cgroups.Read(e.podCgroup(p)); err == nil {
		out.Linux.Cpu, out.Linux.Memory, out.Linux.Io = e.usage(p.rec.ID, s, now)
		out.Linux.Process = &runtimeapi.ProcessUsage{Timestamp: now.UnixNano(), ProcessCount: u64(s.Pids)}
	}
	if !p.opts.HostNetwork {
		out.Linux.Network = networkUsage(p.paths.Net, now)
	}
	for _, c := range e.containersOf(p.rec.ID) {
		if s, err := e.containerStats(c); err == nil {
			out.Linux.Containers = append(out.Linux.Containers, s)
		}
	}
	return out
}

// networkUsage reads the counters of a network namespace's interfaces.
func networkUsage(netns string, now time.Time) *runtimeapi.NetworkUsage {
	out := &runtimeapi.NetworkUsage{Timestamp: now.UnixNano()}
	err := sandbox.In(netns, func() error {
		f, err := os.Open("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			name, rest, ok := strings.Cut(sc.Text(), ":")
			n := strings.Fields(rest)
			name = strings.TrimSpace(name)
			if !ok || len(n) < 11 || name == "lo" {
				continue
			}
			at := func(i int) *runtimeapi.UInt64Value {
				v, _ := strconv.ParseUint(n[i], 10, 64)
				return u64(v)
			}
			i := &runtimeapi.NetworkInterfaceUsage{Name: name, RxBytes: at(0), RxErrors: at(2), TxBytes: at(8), TxErrors: at(10)}
			if out.DefaultInterface == nil || name == "eth0" {
				out.DefaultInterface = i
			}
			out.Interfaces = append(out.Interfaces, i)
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return out
}

// PodSandboxStats measures a sandbox and its containers.
func (e *Engine) PodSandboxStats(_ context.Context, r *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	p, err := e.findPod(r.PodSandboxId)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: e.podStats(p)}, nil
}

// ListPodSandboxStats measures the sandboxes that are ready and that a filter selects.
func (e *Engine) ListPodSandboxStats(_ context.Context, r *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	f := r.GetFilter()
	e.mu.RLock()
	var list []*pod
	for _, p := range e.pods {
		if (f.GetId() == "" || strings.HasPrefix(p.rec.ID, f.Id)) && p.ready() && matches(p.config.Labels, f.GetLabelSelector()) {
			list = append(list, p)
		}
	}
	e.mu.RUnlock()
	resp := &runtimeapi.ListPodSandboxStatsResponse{}
	for _, p := range list {
		resp.Stats = append(resp.Stats, e.podStats(p))
	}
	return resp, nil
}
