package podrun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"karve/client"
	"karve/kubelet/criconfig"
	"karve/kubelet/podlog"
	"karve/kubelet/podworker"
	"karve/kubelet/volume"
)

// carry does one action. An error is one that no container or pod status explains; the step is tried again later.
func (w *worker) carry(ctx context.Context, a *podworker.Action) error {
	w.mu.Lock()
	pod := w.pod
	w.mu.Unlock()
	rt := w.set.Runtime
	switch a.Op {
	case podworker.Setup:
		return w.setup(ctx, pod)
	case refresh:
		return w.refresh(ctx, pod)
	case podworker.RunSandbox:
		return w.runSandbox(ctx, pod, a.Attempt)
	case podworker.StopSandbox:
		_, err := rt.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: a.ID})
		return wrap("stop sandbox", err)
	case podworker.RemoveSandbox:
		_, err := rt.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: a.ID})
		return wrap("remove sandbox", err)
	case podworker.Start:
		return w.start(ctx, pod, a)
	case podworker.Stop:
		return w.stop(ctx, pod, a)
	case podworker.Remove:
		return w.remove(ctx, a.ID)
	case podworker.TearDown:
		return w.tearDown(pod)
	case podworker.Finish:
		err := client.Of[*corev1.Pod](w.set.Transport).Delete(ctx, pod.Namespace, pod.Name, deleteNow(pod.UID))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return wrap("delete pod", err)
		}
		w.mu.Lock()
		w.finished = true
		w.mu.Unlock()
		return nil
	case podworker.Purge:
		return w.purge(ctx, pod)
	}
	return fmt.Errorf("action %d is not known", a.Op)
}

func wrap(what string, err error) error {
	if err == nil || notFound(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (w *worker) facts(pod *corev1.Pod) *criconfig.Facts {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &criconfig.Facts{Lookup: lookup{w.set.ctx, w.set, pod}, Services: w.set.Facts.Services(pod.Namespace), HostIPs: w.set.Facts.HostIPs(), Allocatable: w.set.Facts.Allocatable()}
	if pod.Spec.HostNetwork {
		f.PodIPs = f.HostIPs
	} else if sb := w.obs.Sandbox(); sb != nil {
		f.PodIPs = sb.IPs
	}
	return f
}

func (w *worker) setup(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	dir := w.set.Volumes.PodDir(pod.UID)
	for path, mode := range map[string]os.FileMode{filepath.Join(dir, "containers"): 0o750, filepath.Join(dir, "volumes"): 0o750,
		criconfig.LogDir(w.set.Node.LogRoot, pod): 0o755} {
		if err := os.MkdirAll(path, mode); err != nil {
			return fmt.Errorf("make pod directory: %w", err)
		}
	}
	if err := w.set.Cgroups.Ensure(criconfig.CgroupParent(w.set.Node.CgroupRoot, pod), criconfig.PodResources(pod)); err != nil {
		return err
	}
	next, err := w.set.Volumes.Setup(ctx, pod, lookup{ctx, w.set, pod}, w.facts(pod))
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var bad *volume.Error
	if errors.As(err, &bad) {
		w.mem.Setup = &podworker.Trouble{Until: time.Now().Add(min(w.set.Slow<<min(w.fails, 10)/2, w.set.Slower))}
		w.event("", corev1.EventTypeWarning, "FailedMount", fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", bad.Volume, errors.Unwrap(bad.Unwrap())))
		return err
	}
	if err != nil {
		return err
	}
	w.mem.Ready, w.mem.Setup, w.refreshAt = true, nil, next
	return nil
}

func (w *worker) refresh(ctx context.Context, pod *corev1.Pod) error {
	next, err := w.set.Volumes.Refresh(ctx, pod, lookup{ctx, w.set, pod}, w.facts(pod))
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		// What is there stays; an object that was deleted is no reason to try again soon.
		w.refreshAt = time.Now().Add(time.Minute)
		return nil
	}
	w.refreshAt = next
	return nil
}

func (w *worker) runSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) error {
	if err := w.set.Facts.Network(); err != nil && !pod.Spec.HostNetwork {
		w.mu.Lock()
		if w.fails == 0 {
			w.event("", corev1.EventTypeWarning, "NetworkNotReady", "network is not ready: "+err.Error())
		}
		w.mu.Unlock()
		return err
	}
	handler, err := w.handler(ctx, pod)
	if err == nil {
		_, err = w.set.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: criconfig.Sandbox(pod, &w.set.Node, attempt), RuntimeHandler: handler})
	}
	if err != nil && ctx.Err() == nil {
		w.set.event(pod, "", corev1.EventTypeWarning, "FailedCreatePodSandBox", fmt.Sprintf("Failed to create pod sandbox: %v", err))
		return fmt.Errorf("run sandbox: %w", err)
	}
	return nil
}

