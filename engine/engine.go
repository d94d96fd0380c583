// Package engine is a container engine: images, pod sandboxes and containers behind the methods of CRI v1.
//
// The kubelet calls it in process; engine/cri serves the same object on a socket for everybody else. It owns two
// directories, Root for what outlives the machine's run and State for what does not, and the control groups, mounts,
// namespaces and shims of its sandboxes. It knows nothing of Kubernetes beyond CRI's words, and it leaves addresses and
// routes to the Network it is given. Containers run under karve-shim processes and do not notice when the engine dies;
// Open finds them again. See DESIGN.md.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine/cgroup"
	"karve/engine/container"
	"karve/engine/image"
	"karve/engine/runtime"
	"karve/engine/sandbox"
	"karve/engine/snapshot"
)

// PodNetworkRequest tells a Network which pod a namespace belongs to.
type PodNetworkRequest struct {
	SandboxID    string
	Namespace    string
	Name         string
	UID          string
	PortMappings []*runtimeapi.PortMapping
	Labels       map[string]string
	Annotations  map[string]string
}

// PodNetworkResult is what a pod got.
type PodNetworkResult struct {
	IPs []netip.Addr // the main address first
}

// Network connects pods. Detach must succeed for a pod that is not, or no longer, connected; the namespace may be gone.
type Network interface {
	Attach(ctx context.Context, netns string, pod PodNetworkRequest) (PodNetworkResult, error)
	Detach(ctx context.Context, netns string, pod PodNetworkRequest) error
}

// Options are what an Engine needs. Root, State, CgroupRoot, Network and Log are required.
type Options struct {
	Root       string // persistent: images, snapshots, container state
	State      string // volatile: sockets, mounts, pinned namespaces
	CgroupRoot string // absolute cgroup path for shims, and for pods without a parent of their own
	Network    Network
	Log        *slog.Logger
	// Runtimes are further OCI runtimes, by the handler name a sandbox asks for. The empty name is always runc.
	Runtimes map[string]string
	// SeccompRoot is the directory of localhost profiles that are given by a relative path.
	SeccompRoot string
	// Registries reaches image registries; nil means by the process's own network.
	Registries http.RoundTripper
	// PullProgress hears how far pulls are; it may be nil and must return quickly.
	PullProgress func(image.Progress)
}

// Engine is the container engine. Its methods may be called concurrently. The CRI methods return errors that carry a
// gRPC status code where CRI gives one a meaning: NotFound, DeadlineExceeded, Unimplemented.
type Engine struct {
	opts     Options
	log      *slog.Logger
	progs    runtime.Programs
	snaps    *snapshot.Store
	images   *image.Store
	cgroups  cgroup.Tree
	host     container.Host
	bus      bus
	ctx      context.Context
	cancel   context.CancelFunc
	cpu      cpuRates
	disk     diskUsage
	mu       sync.RWMutex
	pods     map[string]*pod
	ctrs     map[string]*ctr
	reserved map[string]bool // names of what is being created
}

// Open reads the state of an earlier engine in the same directories, connects to the shims that still run and takes note
// of what exited meanwhile. Damaged state is logged and left out. The Engine stops watching when ctx is done or Close is
// called; containers go on.
func Open(ctx context.Context, o Options) (*Engine, error) {
	if o.Root == "" || o.State == "" || o.Network == nil || o.Log == nil || !strings.HasPrefix(o.CgroupRoot, "/") {
		return nil, errors.New("open engine: Root, State, CgroupRoot, Network and Log are required")
	}
	e := &Engine{opts: o, log: o.Log, pods: map[string]*pod{}, ctrs: map[string]*ctr{}, reserved: map[string]bool{}}
	var err error
	for _, d := range []string{o.Root, o.State, e.rootDir("sandboxes"), e.rootDir("containers"), e.stateDir("s"), e.stateDir("c"), e.stateDir("runc")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open engine: %w", err)
		}
	}
	if e.progs, err = runtime.Unpack(e.rootDir("bin")); err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	if e.cgroups, err = cgroup.Detect(); err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	if e.snaps, err = snapshot.Open(e.rootDir("snapshots")); err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	if e.images, err = image.Open(e.rootDir("images"), e.snaps, o.Log); err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	e.images.Transport = o.Registries
	e.host = hostFeatures(e.cgroups)
	e.ctx, e.cancel = context.WithCancel(ctx)
	e.restore()
	e.prunePrograms()
	return e, nil
}

// Close stops watching shims. Containers go on.
func (e *Engine) Close() error {
	e.cancel()
	return nil
}

// Images is the image store, for loading images from files.
func (e *Engine) Images() *image.Store { return e.images }

func (e *Engine) rootDir(elem ...string) string {
	return filepath.Join(append([]string{e.opts.Root}, elem...)...)
}

func (e *Engine) stateDir(elem ...string) string {
	return filepath.Join(append([]string{e.opts.State}, elem...)...)
}

// hostFeatures asks the kernel what it can do.
func hostFeatures(t cgroup.Tree) container.Host {
	h := container.Host{Unified: t.Unified(), Hugetlb: t.HasHugetlb(), Swap: t.HasSwap()}
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	h.AppArmor = err == nil && strings.HasPrefix(string(b), "Y")
	h.Capabilities = ownCapabilities()
	return h
}

// ownCapabilities are those this process may pass on, which may be fewer than the kernel knows.
func ownCapabilities() []string {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		hex, ok := strings.CutPrefix(line, "CapBnd:")
		if !ok {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			break
		}
		var out []string
		for i, name := range container.KnownCapabilities {
			if set&(1<<i) != 0 {
				out = append(out, name)
			}
		}
		return out
	}
	return container.KnownCapabilities
}

// hostDevices lists the device nodes of this machine, for privileged containers.
func hostDevices() []specs.LinuxDevice {
	var out []specs.LinuxDevice
	skip := map[string]bool{"pts": true, "shm": true, "fd": true, "mqueue": true, ".lxc": true, ".lxd-mounts": true, ".udev": true}
	_ = filepath.WalkDir("/dev", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if d.IsDir() {
			if skip[d.Name()] {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Name() == "console" || d.Type()&os.ModeDevice == 0 {
			return nil
		}
		if dev, err := container.Device(path, path); err == nil {
			out = append(out, dev)
		}
		return nil
	})
	return out
}

// prunePrograms removes the programs of earlier versions that no shim uses any more.
func (e *Engine) prunePrograms() {
	used := map[string]bool{filepath.Base(e.progs.Dir): true}
	for _, p := range e.pods {
		if p.rec.Ready {
			used[filepath.Base(p.rec.Programs)] = true
		}
	}
	entries, _ := os.ReadDir(e.rootDir("bin"))
	for _, d := range entries {
		info, err := d.Info()
		if used[d.Name()] || err != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		_ = os.RemoveAll(e.rootDir("bin", d.Name()))
	}
}

// options derives the sandbox's namespaces from its configuration.
func sandboxOptions(c *runtimeapi.PodSandboxConfig) sandbox.Options {
	ns := c.GetLinux().GetSecurityContext().GetNamespaceOptions()
	return sandbox.Options{
		HostNetwork: ns.GetNetwork() == runtimeapi.NamespaceMode_NODE,
		HostIPC:     ns.GetIpc() == runtimeapi.NamespaceMode_NODE,
		Hostname:    c.Hostname,
		Sysctls:     c.GetLinux().GetSysctls(),
	}
}
