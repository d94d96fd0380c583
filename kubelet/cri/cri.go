// Package cri is the seam between the kubelet and a container runtime: CRI v1 in its gRPC server shape, split by what a
// caller needs, with streams and events as Go values instead of URLs. Every package of the kubelet that touches a
// container takes one of these interfaces; the composition root passes a runtime that has them all. It holds no code
// beyond names, and it is not an engine.
package cri

import (
	"context"
	"io"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sandboxes starts and ends pod sandboxes.
type Sandboxes interface {
	RunPodSandbox(context.Context, *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error)
	StopPodSandbox(context.Context, *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error)
	RemovePodSandbox(context.Context, *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error)
	PodSandboxStatus(context.Context, *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error)
	ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error)
}

// Containers starts and ends containers. StopContainer waits until the container is gone or its context ends; its
// timeout is in seconds.
type Containers interface {
	CreateContainer(context.Context, *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error)
	StartContainer(context.Context, *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error)
	StopContainer(context.Context, *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error)
	RemoveContainer(context.Context, *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error)
	UpdateContainerResources(context.Context, *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error)
}

// Inspector reads containers.
type Inspector interface {
	ListContainers(context.Context, *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error)
	ContainerStatus(context.Context, *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error)
	ListContainerStats(context.Context, *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error)
	ReopenContainerLog(context.Context, *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error)
}

// Images holds the images of the node.
type Images interface {
	ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error)
	ImageStatus(context.Context, *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error)
	PullImage(context.Context, *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error)
	RemoveImage(context.Context, *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error)
	ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error)
}

// Size is the size of a terminal in characters.
type Size struct{ Width, Height uint16 }

// Streams runs and joins processes of a container. A stream that is nil is not wanted; resize may be nil. ExecStream
// returns the exit code of the command, and an error only when it could not be run.
type Streams interface {
	ExecSync(context.Context, *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error)
	ExecStream(ctx context.Context, containerID string, cmd []string, tty bool, stdin io.Reader, stdout, stderr io.Writer, resize <-chan Size) (exitCode int, err error)
	AttachStream(ctx context.Context, containerID string, tty bool, stdin io.Reader, stdout, stderr io.Writer, resize <-chan Size) error
	PortForwardStream(ctx context.Context, sandboxID string, port int32, conn io.ReadWriteCloser) error
}

// Node tells about the runtime as a whole. Events ends (the channel is closed) when ctx does; the runtime may drop events
// when the reader is slow, since the kubelet lists again from time to time.
type Node interface {
	Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error)
	Status(context.Context, *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error)
	UpdateRuntimeConfig(context.Context, *runtimeapi.UpdateRuntimeConfigRequest) (*runtimeapi.UpdateRuntimeConfigResponse, error)
	Events(ctx context.Context) <-chan *runtimeapi.ContainerEventResponse
}

// Runtime is everything the kubelet asks of a container runtime.
type Runtime interface {
	Sandboxes
	Containers
	Inspector
	Images
	Streams
	Node
}

// Labels and annotations of sandboxes and containers, named as every CRI client names them, so that pods survive a change
// of kubelet.
const (
	PodName       = "io.kubernetes.pod.name"
	PodNamespace  = "io.kubernetes.pod.namespace"
	PodUID        = "io.kubernetes.pod.uid"
	ContainerName = "io.kubernetes.container.name"

	Hash          = "io.kubernetes.container.hash"
	RestartCount  = "io.kubernetes.container.restartCount"
	MessagePath   = "io.kubernetes.container.terminationMessagePath"
	MessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	PodGrace      = "io.kubernetes.pod.terminationGracePeriod"
	PreStop       = "io.kubernetes.container.preStopHandler"
)
