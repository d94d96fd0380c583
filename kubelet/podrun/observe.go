package podrun

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/kubelet/cri"
	"karve/kubelet/podlog"
	"karve/kubelet/podworker"
)

func notFound(err error) bool { return status.Code(err) == codes.NotFound }

// observe reads the pod from the runtime. Containers that ended are read once.
func (w *worker) observe(ctx context.Context) (podworker.Observed, error) {
	var out podworker.Observed
	label := map[string]string{cri.PodUID: string(w.uid)}
	sandboxes, err := w.set.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: label}})
	if err != nil {
		return out, fmt.Errorf("list sandboxes: %w", err)
	}
	for _, s := range sandboxes.Items {
		st, err := w.set.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.Id})
		if notFound(err) {
			continue
		}
		if err != nil {
			return out, fmt.Errorf("read sandbox %s: %w", s.Id, err)
		}
		sb := podworker.Sandbox{ID: s.Id, Ready: st.GetStatus().GetState() == runtimeapi.PodSandboxState_SANDBOX_READY,
			Attempt: s.GetMetadata().GetAttempt(), CreatedAt: time.Unix(0, s.CreatedAt)}
		if n := st.GetStatus().GetNetwork(); n.GetIp() != "" {
			sb.IPs = append(sb.IPs, n.Ip)
			for _, ip := range n.AdditionalIps {
				sb.IPs = append(sb.IPs, ip.Ip)
			}
		}
		out.Sandboxes = append(out.Sandboxes, sb)
	}
	slices.SortFunc(out.Sandboxes, func(a, b podworker.Sandbox) int { return b.CreatedAt.Compare(a.CreatedAt) })
	list, err := w.set.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: label}})
	if err != nil {
		return out, fmt.Errorf("list containers: %w", err)
	}
	live := map[string]bool{}
	for _, c := range list.Containers {
		live[c.Id] = true
		w.mu.Lock()
		done, ok := w.exited[c.Id]
		w.mu.Unlock()
		if ok {
			out.Containers = append(out.Containers, done)
			continue
		}
		st, err := w.set.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.Id})
		if notFound(err) {
			continue
		}
		if err != nil {
			return out, fmt.Errorf("read container %s: %w", c.Id, err)
		}
		got := w.container(ctx, st.GetStatus(), c.PodSandboxId)
		if got.State == podworker.Exited {
			w.mu.Lock()
			w.exited[c.Id] = got
			w.mu.Unlock()
		}
		out.Containers = append(out.Containers, got)
	}
	slices.SortFunc(out.Containers, func(a, b podworker.Container) int {
		if n := b.CreatedAt.Compare(a.CreatedAt); n != 0 {
			return n
		}
		return int(b.RestartCount - a.RestartCount)
	})
	w.mu.Lock()
	w.forgetContainers(live)
	w.mu.Unlock()
	return out, nil
}

// forgetContainers drops what is remembered of containers that the runtime no longer has.
func (w *worker) forgetContainers(live map[string]bool) {
	for id := range w.exited {
		if !live[id] {
			delete(w.exited, id)
		}
	}
	for _, m := range []map[string]bool{w.hooked, w.stopHook, w.mem.Up, w.mem.Passed} {
		for id := range m {
			if !live[id] {
				delete(m, id)
			}
		}
	}
	for id := range w.mem.Kills {
		if !live[id] {
			delete(w.mem.Kills, id)
		}
	}
}

func (w *worker) container(ctx context.Context, st *runtimeapi.ContainerStatus, sandbox string) podworker.Container {
	out := podworker.Container{ID: st.Id, Name: st.GetMetadata().GetName(), SandboxID: sandbox, CreatedAt: stamp(st.CreatedAt), StartedAt: stamp(st.StartedAt),
		FinishedAt: stamp(st.FinishedAt), ExitCode: st.ExitCode, Reason: st.Reason, Message: st.Message, Image: st.GetImage().GetUserSpecifiedImage(),
		ImageID: st.ImageId, ImageRef: st.ImageRef, Hash: st.Annotations[cri.Hash], RestartCount: int32(st.GetMetadata().GetAttempt())}
	if out.Image == "" {
		out.Image = st.GetImage().GetImage()
	}
	if n, err := strconv.ParseInt(st.Annotations[cri.RestartCount], 10, 32); err == nil {
		out.RestartCount = int32(n)
	}
	out.State = map[runtimeapi.ContainerState]podworker.ContainerState{
		runtimeapi.ContainerState_CONTAINER_CREATED: podworker.Created, runtimeapi.ContainerState_CONTAINER_RUNNING: podworker.Running,
		runtimeapi.ContainerState_CONTAINER_EXITED: podworker.Exited, runtimeapi.ContainerState_CONTAINER_UNKNOWN: podworker.Unknown}[st.State]
	if out.State == podworker.Exited {
		if m := w.message(ctx, st, &out); m != "" {
			out.Message = m
		}
	}
	return out
}

func stamp(ns int64) time.Time {
	if ns <= 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

const maxMessage = 4096

// messageFile is where a container's termination message lies on the node.
func (w *worker) messageFile(name string, attempt int32) string {
	return filepath.Join(w.set.Volumes.PodDir(w.uid), "containers", name, strconv.Itoa(int(attempt)))
}

// message reads what a container left to say.
func (w *worker) message(ctx context.Context, st *runtimeapi.ContainerStatus, c *podworker.Container) string {
	if st.Annotations[cri.MessagePath] == "" {
		return ""
	}
	text := readHead(w.messageFile(c.Name, c.RestartCount), maxMessage)
	if text == "" && c.ExitCode != 0 && st.Annotations[cri.MessagePolicy] == string(corev1.TerminationMessageFallbackToLogsOnError) && st.LogPath != "" {
		text = podlog.Tail(ctx, st.LogPath, 80, 2048)
	}
	return text
}

func readHead(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	b, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(b), "")
}
