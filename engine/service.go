package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/engine/container"
)

// RuntimeVersion is the engine's version as CRI reports it.
const RuntimeVersion = "1.0.0"

// Version names the engine.
func (e *Engine) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "karve", RuntimeVersion: RuntimeVersion, RuntimeApiVersion: "v1"}, nil
}

// Status tells that the engine can work. Whether the network is ready is known to whoever gave it to us, and CRI wants
// it said here: an engine that has a Network says yes.
func (e *Engine) Status(_ context.Context, r *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	resp := &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
		}},
		RuntimeHandlers: []*runtimeapi.RuntimeHandler{
			{Name: "", Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true}},
			{Name: "runc", Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true}},
		},
		Features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true},
	}
	for h := range e.opts.Runtimes {
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, &runtimeapi.RuntimeHandler{Name: h, Features: &runtimeapi.RuntimeHandlerFeatures{}})
	}
	if n, ok := e.opts.Network.(interface{ Ready() error }); ok {
		if err := n.Ready(); err != nil {
			c := resp.Status.Conditions[1]
			c.Status, c.Reason, c.Message = false, "NetworkPluginNotReady", err.Error()
		}
	}
	if r.GetVerbose() {
		resp.Info = map[string]string{"programs": e.progs.Dir}
	}
	return resp, nil
}

// RuntimeConfig says that cgroups are managed as files.
func (e *Engine) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: runtimeapi.CgroupDriver_CGROUPFS}}, nil
}

// UpdateRuntimeConfig accepts the node's pod range; the Network knows it from elsewhere.
func (e *Engine) UpdateRuntimeConfig(context.Context, *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error) {
	return &runtimeapi.UpdateRuntimeConfigResponse{}, nil
}

// UpdatePodSandboxResources is told after the pod's cgroup was changed by the caller; there is nothing left to do.
func (e *Engine) UpdatePodSandboxResources(_ context.Context, r *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	if _, err := e.findPod(r.PodSandboxId); err != nil {
		return nil, err
	}
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, nil
}

// UpdateContainerResources changes the limits of a container, at once if it runs.
func (e *Engine) UpdateContainerResources(ctx context.Context, r *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	c, err := e.findCtr(r.ContainerId)
	if err != nil {
		return nil, err
	}
	p, err := e.findPod(c.rec.SandboxID)
	if err != nil {
		return nil, err
	}
	if r.Linux == nil {
		return &runtimeapi.UpdateContainerResourcesResponse{}, nil
	}
	c.op.Lock()
	defer c.op.Unlock()
	c.mu.Lock()
	state := c.state
	merged := mergeResources(c.resources, r.Linux)
	c.mu.Unlock()
	if state == runtimeapi.ContainerState_CONTAINER_EXITED {
		return nil, status.Errorf(codes.FailedPrecondition, "container %q has exited", r.ContainerId)
	}
	res := container.Resources(merged, e.host)
	if state == runtimeapi.ContainerState_CONTAINER_RUNNING {
		rt, err := e.shimRuntime(p)
		if err != nil {
			return nil, err
		}
		b, err := json.Marshal(res)
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, rt.Path, "--root", rt.Root, "update", "--resources", "-", c.rec.ID)
		cmd.Stdin = bytes.NewReader(b)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("update container %s: %w: %s", c.rec.ID, err, bytes.TrimSpace(out))
		}
	} else if err := e.respec(c, res); err != nil {
		return nil, fmt.Errorf("update container %s: %w", c.rec.ID, err)
	}
	cfg := proto.Clone(c.config).(*runtimeapi.ContainerConfig)
	if cfg.Linux == nil {
		cfg.Linux = &runtimeapi.LinuxContainerConfig{}
	}
	cfg.Linux.Resources = merged
	raw, err := encode(cfg)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resources, c.rec.Config = merged, raw
	return &runtimeapi.UpdateContainerResourcesResponse{}, e.saveCtr(c)
}

// mergeResources lays the values of an update that are set over those there were.
func mergeResources(old, upd *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	out := &runtimeapi.LinuxContainerResources{}
	if old != nil {
		proto.Merge(out, old)
	}
	hugepages := out.HugepageLimits
	proto.Merge(out, upd)
	if len(upd.HugepageLimits) == 0 {
		out.HugepageLimits = hugepages
	} else {
		out.HugepageLimits = upd.HugepageLimits
	}
	return out
}

// CheckpointContainer is not supported.
func (e *Engine) CheckpointContainer(context.Context, *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	return nil, status.Error(codes.Unimplemented, "checkpoints are not supported")
}

// ListMetricDescriptors describes the metrics of ListPodSandboxMetrics: there are none.
func (e *Engine) ListMetricDescriptors(context.Context, *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	return nil, status.Error(codes.Unimplemented, "metrics are not supported")
}

// ListPodSandboxMetrics is not supported.
func (e *Engine) ListPodSandboxMetrics(context.Context, *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	return nil, status.Error(codes.Unimplemented, "metrics are not supported")
}