// tearDown undoes setup. Logs and dead containers stay until the API forgets the pod.
func (w *worker) tearDown(pod *corev1.Pod) error {
	w.mu.Lock()
	for id, cancel := range w.probes {
		cancel()
		delete(w.probes, id)
	}
	w.mu.Unlock()
	if err := w.set.Volumes.TearDown(pod.UID); err != nil {
		return err
	}
	for _, qos := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		shape := &corev1.Pod{ObjectMeta: pod.ObjectMeta, Status: corev1.PodStatus{QOSClass: qos}}
		if err := w.set.Cgroups.Remove(criconfig.CgroupParent(w.set.Node.CgroupRoot, shape)); err != nil {
			return err
		}
	}
	w.set.objects.Release(pod.UID)
	w.mu.Lock()
	w.mem.TornDown, w.mem.Ready = true, false
	w.mu.Unlock()
	return nil
}

func (w *worker) remove(ctx context.Context, id string) error {
	st, err := w.set.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err == nil {
		for _, f := range podlog.Files(st.GetStatus().GetLogPath()) {
			if f != "" {
				os.Remove(f)
			}
		}
	}
	_, err = w.set.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	return wrap("remove container", err)
}

// purge removes all that is left, and the worker itself.
func (w *worker) purge(ctx context.Context, pod *corev1.Pod) error {
	w.mu.Lock()
	obs := w.obs
	w.mu.Unlock()
	for i := range obs.Containers {
		if err := w.remove(ctx, obs.Containers[i].ID); err != nil {
			return err
		}
	}
	for i := range obs.Sandboxes {
		if _, err := w.set.Runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: obs.Sandboxes[i].ID}); wrap("remove sandbox", err) != nil {
			return wrap("remove sandbox", err)
		}
	}
	if pod.Name != "" {
		if err := os.RemoveAll(criconfig.LogDir(w.set.Node.LogRoot, pod)); err != nil {
			return fmt.Errorf("remove logs: %w", err)
		}
	}
	// TearDown saw to it that no mount is left below.
	if err := os.RemoveAll(w.set.Volumes.PodDir(pod.UID)); err != nil {
		return fmt.Errorf("remove pod directory: %w", err)
	}
	w.mu.Lock()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.dead = true
	w.mu.Unlock()
	w.set.forget(pod.UID)
	return nil
}

// stop ends containers together.
func (w *worker) stop(ctx context.Context, pod *corev1.Pod, a *podworker.Action) error {
	errs := make([]error, len(a.IDs))
	var wg sync.WaitGroup
	for i, id := range a.IDs {
		wg.Go(func() { errs[i] = w.stopOne(ctx, pod, id, a) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (w *worker) stopOne(ctx context.Context, pod *corev1.Pod, id string, a *podworker.Action) error {
	w.mu.Lock()
	var name string
	for i := range w.obs.Containers {
		if w.obs.Containers[i].ID == id {
			name = w.obs.Containers[i].Name
		}
	}
	hooked := w.stopHook[id]
	w.stopHook[id] = true
	w.mu.Unlock()
	message := a.Reason
	if message == "" {
		message = "Stopping container " + name
	}
	if !hooked {
		w.set.event(pod, name, corev1.EventTypeNormal, "Killing", message)
	}
	grace := a.Grace
	if c, _, _ := podworker.Find(&pod.Spec, name); c != nil && !hooked && grace > 0 && c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		began := time.Now()
		w.preStop(ctx, pod, c, id, time.Duration(grace)*time.Second)
		// Even when the hook took all of it, the container gets a moment to see its signal.
		grace = max(grace-int64(time.Since(began)/time.Second), 2)
	}
	_, err := w.set.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: grace})
	return wrap("stop container "+name, err)
}
